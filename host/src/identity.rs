//! Names that stand for people, sessions and hosts without telling who they are.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

const KEY_BYTES: usize = 32;

/// How many characters of five bits a pseudonym has: 130 bits, so that none occurs twice.
const PSEUDONYM_CHARS: usize = 26;

/// How many an alias of a secret has: 60 bits.
const ALIAS_CHARS: usize = 12;

/// The key of this installation. It never leaves the daemon; whoever removes the file cuts every
/// pseudonym off from the one that it will have from then on.
pub struct Identity {
    key: [u8; KEY_BYTES],
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity([redacted])")
    }
}

impl Identity {
    /// Reads the key from `pseudonym.key` in the state directory, or makes one there.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or made, or has another length than 32 bytes.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join("pseudonym.key");
        let mut key = [0; KEY_BYTES];
        match crate::files::read_trusted(&path, 2 * KEY_BYTES as u64) {
            Ok(bytes) => {
                let message = "pseudonym.key does not have 32 bytes; restore it from a backup, or \
                               remove it to begin with new pseudonyms";
                key = bytes.try_into().map_err(|_| io::Error::other(message))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                File::open("/dev/urandom")?.read_exact(&mut key)?;
                let temporary = state_dir.join("pseudonym.key.new");
                let mut options = OpenOptions::new();
                let mut file =
                    options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
                file.write_all(&key)?;
                file.sync_all()?;
                std::fs::rename(&temporary, &path)?;
            }
            Err(error) => return Err(error),
        }
        Ok(Self { key })
    }

    /// `<kind>_<26 characters>`: HMAC-SHA256 of kind and value, in base 32.
    #[must_use]
    pub fn pseudonym(&self, kind: &str, value: &str) -> String {
        format!("{kind}_{}", self.characters(kind, value))
    }

    /// Returns twelve characters that stand for a secret and do not tell it.
    #[must_use]
    pub fn alias(&self, secret: &str) -> String {
        let mut alias = self.characters("alias", secret);
        alias.truncate(ALIAS_CHARS);
        alias
    }

    fn characters(&self, kind: &str, value: &str) -> String {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes a key of any length");
        mac.update(kind.as_bytes());
        mac.update(&[0]);
        mac.update(value.as_bytes());
        base32(&mac.finalize().into_bytes())
    }
}

fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bit = |index: usize| usize::from(bytes[index / 8] >> (7 - index % 8) & 1);
    (0..PSEUDONYM_CHARS)
        .map(|at| (0..5).fold(0, |value, step| value << 1 | bit(at * 5 + step)))
        .map(|value| char::from(ALPHABET[value]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_has_one_name_per_kind_and_installation() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let identity = Identity::open(directory.path()).expect("it is writable");
        let name = identity.pseudonym("session", "abc");
        assert!(name.starts_with("session_") && name.len() == 8 + PSEUDONYM_CHARS, "{name}");
        let again = Identity::open(directory.path()).expect("the key is there");
        assert_eq!(again.pseudonym("session", "abc"), name);
        assert_ne!(again.pseudonym("user", "abc")[5..], name[8..]);
        let other = tempfile::tempdir().expect("a temporary directory");
        let other = Identity::open(other.path()).expect("it is writable");
        assert_ne!(other.pseudonym("session", "abc"), name);
    }

    #[test]
    fn the_key_is_private_and_a_damaged_one_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("a temporary directory");
        Identity::open(directory.path()).expect("it is writable");
        let path = directory.path().join("pseudonym.key");
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&path, "short").expect("it is ours");
        let error = Identity::open(directory.path()).expect_err("it is damaged").to_string();
        assert!(error.contains("restore it"), "{error}");
    }
}

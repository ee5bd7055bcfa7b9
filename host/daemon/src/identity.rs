//! Names that stand for people, sessions and hosts without telling who they are.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use lodestar_library::in_hexadecimal;
use lodestar_platform::files;

const KEY_BYTES: usize = 32;

/// How many characters of five bits a pseudonym has: 130 bits, so that none occurs twice.
const PSEUDONYM_CHARS: usize = 26;

/// How many an alias of a secret has: 60 bits.
const ALIAS_CHARS: usize = 12;

const KEY: &str = "pseudonym.key";

/// Beside the key: tells one key from another, and nothing of either.
const FINGERPRINT: &str = "pseudonym.fingerprint";

/// The fingerprint of a key that nobody has any more.
const LOST: &str = "lost";

/// The key of this installation. It never leaves the daemon; whoever removes the file cuts every
/// pseudonym off from the one that it will have from then on.
pub struct Identity {
    key: [u8; KEY_BYTES],
    state_dir: PathBuf,
    /// Whether names that were given before were made with another key.
    is_another: bool,
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
    /// When the file cannot be read or made, others can write it, or it has another length than 32
    /// bytes.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let (key, is_new) = match read_key(state_dir) {
            Ok(key) => (key, false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut key = [0; KEY_BYTES];
                File::open("/dev/urandom")?.read_exact(&mut key)?;
                (key, true)
            }
            Err(error) => return Err(error),
        };
        let place = state_dir.join(FINGERPRINT);
        let mut known = match files::read_text(&place) {
            Ok(known) => Some(known),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        // Modules that have data know names made with a key that is gone.
        if is_new && known.is_none() && state_dir.join("data").exists() {
            write(&place, LOST.as_bytes())?;
            known = Some(LOST.to_owned());
        }
        if is_new {
            write(&state_dir.join(KEY), &key)?;
        }
        let own = fingerprint(&key);
        if known.is_none() {
            write(&place, own.as_bytes())?;
        }
        let is_another = known.is_some_and(|known| known.trim() != own);
        Ok(Self { key, state_dir: state_dir.to_owned(), is_another })
    }

    /// Why pseudonyms are not, or will not be, those that were given before, and what to do.
    #[must_use]
    pub fn trouble(&self) -> Option<(String, String)> {
        let (key, known) = (self.state_dir.join(KEY), self.state_dir.join(FINGERPRINT));
        let (key, known) = (key.display(), known.display());
        if self.is_another {
            let message = format!(
                "{key} is not the key that sessions, users and hosts had their names from: they \
                 have other names now than in what the databases hold from before"
            );
            let remedy = format!(
                "restore {key} from a backup and restart lodestard; to go on with the new names, \
                 delete {known} and restart it"
            );
            return Some((message, remedy));
        }
        let message = match read_key(&self.state_dir) {
            Ok(on_disk) if on_disk == self.key => return None,
            Ok(_) => format!("{key} was replaced since lodestard started"),
            Err(error) => format!("{key} cannot be used any more: {error}"),
        };
        let message = format!("{message}; the next start would give sessions and users new names");
        Some((message, format!("restore {key} from a backup")))
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

fn read_key(state_dir: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let wrong = || {
        io::Error::other(
            "pseudonym.key does not have 32 bytes; restore it from a backup, or remove it to begin \
             with new pseudonyms",
        )
    };
    let bytes = files::read_trusted(&state_dir.join(KEY), KEY_BYTES as u64);
    let bytes = bytes.map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => wrong(),
        _ => error,
    })?;
    bytes.try_into().map_err(|_| wrong())
}

fn fingerprint(key: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(b"lodestar: which key this is");
    in_hexadecimal(&mac.finalize().into_bytes())
}

/// Writes a file for this user alone, whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
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

    #[test]
    fn another_key_is_told_until_it_is_accepted() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let state = directory.path();
        let key = state.join(KEY);
        let open = || Identity::open(state).expect("it is ours");
        let first = open();
        assert_eq!(first.trouble(), None);
        let backup = std::fs::read(&key).expect("it is there");
        let said = |identity: &Identity| identity.trouble().expect("it is told");
        std::fs::remove_file(&key).expect("it is ours");
        assert!(said(&first).0.contains("cannot be used any more"), "{:?}", said(&first));
        for _ in 0..2 {
            let (message, remedy) = said(&open());
            assert!(message.contains("they have other names now"), "{message}");
            assert!(remedy.contains("delete ") && remedy.contains(FINGERPRINT), "{remedy}");
        }
        assert!(said(&first).0.contains("was replaced"), "{:?}", said(&first));
        std::fs::write(&key, &backup).expect("it is ours");
        assert_eq!((open().trouble(), first.trouble()), (None, None), "it is restored");
        // As the remedy says.
        std::fs::write(&key, [7; KEY_BYTES]).expect("it is ours");
        assert!(open().trouble().is_some());
        std::fs::remove_file(state.join(FINGERPRINT)).expect("it is ours");
        assert_eq!(open().trouble(), None);
        // Both are gone, and modules have data.
        std::fs::create_dir(state.join("data")).expect("it is new");
        for file in [KEY, FINGERPRINT] {
            std::fs::remove_file(state.join(file)).expect("it is ours");
        }
        assert!(open().trouble().is_some() && open().trouble().is_some());
        let text = std::fs::read(state.join(FINGERPRINT)).expect("it is there");
        assert_eq!(text, LOST.as_bytes());
    }
}

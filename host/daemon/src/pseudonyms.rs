//! Names that stand for people, sessions and hosts without telling who they are.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use lodestar_library::in_hexadecimal;
use lodestar_platform::{
    file_trust::{self, Accepted, Also},
    files,
};

const KEY_BYTES: usize = 32;

/// Number of characters of five bits in a pseudonym: 130 bits, so that none occurs twice.
const PSEUDONYM_CHARS: usize = 26;

/// Number of characters of five bits in an alias of a secret: 60 bits.
const ALIAS_CHARS: usize = 12;

const KEY: &str = "pseudonym.key";

/// Name of the file beside the key that tells one key from another, and nothing of either.
const FINGERPRINT: &str = "pseudonym.fingerprint";

/// Fingerprint of a key that nobody has any more.
const LOST: &str = "lost";

/// Reason why there is no key, with the file that it is about.
#[derive(Debug, thiserror::Error)]
pub enum PseudonymError {
    /// A file that cannot be read.
    #[error("{} cannot be read: {source}", .path.display())]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// A file that cannot be written.
    #[error("{} cannot be written: {source}", .path.display())]
    Unwritable {
        /// Path of the file.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// A file that holds no key.
    #[error(
        "{} does not have {KEY_BYTES} bytes; restore it from a backup, or remove it to begin with \
         new pseudonyms",
        .path.display()
    )]
    NoKey {
        /// Path of the file.
        path: PathBuf,
    },
}

impl PseudonymError {
    fn unreadable(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Unreadable { path: path.to_owned(), source }
    }

    fn unwritable(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Unwritable { path: path.to_owned(), source }
    }

    fn is_missing(&self) -> bool {
        let source = match self {
            Self::Unreadable { source, .. } | Self::Unwritable { source, .. } => source,
            Self::NoKey { .. } => return false,
        };
        source.kind() == io::ErrorKind::NotFound
    }
}

/// The key of this installation. It never leaves the daemon; removing its file gives every name
/// another pseudonym from then on.
pub struct Pseudonyms {
    key: [u8; KEY_BYTES],
    state_dir: PathBuf,
    /// `true` when names that were given before were made with another key.
    is_another: bool,
}

impl std::fmt::Debug for Pseudonyms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity([redacted])")
    }
}

impl Pseudonyms {
    /// Reads the key from `pseudonym.key` in the state directory, or makes one there.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or made, others can write it, or it has another length than 32
    /// bytes.
    pub fn open(state_dir: &Path) -> Result<Self, PseudonymError> {
        let (key, is_new) = match read_key(state_dir) {
            Ok(key) => (key, false),
            Err(error) if error.is_missing() => (new_key()?, true),
            Err(error) => return Err(error),
        };
        let place = state_dir.join(FINGERPRINT);
        let mut known = match files::read_text(&place) {
            Ok(known) => Some(known),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(PseudonymError::unreadable(&place)(error)),
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

    /// Returns why pseudonyms are not, or will not be, those that were given before, or can be
    /// traced by others, and what to do.
    #[must_use]
    pub fn trouble(&self) -> Option<(String, String)> {
        let (place, known) = (self.state_dir.join(KEY), self.state_dir.join(FINGERPRINT));
        let (key, known) = (place.display(), known.display());
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
        // Not whether others can write it: that is told with all other files, and no other key.
        let message = match files::read(&place, KEY_BYTES as u64) {
            Ok(on_disk) if on_disk == self.key => return readable_by_others(&place),
            Ok(_) => format!("{key} was replaced since lodestard started"),
            Err(error) => format!("{key} cannot be used any more: {error}"),
        };
        let message = format!("{message}; the next start would give sessions and users new names");
        Some((message, format!("restore {key} from a backup")))
    }

    /// Returns `<kind>_<26 characters>`: HMAC-SHA256 of kind and value, in base 32.
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

fn read_key(state_dir: &Path) -> Result<[u8; KEY_BYTES], PseudonymError> {
    let path = state_dir.join(KEY);
    let bytes = files::read_trusted(&path, KEY_BYTES as u64);
    let bytes = bytes.map_err(|source| match source.kind() {
        io::ErrorKind::FileTooLarge => PseudonymError::NoKey { path: path.clone() },
        _ => PseudonymError::unreadable(&path)(source),
    })?;
    bytes.try_into().map_err(|_| PseudonymError::NoKey { path })
}

fn new_key() -> Result<[u8; KEY_BYTES], PseudonymError> {
    let (source, mut key) = (Path::new("/dev/urandom"), [0; KEY_BYTES]);
    let read = File::open(source).and_then(|mut source| source.read_exact(&mut key));
    read.map(|()| key).map_err(PseudonymError::unreadable(source))
}

/// Returns a message and its remedy if others than the owner may read the key. A key that others
/// may write is reported with all files that others may write.
fn readable_by_others(key: &Path) -> Option<(String, String)> {
    let mode = key.metadata().ok()?.permissions().mode() & 0o777;
    // A volume of a group gives it what lies there, which is told with whom the operator accepts.
    let others = if Accepted::current().is_nobody() { 0o044 } else { 0o004 };
    let is_open = mode & others != 0 && file_trust::on_the_way(key, Also::OwnGroup).is_none();
    is_open.then(|| {
        let key = key.display();
        let message = format!(
            "{key} can be read by others (mode {mode:o}), who could find out whom the pseudonyms \
             of sessions, users and hosts stand for"
        );
        (message, format!("run `chmod 600 {key}`"))
    })
}

fn fingerprint(key: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(b"lodestar: which key this is");
    in_hexadecimal(&mac.finalize().into_bytes())
}

/// Writes a file for this user alone, whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> Result<(), PseudonymError> {
    let temporary = path.with_extension("new");
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    let written = options.open(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    });
    written.map_err(PseudonymError::unwritable(path))
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
        let pseudonyms = Pseudonyms::open(directory.path()).expect("it is writable");
        let name = pseudonyms.pseudonym("session", "abc");
        assert!(name.starts_with("session_") && name.len() == 8 + PSEUDONYM_CHARS, "{name}");
        let again = Pseudonyms::open(directory.path()).expect("the key is there");
        assert_eq!(again.pseudonym("session", "abc"), name);
        assert_ne!(again.pseudonym("user", "abc")[5..], name[8..]);
        let other = tempfile::tempdir().expect("a temporary directory");
        let other = Pseudonyms::open(other.path()).expect("it is writable");
        assert_ne!(other.pseudonym("session", "abc"), name);
    }

    #[test]
    fn the_key_is_private_and_a_damaged_one_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("a temporary directory");
        Pseudonyms::open(directory.path()).expect("it is writable");
        let path = directory.path().join("pseudonym.key");
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let shown = path.display().to_string();
        for wrong in ["short", "longer than what a key of HMAC-SHA256 has here"] {
            std::fs::write(&path, wrong).expect("it is ours");
            let error = Pseudonyms::open(directory.path()).expect_err("it is damaged").to_string();
            assert!(error.starts_with(&shown) && error.contains("restore it"), "{error}");
        }
        // Every other error names its file too.
        for file in [KEY, FINGERPRINT] {
            let path = directory.path().join(file);
            let _ = std::fs::remove_file(&path);
            std::fs::create_dir(&path).expect("it is gone");
            let error = Pseudonyms::open(directory.path()).expect_err("it is no file").to_string();
            assert!(error.starts_with(&path.display().to_string()), "{error}");
            std::fs::remove_dir(&path).expect("it is ours");
        }
    }

    #[test]
    fn a_key_that_others_can_read_is_told_with_the_remedy() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let pseudonyms = Pseudonyms::open(directory.path()).expect("it is writable");
        let key = directory.path().join(KEY);
        // What others can write is told with all such files.
        for (mode, is_told) in
            [(0o600, false), (0o644, true), (0o640, true), (0o604, true), (0o666, false)]
        {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&key, permissions).expect("it is ours");
            let told = pseudonyms.trouble();
            assert_eq!(told.is_some(), is_told, "{mode:o}: {told:?}");
            let Some((message, remedy)) = told else { continue };
            assert!(message.contains(&format!("(mode {mode:o})")), "{message}");
            assert_eq!(remedy, format!("run `chmod 600 {}`", key.display()));
        }
        std::fs::write(&key, [7; KEY_BYTES]).expect("it is ours");
        let (message, _) = pseudonyms.trouble().expect("it is told, whoever wrote it");
        assert!(message.contains("was replaced"), "{message}");
    }

    #[test]
    fn another_key_is_told_until_it_is_accepted() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let state = directory.path();
        let key = state.join(KEY);
        let open = || Pseudonyms::open(state).expect("it is ours");
        let first = open();
        assert_eq!(first.trouble(), None);
        let backup = std::fs::read(&key).expect("it is there");
        let said = |pseudonyms: &Pseudonyms| pseudonyms.trouble().expect("it is told");
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

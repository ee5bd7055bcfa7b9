//! Reading of files whose kind and size somebody else decides, without blocking and with a limit.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self, File, Metadata},
    io::{self, Read as _},
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use crate::file_trust;

/// Maximum size of a text file, in bytes: one that the daemon wrote, a manifest, a key.
pub const MAX_TEXT: u64 = 1 << 20;

/// Maximum number of links on a path, as in the kernel.
const MAX_LINKS: usize = 40;

/// Opens a regular file, also through a link. Anything else is refused before it is opened: opening
/// a pipe would block, a device may have no end or side effects.
///
/// # Errors
///
/// Returns an error if it is not a regular file, or the system refuses.
pub fn open(path: &Path) -> io::Result<File> {
    expect_regular(&path.metadata()?)?;
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    expect_regular(&file.metadata()?)?;
    Ok(file)
}

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
///
/// Returns an error if it is not a regular file or larger, or the system refuses.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_within(open(path)?, limit)
}

fn read_within(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // A hole of gigabytes takes no disk, but as much memory.
    if file.metadata()?.len() <= limit {
        file.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 <= limit {
            return Ok(bytes);
        }
    }
    let what = format!("it has more than {limit} bytes");
    Err(io::Error::new(io::ErrorKind::FileTooLarge, what))
}

/// Reads a regular file of at most `limit` bytes that nobody else can write or replace.
///
/// # Errors
///
/// Returns the errors of [`read`], and one with the remedy if somebody else can write the file.
pub fn read_trusted(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    if let Some(exposed) = file_trust::on_the_way(path, file_trust::Also::OwnGroup) {
        let what = format!("{exposed}; {}", exposed.remedy());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    read_within(file, limit)
}

/// Reads a regular file of at most [`MAX_TEXT`] bytes of UTF-8.
///
/// # Errors
///
/// Returns the errors of [`read`], and one if the file is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    text(read(path, MAX_TEXT)?)
}

/// Converts bytes to text.
///
/// # Errors
///
/// Returns an error if they are not UTF-8.
pub fn text(bytes: Vec<u8>) -> io::Result<String> {
    let not_text = |_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text");
    String::from_utf8(bytes).map_err(not_text)
}

/// Removes anything but a regular file or directory at the path of a file that is to be written:
/// opening a pipe would block.
///
/// # Errors
///
/// Returns an error if the system refuses.
pub fn clear_irregular(path: &Path) -> io::Result<()> {
    match path.metadata() {
        Ok(metadata) if !metadata.is_file() && !metadata.is_dir() => fs::remove_file(path),
        _ => Ok(()),
    }
}

fn expect_regular(metadata: &Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    let kind = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "directory",
        () if kind.is_fifo() => "pipe",
        () if kind.is_socket() => "socket",
        () => "device",
    };
    let what = format!("it is not a regular file but a {kind}");
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

/// Returns the number of bytes that this user may still write on the file system of a directory.
///
/// # Errors
///
/// Returns an error if the directory is missing, or the file system gives no number.
pub fn free_bytes(directory: &Path) -> io::Result<u64> {
    let space = rustix::fs::statvfs(directory)?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}

/// Returns the places that decide what a path leads to, from the root: every directory, every link
/// and, last, the target. No place has a link among its parent directories. Ends at the first
/// missing place.
#[must_use]
pub fn places(path: &Path) -> Vec<PathBuf> {
    places_by(path, |place| match fs::read_link(place) {
        Ok(target) => Place::Link(target),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Place::Missing,
        Err(_) => Place::Other,
    })
}

/// A place, as far as it decides where a path goes on.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// Nothing.
    Missing,
    /// A symbolic link with this target.
    Link(PathBuf),
    /// Anything else, or what this user cannot see.
    Other,
}

/// Returns the places that decide what a path leads to, by what `look` finds at each.
pub(crate) fn places_by(path: &Path, mut look: impl FnMut(&Path) -> Place) -> Vec<PathBuf> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut rest: VecDeque<OsString> = steps(&path).collect();
    let (mut places, mut at, mut links) = (Vec::new(), PathBuf::from("/"), 0);
    while let Some(step) = rest.pop_front() {
        match step.to_str() {
            Some("/") => at = PathBuf::from("/"),
            Some("..") => {
                at.pop();
                continue;
            }
            _ => {}
        }
        let place = at.join(&step);
        places.push(place.clone());
        match look(&place) {
            Place::Link(target) if links < MAX_LINKS => {
                links += 1;
                steps(&target).rev().for_each(|step| rest.push_front(step));
            }
            Place::Missing => break,
            Place::Link(_) | Place::Other => at = place,
        }
    }
    places
}

fn steps(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    let steps = path.components().filter(|step| *step != std::path::Component::CurDir);
    steps.map(|step| step.as_os_str().to_owned()).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    fn refusal(path: &Path) -> String {
        read(path, 4).expect_err("it is refused").to_string()
    }

    #[test]
    fn reads_regular_files_within_the_limit_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let place = |name: &str| directory.path().join(name);
        fs::write(place("short"), "four").expect("it is writable");
        assert_eq!(read(&place("short"), 4).expect("it is short"), b"four");
        symlink("short", place("link")).expect("it is new");
        assert_eq!(read_text(&place("link")).expect("it is text"), "four");
        fs::write(place("long"), "fives").expect("it is writable");
        assert_eq!(refusal(&place("long")), "it has more than 4 bytes");
        let hole = File::create(place("hole")).expect("it is writable");
        hole.set_len(10 << 30).expect("it takes no room");
        assert_eq!(refusal(&place("hole")), "it has more than 4 bytes");
        fs::write(place("noise"), b"\xff").expect("it is writable");
        let error = read_text(&place("noise")).expect_err("it is no text").to_string();
        assert_eq!(error, "it is not UTF-8 text");
        mkfifoat(CWD, place("pipe"), Mode::RUSR | Mode::WUSR).expect("it is new");
        symlink("/dev/zero", place("device")).expect("it is new");
        for (name, kind) in [("pipe", "pipe"), ("device", "device"), ("", "directory")] {
            assert_eq!(refusal(&place(name)), format!("it is not a regular file but a {kind}"));
        }
        assert!(refusal(&place("missing")).contains("No such file"));
    }

    #[test]
    fn a_place_is_made_for_a_file() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let place = |name: &str| directory.path().join(name);
        fs::write(place("file"), "").expect("it is writable");
        mkfifoat(CWD, place("pipe"), Mode::RUSR).expect("it is new");
        symlink("/dev/full", place("device")).expect("it is new");
        for (name, stays) in [("file", true), ("pipe", false), ("device", false), ("new", false)] {
            clear_irregular(&place(name)).expect("it is ours");
            assert_eq!(place(name).symlink_metadata().is_ok(), stays, "{name}");
        }
        clear_irregular(directory.path()).expect("a directory is left alone");
    }

    #[test]
    fn what_others_can_write_is_not_read() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("key");
        fs::write(&path, "key").expect("it is writable");
        assert_eq!(read_trusted(&path, 4).expect("it is ours"), b"key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o646)).expect("it is ours");
        let error = read_trusted(&path, 4).expect_err("others can write it").to_string();
        assert!(error.contains("(mode 646)") && error.contains("`chmod "), "{error}");
    }

    #[test]
    fn places_are_those_that_decide() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = directory.path().canonicalize().expect("it is there");
        // As in a volume of Kubernetes.
        fs::create_dir(root.join("..2026")).expect("it is new");
        fs::write(root.join("..2026/m.yaml"), "").expect("it is writable");
        symlink("..2026", root.join("..data")).expect("it is new");
        symlink("..data/m.yaml", root.join("m.yaml")).expect("it is new");
        let below = |path: &Path| {
            let places = places(path).into_iter();
            let below = places.filter_map(|it| it.strip_prefix(&root).ok().map(Path::to_owned));
            below.skip(1).map(|it| it.display().to_string()).collect::<Vec<_>>()
        };
        let volume = ["m.yaml", "..data", "..2026", "..2026/m.yaml"];
        assert_eq!(below(&root.join("m.yaml")), volume);
        assert_eq!(below(&root.join("./..2026/../m.yaml")), [&["..2026"], &volume[..]].concat());
        assert_eq!(places(&root.join("m.yaml"))[0], Path::new("/"));
        // What is missing ends it, and a circle does as well.
        symlink("gone/x", root.join("dangling")).expect("it is new");
        assert_eq!(below(&root.join("dangling")), ["dangling", "gone"]);
        symlink("circle", root.join("circle")).expect("it is new");
        assert_eq!(below(&root.join("circle")).len(), MAX_LINKS + 1);
        let absolute = root.join("..2026/m.yaml");
        symlink(&absolute, root.join("absolute")).expect("it is new");
        assert_eq!(places(&root.join("absolute")).last(), Some(&absolute));
    }
}

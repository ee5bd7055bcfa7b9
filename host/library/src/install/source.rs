//! The reading of a package that a person names on the command line: a library, a folder, or a
//! `.tar.gz` of one.
//!
//! The command line opens it with the person's own rights; the daemon gets bytes and no path.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use lodestar_api::{Problem, ProblemCode};
use lodestar_platform::file_trust::{self, Also, Stranger};

use super::{Bundle, bundle::Part, refused};

/// Largest size of a `.tar.gz`, in bytes.
const MAX_PACKED: u64 = 160 * 1024 * 1024;

/// Reads a package.
///
/// # Errors
///
/// When it is none, or others could have written it.
pub fn open(path: &Path) -> Result<Bundle, Problem> {
    let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if metadata.is_dir() {
        return folder(path, &metadata);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.ends_with(".tar.gz") || name.ends_with(".tgz") {
        let target = fs::canonicalize(path).map_err(|error| unreadable(path, &error))?;
        let packed = read(&target, MAX_PACKED)?;
        return Bundle::from_archive(flate2::read::MultiGzDecoder::new(packed.as_slice()));
    }
    library(path)
}

/// Reads the library that cargo built, and the package files in the folder of its crate.
///
/// # Errors
///
/// When it is no package, or others could have written it.
pub fn open_built(library: &Path, folder: &Path) -> Result<Bundle, Problem> {
    let mut bundle = self::library(library)?;
    for part in [Part::Config, Part::ConfigSignature] {
        let path = folder.join(part.file(&bundle.name));
        if path.symlink_metadata().is_ok() {
            let bytes = read(&path, part.limit())?;
            bundle.add(part, bytes)?;
        }
    }
    Ok(bundle)
}

fn folder(path: &Path, metadata: &Metadata) -> Result<Bundle, Problem> {
    check(path, metadata)?;
    let mut bundle = Bundle::default();
    let entries = fs::read_dir(path).map_err(|error| unreadable(path, &error))?;
    for entry in entries {
        let entry = entry.map_err(|error| unreadable(path, &error))?;
        if let Some(part) = Part::named(&entry.file_name().to_string_lossy()) {
            let bytes = read(&entry.path(), part.limit())?;
            bundle.add(part, bytes)?;
        }
    }
    bundle.whole()
}

/// Reads a library alone, with its signature where that lies beside it.
fn library(path: &Path) -> Result<Bundle, Problem> {
    let target = fs::canonicalize(path).map_err(|error| unreadable(path, &error))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let Some(part @ Part::Library(_)) = Part::named(&name) else {
        let what = format!("{} is no module", path.display());
        return Err(refused(what, "name a lib<name>.so, a module's folder or a .tar.gz of one"));
    };
    if let Some(above) = target.parent() {
        let metadata = fs::metadata(above).map_err(|error| unreadable(above, &error))?;
        check(above, &metadata)?;
    }
    let mut bundle = Bundle::default();
    let limit = part.limit();
    bundle.add(part, read(&target, limit)?)?;
    let signature = path.with_file_name(format!("{name}.minisig"));
    if signature.symlink_metadata().is_ok() {
        bundle.add(Part::Signature, read(&signature, Part::Signature.limit())?)?;
    }
    bundle.whole()
}

/// Reads a plain file that nobody else could have written. The file checked is the open file that
/// is read, and not its name.
fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Problem> {
    // Without NONBLOCK, opening a FIFO would wait for its writer.
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW;
    let mut options = File::options();
    let file = options.read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = file.map_err(|error| match error.raw_os_error() {
        Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => refused(
            format!("{} is a symbolic link", path.display()),
            "put the file itself there, or name what it links to",
        ),
        _ => unreadable(path, &error),
    })?;
    let metadata = file.metadata().map_err(|error| unreadable(path, &error))?;
    check(path, &metadata)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > limit {
        let what = format!("{} is larger than {limit} bytes", path.display());
        return Err(refused(what, "build the module in release, without debug information"));
    }
    Ok(bytes)
}

/// Checks that nobody else may write to a file or folder, since they would decide what runs.
fn check(path: &Path, metadata: &Metadata) -> Result<(), Problem> {
    let shown = path.display();
    if !metadata.is_file() && !metadata.is_dir() {
        return Err(refused(format!("{shown} is no plain file"), "name a file or a folder"));
    }
    // In a directory such as /tmp nobody can replace the file of another.
    let is_sticky = metadata.is_dir() && metadata.mode() & 0o1000 != 0;
    match file_trust::of(path, metadata, Also::OwnGroup) {
        Some(stranger @ Stranger::Owner(_)) => {
            let remedy = "copy it, and look at what you copied before you install it";
            Err(refused(format!("{shown} {stranger}"), remedy))
        }
        Some(stranger @ Stranger::Mode(_)) if !is_sticky => {
            let remedy = format!("`chmod go-w {shown}`, once you know who wrote it");
            Err(refused(format!("{shown} {stranger}"), remedy))
        }
        Some(stranger @ (Stranger::ListedUser(_) | Stranger::ListedGroup(_))) if !is_sticky => {
            let remedy = format!("`setfacl -b {shown}`, once you know who wrote it");
            Err(refused(format!("{shown} {stranger}"), remedy))
        }
        Some(_) | None => Ok(()),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    let code = match error.kind() {
        io::ErrorKind::NotFound => ProblemCode::NotFound,
        _ => ProblemCode::Failed,
    };
    let help = "name a lib<name>.so, a module's folder or a .tar.gz of one that you may read";
    Problem::new(code, format!("cannot read {}: {error}", path.display())).help(help)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a directory");
        fs::write(folder.path().join("libtiny.so"), "bytes").expect("it is writable");
        fs::write(folder.path().join("config.yaml"), "a: 1\n").expect("it is writable");
        fs::write(folder.path().join("README.md"), "left out").expect("it is writable");
        folder
    }

    fn refusal(path: &Path) -> String {
        let problem = open(path).expect_err("it is refused");
        assert!(problem.help.is_some(), "{problem:?}");
        problem.detail
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    }

    #[test]
    fn opens_a_library_a_folder_and_an_archive() {
        let folder = folder();
        let from_folder = open(folder.path()).expect("it is a package");
        assert_eq!(from_folder.config.as_deref(), Some(&b"a: 1\n"[..]));
        let alone = open(&folder.path().join("libtiny.so")).expect("it is a library");
        assert_eq!((alone.name.as_str(), alone.config), ("tiny", None));
        let archive = folder.path().join("tiny.tar.gz");
        let file = File::create(&archive).expect("it is writable");
        let mut packer = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        let bytes = from_folder.to_archive().expect("memory is there");
        io::Write::write_all(&mut packer, &bytes).expect("it is writable");
        packer.finish().expect("it is writable");
        assert_eq!(open(&archive).expect("it is a package"), from_folder);
    }

    #[test]
    fn the_name_may_be_a_link_and_what_lies_below_may_not() {
        let folder = folder();
        let other = tempfile::tempdir().expect("a directory");
        symlink(folder.path(), other.path().join("link")).expect("it is new");
        symlink(folder.path().join("libtiny.so"), other.path().join("libtiny.so")).expect("new");
        assert!(open(&other.path().join("link")).is_ok());
        assert!(open(&other.path().join("libtiny.so")).is_ok());
        assert!(refusal(other.path()).contains("symbolic link"));
        fs::remove_file(folder.path().join("config.yaml")).expect("it is there");
        symlink("/etc/hostname", folder.path().join("config.yaml")).expect("it is new");
        assert!(refusal(folder.path()).contains("config.yaml is a symbolic link"));
    }

    #[test]
    fn refuses_what_others_could_have_written() {
        let folder = folder();
        let library = folder.path().join("libtiny.so");
        set_mode(&library, 0o666);
        assert!(refusal(&library).contains("written by others (mode 666)"));
        assert!(refusal(folder.path()).contains("written by others"));
        set_mode(&library, 0o755);
        set_mode(folder.path(), 0o777);
        assert!(refusal(&library).contains("written by others (mode 777)"));
        assert!(refusal(folder.path()).contains("written by others"));
        set_mode(folder.path(), 0o1777);
        assert!(open(&library).is_ok(), "nobody can replace it there");
    }

    #[test]
    fn refuses_the_file_of_another_user() {
        if !rustix::process::geteuid().is_root() {
            // Only root can make such a file.
            return;
        }
        let folder = folder();
        let library = folder.path().join("libtiny.so");
        std::os::unix::fs::chown(&library, Some(65_534), None).expect("root may");
        assert!(refusal(&library).contains("belongs to another user (65534)"));
    }

    #[test]
    fn says_what_it_cannot_open() {
        let folder = folder();
        assert!(refusal(&folder.path().join("missing")).contains("cannot read"));
        assert!(refusal(&folder.path().join("README.md")).contains("is no module"));
        let fifo = folder.path().join("libfifo.so");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).expect("made");
        assert!(refusal(&fifo).contains("no plain file"));
        fs::write(folder.path().join("x.tar.gz"), "no archive").expect("it is writable");
        assert!(refusal(&folder.path().join("x.tar.gz")).contains("no archive"));
        fs::remove_file(&fifo).expect("it is there");
        fs::write(folder.path().join("libother.so"), "x").expect("it is writable");
        assert!(refusal(folder.path()).contains("two files"));
    }
}

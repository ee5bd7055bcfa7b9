//! The reading and writing of `tar` archives, which may come from anybody: plain files only, and
//! never on the disk.

use std::{
    io::{self, Read},
    path::{Component, Path},
};

use lodestar_api::Problem;
use tar::{Archive, Builder, EntryType, Header};

use super::{Bundle, MAX_BUNDLE, bundle::Part, refused};

/// Largest number of entries; a module has five.
const MAX_ENTRIES: usize = 256;

pub(super) fn read(reader: impl Read) -> Result<Bundle, Problem> {
    let damaged = |error: io::Error| {
        refused(
            format!("the package is no archive that can be read: {error}"),
            "pack the module's folder with `tar czf NAME.tar.gz NAME/`",
        )
    };
    // What is inflated beyond this is never held.
    let mut archive = Archive::new(Limited { reader, left: MAX_BUNDLE });
    let mut bundle = Bundle::default();
    let mut folder = None;
    for (number, entry) in archive.entries().map_err(damaged)?.enumerate() {
        let mut entry = entry.map_err(damaged)?;
        if number == MAX_ENTRIES {
            let what = format!("the package has more than {MAX_ENTRIES} entries");
            return Err(refused(what, "pack the module's folder alone"));
        }
        let path = entry.path().map_err(damaged)?.into_owned();
        let shown = path.display().to_string();
        let Some((part, above)) = part(&path, entry.header().entry_type())? else { continue };
        if folder.get_or_insert_with(|| above.clone()) != &above {
            let what = "the package holds more than one folder with modules' files";
            return Err(refused(what, "pack one module at a time"));
        }
        let limit = part.limit();
        let mut bytes = Vec::new();
        (&mut entry).take(limit + 1).read_to_end(&mut bytes).map_err(damaged)?;
        if bytes.len() as u64 > limit {
            let what = format!("{shown} in the package is larger than {limit} bytes");
            return Err(refused(what, "build the module in release, without debug information"));
        }
        bundle.add(part, bytes)?;
    }
    bundle.whole()
}

/// Returns the part of a package that an entry is, and the folder that it lies in; `None` for one
/// that is not installed.
fn part(path: &Path, kind: EntryType) -> Result<Option<(Part, Option<String>)>, Problem> {
    let shown = path.display();
    let Some(names) = names(path) else {
        let what = format!("{shown} leads out of the package");
        return Err(refused(what, "do not install it: no honest packer writes such a name"));
    };
    match kind {
        EntryType::Regular => {}
        EntryType::Directory | EntryType::XGlobalHeader => return Ok(None),
        _ => {
            let what = format!("{shown} in the package is a link or a device");
            return Err(refused(what, "pack the files themselves (`tar --dereference`)"));
        }
    }
    let (file, above) = match names.as_slice() {
        [file] => (file, None),
        [above, file] => (file, Some(above.clone())),
        _ => return Ok(None),
    };
    Ok(Part::named(file).map(|part| (part, above)))
}

/// Returns the parts of a path; `None` for one that leads elsewhere.
fn names(path: &Path) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_str()?.to_owned()),
            Component::CurDir => {}
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(names)
}

pub(super) fn write(files: &[(String, &[u8])]) -> io::Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        builder.append_data(&mut header, name, *bytes)?;
    }
    builder.into_inner()
}

/// Reader that fails at its limit rather than ends: an archive that is cut off must not look whole.
struct Limited<R> {
    reader: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::other(format!("it unpacks to more than {MAX_BUNDLE} bytes"))
        })?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: EntryType, name: &str, size: u64, bytes: &[u8]) -> Vec<u8> {
        let mut header = Header::new_gnu();
        // Written by hand: the library refuses to write what an attacker would.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o777);
        if matches!(kind, EntryType::Symlink | EntryType::Link) {
            header.set_link_name("/etc/passwd").expect("it is short");
        }
        header.set_cksum();
        let mut block = header.as_bytes().to_vec();
        block.extend(bytes);
        block.resize(block.len().next_multiple_of(512), 0);
        block
    }

    fn file(name: &str, bytes: &[u8]) -> Vec<u8> {
        entry(EntryType::Regular, name, bytes.len() as u64, bytes)
    }

    fn pack(entries: &[Vec<u8>]) -> Vec<u8> {
        let mut archive = entries.concat();
        archive.extend([0; 1024]);
        archive
    }

    #[test]
    fn takes_a_folder_as_people_pack_it() {
        for prefix in ["", "./", "tiny/", "./tiny-0.1.0/"] {
            let archive = pack(&[
                entry(EntryType::Directory, &format!("{prefix}doc/"), 0, b""),
                file(&format!("{prefix}module.toml"), b"[module]\n"),
                file(&format!("{prefix}libtiny.so"), b"bytes"),
                file(&format!("{prefix}deep/er/libother.so"), b"not this one"),
            ]);
            let bundle = read(archive.as_slice()).unwrap_or_else(|e| panic!("{prefix}: {e:?}"));
            assert_eq!((bundle.name.as_str(), bundle.library.as_slice()), ("tiny", &b"bytes"[..]));
        }
    }

    #[test]
    fn refuses_what_is_no_plain_package() {
        let check = |archive: &[u8], expected: &str| {
            let problem = read(archive).expect_err(expected);
            assert!(problem.detail.contains(expected), "{expected}: {}", problem.detail);
            assert!(problem.help.is_some(), "{expected}");
        };
        let good = file("libtiny.so", b"bytes");
        check(b"", "no library");
        check(&[7; 2048], "no archive");
        check(&pack(&[file("/tmp/libtiny.so", b"x")]), "leads out");
        check(&pack(&[file("../libtiny.so", b"x")]), "leads out");
        check(&pack(&[file("a/../../libtiny.so", b"x")]), "leads out");
        check(&pack(&[file("README.md", b"x")]), "no library");
        check(&pack(&[good.clone(), good.clone()]), "two files");
        check(&pack(&[good.clone(), file("libother.so", b"x")]), "two files");
        check(&pack(&[file("a/libtiny.so", b"x"), file("b/config.yaml", b"x")]), "one folder");
        for kind in [
            EntryType::Symlink,
            EntryType::Link,
            EntryType::Char,
            EntryType::Block,
            EntryType::Fifo,
            EntryType::Continuous,
        ] {
            check(&pack(&[good.clone(), entry(kind, "config.yaml", 0, b"")]), "link or a device");
        }
        let sparse = entry(EntryType::GNUSparse, "config.yaml", 0, b"");
        assert!(read(pack(&[good.clone(), sparse]).as_slice()).is_err());
        check(&pack(&[file("config.yaml", &vec![b'#'; 256 * 1024 + 1])]), "larger than 262144");
        check(&good[..600], "no archive");
        let many: Vec<_> = (0..300).map(|n| file(&format!("f{n}"), b"")).collect();
        check(&pack(&many), "more than 256 entries");
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let size = 1 << 40;
        for name in ["filler", "libtiny.so"] {
            let head = entry(EntryType::Regular, name, size, b"");
            let mut bomb = head.as_slice().chain(io::repeat(0));
            let problem = read(&mut bomb).expect_err("it is too large");
            assert!(problem.detail.contains("than"), "{}", problem.detail);
        }
        let long_name = entry(EntryType::GNULongName, "././@LongLink", size, b"");
        let problem = read(long_name.as_slice().chain(io::repeat(b'a'))).expect_err("too long");
        assert!(problem.detail.contains("unpacks to more"), "{}", problem.detail);
    }
}

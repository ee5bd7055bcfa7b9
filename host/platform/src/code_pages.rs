//! Pages of programs and libraries that the start touched and nobody needs afterwards.

use std::{fs, io};

use rustix::mm::{Advice, madvise};

/// A part of a file as it is mapped (`/proc/self/smaps` of proc(5)).
#[derive(Debug, PartialEq)]
struct Mapping {
    start: usize,
    length: usize,
    resident_kib: u64,
}

/// Takes those pages of code and constants out of this process which are as they lie in the files
/// of the program and of the system's libraries: they stay in the system's cache, and what is used
/// again comes back with its neighbours in a microsecond. Modules stay as they are: the copies that
/// they run from lie in memory anyhow. Returns the number of KiB that were resident.
///
/// # Errors
///
/// When `/proc` cannot be read, or the kernel refuses.
pub fn release() -> io::Result<u64> {
    let mappings = unchanged(&fs::read_to_string("/proc/self/smaps")?);
    for mapping in &mappings {
        let start = std::ptr::with_exposed_provenance_mut(mapping.start);
        #[expect(unsafe_code, reason = "it takes pages from under running code")]
        // SAFETY: the pages are mapped from a file, cannot be written, and none was changed since
        // it was read, so that the kernel reads the very same bytes again when they are used.
        unsafe {
            madvise(start, mapping.length, Advice::LinuxDontNeed)?;
        }
    }
    Ok(mappings.iter().map(|mapping| mapping.resident_kib).sum())
}

/// Returns the mappings of files on disks that cannot be written and hold no page of their own, as
/// relocated constants and a debugger's breakpoints do.
fn unchanged(smaps: &str) -> Vec<Mapping> {
    let mut found = Vec::new();
    let mut lines = smaps.lines().peekable();
    while let Some(head) = lines.next() {
        let mut figures = Vec::new();
        while let Some((name, value)) = lines.peek().and_then(|line| figure(line)) {
            figures.push((name, value));
            lines.next();
        }
        let of = |name| figures.iter().find(|(known, _)| *known == name).and_then(|it| it.1);
        // A kernel that does not count them leaves nothing to be sure of.
        let is_as_read = of("Anonymous") == Some(0) && of("Private_Dirty") == Some(0);
        if let Some((start, length)) = range(head).filter(|_| is_as_read) {
            found.push(Mapping { start, length, resident_kib: of("Rss").unwrap_or_default() });
        }
    }
    found
}

/// Returns the name and the number of a line such as `Rss:    4 kB`; none for the head of a
/// mapping.
fn figure(line: &str) -> Option<(&str, Option<u64>)> {
    let (name, value) = line.split_once(':')?;
    let is_name = name.starts_with(|first: char| first.is_ascii_uppercase());
    is_name.then(|| (name, value.split_whitespace().next().and_then(|text| text.parse().ok())))
}

/// Returns the start and length of a mapping from its head, if it is of a file on a disk and can be
/// read but not written.
fn range(head: &str) -> Option<(usize, usize)> {
    let mut words = head.split_whitespace();
    let (addresses, access, file) = (words.next()?, words.next()?, words.nth(3)?);
    let is_on_disk = file.starts_with('/') && !file.starts_with("/memfd:");
    let (start, end) = addresses.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let length = usize::from_str_radix(end, 16).ok()?.checked_sub(start)?;
    (is_on_disk && access.starts_with("r-")).then_some((start, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
55d0c0000000-55d0c0003000 r--p 00000000 fe:00 4711                       /usr/bin/lodestard
Size:                 12 kB
Rss:                   8 kB
Private_Dirty:         0 kB
Anonymous:             0 kB
VmFlags: rd mr mw me sd 
55d0c0003000-55d0c0005000 r-xp 00003000 fe:00 4711                       /usr/bin/lodestard
Rss:                   4 kB
Private_Dirty:         0 kB
Anonymous:             0 kB
55d0c0005000-55d0c0006000 r--p 00005000 fe:00 4711                       /usr/bin/lodestard
Rss:                   4 kB
Private_Dirty:         4 kB
Anonymous:             4 kB
55d0c0006000-55d0c0007000 rw-p 00006000 fe:00 4711                       /usr/bin/lodestard
Rss:                   4 kB
Private_Dirty:         0 kB
Anonymous:             0 kB
7f0000000000-7f0000001000 r-xp 00000000 fe:00 4712                       /lib/libc.so.6
Rss:                   4 kB
Private_Dirty:         0 kB
Anonymous:             0 kB
7f0000001000-7f0000002000 r-xp 00000000 00:01 4713                       /memfd:lodestar-x (deleted)
Rss:                   4 kB
Private_Dirty:         0 kB
Anonymous:             0 kB
7f0000002000-7f0000003000 r--p 00000000 00:00 0
Rss:                   4 kB
Private_Dirty:         0 kB
Anonymous:             0 kB
7f0000003000-7f0000004000 r-xp 00000000 fe:00 4711                       /usr/bin/lodestard
Rss:                   4 kB
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
";

    #[test]
    fn only_what_is_as_it_lies_in_the_file_is_released() {
        let found = unchanged(SMAPS);
        let first = Mapping { start: 0x55d0_c000_0000, length: 0x3000, resident_kib: 8 };
        let second = Mapping { start: 0x55d0_c000_3000, length: 0x2000, resident_kib: 4 };
        let library = Mapping { start: 0x7f00_0000_0000, length: 0x1000, resident_kib: 4 };
        assert_eq!(found, [first, second, library]);
        assert_eq!(unchanged(""), []);
        assert_eq!(unchanged("garbage\nRss: 4 kB\n"), []);
    }

    #[test]
    fn a_program_goes_on_without_its_pages() {
        let before = release().expect("it is mapped from a file");
        let after = release().expect("it is mapped from a file");
        assert!(after < before, "{after} KiB are resident after {before}");
    }
}

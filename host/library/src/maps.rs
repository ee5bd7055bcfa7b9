//! The mapped files of this process, as the kernel lists them.

use std::ops::Range;

/// A mapped file: its device and number, and the addresses from its first to its last part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapped {
    file: String,
    pub(super) range: Range<usize>,
}

/// Returns the file that is mapped at an address.
pub(super) fn at(address: usize) -> Option<Mapped> {
    find(&std::fs::read_to_string("/proc/self/maps").ok()?, address)
}

/// Returns whether a part of a file is still mapped.
pub(super) fn is_mapped(mapped: &Mapped) -> bool {
    // What cannot be read is taken for mapped.
    std::fs::read_to_string("/proc/self/maps")
        .map_or(true, |text| text.lines().filter_map(line).any(|(_, file)| file == mapped.file))
}

fn find(text: &str, address: usize) -> Option<Mapped> {
    let lines: Vec<(Range<usize>, &str)> = text.lines().filter_map(line).collect();
    let (_, file) = lines.iter().find(|(range, _)| range.contains(&address))?;
    let parts = || lines.iter().filter(|(_, other)| other == file).map(|(range, _)| range);
    let begin = parts().map(|range| range.start).min()?;
    let end = parts().map(|range| range.end).max()?;
    Some(Mapped { file: (*file).to_owned(), range: begin..end })
}

/// Parses the range and the file of a line such as
/// `7f00-7f10 r-xp 00000000 00:01 1042 /memfd:lodestar-tiny (deleted)`, see `proc(5)`; anonymous
/// memory has the number 0 and is no file.
fn line(text: &str) -> Option<(Range<usize>, &str)> {
    let (range, rest) = text.split_once(' ')?;
    let (begin, end) = range.split_once('-')?;
    let hex = |digits| usize::from_str_radix(digits, 16).ok();
    let mut fields = rest.splitn(5, ' ');
    let (device, number) = (fields.nth(2)?, fields.next()?);
    let from = device.as_ptr() as usize - rest.as_ptr() as usize;
    let file = &rest[from..from + device.len() + 1 + number.len()];
    (number != "0").then_some((hex(begin)?..hex(end)?, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
1000-2000 r--p 00000000 00:01 1042                       /memfd:lodestar-tiny (deleted)
2000-5000 r-xp 00001000 00:01 1042                       /memfd:lodestar-tiny (deleted)
5000-6000 rw-p 00000000 00:00 0
6000-7000 r-xp 00000000 00:01 1043                       /memfd:lodestar-tiny (deleted)
";

    #[test]
    fn a_file_is_all_its_parts() {
        let mapped = find(MAPS, 0x2500).expect("it is mapped");
        assert_eq!(mapped.range, 0x1000..0x5000);
        assert_eq!(find(MAPS, 0x6000).expect("it is mapped").range, 0x6000..0x7000);
        assert_eq!(find(MAPS, 0x5500), None, "no file");
        assert_eq!(find(MAPS, 0x9000), None);
    }

    #[test]
    fn this_program_is_mapped() {
        let mapped = at(a_file_is_all_its_parts as *const () as usize).expect("it runs");
        assert!(is_mapped(&mapped));
        assert!(!is_mapped(&Mapped { file: "fe:ff 1".to_owned(), range: 0..1 }));
    }
}

//! The access list of a file, as `setfacl` sets it.

use std::path::Path;

use rustix::{fs::lgetxattr, io::Errno};

/// Maximum size of an extended attribute (xattr(7)), in bytes.
const MAX_BYTES: usize = 64 << 10;
/// Version in the format of `linux/posix_acl_xattr.h`: this number, then entries of a tag,
/// permissions and a number, all of them little-endian.
const VERSION: [u8; 4] = 2_u32.to_le_bytes();
const ENTRY_BYTES: usize = 8;
const USER: u16 = 0x02;
const OWN_GROUP: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const WRITE: u16 = 0o2;

/// Accounts that may write by an access list, with its mask applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Writers {
    /// `true` if the group of the file may write.
    pub(super) own_group: bool,
    /// Users, by number.
    pub(super) users: Vec<u32>,
    /// Other groups, by number.
    pub(super) groups: Vec<u32>,
}

/// Returns the accounts that may write a place by its access list; `None` if it has none.
pub(super) fn writers(place: &Path) -> Option<Writers> {
    let mut bytes = vec![0; 1 << 10];
    let length = loop {
        match lgetxattr(place, "system.posix_acl_access", bytes.as_mut_slice()) {
            Err(Errno::RANGE) if bytes.len() < MAX_BYTES => bytes.resize(MAX_BYTES, 0),
            read => break read.ok()?,
        }
    };
    parse(&bytes[..length])
}

fn parse(bytes: &[u8]) -> Option<Writers> {
    let (entries, []) = bytes.strip_prefix(&VERSION)?.as_chunks::<ENTRY_BYTES>() else {
        return None;
    };
    let entries = entries.iter().map(|&[a, b, c, d, e, f, g, h]| {
        (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]), u32::from_le_bytes([e, f, g, h]))
    });
    let masked = entries.clone().any(|(tag, may, _)| tag == MASK && may & WRITE == 0);
    let mut writers = Writers::default();
    for (tag, _, number) in entries.filter(|(_, may, _)| may & WRITE != 0 && !masked) {
        match tag {
            USER => writers.users.push(number),
            OWN_GROUP => writers.own_group = true,
            GROUP => writers.groups.push(number),
            _ => {}
        }
    }
    Some(writers)
}

/// Returns the attribute's value for entries of `(tag, permissions, number)`.
#[cfg(test)]
pub(super) fn attribute(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let entry = |(tag, may, number): &(u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &may.to_le_bytes(), &number.to_le_bytes()].concat()
    };
    [VERSION.to_vec(), entries.iter().flat_map(entry).collect()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_bounds_users_and_groups() {
        let list = |mask| {
            let none = u32::MAX;
            let entries = [
                (0x01, 6, none),
                (USER, 6, 1001),
                (USER, 4, 1002),
                (OWN_GROUP, 4, none),
                (GROUP, 7, 33),
                (MASK, mask, none),
                (0x20, 4, none),
            ];
            parse(&attribute(&entries)).expect("it is whole")
        };
        let expected = Writers { own_group: false, users: vec![1001], groups: vec![33] };
        assert_eq!(list(6), expected);
        assert_eq!(list(4), Writers::default());
        assert_eq!(parse(&attribute(&[(OWN_GROUP, 6, 0)])).map(|it| it.own_group), Some(true));
        for broken in [&b""[..], b"\x03\0\0\0", b"\x02\0\0\0\x01"] {
            assert_eq!(parse(broken), None);
        }
    }
}

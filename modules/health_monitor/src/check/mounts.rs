//! File systems that can fill up, each once.
//!
//! Read from `/proc/self/mountinfo` (`proc_pid_mountinfo(5)`): a list by hand counts bind mounts
//! several times and asks network file systems, which may hang.

use std::{collections::BTreeSet, ffi::OsString, os::unix::ffi::OsStringExt as _, path::PathBuf};

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// Path that it is mounted at, in whatever bytes.
    pub(super) path: PathBuf,
    /// Type: `ext4`.
    pub(super) kind: String,
    /// Device, `major:minor`: the same for every mount of one file system.
    pub(super) device: String,
    /// `true` where nothing can be written.
    pub(super) is_read_only: bool,
}

/// Types without a disk of their own, of networks, and of images that are always full.
const SKIPPED: [&str; 45] = [
    "9p",
    "afs",
    "autofs",
    "bdev",
    "binder",
    "binfmt_misc",
    "bpf",
    "ceph",
    "cgroup",
    "cgroup2",
    "cifs",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "ecryptfs",
    "efivarfs",
    "erofs",
    "fuse.gvfsd-fuse",
    "fuse.portal",
    "fuse.rclone",
    "fuse.sshfs",
    "fusectl",
    "glusterfs",
    "hugetlbfs",
    "iso9660",
    "lustre",
    "mqueue",
    "ncpfs",
    "nfs",
    "nfs4",
    "nsfs",
    "overlay",
    "proc",
    "pstore",
    "ramfs",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "smb3",
    "squashfs",
    "sysfs",
    "tmpfs",
    "tracefs",
    "virtiofs",
];

/// Returns the file systems that can fill up: each device once, at its shortest path.
pub(super) fn parse(mountinfo: &[u8]) -> Vec<Mount> {
    let lines = mountinfo.split(|byte| *byte == b'\n');
    let mut mounts: Vec<Mount> = lines.filter_map(mount).collect();
    let length = |mount: &Mount| mount.path.as_os_str().len();
    mounts.sort_by(|left, right| (length(left), &left.path).cmp(&(length(right), &right.path)));
    // Of several mounts at one path the last one is seen.
    let mut devices = BTreeSet::new();
    mounts.retain(|mount| devices.insert(mount.device.clone()));
    mounts.sort_by(|left, right| left.path.cmp(&right.path));
    mounts
}

/// Reads a line: `36 35 98:0 /root /path rw,noatime shared:1 - ext4 /dev/sda1 rw`.
fn mount(line: &[u8]) -> Option<Mount> {
    let word = |bytes| std::str::from_utf8(bytes).ok();
    let mut words = line.split(|byte| *byte == b' ').skip(2);
    let device = word(words.next()?)?;
    let (_root, path, options) = (words.next()?, words.next()?, word(words.next()?)?);
    // As many optional fields as there are end with a dash.
    words.find(|word| *word == b"-")?;
    let (kind, _source) = (word(words.next()?)?, words.next()?);
    let all = words.next().and_then(word).unwrap_or_default();
    let is_read_only = [options, all].iter().any(|it| it.split(',').any(|word| word == "ro"));
    // The root of a container is all that it has.
    let is_root = kind == "overlay" && path == b"/";
    let is_fuse = kind.starts_with("fuse.") && kind != "fuse.fuseblk";
    if !is_root && (is_fuse || SKIPPED.contains(&kind)) {
        return None;
    }
    let path = OsString::from_vec(unescape(path)).into();
    Some(Mount { path, kind: kind.to_owned(), device: device.to_owned(), is_read_only })
}

/// Turns `\040` and its like into the characters that they stand for.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let code = after
            .get(..3)
            .filter(|_| byte == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match code {
            Some(code) => {
                bytes.push(code);
                rest = &after[3..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

    use super::*;

    #[test]
    fn each_file_system_is_there_once_and_others_are_not() {
        let text = b"\
22 28 0:20 / /sys rw,nosuid shared:7 - sysfs sysfs rw
28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
29 28 8:1 /var/lib/docker /mnt/bind rw - ext4 /dev/sda1 rw
30 28 8:2 / /data\\040of\\040all rw - xfs /dev/sdb1 rw
31 28 0:50 / /net rw - nfs4 server:/x rw
32 28 7:0 / /snap/core ro - squashfs /dev/loop0 ro
33 28 8:3 / /media/stick ro,relatime - vfat /dev/sdc1 ro
34 28 0:60 / /home/u/drive rw - fuse.rclone remote rw
35 28 8:4 / /odd-\xff rw shared:1 master:2 - ext4 /dev/sdd1 rw
not a line
";
        let mounts = parse(text);
        let paths: Vec<&OsStr> = mounts.iter().map(|mount| mount.path.as_os_str()).collect();
        let odd = OsStr::from_bytes(b"/odd-\xff");
        let expected = ["/", "/data of all", "/media/stick"].map(OsStr::new);
        assert_eq!(paths, [expected.as_slice(), &[odd]].concat());
        assert!(mounts[2].is_read_only && !mounts[0].is_read_only);
    }
}

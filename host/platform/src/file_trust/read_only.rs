//! Check whether a file system is read-only for everybody, regardless of the modes of its files.

use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statvfs};

use crate::files;

/// Returns whether a place lies on a file system that is read-only for everybody who could reach
/// it, such as a `ConfigMap` in a container. A file system that is read-only for this process
/// alone, as most are for a service of systemd (`ProtectSystem=`), can be written by others: it
/// must be read-only for the first process, too.
pub(super) fn for_all(place: &Path) -> bool {
    let here = statvfs(place).is_ok_and(|it| it.f_flag.contains(StatVfsMountFlags::RDONLY));
    let mounts = || files::read_text(Path::new("/proc/1/mountinfo")).ok();
    here && mounts().is_some_and(|mounts| is_in(&mounts, place))
}

/// Returns whether the mount that covers a place is read-only (proc_pid_mountinfo(5)). The root of
/// a process is often mounted read-only for this process alone: it only counts if the file system
/// itself is read-only.
fn is_in(mounts: &str, place: &Path) -> bool {
    let read = |line: &str| {
        let mut fields = line.split(' ');
        let (point, options) = (unescaped(fields.nth(4)?), fields.next()?);
        let of_all = line.split_once(" - ")?.1.split(' ').nth(2)?;
        let has = |options: &str| options.split(',').any(|it| it == "ro");
        let is_root = point == Path::new("/");
        let read_only = has(of_all) || (has(options) && !is_root);
        place.starts_with(&point).then(|| (point.components().count(), read_only))
    };
    // Of several at one point the last one covers the others.
    mounts.lines().filter_map(read).max_by_key(|(length, _)| *length).is_some_and(|it| it.1)
}

fn unescaped(path: &str) -> PathBuf {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(path.to_owned(), |path, (code, it)| path.replace(code, it)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_that_covers_a_place_decides() {
        let mounts = "\
21 1 0:29 / / ro,relatime shared:1 - overlay overlay rw,lowerdir=x
22 21 8:1 /var/lib/kubelet/pods/a/cm /etc/lodestar ro,relatime master:2 - ext4 /dev/a rw
23 22 8:1 /x /etc/lodestar/state rw - ext4 /dev/a rw
24 21 8:2 / /with\\040space rw - ext4 /dev/b rw
25 21 8:3 / /with\\040space rw - squashfs /dev/c ro,errors=continue
26 21 0:9 / /etc/lodestar-too rw - tmpfs ro-name rw,noro
";
        for (place, read_only) in [
            ("/etc/passwd", false),
            ("/etc/lodestar", true),
            ("/etc/lodestar/..data/modules.yaml", true),
            ("/etc/lodestar/state/x", false),
            ("/etc/lodestar-too", false),
            ("/with space/x", true),
        ] {
            assert_eq!(is_in(mounts, Path::new(place)), read_only, "{place}");
        }
        assert!(!is_in("", Path::new("/")));
        assert!(!for_all(&std::env::temp_dir()));
    }
}

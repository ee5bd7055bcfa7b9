//! Whether somebody else may write a file that decides what runs: one rule for the configuration,
//! the module path, libraries, packages, keys, secrets, the state directory and the control socket.

use std::{
    fmt,
    fs::Metadata,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use crate::files;

/// Who may write besides the owner, which is this user or root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Also {
    /// Nobody: what the daemon wrote itself, or what says whom it trusts.
    Nobody,
    /// The primary group of this user, and root's: where the usual mask is 002 the former is the
    /// user's alone, and whatever a person builds can be written by it.
    OwnGroup,
}

/// Somebody else who can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stranger {
    /// The owner, by number.
    Owner(u32),
    /// By this mode, the last nine bits.
    Mode(u32),
}

/// Who can write besides this user, root and `also`. Links are for the caller to judge.
#[must_use]
pub fn of(metadata: &Metadata, also: Also) -> Option<Stranger> {
    let me = rustix::process::geteuid().as_raw();
    let mine = rustix::process::getegid().as_raw();
    judge((metadata.uid(), metadata.gid(), metadata.mode()), also, (me, mine))
}

fn judge(file: (u32, u32, u32), also: Also, (me, mine): (u32, u32)) -> Option<Stranger> {
    let (owner, group, mode) = file;
    let forbidden = match also {
        Also::OwnGroup if group == mine || group == 0 => 0o002,
        Also::OwnGroup | Also::Nobody => 0o022,
    };
    if owner != 0 && owner != me {
        Some(Stranger::Owner(owner))
    } else if mode & forbidden != 0 {
        Some(Stranger::Mode(mode & 0o777))
    } else {
        None
    }
}

/// A place on the way to a file that somebody else can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposed {
    /// The place.
    pub path: PathBuf,
    /// Who can.
    pub stranger: Stranger,
    /// Whether its group is one that may.
    group_may: bool,
}

impl Exposed {
    fn new(path: &Path, metadata: &Metadata, also: Also, stranger: Stranger) -> Self {
        let mine = rustix::process::getegid().as_raw();
        let group_may = also == Also::OwnGroup && [mine, 0].contains(&metadata.gid());
        Self { path: path.to_owned(), stranger, group_may }
    }

    /// The command that mends it.
    #[must_use]
    pub fn remedy(&self) -> String {
        let path = self.path.display();
        match self.stranger {
            Stranger::Owner(_) => {
                let me = rustix::process::geteuid();
                let me = if me.is_root() { "root".to_owned() } else { me.as_raw().to_string() };
                format!("chown -h {me} {path}")
            }
            Stranger::Mode(_) if self.group_may => format!("chmod o-w {path}"),
            Stranger::Mode(_) => format!("chmod go-w {path}"),
        }
    }
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path.display(), self.stranger)
    }
}

/// The first place that somebody else can change among those that decide what a path leads to: its
/// directories, its links and what it names. What is missing, or hidden from this user, is not
/// judged.
#[must_use]
pub fn on_the_way(path: &Path, also: Also) -> Option<Exposed> {
    let places = files::places(path);
    let (last, above) = places.split_last()?;
    let above = above.iter().find_map(|place| exposed(place, also, Role::Above));
    above.or_else(|| exposed(last, also, Role::Named))
}

/// The same without what the path names.
#[must_use]
pub fn above(path: &Path, also: Also) -> Option<Exposed> {
    let places = files::places(path);
    let (_, above) = places.split_last()?;
    above.iter().find_map(|place| exposed(place, also, Role::Above))
}

/// The same of one place that is open: what is judged is what was opened, wherever its name leads.
#[must_use]
pub fn opened(place: &Path, metadata: &Metadata, also: Also) -> Option<Exposed> {
    Some(Exposed::new(place, metadata, also, of(metadata, also)?))
}

/// What a place is to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A directory or a link that leads to it.
    Above,
    /// What it names.
    Named,
}

fn exposed(place: &Path, also: Also, role: Role) -> Option<Exposed> {
    let metadata = place.symlink_metadata().ok()?;
    if !metadata.is_file() && !metadata.is_dir() && !metadata.is_symlink() {
        // A device or a pipe is not read at all.
        return None;
    }
    let stranger = match of(&metadata, also)? {
        // The kernel ignores the mode of a link.
        Stranger::Mode(_) if metadata.is_symlink() => return None,
        // In a directory such as /tmp nobody can replace the file of another.
        Stranger::Mode(_) if role == Role::Above && metadata.mode() & 0o1000 != 0 => return None,
        Stranger::Owner(owner) if role == Role::Above && is_root_of_outside(owner) => return None,
        stranger => stranger,
    };
    Some(Exposed::new(place, &metadata, also, stranger))
}

/// Whether an owner is one that this user namespace has no number for, as root's directories show
/// in a container without root.
fn is_root_of_outside(owner: u32) -> bool {
    static UNKNOWN: OnceLock<Option<u32>> = OnceLock::new();
    let unknown = UNKNOWN.get_or_init(|| {
        let read = |file| files::read_text(Path::new(file)).ok();
        let map = read("/proc/self/uid_map")?;
        let is_whole = map.split_whitespace().eq(["0", "0", "4294967295"]);
        let unknown = read("/proc/sys/fs/overflowuid")?.trim().parse().ok()?;
        (!is_whole).then_some(unknown)
    });
    *unknown == Some(owner)
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner(owner) => write!(f, "belongs to another user ({owner})"),
            Self::Mode(mode) => write!(f, "can be written by others (mode {mode:o})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_group_may_be_let_in() {
        let me = (1000, 1000);
        let check = |file, nobody: Option<Stranger>, own_group: Option<Stranger>| {
            assert_eq!(judge(file, Also::Nobody, me), nobody, "{file:?}");
            assert_eq!(judge(file, Also::OwnGroup, me), own_group, "{file:?}");
        };
        check((1000, 1000, 0o100_600), None, None);
        check((0, 0, 0o100_755), None, None);
        check((0, 1000, 0o040_775), Some(Stranger::Mode(0o775)), None);
        check((1000, 1000, 0o100_664), Some(Stranger::Mode(0o664)), None);
        let by_another_group = Some(Stranger::Mode(0o664));
        check((1000, 100, 0o100_664), by_another_group, by_another_group);
        let by_all = Some(Stranger::Mode(0o666));
        check((1000, 1000, 0o100_666), by_all, by_all);
        let foreign = Some(Stranger::Owner(33));
        check((33, 1000, 0o100_600), foreign, foreign);
    }

    #[test]
    fn says_what_it_saw() {
        let (owner, mode) = (Stranger::Owner(33), Stranger::Mode(0o646));
        assert_eq!(owner.to_string(), "belongs to another user (33)");
        assert_eq!(mode.to_string(), "can be written by others (mode 646)");
    }

    #[test]
    fn every_place_on_the_way_counts() {
        use std::{
            fs::{self, Permissions},
            os::unix::fs::{PermissionsExt as _, symlink},
        };
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = directory.path().canonicalize().expect("it is there");
        let (above_it, file, link) = (root.join("a"), root.join("a/file"), root.join("link"));
        fs::create_dir(&above_it).expect("it is new");
        fs::write(&file, "").expect("it is writable");
        // The mode of a link is 777, and means nothing.
        symlink("a/file", &link).expect("it is new");
        let found = |path: &Path| {
            let exposed = on_the_way(path, Also::OwnGroup);
            exposed.map(|it| (it.remedy(), it.to_string()))
        };
        let set = |path: &Path, mode: u32| {
            fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
        };
        assert_eq!(found(&link), None);
        for (mode, is_open) in [(0o775, false), (0o777, true), (0o1777, false), (0o755, false)] {
            set(&above_it, mode);
            for path in [&file, &link] {
                assert_eq!(found(path).is_some(), is_open, "{mode:o}");
            }
        }
        set(&above_it, 0o777);
        let (remedy, said) = found(&link).expect("it is open");
        assert_eq!(remedy, format!("chmod o-w {}", above_it.display()));
        assert_eq!(said, format!("{} can be written by others (mode 777)", above_it.display()));
        assert_eq!(above(&above_it, Also::OwnGroup), None, "itself is not meant");
        // A sticky directory protects what lies in it, and is open itself.
        set(&above_it, 0o1777);
        assert!(found(&above_it).is_some());
        set(&above_it, 0o755);
        set(&file, 0o646);
        assert!(found(&link).is_some_and(|(remedy, _)| remedy.ends_with("/a/file")));
        assert_eq!(found(&root.join("missing/file")), None);
    }
}

//! Checks whether another user may write a file that decides what runs. The same rule holds for the
//! configuration, the module path, libraries, packages, keys, secrets, the state directory and the
//! control socket.

use std::{
    borrow::Cow,
    collections::HashMap,
    fmt,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

use crate::{
    accounts,
    files::{self, Place},
};

mod accepted;
mod acl;
mod read_only;

pub use accepted::Accepted;

/// Accounts that may write besides the owner, which is this user or root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Also {
    /// No other account: for files that the daemon wrote itself or that say whom it trusts.
    Nobody,
    /// The primary group of this user, and root's: where the usual umask is 002, the former belongs
    /// to the user alone and can write all files that the user creates.
    OwnGroup,
}

/// An account outside the trusted ones that can write a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stranger {
    /// Another owner, by number.
    Owner(u32),
    /// Group or others by this mode, the last nine bits.
    Mode(u32),
    /// User of the access list, by number.
    ListedUser(u32),
    /// Group of the access list, by number.
    ListedGroup(u32),
}

/// Returns an account that can write a place besides this user, root, `also` and those that the
/// operator accepts. The caller checks symbolic links itself.
#[must_use]
pub fn of(place: &Path, metadata: &Metadata, also: Also) -> Option<Stranger> {
    all(place, metadata, &Allowed::new(also)).first().copied()
}

/// Returns all accounts outside the allowed ones that can write a place. On a read-only file system
/// only the owner counts.
fn all(place: &Path, metadata: &Metadata, allowed: &Allowed) -> Vec<Stranger> {
    let mut found = judge(&Facts::new(place, metadata), allowed);
    let is_mode = |it: &Stranger| !matches!(it, Stranger::Owner(_));
    if found.iter().any(is_mode) && read_only::for_all(place) {
        found.retain(|it| !is_mode(it));
    }
    found
}

/// Facts that determine who can write a file.
#[derive(Debug)]
struct Facts {
    owner: u32,
    group: u32,
    mode: u32,
    listed: acl::Writers,
}

impl Facts {
    fn new(place: &Path, metadata: &Metadata) -> Self {
        let mode = metadata.mode();
        // With an access list, the bits of the group are the mask of all that it lists.
        let listed = (mode & 0o020 != 0 && !metadata.is_symlink()).then(|| acl::writers(place));
        let by_mode = acl::Writers { own_group: mode & 0o020 != 0, ..Default::default() };
        let listed = listed.flatten().unwrap_or(by_mode);
        Self { owner: metadata.uid(), group: metadata.gid(), mode, listed }
    }
}

/// Accounts that may write.
#[derive(Debug, Clone)]
struct Allowed {
    users: Vec<u32>,
    groups: Vec<u32>,
    everyone: bool,
}

impl Allowed {
    fn new(also: Also) -> Self {
        let me = rustix::process::geteuid().as_raw();
        let mine = rustix::process::getegid().as_raw();
        Self::by(also, (me, mine), Accepted::current())
    }

    fn by(also: Also, (me, mine): (u32, u32), accepted: Accepted) -> Self {
        let Accepted { everyone, owners: mut users, mut groups } = accepted;
        users.extend([0, me]);
        match also {
            Also::OwnGroup => groups.extend([0, mine]),
            Also::Nobody => {}
        }
        Self { users, groups, everyone }
    }
}

fn judge(file: &Facts, allowed: &Allowed) -> Vec<Stranger> {
    if allowed.everyone {
        return Vec::new();
    }
    let owner = (!allowed.users.contains(&file.owner)).then_some(Stranger::Owner(file.owner));
    let by_group = file.listed.own_group && !allowed.groups.contains(&file.group);
    let mode = (by_group || file.mode & 0o002 != 0).then_some(Stranger::Mode(file.mode & 0o777));
    let users = file.listed.users.iter().filter(|it| !allowed.users.contains(it));
    let groups = file.listed.groups.iter().filter(|it| !allowed.groups.contains(it));
    let listed = users.map(|it| Stranger::ListedUser(*it));
    let listed = listed.chain(groups.map(|it| Stranger::ListedGroup(*it)));
    owner.into_iter().chain(mode).chain(listed).collect()
}

/// A place on the way to a file that an untrusted account can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposed {
    /// The place.
    pub path: PathBuf,
    /// The untrusted account.
    pub stranger: Stranger,
    /// `true` when the group of the place is one that may write.
    group_may: bool,
    /// Accounts that the operator would have to accept if the place cannot be corrected for good.
    acceptable: Option<Accepted>,
}

impl Exposed {
    fn new(
        path: &Path,
        metadata: &Metadata,
        allowed: &Allowed,
        file_trust: &[Stranger],
    ) -> Option<Self> {
        let stranger = *file_trust.first()?;
        let group_may = allowed.groups.contains(&metadata.gid());
        // Who mounts a volume decides anew each time whose it is.
        let is_ours = metadata.uid() == rustix::process::geteuid().as_raw();
        let acceptable = (!is_ours || is_mount(path)).then(|| acceptable(metadata, file_trust));
        Some(Self { path: path.to_owned(), stranger, group_may, acceptable })
    }

    /// Returns the remedy: the command that corrects the place; for root, if the place belongs to
    /// another user, the user to start lodestard as; and, if a correction may be impossible or
    /// undone, the argument that accepts the place.
    #[must_use]
    pub fn remedy(&self) -> String {
        let mut mend = format!("run `{}`", self.command());
        if let (Stranger::Owner(owner), true) =
            (self.stranger, rustix::process::geteuid().is_root())
        {
            let owner = accounts::user_name(owner).unwrap_or_else(|| format!("user {owner}"));
            mend = format!("start lodestard as {owner} instead of root, or {mend}");
        }
        self.acceptable.as_ref().map_or_else(
            || mend.clone(),
            |it| format!("{mend}, or accept it by `--trust-files={it}` (LODESTAR_TRUST_FILES)"),
        )
    }

    fn command(&self) -> String {
        let path = self.path.display();
        match self.stranger {
            Stranger::Owner(_) => {
                let me = rustix::process::geteuid();
                let me = if me.is_root() { "root".to_owned() } else { me.as_raw().to_string() };
                format!("chown -h {me} {path}")
            }
            Stranger::Mode(mode) => {
                let by_group = mode & 0o020 != 0 && !self.group_may;
                let who = match (by_group, mode & 0o002 != 0) {
                    (true, true) => "go",
                    (true, false) => "g",
                    (false, _) => "o",
                };
                format!("chmod {who}-w {path}")
            }
            Stranger::ListedUser(user) => format!("setfacl -x u:{user} {path}"),
            Stranger::ListedGroup(group) => format!("setfacl -x g:{group} {path}"),
        }
    }
}

/// Returns the accounts to accept for a place, including those already accepted.
fn acceptable(metadata: &Metadata, file_trust: &[Stranger]) -> Accepted {
    let mut needed = Accepted::default();
    for stranger in file_trust {
        match *stranger {
            Stranger::Owner(user) | Stranger::ListedUser(user) => needed.owners.push(user),
            Stranger::Mode(mode) if mode & 0o002 != 0 => needed.everyone = true,
            Stranger::Mode(_) => needed.groups.push(metadata.gid()),
            Stranger::ListedGroup(group) => needed.groups.push(group),
        }
    }
    if needed.everyone {
        return Accepted { everyone: true, ..Accepted::default() };
    }
    Accepted::current().and(needed)
}

/// Returns whether a place is a mount point.
fn is_mount(place: &Path) -> bool {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    statx(CWD, place, flags, StatxFlags::empty())
        .is_ok_and(|it| it.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path.display(), self.stranger)
    }
}

/// Returns the first place that an untrusted account can change among those that decide what a path
/// leads to: its directories, its links and its target. Missing places, and those that this user
/// cannot see, are skipped.
#[must_use]
pub fn on_the_way(path: &Path, also: Also) -> Option<Exposed> {
    Survey::new(also).on_the_way(path)
}

/// A check of many paths at one moment. A place on the way of several is read and judged once.
#[derive(Debug)]
pub struct Survey {
    allowed: Allowed,
    places: HashMap<PathBuf, Surveyed>,
}

/// A place as a survey found it.
#[derive(Debug)]
struct Surveyed {
    place: Place,
    metadata: Option<Metadata>,
    /// Verdicts on it as a place on the way, and as the one that is named.
    verdicts: [Option<Option<Exposed>>; 2],
}

impl Survey {
    /// Begins a survey, which has seen nothing yet.
    #[must_use]
    pub fn new(also: Also) -> Self {
        Self { allowed: Allowed::new(also), places: HashMap::new() }
    }

    /// Returns the first exposed place on the way of a path, as [`on_the_way`] does.
    pub fn on_the_way(&mut self, path: &Path) -> Option<Exposed> {
        let places = self.places(path);
        let (last, above) = places.split_last()?;
        let above = above.iter().find_map(|place| self.exposed(place, Role::Above));
        above.or_else(|| self.exposed(last, Role::Named))
    }

    /// Returns the first such place without the target of the path.
    pub fn above(&mut self, path: &Path) -> Option<Exposed> {
        let places = self.places(path);
        let (_, above) = places.split_last()?;
        above.iter().find_map(|place| self.exposed(place, Role::Above))
    }

    fn places(&mut self, path: &Path) -> Vec<PathBuf> {
        files::places_by(path, |place| self.seen(place).place.clone())
    }

    fn seen(&mut self, place: &Path) -> &mut Surveyed {
        self.places.entry(place.to_owned()).or_insert_with(|| Surveyed::now(place))
    }

    fn exposed(&mut self, place: &Path, role: Role) -> Option<Exposed> {
        let index = usize::from(role == Role::Named);
        let seen = self.seen(place);
        if let Some(verdict) = &seen.verdicts[index] {
            return verdict.clone();
        }
        let metadata = seen.metadata.clone();
        let verdict = metadata.and_then(|it| exposed(place, &it, &self.allowed, role));
        self.seen(place).verdicts[index] = Some(verdict.clone());
        verdict
    }
}

impl Surveyed {
    fn now(place: &Path) -> Self {
        let (metadata, place) = match place.symlink_metadata() {
            Ok(metadata) if metadata.is_symlink() => {
                let target = fs::read_link(place).map_or(Place::Other, Place::Link);
                (Some(metadata), target)
            }
            Ok(metadata) => (Some(metadata), Place::Other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (None, Place::Missing),
            Err(_) => (None, Place::Other),
        };
        Self { place, metadata, verdicts: [None, None] }
    }
}

/// Returns the first such place as [`on_the_way`] does, without the target of the path.
#[must_use]
pub fn above(path: &Path, also: Also) -> Option<Exposed> {
    Survey::new(also).above(path)
}

/// Checks one open place: the check covers the file that was opened, wherever its name leads now.
#[must_use]
pub fn opened(place: &Path, metadata: &Metadata, also: Also) -> Option<Exposed> {
    let allowed = Allowed::new(also);
    Exposed::new(place, metadata, &allowed, &all(place, metadata, &allowed))
}

/// Role of a place for a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A directory or a link on the way.
    Above,
    /// The target of the path.
    Named,
}

fn exposed(place: &Path, metadata: &Metadata, allowed: &Allowed, role: Role) -> Option<Exposed> {
    if !metadata.is_file() && !metadata.is_dir() && !metadata.is_symlink() {
        // A device or a pipe is not read at all.
        return None;
    }
    let mut allowed = Cow::Borrowed(allowed);
    let is_above = role == Role::Above;
    let is_outside = is_above && is_root_of_outside(metadata.uid());
    let of_group = is_above && metadata.is_dir() && metadata.mode() & 0o020 != 0;
    let is_strange = of_group && metadata.uid() == 0 && !allowed.groups.contains(&metadata.gid());
    if is_strange && accounts::is_vacant(metadata.gid()) {
        // /usr/local of Debian, for instance, is open to `staff`.
        allowed.to_mut().groups.push(metadata.gid());
    }
    let mut found = all(place, metadata, &allowed);
    // The kernel ignores the mode of a link, and in a directory such as /tmp nobody can replace the
    // file of another.
    let is_harmless = metadata.is_symlink() || (is_above && metadata.mode() & 0o1000 != 0);
    found.retain(|stranger| match stranger {
        Stranger::Owner(_) => !is_outside,
        _ => !is_harmless && !is_outside,
    });
    Exposed::new(place, metadata, &allowed, &found)
}

/// Returns whether an owner has no number in this user namespace, as the owner of root's
/// directories in a container without root.
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
            Self::ListedUser(user) => {
                write!(f, "can be written by another user ({user}, by its access list)")
            }
            Self::ListedGroup(group) => {
                write!(f, "can be written by another group ({group}, by its access list)")
            }
        }
    }
}

#[cfg(test)]
mod tests;

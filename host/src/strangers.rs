//! Whether somebody else may write a file that decides what runs: one rule for libraries, packages,
//! installed modules and keys.

use std::{fmt, fs::Metadata, os::unix::fs::MetadataExt as _};

/// Who may write besides the owner, which is this user or root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Also {
    /// Nobody: what the daemon wrote itself, or what says whom it trusts.
    Nobody,
    /// The primary group of this user: where the usual mask is 002 that group is the user's alone,
    /// and whatever a person builds can be written by it.
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
        Also::OwnGroup if group == mine => 0o002,
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
}

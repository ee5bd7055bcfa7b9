//! Access control of the control socket.
//!
//! The mode of the socket keeps other users out already; this is a second check, for a socket whose
//! mode somebody widened. And it is the only one against a module in a process of its own, whose
//! user is the daemon's (adr/0040).

use std::{os::fd::OwnedFd, path::Path};

use axum::{
    extract::{Extension, Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use lodestar_api::{Problem, ProblemCode};
use lodestar_platform::{accounts, files};
use nix::{
    errno::Errno,
    sys::socket::{getsockopt, sockopt::PeerPidfd},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::Pid,
};
use tokio::net::UnixStream;

use crate::{refusal::Refusal, runner::is_marked};

/// The process at the other end of the socket, as the kernel tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its effective user; `None` when the kernel does not tell.
    pub user: Option<u32>,
    /// Its effective group.
    pub group: Option<u32>,
    /// Origin of the program that it runs.
    pub origin: Origin,
}

/// Origin of the program that a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A module, or a process that a module started.
    Module,
    /// Another process. So is one in a process namespace that is not below the daemon's: no module
    /// gets there.
    Other,
    /// An unknown process: it is gone, or `/proc` does not show it.
    Unknown,
}

impl Peer {
    /// Returns the peer of a connection.
    pub(super) fn of(stream: &UnixStream) -> Self {
        let credentials = stream.peer_cred().ok();
        let number = credentials.as_ref().and_then(tokio::net::unix::UCred::pid);
        Self {
            user: credentials.as_ref().map(tokio::net::unix::UCred::uid),
            group: credentials.as_ref().map(tokio::net::unix::UCred::gid),
            origin: number.and_then(Pid::from_raw).map_or(Origin::Other, |it| origin(stream, it)),
        }
    }
}

/// Finds the origin of the process that connected, `number`, once for all requests of the
/// connection: some 50 µs. Before Linux 6.5 a module could have its number go to another process
/// before that.
fn origin(stream: &UnixStream, number: Pid) -> Origin {
    let handle = match getsockopt(stream, PeerPidfd) {
        Ok(handle) => Some(handle),
        Err(Errno::ENOPROTOOPT) => None,
        Err(_) => return Origin::Unknown,
    };
    match is_marked(number) {
        Some(true) => Origin::Module,
        // While it lives its number is its own: what was just read is true of it.
        Some(false) if handle.as_ref().is_none_or(lives) => Origin::Other,
        _ => Origin::Unknown,
    }
}

fn lives(process: &OwnedFd) -> bool {
    let mut ended = [PollFd::new(process, PollFlags::IN)];
    poll(&mut ended, Some(&Timespec::default())) == Ok(0)
}

pub(super) async fn check(
    State(group): State<u32>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let own = rustix::process::geteuid().as_raw();
    let (what, help) = if let Some(words) = stranger(peer, own) {
        words
    } else if is_allowed(peer, own, group, &groups_file()) {
        return next.run(request).await;
    } else {
        (
            "only the daemon's user, its group and root may use the control socket",
            "run the command as that user, or join the daemon's group",
        )
    };
    let Peer { user, origin, .. } = peer;
    tracing::warn!(user, ?origin, "refused a client of the control socket");
    Refusal(Problem::new(ProblemCode::Refused, what).help(help)).into_response()
}

/// Returns why a process may not use the socket, whoever its user is, and what to do.
fn stranger(peer: Peer, own_user: u32) -> Option<(&'static str, &'static str)> {
    match peer.origin {
        Origin::Module => Some((
            "a module in a process of its own, and what it starts, may not use the control socket",
            "ask the daemon from outside of the module, or let it ask over TCP (`control.listen`), \
             with a token that the operator gives it",
        )),
        // Whoever has another user is no module.
        Origin::Unknown if peer.user == Some(own_user) => Some((
            "the process that connected has ended, or cannot be told from a module's",
            "keep it until the answer is there, and see that lodestard's /proc shows it",
        )),
        Origin::Unknown | Origin::Other => None,
    }
}

/// Returns whether a peer may use the socket: root, the daemon's user, and members of the daemon's
/// group where that is not root's. `groups` is the text of `/etc/group`.
#[must_use]
pub fn is_allowed(peer: Peer, own_user: u32, own_group: u32, groups: &str) -> bool {
    let Some(user) = peer.user else { return false };
    if user == 0 || user == own_user {
        return true;
    }
    if own_group == 0 {
        return false;
    }
    peer.group == Some(own_group) || is_member(user, own_group, groups)
}

fn groups_file() -> String {
    files::read_text(Path::new("/etc/group")).unwrap_or_default()
}

fn is_member(user: u32, group: u32, groups: &str) -> bool {
    let Some(name) = accounts::user_name(user) else { return false };
    groups.lines().any(|line| {
        let mut fields = line.split(':');
        let number = fields.nth(2).and_then(|number| number.parse::<u32>().ok());
        number == Some(group)
            && fields.next().is_some_and(|members| members.split(',').any(|member| member == name))
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::process::{PidfdFlags, pidfd_open};

    use super::*;

    #[test]
    fn lets_in_who_belongs() {
        let origin = Origin::Other;
        let peer = |user, group| Peer { user: Some(user), group: Some(group), origin };
        let check = |peer, expected| assert_eq!(is_allowed(peer, 990, 980, ""), expected);
        check(peer(0, 0), true);
        check(peer(990, 1), true);
        check(peer(1000, 980), true);
        check(peer(1000, 1000), false);
        check(Peer { user: None, group: None, origin }, false);
        assert!(!is_allowed(peer(1000, 0), 0, 0, ""));
    }

    #[test]
    fn keeps_modules_out_and_who_may_be_one() {
        let check = |user, origin, out: bool| {
            let peer = Peer { user: Some(user), group: Some(980), origin };
            assert_eq!(stranger(peer, 990).is_some(), out, "{peer:?}");
        };
        check(990, Origin::Other, false);
        check(990, Origin::Module, true);
        check(0, Origin::Module, true);
        check(990, Origin::Unknown, true);
        check(1000, Origin::Unknown, false);
    }

    #[tokio::test]
    async fn a_process_that_has_ended_is_unknown() {
        let mut child = Command::new("sleep").arg("1000").spawn().expect("there is such a program");
        let number = Pid::from_child(&child);
        let handle = pidfd_open(number, PidfdFlags::empty()).expect("it lives");
        assert!(lives(&handle));
        child.kill().and_then(|()| child.wait()).expect("it is our child");
        assert!(!lives(&handle));
        let (own, _other) = UnixStream::pair().expect("a descriptor is free");
        assert_eq!(origin(&own, number), Origin::Unknown);
        assert_eq!(origin(&own, rustix::process::getpid()), Origin::Other);
    }

    #[test]
    fn reads_the_members_of_a_group() {
        let groups = "adm:x:4:syslog\nlodestar:x:980:daemon,other\n";
        assert!(is_member(1, 980, groups), "user 1 is called daemon");
        assert!(!is_member(1, 4, groups));
    }
}

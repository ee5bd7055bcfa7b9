//! Who may use the control socket.
//!
//! The mode of the socket keeps others out already; this is the second lock, for a socket whose
//! mode somebody widened.

use axum::{
    extract::{ConnectInfo, Request, State, connect_info::Connected},
    middleware::Next,
    response::{IntoResponse as _, Response},
    serve::IncomingStream,
};
use tokio::net::UnixListener;

use super::{
    api::{Problem, ProblemCode},
    problem::Refusal,
};

/// The process at the other end of the socket, as the kernel tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its effective user; `None` when the kernel does not tell.
    pub user: Option<u32>,
    /// Its effective group.
    pub group: Option<u32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let credentials = stream.io().peer_cred().ok();
        Self {
            user: credentials.as_ref().map(tokio::net::unix::UCred::uid),
            group: credentials.as_ref().map(tokio::net::unix::UCred::gid),
        }
    }
}

pub(super) async fn check(
    State(group): State<u32>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let own = rustix::process::geteuid().as_raw();
    if is_allowed(peer, own, group, &groups_file()) {
        return next.run(request).await;
    }
    tracing::warn!(user = peer.user, "refused a client of the control socket");
    let problem = Problem::new(
        ProblemCode::Refused,
        "only the daemon's user, its group and root may use the control socket",
    );
    Refusal(problem.help("run the command as that user, or join the daemon's group"))
        .into_response()
}

/// Whether a peer may: root, the daemon's user, and members of the daemon's group where that is
/// not root's. `groups` is the text of `/etc/group`.
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
    std::fs::read_to_string("/etc/group").unwrap_or_default()
}

fn is_member(user: u32, group: u32, groups: &str) -> bool {
    let Some(name) = user_name(user) else { return false };
    groups.lines().any(|line| {
        let mut fields = line.split(':');
        let number = fields.nth(2).and_then(|number| number.parse::<u32>().ok());
        number == Some(group)
            && fields.next().is_some_and(|members| members.split(',').any(|member| member == name))
    })
}

fn user_name(user: u32) -> Option<String> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(user)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lets_in_who_belongs() {
        let peer = |user, group| Peer { user: Some(user), group: Some(group) };
        let check = |peer, expected| assert_eq!(is_allowed(peer, 990, 980, ""), expected);
        check(peer(0, 0), true);
        check(peer(990, 1), true);
        check(peer(1000, 980), true);
        check(peer(1000, 1000), false);
        check(Peer { user: None, group: None }, false);
        assert!(!is_allowed(peer(1000, 0), 0, 0, ""));
    }

    #[test]
    fn reads_the_members_of_a_group() {
        let groups = "adm:x:4:syslog\nlodestar:x:980:daemon,other\n";
        assert!(is_member(1, 980, groups), "user 1 is called daemon");
        assert!(!is_member(1, 4, groups));
    }
}

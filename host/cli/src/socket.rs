//! The search for the daemon's socket, and the reason if the daemon cannot be reached there.

use std::{
    ffi::OsString,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use lodestar_platform::accounts;
use tokio::net::UnixStream;

use crate::error::{CliError, Result};

/// Path of the service's socket.
const SYSTEM_SOCKET: &str = "/run/lodestar/control.sock";

/// Returns the sockets to try: the named one only, or the person's, then the service's.
pub(crate) fn candidates(
    named: Option<&Path>,
    env: &dyn Fn(&str) -> Option<OsString>,
) -> Vec<PathBuf> {
    if let Some(path) = named {
        return vec![path.to_owned()];
    }
    let directory = |name: &str| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let own = match directory("XDG_RUNTIME_DIR") {
        Some(runtime) => Some(runtime.join("lodestar/control.sock")),
        None => directory("HOME").map(|home| home.join(".lodestar/control.sock")),
    };
    own.into_iter().chain([PathBuf::from(SYSTEM_SOCKET)]).collect()
}

/// Connects to the first candidate that answers.
///
/// # Errors
///
/// When no candidate answers: the error names the sockets that were tried and how to start the
/// daemon, or whom a socket admits.
pub(crate) async fn connect(candidates: &[PathBuf]) -> Result<(UnixStream, &Path)> {
    let mut denied = None;
    for path in candidates {
        match UnixStream::connect(path).await {
            Ok(stream) => return Ok((stream, path)),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                denied = denied.or(Some(path));
            }
            Err(_) => {}
        }
    }
    Err(match denied {
        Some(path) => permission_denied(path),
        None => not_running(candidates),
    })
}

fn not_running(candidates: &[PathBuf]) -> CliError {
    let tried: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
    CliError::not_reachable(format!(
        "lodestard is not running: nobody answers at {}",
        tried.join(" or ")
    ))
    .help(format!(
        "start it with `{}`, or as a service with `sudo systemctl start lodestard`; \
         if it listens elsewhere, name its socket with --socket or LODESTAR_SOCKET",
        start_command()
    ))
}

/// Returns the command that starts `lodestard`: its path if it lies beside this program and not on
/// the `PATH`.
fn start_command() -> String {
    let beside = crate::daemon_executable();
    let on_path = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|directory| directory.join("lodestard").is_file())
    });
    match beside {
        Some(executable) if !on_path => executable.display().to_string(),
        _ => "lodestard".to_owned(),
    }
}

fn permission_denied(path: &Path) -> CliError {
    let message = format!("you may not talk to lodestard at {}", path.display());
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        let directory = path.parent().unwrap_or(path).display();
        return CliError::refused(message).help(format!(
            "its directory {directory} is closed to you: run this as the daemon's user, \
             or join the group `lodestar` and log in again"
        ));
    };
    let (uid, gid) = (metadata.uid(), metadata.gid());
    let group = accounts::group_name(gid).unwrap_or_else(|| gid.to_string());
    let owner = accounts::user_name(uid).unwrap_or_else(|| uid.to_string());
    let help = if metadata.mode() & 0o060 == 0o060 {
        format!("join its group with `sudo usermod -aG {group} $USER` and log in again")
    } else {
        format!("run this as {owner}: the socket admits nobody else")
    };
    CliError::refused(format!(
        "{message}: the socket belongs to {owner}:{group} with mode {:04o}",
        metadata.mode() & 0o7777
    ))
    .help(help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_in_order() {
        let check = |named: Option<&str>, env: &[(&str, &str)], expected: &[&str]| {
            let lookup = |name: &str| {
                env.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
            };
            let found = candidates(named.map(Path::new), &lookup);
            assert_eq!(found, expected.iter().map(PathBuf::from).collect::<Vec<_>>());
        };
        check(Some("/x.sock"), &[("XDG_RUNTIME_DIR", "/run/user/1")], &["/x.sock"]);
        check(
            None,
            &[("XDG_RUNTIME_DIR", "/run/user/1"), ("HOME", "/home/a")],
            &["/run/user/1/lodestar/control.sock", SYSTEM_SOCKET],
        );
        check(None, &[("HOME", "/home/a")], &["/home/a/.lodestar/control.sock", SYSTEM_SOCKET]);
        check(
            None,
            &[("XDG_RUNTIME_DIR", ""), ("HOME", "/home/a")],
            &["/home/a/.lodestar/control.sock", SYSTEM_SOCKET],
        );
        check(None, &[], &[SYSTEM_SOCKET]);
    }

    #[test]
    fn a_closed_socket_says_whom_it_admits() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("control.sock");
        std::fs::write(&path, "").expect("a file");
        let check = |mode: u32, part: &str| {
            use std::os::unix::fs::PermissionsExt as _;
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, permissions).expect("it is ours");
            let error = permission_denied(&path);
            let failure = error.failure().expect("a failure");
            assert_eq!(failure.exit, 4);
            assert!(failure.message.contains(&format!("{mode:04o}")), "{}", failure.message);
            let help = failure.help.as_deref().unwrap_or_default();
            assert!(help.contains(part), "{help}");
        };
        check(0o660, "usermod -aG");
        check(0o600, "run this as ");
    }
}

//! The control socket's place in the file system.

use std::{
    io,
    os::fd::AsRawFd as _,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use lodestar_platform::{
    accounts::group_number,
    file_trust::{self, Also, Exposed},
    state_dir::private_directory,
};
use module_http::{Accepted, Listener};
use tokio::net::UnixListener;

use super::Peer;

/// Listener of the control socket, which identifies the process at the other end.
#[derive(Debug)]
pub(super) struct Control(pub(super) UnixListener);

impl Listener for Control {
    type Stream = tokio::net::UnixStream;
    type Ends = Peer;

    async fn accept(&self) -> io::Result<Accepted<Self::Stream, Peer>> {
        let (stream, _) = self.0.accept().await?;
        let (ends, descriptor) = (Peer::of(&stream), stream.as_raw_fd());
        Ok(Accepted { stream, ends, descriptor })
    }
}

/// Reason why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another daemon that answers at the path.
    #[error(
        "another daemon answers on {}; stop it, or give this one another --socket",
        .0.display()
    )]
    Taken(PathBuf),
    /// A directory in which somebody else could put another socket there.
    #[error(
        "{exposed}, who could put another socket there; {}, or give another --socket",
        .exposed.remedy()
    )]
    Exposed {
        /// The exposed place, with the account that can change it.
        exposed: Exposed,
    },
    /// A file of another kind at the path.
    #[error("{} is no socket; remove it, or give another --socket", .0.display())]
    NoSocket(PathBuf),
    /// A path that is too long for a socket.
    #[error("the path {} has more than 107 bytes; give a shorter --socket", .0.display())]
    TooLong(PathBuf),
    /// A refusal of the system.
    #[error(
        "cannot listen on {}: {}; give a --socket in a directory of this user",
        .0.display(), .1
    )]
    System(PathBuf, #[source] io::Error),
}

/// Length in bytes of the longest path of a Unix socket on Linux.
const MAX_PATH: usize = 107;

/// Binds the control socket, readable by its owner only, or by `group` as well. A stale socket is
/// replaced.
///
/// # Errors
///
/// When a daemon answers there, something else lies there, or the system refuses.
pub fn bind(path: &Path, group: Option<&str>) -> Result<UnixListener, SocketError> {
    let system = |error| SocketError::System(path.to_owned(), error);
    if path.as_os_str().len() > MAX_PATH {
        return Err(SocketError::TooLong(path.to_owned()));
    }
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NoSocket(path.to_owned()));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            return Err(SocketError::Taken(path.to_owned()));
        }
        Ok(_) => std::fs::remove_file(path).map_err(system)?,
        Err(_) => {
            if let Some(parent) = path.parent() {
                private_directory(parent).map_err(system)?;
            }
        }
    }
    if let Some(exposed) = file_trust::above(path, Also::OwnGroup) {
        return Err(SocketError::Exposed { exposed });
    }
    // Bound under another name and moved into place once its mode is right, so that nobody can
    // connect before.
    let temporary = path.with_extension("new");
    drop(std::fs::remove_file(&temporary));
    let listener = UnixListener::bind(&temporary).map_err(system)?;
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(&temporary, permissions).map_err(system)?;
    if let Some(group) = group {
        let number = group_number(group).ok_or_else(|| {
            system(io::Error::other(format!("there is no group {group:?} (control.group)")))
        })?;
        std::os::unix::fs::chown(&temporary, None, Some(number)).map_err(system)?;
    }
    std::fs::rename(&temporary, path).map_err(system)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn replaces_a_stale_socket_and_respects_a_live_one() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("run/control.sock");
        let first = bind(&path, None).expect("it is free");
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(bind(&path, None), Err(SocketError::Taken(_))));
        drop(first);
        bind(&path, None).expect("it is stale");
    }

    #[tokio::test]
    async fn keeps_out_of_a_directory_of_everybody() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("control.sock");
        let set = |mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(directory.path(), mode).expect("it is ours");
        };
        set(0o777);
        let error = bind(&path, None).expect_err("everybody can write there").to_string();
        assert!(error.contains("run `chmod o-w "), "{error}");
        // As /tmp is: nobody can replace the socket.
        set(0o1777);
        bind(&path, None).expect("it is safe there");
    }

    #[tokio::test]
    async fn leaves_what_is_no_socket() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        assert!(matches!(bind(file.path(), None), Err(SocketError::NoSocket(_))));
        let long = Path::new("/tmp").join("x".repeat(200));
        assert!(matches!(bind(&long, None), Err(SocketError::TooLong(_))));
    }
}

//! The part of systemd for a service that restarts: it hears what the daemon says of itself, opens
//! sockets for it, keeps those that the daemon bound, and hands all of them to the next one.

use std::{
    io::IoSliceMut,
    mem::MaybeUninit,
    net::TcpListener,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixDatagram,
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use command_fds::{CommandFdExt as _, FdMapping};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::{Daemon, Sandbox, wait_until};

/// The first descriptor that a service is given.
const FIRST: i32 = 3;
/// Message to the manager itself, to end.
const END: &str = "X_END=1";

/// A service manager for the daemons of one [`Sandbox`].
#[derive(Debug)]
pub struct ServiceManager<'a> {
    sandbox: &'a Sandbox,
    notify: PathBuf,
    heard: Arc<Mutex<Heard>>,
    units: Vec<(String, OwnedFd)>,
}

#[derive(Debug, Default)]
struct Heard {
    ready: usize,
    kept: Vec<(String, OwnedFd)>,
}

impl<'a> ServiceManager<'a> {
    /// Creates a service manager that opens no socket.
    ///
    /// # Panics
    ///
    /// When its own socket cannot be bound.
    #[must_use]
    pub fn new(sandbox: &'a Sandbox) -> Self {
        let notify = sandbox.path("notify");
        let socket = UnixDatagram::bind(&notify).expect("the sandbox is writable");
        let heard = Arc::<Mutex<Heard>>::default();
        let hearing = heard.clone();
        std::thread::spawn(move || while hear(&socket, &hearing) {});
        Self { sandbox, notify, heard, units: Vec::new() }
    }

    /// Opens a socket as a unit with `FileDescriptorName=` does; returns its address.
    ///
    /// # Panics
    ///
    /// When no port is free.
    pub fn open(&mut self, name: &str) -> String {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = socket.local_addr().expect("it is bound").to_string();
        self.units.push((name.to_owned(), socket.into()));
        address
    }

    /// Starts a daemon with all sockets and waits until it is ready.
    ///
    /// # Panics
    ///
    /// When it cannot be started or does not become ready.
    #[must_use]
    pub fn start(&self) -> Daemon<'a> {
        let before = self.heard().ready;
        let mut names = Vec::new();
        let mut mappings = Vec::new();
        for (name, socket) in self.units.iter().chain(&self.heard().kept) {
            let child_fd = FIRST + i32::try_from(names.len()).expect("a few");
            let parent_fd = socket.try_clone().expect("a descriptor is free");
            names.push(name.clone());
            mappings.push(FdMapping { parent_fd, child_fd });
        }
        let daemon = self.sandbox.lodestard();
        // The variable names the very process, which a shell can know of itself before it becomes
        // the daemon.
        let mut command = self.sandbox.isolated(Path::new("/bin/sh"));
        command.args(["-c", r#"export LISTEN_PID=$$; exec "$0" "$@""#]);
        command.arg(daemon.get_program()).args(daemon.get_args());
        command.env("NOTIFY_SOCKET", &self.notify);
        command.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        command.fd_mappings(mappings).expect("each has a number of its own");
        let daemon = Daemon::spawn(self.sandbox, command);
        wait_until("the daemon is ready", || {
            assert!(daemon.lives(), "{}", daemon.log());
            (self.heard().ready > before).then_some(())
        });
        daemon
    }

    /// Returns the names of the sockets that it keeps, with their addresses.
    #[must_use]
    pub fn kept(&self) -> Vec<(String, String)> {
        let address = |socket: &OwnedFd| {
            let socket = TcpListener::from(socket.try_clone().expect("a descriptor is free"));
            socket.local_addr().expect("it is bound").to_string()
        };
        let kept = &self.heard().kept;
        kept.iter().map(|(name, socket)| (name.clone(), address(socket))).collect()
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ServiceManager<'_> {
    fn drop(&mut self) {
        let told = UnixDatagram::unbound().and_then(|it| it.send_to(END.as_bytes(), &self.notify));
        drop(told);
    }
}

/// Takes one message; returns whether more may come.
fn hear(socket: &UnixDatagram, heard: &Mutex<Heard>) -> bool {
    let mut text = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let into = &mut [IoSliceMut::new(&mut text)];
    let got = recvmsg(socket.as_fd(), into, &mut control, RecvFlags::CMSG_CLOEXEC);
    let Ok(got) = got else { return false };
    let mut sockets = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            sockets.extend(received);
        }
    }
    let text = String::from_utf8_lossy(&text[..got.bytes]).into_owned();
    let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
    let says = |line: &str| text.lines().any(|it| it == line);
    let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or("stored");
    if says("FDSTOREREMOVE=1") {
        heard.kept.retain(|(known, _)| known != name);
    }
    if says("FDSTORE=1") {
        let known = heard.kept.len();
        heard.kept.extend(sockets.into_iter().map(|socket| (name.to_owned(), socket)));
        drop_known(&mut heard.kept, known);
    }
    heard.ready += usize::from(says("READY=1"));
    !says(END)
}

/// Drops sockets after the first `known` that are one of them once more, as systemd does.
fn drop_known(kept: &mut Vec<(String, OwnedFd)>, known: usize) {
    let inode = |socket: &OwnedFd| rustix::fs::fstat(socket).map(|it| it.st_ino).ok();
    let inodes: Vec<_> = kept[..known].iter().map(|(_, socket)| inode(socket)).collect();
    let mut index = 0;
    kept.retain(|(_, socket)| {
        index += 1;
        index <= known || !inodes.contains(&inode(socket))
    });
}

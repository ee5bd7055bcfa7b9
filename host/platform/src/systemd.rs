//! Communication with systemd: notifications and received descriptors.

use std::{
    os::fd::{AsFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    time::Duration,
};

use rustix::net::{AddressFamily, sockopt};

use sd_notify::NotifyState;

/// Returns the descriptors that systemd opened or kept, with their names. Must be called only once:
/// each call would own the same descriptors.
#[must_use]
pub fn received_descriptors() -> Vec<(String, OwnedFd)> {
    let received = match sd_notify::listen_fds_with_names() {
        Ok(received) => received,
        Err(error) => {
            tracing::error!(%error, "cannot take the sockets that systemd hands over");
            return Vec::new();
        }
    };
    received
        .map(|(descriptor, name)| {
            #[expect(unsafe_code, reason = "descriptors are inherited as numbers")]
            // SAFETY: systemd passed it to this process and nobody else has taken it.
            let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
            (name, descriptor)
        })
        .collect()
}

/// Tells systemd that the daemon is ready.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Sends the daemon's status to systemd, a line for `systemctl status`.
pub fn status(status: &str) {
    notify(&[NotifyState::Status(status)]);
}

/// Tells systemd that the daemon stops.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Tells systemd that the daemon is alive.
pub fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// Returns the period of watchdog notifications: half of systemd's limit.
#[must_use]
pub fn watchdog_period() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

/// Sends a duplicate of a socket to systemd, which passes it to the next daemon if the unit says so
/// (`FileDescriptorStoreMax=`). `name` has no colon.
pub fn keep(name: &str, socket: BorrowedFd<'_>) {
    // A listening socket has no events that would end its keeping.
    let states = [NotifyState::FdStore, NotifyState::FdName(name), NotifyState::Custom("FDPOLL=0")];
    if let Err(error) = sd_notify::notify_with_fds(&states, &[socket]) {
        tracing::warn!(%error, name, "systemd cannot keep a socket over a restart");
    }
}

/// Removes the descriptors of this name from systemd's store.
pub fn forget(name: &str) {
    notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot reach systemd's notification socket");
    }
}

/// Returns whether a descriptor is a Unix socket rather than TCP.
#[must_use]
pub fn is_unix(descriptor: &OwnedFd) -> bool {
    sockopt::socket_domain(descriptor.as_fd()).is_ok_and(|domain| domain == AddressFamily::UNIX)
}

/// Returns whether a descriptor is a listening socket.
#[must_use]
pub fn is_listening(descriptor: &OwnedFd) -> bool {
    sockopt::socket_acceptconn(descriptor.as_fd()).unwrap_or(false)
}

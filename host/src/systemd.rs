//! What systemd is told, and what it hands over.

use std::{
    os::fd::{AsFd as _, FromRawFd as _, OwnedFd},
    time::Duration,
};

use sd_notify::NotifyState;

/// Descriptors that systemd opened, with their names. Asks only once: the variables that name
/// them are read and removed.
#[must_use]
pub fn received_descriptors() -> Vec<(String, OwnedFd)> {
    let Ok(received) = sd_notify::listen_fds_with_names() else { return Vec::new() };
    received
        .map(|(descriptor, name)| {
            #[expect(unsafe_code, reason = "descriptors are inherited as numbers")]
            // SAFETY: systemd opened it for this process and nobody else has taken it.
            let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
            (name, descriptor)
        })
        .collect()
}

/// Tells systemd that the daemon is ready.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Tells systemd that the daemon stops.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Tells systemd that the daemon is alive.
pub fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// How often systemd wants to hear that the daemon is alive: half of its limit.
#[must_use]
pub fn watchdog_period() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot reach systemd's notification socket");
    }
}

/// Whether a descriptor is a Unix socket rather than TCP.
#[must_use]
pub fn is_unix(descriptor: &OwnedFd) -> bool {
    rustix::net::sockopt::socket_domain(descriptor.as_fd())
        .is_ok_and(|domain| domain == rustix::net::AddressFamily::UNIX)
}

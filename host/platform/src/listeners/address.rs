//! Binding and comparison of addresses, and the search for the holder of a taken one.

use std::{
    io,
    net::{SocketAddr, TcpListener, ToSocketAddrs as _},
};

/// Reason for not getting a socket.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The text is not an address.
    #[error("{0:?} is no address; write host:port, such as 127.0.0.1:4318 (port 0 picks one)")]
    Address(String),
    /// Another program has the address.
    #[error("{address}{TAKEN}{holder}; stop that, or choose another address")]
    Taken {
        /// The address.
        address: String,
        /// Holder of the address, as far as known.
        holder: String,
    },
    /// Another listener of this daemon has it.
    #[error(
        "{address}{TAKEN}{owner}, whose listener {name} is at {now}: choose another address for \
         one of them"
    )]
    Shared {
        /// The address.
        address: String,
        /// The address in use.
        now: SocketAddr,
        /// Name of the module, or `lodestard`.
        owner: String,
        /// Name of the listener.
        name: String,
    },
    /// The same listener of the daemon has it.
    #[error(
        "{address} overlaps {now}, where {owner} listens now: `lodestar modules disable {owner}` \
         frees it, then enable it again"
    )]
    Own {
        /// The address.
        address: String,
        /// The address in use.
        now: SocketAddr,
        /// The module.
        owner: String,
    },
    /// The system returned an error.
    #[error("cannot listen on {address}: {source}")]
    System {
        /// The address.
        address: String,
        /// Error of the system.
        source: io::Error,
    },
}

/// Words that all errors of a taken address have in common.
const TAKEN: &str = " is taken by ";

/// Returns whether an error text says that an address is taken.
#[must_use]
pub fn says_taken(reason: &str) -> bool {
    reason.contains(TAKEN)
}

/// Returns whether a socket is bound to this address. Port 0 fits any port.
pub(super) fn fits(socket: &TcpListener, wanted: &str) -> bool {
    let Ok(bound) = socket.local_addr() else { return false };
    let is_same = |address: SocketAddr| {
        address.ip() == bound.ip() && [0, bound.port()].contains(&address.port())
    };
    wanted.to_socket_addrs().is_ok_and(|mut addresses| addresses.any(is_same))
}

/// Returns whether a socket at `bound` prevents another one from being bound to this address.
pub(super) fn is_in_the_way(bound: SocketAddr, wanted: &str) -> bool {
    let overlaps = |wanted: SocketAddr| {
        let (one, other) = (bound.ip(), wanted.ip());
        let same = one == other || one.is_unspecified() || other.is_unspecified();
        same && bound.port() == wanted.port()
    };
    wanted.to_socket_addrs().is_ok_and(|mut addresses| addresses.any(overlaps))
}

pub(super) fn bind(wanted: &str) -> Result<TcpListener, ListenError> {
    let mut addresses =
        wanted.to_socket_addrs().map_err(|_| ListenError::Address(wanted.to_owned()))?;
    let address = addresses.next().ok_or_else(|| ListenError::Address(wanted.to_owned()))?;
    TcpListener::bind(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::Taken {
            address: wanted.to_owned(),
            holder: holder(address).unwrap_or_else(|| {
                "a program of another user (`ss -ltnp` names it to root)".to_owned()
            }),
        },
        _ => ListenError::System { address: wanted.to_owned(), source },
    })
}

/// Finds the process that listens on a port: its socket's inode is in `/proc/net/tcp`, and the
/// process has a descriptor of that inode.
fn holder(address: SocketAddr) -> Option<String> {
    let table = if address.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" };
    let table = std::fs::read_to_string(table).ok()?;
    let inode = table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let port = fields.get(1)?.rsplit(':').next()?;
        let listens = fields.get(3) == Some(&"0A");
        let same_port = u16::from_str_radix(port, 16) == Ok(address.port());
        (listens && same_port).then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
    })?;
    let wanted = format!("socket:[{inode}]");
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let number = process.file_name().to_string_lossy().into_owned();
        if !number.bytes().all(|digit| digit.is_ascii_digit()) {
            continue;
        }
        let descriptors = std::fs::read_dir(process.path().join("fd"));
        let has = descriptors.into_iter().flatten().flatten().any(|descriptor| {
            std::fs::read_link(descriptor.path()).is_ok_and(|link| link.as_os_str() == &*wanted)
        });
        if has {
            let command = std::fs::read_to_string(process.path().join("comm")).ok()?;
            return Some(format!("{} (process {number})", command.trim()));
        }
    }
    None
}

//! Listening sockets: the host binds them, the modules get duplicates.
//!
//! So a reload refuses no connection: while one generation gives way to the next, the socket stays
//! open and the kernel queues who calls.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener, ToSocketAddrs as _},
    os::fd::OwnedFd,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Who a socket is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListenerKey {
    /// The module, or `lodestard` for the daemon itself.
    pub owner: String,
    /// The name that the module's manifest gives it.
    pub name: String,
}

impl ListenerKey {
    /// The socket `name` of `owner`.
    #[must_use]
    pub fn new(owner: &str, name: &str) -> Self {
        Self { owner: owner.to_owned(), name: name.to_owned() }
    }
}

/// Why a socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is no address.
    #[error("{0:?} is no address; write host:port, such as 127.0.0.1:4318 (port 0 picks one)")]
    Address(String),
    /// Somebody else has it.
    #[error("{address} is taken by {holder}; stop that, or choose another address")]
    Taken {
        /// The address.
        address: String,
        /// Who has it, as far as can be seen.
        holder: String,
    },
    /// The system refuses.
    #[error("cannot listen on {address}: {source}")]
    System {
        /// The address.
        address: String,
        /// What it said.
        source: io::Error,
    },
}

struct Held {
    /// The address as the configuration writes it; empty for a socket from systemd.
    wanted: String,
    socket: TcpListener,
}

/// All listening sockets of the daemon and its modules.
#[derive(Default)]
pub struct Listeners {
    held: Mutex<BTreeMap<ListenerKey, Held>>,
}

impl std::fmt::Debug for Listeners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.addresses(None)).finish()
    }
}

impl Listeners {
    fn held(&self) -> MutexGuard<'_, BTreeMap<ListenerKey, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over a socket that systemd opened, named `<owner>.<name>`.
    pub fn adopt(&self, descriptor_name: &str, descriptor: OwnedFd) {
        let Some((owner, name)) = descriptor_name.split_once('.') else { return };
        let socket = TcpListener::from(descriptor);
        let held = Held { wanted: String::new(), socket };
        self.held().insert(ListenerKey::new(owner, name), held);
    }

    /// A duplicate of a socket; it is bound at the first call and again when the address changed.
    ///
    /// # Errors
    ///
    /// When the address is not valid or cannot be bound. The error names who has it.
    pub fn get(&self, key: &ListenerKey, wanted: &str) -> Result<TcpListener, ListenError> {
        let system = |source| ListenError::System { address: wanted.to_owned(), source };
        let mut held = self.held();
        if let Some(known) = held.get(key)
            && (known.wanted == wanted || known.wanted.is_empty())
        {
            return known.socket.try_clone().map_err(system);
        }
        let socket = bind(wanted)?;
        let duplicate = socket.try_clone().map_err(system)?;
        held.insert(key.clone(), Held { wanted: wanted.to_owned(), socket });
        Ok(duplicate)
    }

    /// Closes the sockets of a module that was disabled. Those from systemd stay.
    pub fn release(&self, owner: &str) {
        self.held().retain(|key, held| key.owner != owner || held.wanted.is_empty());
    }

    /// The addresses in use, of one owner or of all.
    #[must_use]
    pub fn addresses(&self, owner: Option<&str>) -> Vec<(ListenerKey, SocketAddr)> {
        let held = self.held();
        held.iter()
            .filter(|(key, _)| owner.is_none_or(|owner| owner == key.owner))
            .filter_map(|(key, held)| Some((key.clone(), held.socket.local_addr().ok()?)))
            .collect()
    }
}

fn bind(wanted: &str) -> Result<TcpListener, ListenError> {
    let mut addresses =
        wanted.to_socket_addrs().map_err(|_| ListenError::Address(wanted.to_owned()))?;
    let address = addresses.next().ok_or_else(|| ListenError::Address(wanted.to_owned()))?;
    TcpListener::bind(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::Taken {
            address: wanted.to_owned(),
            holder: holder(address).unwrap_or_else(|| "another program".to_owned()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_stays_until_it_is_released() {
        let listeners = Listeners::default();
        let key = ListenerKey::new("ingest", "http");
        let first = listeners.get(&key, "127.0.0.1:0").expect("a port is free");
        let second = listeners.get(&key, "127.0.0.1:0").expect("it is held");
        let address = first.local_addr().expect("it is bound");
        assert_eq!(second.local_addr().expect("it is bound"), address);
        assert_eq!(listeners.addresses(Some("ingest")), [(key.clone(), address)]);
        listeners.release("ingest");
        assert!(listeners.addresses(None).is_empty());
    }

    #[test]
    fn a_taken_port_names_its_holder() {
        let other = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = other.local_addr().expect("it is bound").to_string();
        let key = ListenerKey::new("ingest", "http");
        let error = Listeners::default().get(&key, &address).expect_err("it is taken");
        let own = format!("process {}", std::process::id());
        assert!(error.to_string().contains(&own), "{error}");
    }

    #[test]
    fn a_wrong_address_is_explained() {
        let key = ListenerKey::new("ingest", "http");
        let error = Listeners::default().get(&key, "4318").expect_err("it has no host");
        assert!(error.to_string().contains("host:port"), "{error}");
    }
}

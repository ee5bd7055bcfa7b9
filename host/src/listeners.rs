//! Listening sockets: the host binds them, the modules get duplicates.
//!
//! So a reload refuses no connection: while one generation gives way to the next, the socket stays
//! open and the kernel queues who calls. Nor does a restart under systemd, which keeps what was
//! bound here until the next daemon takes it over.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener, ToSocketAddrs as _},
    os::fd::{AsFd as _, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::systemd;

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
    origin: Origin,
    socket: TcpListener,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    /// A unit of systemd has it, and decides about its address.
    Unit,
    /// The daemon before this one bound it and systemd kept it; nobody has asked for it yet.
    Kept,
    /// It was bound for this address, as the configuration writes it.
    Bound(String),
}

/// What the names of sockets end with that systemd keeps for us. No unit's do, and so the two can
/// be told apart when they come back.
const KEPT: &str = ".kept";

fn kept_name(key: &ListenerKey) -> String {
    format!("{}.{}{KEPT}", key.owner, key.name)
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

    /// Takes over a socket that systemd hands over: one that it opened, named `<owner>.<name>`, or
    /// one that it kept for the daemon before. Where there are both, the unit's wins.
    pub fn adopt(&self, descriptor_name: &str, descriptor: OwnedFd) {
        let kept = descriptor_name.strip_suffix(KEPT);
        let Some((owner, name)) = kept.unwrap_or(descriptor_name).split_once('.') else { return };
        let key = ListenerKey::new(owner, name);
        if !systemd::is_listening(&descriptor) {
            tracing::warn!(descriptor_name, "what systemd handed over is no listening socket");
            if kept.is_some() {
                forget(&key);
            }
            return;
        }
        let origin = if kept.is_some() { Origin::Kept } else { Origin::Unit };
        let mut held = self.held();
        if held.get(&key).is_some_and(|known| known.origin == Origin::Unit || kept.is_some()) {
            return forget(&key);
        }
        let before = held.insert(key.clone(), Held { origin, socket: descriptor.into() });
        if before.is_some() {
            forget(&key);
        }
    }

    /// A duplicate of a socket; it is bound at the first call and again when the address changed.
    ///
    /// # Errors
    ///
    /// When the address is not valid or cannot be bound. The error names who has it.
    pub fn get(&self, key: &ListenerKey, wanted: &str) -> Result<TcpListener, ListenError> {
        let system = |source| ListenError::System { address: wanted.to_owned(), source };
        let mut held = self.held();
        if let Some(known) = held.get_mut(key) {
            match &known.origin {
                Origin::Unit => return known.socket.try_clone().map_err(system),
                Origin::Bound(address) if address == wanted => {
                    return known.socket.try_clone().map_err(system);
                }
                Origin::Kept if fits(&known.socket, wanted) => {
                    known.origin = Origin::Bound(wanted.to_owned());
                    systemd::keep(&kept_name(key), known.socket.as_fd());
                    return known.socket.try_clone().map_err(system);
                }
                // Nobody uses it, and while it is open its port may be wanted in vain.
                Origin::Kept => {
                    held.remove(key);
                    forget(key);
                }
                Origin::Bound(_) => {}
            }
        }
        let socket = bind(wanted)?;
        let duplicate = socket.try_clone().map_err(system)?;
        if held.remove(key).is_some() {
            forget(key);
        }
        systemd::keep(&kept_name(key), socket.as_fd());
        let origin = Origin::Bound(wanted.to_owned());
        held.insert(key.clone(), Held { origin, socket });
        Ok(duplicate)
    }

    /// Closes the sockets of a module that was disabled. Those of a unit stay.
    pub fn release(&self, owner: &str) {
        self.close(|key, origin| key.owner == owner && *origin != Origin::Unit);
    }

    /// Closes what systemd kept and nobody has asked for: whoever called there would wait in vain.
    pub fn release_unclaimed(&self) {
        self.close(|_, origin| *origin == Origin::Kept);
    }

    fn close(&self, goes: impl Fn(&ListenerKey, &Origin) -> bool) {
        self.held().retain(|key, held| {
            let goes = goes(key, &held.origin);
            if goes {
                forget(key);
            }
            !goes
        });
    }

    /// The addresses in use, of one owner or of all.
    #[must_use]
    pub fn addresses(&self, owner: Option<&str>) -> Vec<(ListenerKey, SocketAddr)> {
        let held = self.held();
        held.iter()
            .filter(|(_, held)| held.origin != Origin::Kept)
            .filter(|(key, _)| owner.is_none_or(|owner| owner == key.owner))
            .filter_map(|(key, held)| Some((key.clone(), held.socket.local_addr().ok()?)))
            .collect()
    }
}

fn forget(key: &ListenerKey) {
    systemd::forget(&kept_name(key));
}

/// Whether a socket is bound to this address. Port 0 asks for any port, and this is one.
fn fits(socket: &TcpListener, wanted: &str) -> bool {
    let Ok(bound) = socket.local_addr() else { return false };
    let is_same = |address: SocketAddr| {
        address.ip() == bound.ip() && [0, bound.port()].contains(&address.port())
    };
    wanted.to_socket_addrs().is_ok_and(|mut addresses| addresses.any(is_same))
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

    /// A listening socket, its address, and the same as a descriptor.
    fn listening() -> (String, OwnedFd) {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        (socket.local_addr().expect("it is bound").to_string(), socket.into())
    }

    #[test]
    fn a_kept_socket_is_used_where_its_address_fits() {
        let key = ListenerKey::new("ingest", "http");
        for (wanted, is_used) in [
            (None, true),
            (Some("127.0.0.1:0"), true),
            (Some("127.0.0.2:0"), false),
            (Some("127.0.0.1:1"), false),
            (Some("no address"), false),
        ] {
            let listeners = Listeners::default();
            let (address, descriptor) = listening();
            listeners.adopt("ingest.http.kept", descriptor);
            assert!(listeners.addresses(None).is_empty(), "nobody listens yet");
            let wanted = wanted.unwrap_or(&address);
            let got = listeners.get(&key, wanted).ok();
            let got = got.map(|socket| socket.local_addr().expect("it is bound").to_string());
            assert_eq!(got.as_ref() == Some(&address), is_used, "{wanted}: {got:?}");
            let free = TcpListener::bind(&address).is_ok();
            assert_eq!(free, !is_used, "{wanted}: one that does not fit is closed");
        }
    }

    #[test]
    fn a_wide_address_takes_the_place_of_a_kept_narrow_one() {
        let listeners = Listeners::default();
        let (address, descriptor) = listening();
        listeners.adopt("ingest.http.kept", descriptor);
        let wide = address.replace("127.0.0.1", "0.0.0.0");
        listeners.get(&ListenerKey::new("ingest", "http"), &wide).expect("the port is free");
    }

    #[test]
    fn a_units_socket_wins_whichever_comes_first() {
        let key = ListenerKey::new("ingest", "http");
        for order in [["ingest.http", "ingest.http.kept"], ["ingest.http.kept", "ingest.http"]] {
            let listeners = Listeners::default();
            let mut units = String::new();
            for name in order {
                let (address, descriptor) = listening();
                if name == "ingest.http" {
                    units = address;
                }
                listeners.adopt(name, descriptor);
            }
            let socket = listeners.get(&key, "127.0.0.1:9").expect("the unit decides");
            assert_eq!(socket.local_addr().expect("it is bound").to_string(), units, "{order:?}");
            listeners.release("ingest");
            listeners.release_unclaimed();
            assert_eq!(listeners.addresses(None).len(), 1, "it stays");
        }
    }

    #[test]
    fn what_nobody_asks_for_is_closed_and_what_does_not_listen_is_not_taken() {
        let listeners = Listeners::default();
        let (address, descriptor) = listening();
        listeners.adopt("gone.http.kept", descriptor);
        listeners.release_unclaimed();
        TcpListener::bind(&address).expect("it is free again");
        let (_, descriptor) = listening();
        listeners.adopt("nameless", descriptor);
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        listeners.adopt("ingest.http", udp.into());
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

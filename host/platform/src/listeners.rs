//! Listening sockets: the host binds them, the modules get duplicates.
//!
//! So a reload refuses no connection: while one generation replaces another, the socket stays open
//! and the kernel queues new connections. Nor does a restart under systemd, which keeps the bound
//! sockets until the next daemon takes them.

mod address;

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd as _, OwnedFd},
    sync::{Mutex, MutexGuard, PoisonError},
};

pub use address::{ListenError, says_taken};

use crate::systemd;
use address::{bind, fits, is_in_the_way};

/// Owner and name of a socket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListenerKey {
    /// Name of the module, or `lodestard` for the daemon itself.
    pub owner: String,
    /// Name of the listener in the module's manifest.
    pub name: String,
}

impl ListenerKey {
    /// Creates the key of the socket `name` of `owner`.
    #[must_use]
    pub fn new(owner: &str, name: &str) -> Self {
        Self { owner: owner.to_owned(), name: name.to_owned() }
    }
}

struct Held {
    origin: Origin,
    socket: TcpListener,
    /// Socket for another address, with that address, for a generation that is to take over.
    next: Option<(String, TcpListener)>,
}

impl Held {
    fn new(origin: Origin, socket: TcpListener) -> Self {
        Self { origin, socket, next: None }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    /// Opened by a unit of systemd, which decides about its address.
    Unit,
    /// Bound by the previous daemon and kept by systemd; not requested yet.
    Kept,
    /// Bound for this address, as the configuration writes it.
    Bound(String),
}

/// Suffix of the names of sockets that systemd keeps for the daemon. No socket of a unit has it, so
/// that the two can be told apart.
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

    /// Takes over a socket from systemd: one that a unit opened, named `<owner>.<name>`, or one
    /// kept for the previous daemon. If there are both, the unit's wins.
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
        let before = held.insert(key.clone(), Held::new(origin, descriptor.into()));
        if before.is_some() {
            forget(&key);
        }
    }

    /// Returns a duplicate of a socket, which is bound at the first call. For a new address a
    /// second socket is bound: [`settle`](Self::settle) or [`take_back`](Self::take_back) decides
    /// which of them stays.
    ///
    /// # Errors
    ///
    /// Returns an error if the address is not valid or cannot be bound. The error names the holder
    /// of the address.
    pub fn get(&self, key: &ListenerKey, wanted: &str) -> Result<TcpListener, ListenError> {
        let duplicate = |socket: &TcpListener| {
            let system = |source| ListenError::System { address: wanted.to_owned(), source };
            socket.try_clone().map_err(system)
        };
        let mut held = self.held();
        // Nobody uses it, and while it is open its port may be wanted in vain.
        let is_stale = |known: &Held| known.origin == Origin::Kept && !fits(&known.socket, wanted);
        if held.get(key).is_some_and(is_stale) {
            held.remove(key);
            forget(key);
        }
        let Some(known) = held.get_mut(key) else {
            let socket = bind(wanted).map_err(|error| explain_shared(&held, error))?;
            let answer = duplicate(&socket)?;
            systemd::keep(&kept_name(key), socket.as_fd());
            held.insert(key.clone(), Held::new(Origin::Bound(wanted.to_owned()), socket));
            return Ok(answer);
        };
        match &known.origin {
            Origin::Unit => return duplicate(&known.socket),
            Origin::Kept => {
                known.origin = Origin::Bound(wanted.to_owned());
                systemd::keep(&kept_name(key), known.socket.as_fd());
                return duplicate(&known.socket);
            }
            // Port 0 beside a port before asks for another one.
            Origin::Bound(address)
                if address == wanted
                    || (!wanted.ends_with(":0") && fits(&known.socket, wanted)) =>
            {
                return duplicate(&known.socket);
            }
            Origin::Bound(_) => {}
        }
        if let Some((_, socket)) = known.next.as_ref().filter(|(address, _)| address == wanted) {
            return duplicate(socket);
        }
        let bound = bind(wanted).map_err(|error| known.explain(key, error));
        let socket = bound.map_err(|error| explain_shared(&held, error))?;
        let answer = duplicate(&socket)?;
        if let Some(known) = held.get_mut(key) {
            known.next = Some((wanted.to_owned(), socket));
        }
        Ok(answer)
    }

    /// Closes the previous sockets of a generation that runs with new addresses.
    pub fn settle(&self, owner: &str) {
        for (key, held) in self.held().iter_mut().filter(|(key, _)| key.owner == owner) {
            if let Some((address, socket)) = held.next.take() {
                forget(key);
                systemd::keep(&kept_name(key), socket.as_fd());
                *held = Held::new(Origin::Bound(address), socket);
            }
        }
    }

    /// Closes the sockets that were bound only for a refused generation.
    pub fn take_back(&self, owner: &str) {
        for (_, held) in self.held().iter_mut().filter(|(key, _)| key.owner == owner) {
            held.next = None;
        }
    }

    /// Closes the sockets of a disabled module. Those of a unit stay.
    pub fn release(&self, owner: &str) {
        self.close(|key, origin| key.owner == owner && *origin != Origin::Unit);
    }

    /// Closes the sockets that systemd kept and nobody requested: connections to them would wait in
    /// vain.
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

    /// Returns the addresses in use, of one owner or of all.
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

impl Held {
    /// Returns a more precise error if this socket itself occupies the address.
    fn explain(&self, key: &ListenerKey, error: ListenError) -> ListenError {
        let ListenError::Taken { address, holder } = error else { return error };
        let port = |address: &str| address.rsplit(':').next().map(str::to_owned);
        match self.socket.local_addr() {
            Ok(now) if port(&address) == Some(now.port().to_string()) => {
                ListenError::Own { address, now, owner: key.owner.clone() }
            }
            _ => ListenError::Taken { address, holder },
        }
    }
}

/// Returns a more precise error if another listener of this daemon occupies the address.
fn explain_shared(held: &BTreeMap<ListenerKey, Held>, error: ListenError) -> ListenError {
    let ListenError::Taken { address, holder } = error else { return error };
    let at = |held: &Held| held.socket.local_addr().ok().filter(|it| is_in_the_way(*it, &address));
    match held.iter().find_map(|(key, held)| Some((key, at(held)?))) {
        Some((ListenerKey { owner, name }, now)) => {
            let (owner, name) = (owner.clone(), name.clone());
            ListenError::Shared { address, now, owner, name }
        }
        None => ListenError::Taken { address, holder },
    }
}

fn forget(key: &ListenerKey) {
    systemd::forget(&kept_name(key));
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
        let named = format!("localhost:{}", address.port());
        let third = listeners.get(&key, &named).expect("the same address by its name");
        assert_eq!(third.local_addr().expect("it is bound"), address);
        assert_eq!(listeners.addresses(Some("ingest")), [(key.clone(), address)]);
        listeners.release("ingest");
        assert!(listeners.addresses(None).is_empty());
    }

    #[test]
    fn a_refused_generation_takes_its_new_address_with_it() {
        let listeners = Listeners::default();
        let key = ListenerKey::new("ingest", "http");
        let address = |socket: TcpListener| socket.local_addr().expect("it is bound");
        let old = address(listeners.get(&key, "127.0.0.1:0").expect("a port is free"));
        for is_refused in [true, false] {
            let new = listeners.get(&key, "127.0.0.2:0").expect("a port is free");
            let new = address(new);
            let again = listeners.get(&key, "127.0.0.2:0").expect("it is held");
            assert_eq!(address(again), new, "one for each address");
            assert_eq!(listeners.addresses(None), [(key.clone(), old)], "it still listens there");
            if is_refused {
                listeners.take_back("ingest");
                TcpListener::bind(new).expect("it is free again");
                let known = listeners.get(&key, "127.0.0.1:0").expect("it was held all along");
                assert_eq!(address(known), old);
            } else {
                listeners.settle("ingest");
                TcpListener::bind(old).expect("it is free now");
                assert_eq!(listeners.addresses(None), [(key.clone(), new)]);
            }
        }
    }

    #[test]
    fn a_wider_address_on_the_same_port_is_explained() {
        let listeners = Listeners::default();
        let key = ListenerKey::new("ingest", "http");
        let socket = listeners.get(&key, "127.0.0.1:0").expect("a port is free");
        let port = socket.local_addr().expect("it is bound").port();
        let refused = listeners.get(&key, &format!("0.0.0.0:{port}")).expect_err("it overlaps");
        let expected = format!("overlaps 127.0.0.1:{port}, where ingest listens now");
        assert!(refused.to_string().contains(&expected), "{refused}");
    }

    /// Creates a listening socket and returns its address and descriptor.
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
        assert!(says_taken(&error.to_string()));
    }

    #[test]
    fn an_address_that_another_listener_has_names_it() {
        let listeners = Listeners::default();
        let metrics = ListenerKey::new("lodestard", "metrics");
        let socket = listeners.get(&metrics, "127.0.0.1:0").expect("a port is free");
        let address = socket.local_addr().expect("it is bound").to_string();
        let key = ListenerKey::new("ingest", "http");
        let other = listeners.get(&key, "127.0.0.1:0").expect("a port is free");
        let expected = format!("{address} is taken by lodestard, whose listener metrics is at ");
        let refused = |key: &ListenerKey| {
            let error = listeners.get(key, &address).expect_err("it is taken").to_string();
            assert!(error.starts_with(&expected) && says_taken(&error), "{error}");
        };
        refused(&ListenerKey::new("router", "http"));
        // Also where a listener is to move there.
        refused(&key);
        drop(other);
        // One beside it is in nobody's way.
        let beside = address.replace("127.0.0.1", "127.0.0.9");
        listeners.get(&ListenerKey::new("router", "http"), &beside).expect("it is free");
        let foreign = TcpListener::bind("127.0.0.8:0").expect("a port is free");
        let port = foreign.local_addr().expect("it is bound").port();
        let own = format!("127.0.0.7:{port}");
        listeners.get(&ListenerKey::new("router", "own"), &own).expect("it is free");
        let key = ListenerKey::new("router", "other");
        let error = listeners.get(&key, &format!("127.0.0.8:{port}")).expect_err("it is taken");
        assert!(error.to_string().contains("process "), "{error}");
    }

    #[test]
    fn a_wrong_address_is_explained() {
        let key = ListenerKey::new("ingest", "http");
        let error = Listeners::default().get(&key, "4318").expect_err("it has no host");
        assert!(error.to_string().contains("host:port"), "{error}");
    }
}

//! Addresses that a tool is to know: those that the daemon listens on, or the default ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lodestar_api::{Module, Status};

use crate::client::Client;

/// Default address of `ingest`.
const INGEST: &str = "http://127.0.0.1:4318";

/// Default address of the router.
const ROUTER: &str = "http://127.0.0.1:4000";

/// Choice whether a tool is to know the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// Yes, where the router is enabled.
    Auto,
    Yes,
    No,
}

/// URLs for a tool, without a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) ingest: String,
    pub(super) router: Option<String>,
    /// `true` if the daemon told the addresses.
    pub(super) are_known: bool,
    /// Notes for a person.
    pub(super) notes: Vec<String>,
}

impl Addresses {
    /// Asks the daemon, or takes the defaults where none answers.
    pub(super) async fn find(client: &Client, choice: Choice) -> Self {
        match client.get::<Status>("/v1/status").await {
            Ok(status) => Self::of(&status, choice),
            Err(error) => {
                let why = match error.failure() {
                    Some(failure) if !error.is_not_reachable() => failure.message.clone(),
                    _ => "lodestard is not running".to_owned(),
                };
                Self::by_default(&why, choice)
            }
        }
    }

    fn by_default(why: &str, choice: Choice) -> Self {
        let mut note = format!("{why}: this shows its default addresses.");
        if choice == Choice::Auto {
            note.push_str(" Whether the router is enabled is not known: --router adds it.");
        }
        Self {
            ingest: INGEST.to_owned(),
            router: (choice == Choice::Yes).then(|| ROUTER.to_owned()),
            are_known: false,
            notes: vec![note],
        }
    }

    fn of(status: &Status, choice: Choice) -> Self {
        let mut notes = Vec::new();
        let mut address = |name: &str, default: &str| {
            let module = status.modules.iter().find(|module| module.name == name);
            module.and_then(url).unwrap_or_else(|| {
                notes.push(format!(
                    "{name} does not listen now: this shows its default address; `lodestar \
                     modules enable {name}` starts it."
                ));
                default.to_owned()
            })
        };
        let ingest = address("ingest", INGEST);
        let is_enabled = status
            .modules
            .iter()
            .any(|module| module.name == "router" && module.desired == "enabled");
        let is_wanted = match choice {
            Choice::Auto => is_enabled,
            Choice::Yes => true,
            Choice::No => false,
        };
        let router = is_wanted.then(|| address("router", ROUTER));
        Self { ingest, router, are_known: true, notes }
    }
}

/// Returns the URL of a module's HTTP listener.
fn url(module: &Module) -> Option<String> {
    let listener = module.listeners.iter().find(|listener| listener.name == "http")?;
    let mut address: SocketAddr = listener.address.as_ref()?.parse().ok()?;
    // One that listens everywhere is reached here.
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Some(format!("http://{address}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::sample;

    fn with_router(address: Option<&str>, desired: &str) -> Status {
        let mut status = sample::status();
        let mut router = status.modules[0].clone();
        router.name = "router".to_owned();
        router.desired = desired.to_owned();
        router.listeners[0].address = address.map(str::to_owned);
        status.modules.push(router);
        status
    }

    #[test]
    fn the_router_is_there_where_it_is_enabled_or_asked_for() {
        let check = |status: &Status, choice: Choice, expected: Option<&str>, notes: usize| {
            let found = Addresses::of(status, choice);
            assert_eq!(found.ingest, "http://127.0.0.1:4318");
            assert_eq!(found.router.as_deref(), expected, "{choice:?}");
            assert_eq!(found.notes.len(), notes, "{:?}", found.notes);
        };
        let here = with_router(Some("0.0.0.0:4555"), "enabled");
        check(&here, Choice::Auto, Some("http://127.0.0.1:4555"), 0);
        check(&here, Choice::No, None, 0);
        let six = with_router(Some("[::]:4555"), "enabled");
        check(&six, Choice::Yes, Some("http://[::1]:4555"), 0);
        let off = with_router(None, "disabled");
        check(&off, Choice::Auto, None, 0);
        check(&off, Choice::Yes, Some("http://127.0.0.1:4000"), 1);
        check(&with_router(None, "enabled"), Choice::Auto, Some("http://127.0.0.1:4000"), 1);
        check(&sample::status(), Choice::Auto, None, 0);
    }

    #[test]
    fn without_the_daemon_the_defaults_are_named_as_such() {
        let found = Addresses::by_default("lodestard is not running", Choice::Auto);
        assert_eq!((found.router, found.are_known), (None, false));
        assert!(found.notes[0].contains("default addresses"), "{:?}", found.notes);
        let found = Addresses::by_default("lodestard is not running", Choice::Yes);
        assert_eq!(found.router.as_deref(), Some(ROUTER));
    }
}

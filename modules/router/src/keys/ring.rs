//! Lookup of keys by the secrets that clients present: on the way of every request, so without a
//! lock.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use arc_swap::ArcSwap;
use module_sdk::{jiff::Timestamp, nearest};

use super::{
    fault::KeyFault,
    options::Anonymous,
    secret::{Digest, PREFIX},
    stored::StoredKey,
};
use crate::{limits::Allowance, routing::names::is_of, target::TargetName};

/// The keys in force. Cheap to clone; all clones see a change at once.
#[derive(Debug, Clone)]
pub(crate) struct KeyRing {
    snapshot: Arc<ArcSwap<Snapshot>>,
    anonymous: Anonymous,
}

#[derive(Debug, Default)]
struct Snapshot {
    /// Secrets by the first bytes of their hash.
    by_bucket: HashMap<u64, Vec<Entry>, foldhash::fast::RandomState>,
}

#[derive(Debug)]
struct Entry {
    digest: Digest,
    valid_until: Option<Timestamp>,
    key: Arc<VirtualKey>,
}

/// A virtual key in force.
#[derive(Debug)]
pub(crate) struct VirtualKey {
    /// Id, which stays when the key is rotated.
    pub id: Arc<str>,
    /// Name that a person gave it.
    pub name: Arc<str>,
    /// Project of its requests.
    pub project: Option<Arc<str>>,
    /// Limits.
    pub limits: Allowance,
    pub models: Vec<String>,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
}

/// Address from which a client asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    /// Address of the other end of the connection.
    pub address: IpAddr,
    /// `true` when the request says that a proxy passed it on: then a loopback address says
    /// nothing about who asks.
    pub is_forwarded: bool,
}

/// Client whose requests are admitted.
#[derive(Debug, Clone)]
pub(crate) enum Identity {
    /// A client without a virtual key.
    Anonymous,
    /// The bearer of a virtual key.
    Key(Arc<VirtualKey>),
}

impl KeyRing {
    pub(super) fn new(anonymous: Anonymous, keys: &[StoredKey]) -> Self {
        let ring = Self { snapshot: Arc::default(), anonymous };
        ring.replace(keys);
        ring
    }

    /// Puts other keys in force: requests from now on see them.
    pub(super) fn replace(&self, keys: &[StoredKey]) {
        self.snapshot.store(Arc::new(Snapshot::of(keys)));
    }

    /// Returns who presents a secret, or asks without one.
    ///
    /// A secret that does not begin like a virtual key is the client's own for a provider: the
    /// client is then as anonymous as without one.
    ///
    /// # Errors
    ///
    /// The reason for which the client is refused.
    pub(crate) fn identify(
        &self,
        presented: Option<&str>,
        peer: Peer,
        now: Timestamp,
    ) -> Result<Identity, KeyFault> {
        match presented {
            Some(secret) if secret.starts_with(PREFIX) => self.holder(secret, now),
            _ if self.admits_anonymous(peer) => Ok(Identity::Anonymous),
            Some(_) => Err(KeyFault::WrongKey),
            None => Err(KeyFault::NoKey),
        }
    }

    fn holder(&self, secret: &str, now: Timestamp) -> Result<Identity, KeyFault> {
        let digest = Digest::of(secret);
        let snapshot = self.snapshot.load();
        let entries = snapshot.by_bucket.get(&digest.bucket()).map_or(&[][..], Vec::as_slice);
        let Some(entry) = entries.iter().find(|entry| entry.digest.equals(digest)) else {
            return Err(KeyFault::WrongKey);
        };
        let key = &entry.key;
        if let Some(at) = key.revoked_at {
            return Err(KeyFault::Revoked { name: key.name.to_string(), at });
        }
        let end = [entry.valid_until, key.expires_at].into_iter().flatten().min();
        match end {
            Some(at) if at <= now => Err(KeyFault::Expired { name: key.name.to_string(), at }),
            _ => Ok(Identity::Key(key.clone())),
        }
    }

    fn admits_anonymous(&self, peer: Peer) -> bool {
        match self.anonymous {
            Anonymous::Never => false,
            Anonymous::Always => true,
            Anonymous::Loopback => peer.address.to_canonical().is_loopback() && !peer.is_forwarded,
        }
    }
}

impl Snapshot {
    fn of(keys: &[StoredKey]) -> Self {
        let mut snapshot = Self::default();
        for stored in keys {
            let key = Arc::new(VirtualKey {
                id: stored.id.as_str().into(),
                name: stored.name.as_str().into(),
                project: stored.project.as_deref().map(Into::into),
                limits: stored.limits,
                models: stored.models.clone(),
                expires_at: stored.expires_at,
                revoked_at: stored.revoked_at,
            });
            for secret in &stored.secrets {
                snapshot.by_bucket.entry(secret.sha256.bucket()).or_default().push(Entry {
                    digest: secret.sha256,
                    valid_until: secret.valid_until,
                    key: key.clone(),
                });
            }
        }
        snapshot
    }
}

impl Identity {
    /// Returns the id under which limits and cached answers are kept.
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Key(key) => &key.id,
        }
    }

    /// Returns the virtual key, where there is one.
    pub(crate) fn key(&self) -> Option<&VirtualKey> {
        match self {
            Self::Anonymous => None,
            Self::Key(key) => Some(key),
        }
    }

    /// Returns the project that the key stands for.
    pub(crate) fn project(&self) -> Option<&str> {
        self.key()?.project.as_deref()
    }

    /// Returns whether a target may answer: its model, or `provider/model`, fits one of the
    /// patterns.
    pub(crate) fn may_use(&self, target: &TargetName) -> bool {
        let Some(key) = self.key() else { return true };
        key.models.is_empty() || key.models.iter().any(|pattern| is_of(pattern, target))
    }

    /// Returns the refusal of a model that was asked for by name and that [`may_use`] excludes;
    /// `known` are the targets there are.
    ///
    /// [`may_use`]: Self::may_use
    pub(crate) fn refusal<'a>(
        &self,
        model: &str,
        known: impl IntoIterator<Item = &'a TargetName>,
    ) -> KeyFault {
        let (name, allowed) = match self {
            Self::Anonymous => ("anonymous".to_owned(), Vec::new()),
            Self::Key(key) => (key.name.to_string(), key.models.clone()),
        };
        let usable: Vec<&str> =
            known.into_iter().filter(|it| self.may_use(it)).map(|it| &*it.model).collect();
        let near = nearest(model, usable).map(str::to_owned);
        KeyFault::ModelNotAllowed { name, model: model.to_owned(), near, allowed }
    }
}

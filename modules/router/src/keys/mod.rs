//! Virtual keys: secrets of the router's own, each with a name, a project, models that it may use
//! and limits.
//!
//! A key exists as the hash of its secret in `keys.json` of the module's data directory. Commands
//! change it there first and then in the [`KeyRing`], which requests ask without a lock.

mod commands;
mod fault;
mod options;
mod presented;
mod ring;
mod secret;
mod span;
mod stored;
#[cfg(test)]
mod tests;

use module_sdk::{Error, Host, Result};

pub(crate) use commands::KeysArgs;
pub(crate) use fault::KeyFault;
#[cfg(test)]
pub(crate) use options::Anonymous;
pub(crate) use options::KeyOptions;
pub(crate) use presented::{is_forwarded, presented};
pub(crate) use ring::{Identity, KeyRing, Peer};
pub(crate) use secret::PREFIX;

use stored::{STATE, StoredKey, StoredKeys, VERSION};

/// Days for which a key that was revoked is still known as such.
const REVOKED_DAYS: i64 = 90;
/// Keys at most.
const MOST_KEYS: usize = 10_000;

/// All keys, on the module's thread.
#[derive(Debug)]
pub(crate) struct Keys {
    host: Host,
    options: KeyOptions,
    stored: StoredKeys,
    ring: KeyRing,
}

impl Keys {
    /// Reads the keys.
    ///
    /// # Errors
    ///
    /// When their file cannot be read: without it every key would be refused, and the next that is
    /// made would overwrite them.
    pub(crate) fn load(host: &Host, options: KeyOptions) -> Result<Self> {
        let stored: StoredKeys = host.load_state(STATE)?.unwrap_or_default();
        if stored.version > VERSION {
            let message = format!("the keys are of version {}, a newer one", stored.version);
            return Err(Error::new(message).hint("run the newer version of the router"));
        }
        let ring = KeyRing::new(options.anonymous, &stored.keys);
        Ok(Self { host: host.clone(), options, stored, ring })
    }

    /// Returns the lookup for requests.
    pub(crate) fn ring(&self) -> KeyRing {
        self.ring.clone()
    }

    /// Writes changed keys, and then puts them in force.
    fn commit(&mut self, mut keys: Vec<StoredKey>) -> Result<()> {
        let now = self.host.now();
        keys.retain(|key| match key.revoked_at {
            Some(at) => now.as_second() - at.as_second() < REVOKED_DAYS * 86_400,
            None => true,
        });
        let stored = StoredKeys { version: VERSION, keys };
        self.host.save_state(STATE, &stored)?;
        self.stored = stored;
        self.ring.replace(&self.stored.keys);
        Ok(())
    }
}

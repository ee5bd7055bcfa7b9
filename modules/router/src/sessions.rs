//! Sessions stay with the model that answered them: its provider has their prompts cached.

use std::{sync::Arc, time::Duration};

use moka::sync::Cache;

use crate::target::TargetName;

/// Sessions that are remembered, at most.
const REMEMBERED: u64 = 10_000;

/// Time after which a session without requests is forgotten: providers' caches are then cold.
const IDLE: Duration = Duration::from_secs(30 * 60);

/// Model that answered a session last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pinned {
    /// The model.
    pub target: TargetName,
    /// Tokens of its last input, which the provider's prompt cache may hold.
    pub cached_tokens: u64,
}

/// The sessions, by their pseudonyms.
#[derive(Debug, Clone)]
pub(crate) struct Sessions {
    pinned: Cache<Arc<str>, Arc<Pinned>>,
}

impl Sessions {
    /// Creates an empty list.
    pub(crate) fn new() -> Self {
        let pinned = Cache::builder().max_capacity(REMEMBERED).time_to_idle(IDLE).build();
        Self { pinned }
    }

    /// Returns the model that answered a session last.
    pub(crate) fn get(&self, session: &str) -> Option<Arc<Pinned>> {
        self.pinned.get(session)
    }

    /// Notes which model answered.
    pub(crate) fn pin(&self, session: &str, target: &TargetName, input_tokens: u64) {
        let pinned = Pinned { target: target.clone(), cached_tokens: input_tokens };
        self.pinned.insert(session.into(), Arc::new(pinned));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_stays_where_it_was_answered_last() {
        let sessions = Sessions::new();
        let name = |model: &str| TargetName { provider: "p".into(), model: model.into() };
        assert_eq!(sessions.get("s"), None);
        sessions.pin("s", &name("a"), 10);
        sessions.pin("s", &name("b"), 20);
        let pinned = sessions.get("s").expect("it is pinned");
        assert_eq!(*pinned, Pinned { target: name("b"), cached_tokens: 20 });
    }
}

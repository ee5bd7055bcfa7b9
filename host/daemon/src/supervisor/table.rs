//! Table of the modules of the configuration, by name.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crate::module::Entry;

/// A module of the configuration.
#[derive(Debug)]
pub struct Slot {
    /// State, calls and figures of the module.
    pub entry: Arc<Entry>,
    desired: AtomicBool,
    /// Number of times that the supervisor started the module, or tried to.
    starts: AtomicU64,
    /// Reason why the module runs otherwise than the file or the library on the module path says.
    behind: Mutex<Option<String>>,
}

impl Slot {
    /// Returns the reason why the module runs otherwise than the file or the library on the module
    /// path says.
    #[must_use]
    pub fn behind(&self) -> Option<String> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_behind(&self, reason: Option<String>) {
        *self.behind.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Returns whether the configuration enables the module.
    #[must_use]
    pub fn is_desired(&self) -> bool {
        self.desired.load(Ordering::Relaxed)
    }

    pub(super) fn set_desired(&self, enabled: bool) {
        self.desired.store(enabled, Ordering::Relaxed);
    }

    /// Returns how often the supervisor started the module, or tried to.
    pub(super) fn starts(&self) -> u64 {
        self.starts.load(Ordering::Acquire)
    }

    /// Counts a start, before the module's state shows it.
    pub(super) fn count_start(&self) {
        self.starts.fetch_add(1, Ordering::Release);
    }
}

/// The modules of the configuration, by name.
#[derive(Debug, Default)]
pub struct ModuleTable(RwLock<BTreeMap<String, Arc<Slot>>>);

impl ModuleTable {
    /// Returns the module of this name.
    #[must_use]
    pub fn entry(&self, name: &str) -> Option<Arc<Entry>> {
        self.get(name).map(|slot| slot.entry.clone())
    }

    /// Returns the slots of all modules, ordered by name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Slot>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Returns the slot of a module.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Slot>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Returns the slot of a module, and whether it was created by this call.
    pub(super) fn get_or_add(&self, name: &str) -> (Arc<Slot>, bool) {
        let mut slots = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(name) {
            return (slot.clone(), false);
        }
        let slot = Arc::new(Slot {
            entry: Arc::new(Entry::new(name)),
            desired: AtomicBool::new(false),
            starts: AtomicU64::new(0),
            behind: Mutex::default(),
        });
        slots.insert(name.to_owned(), slot.clone());
        (slot, true)
    }

    /// Removes a module. Returns whether it was there.
    pub(super) fn remove(&self, name: &str) -> bool {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(name).is_some()
    }
}

//! The modules of the configuration by name, for whoever shows them or asks them something.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::module::Entry;

/// A module of the configuration.
#[derive(Debug)]
pub struct Slot {
    /// What it is doing.
    pub entry: Arc<Entry>,
    desired: AtomicBool,
    /// Why it runs, but not as the file or the library on the module path says.
    behind: Mutex<Option<String>>,
}

impl Slot {
    /// Returns why it runs, but not as the file or the library on the module path says.
    #[must_use]
    pub fn behind(&self) -> Option<String> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_behind(&self, reason: Option<String>) {
        *self.behind.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Returns whether the configuration asks for it.
    #[must_use]
    pub fn is_desired(&self) -> bool {
        self.desired.load(Ordering::Relaxed)
    }

    pub(super) fn set_desired(&self, enabled: bool) {
        self.desired.store(enabled, Ordering::Relaxed);
    }
}

/// The modules of the configuration, by name.
#[derive(Debug, Default)]
pub struct ModuleTable(RwLock<BTreeMap<String, Arc<Slot>>>);

impl ModuleTable {
    /// Returns a module.
    #[must_use]
    pub fn entry(&self, name: &str) -> Option<Arc<Entry>> {
        self.get(name).map(|slot| slot.entry.clone())
    }

    /// Returns all modules, by name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Slot>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Returns the place of a module.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Slot>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Returns the place of a module, and whether it was made now.
    pub(super) fn get_or_add(&self, name: &str) -> (Arc<Slot>, bool) {
        let mut slots = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(name) {
            return (slot.clone(), false);
        }
        let slot = Arc::new(Slot {
            entry: Arc::new(Entry::new(name)),
            desired: AtomicBool::new(false),
            behind: Mutex::default(),
        });
        slots.insert(name.to_owned(), slot.clone());
        (slot, true)
    }

    /// Takes a module out; returns whether it was there.
    pub(super) fn remove(&self, name: &str) -> bool {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(name).is_some()
    }
}

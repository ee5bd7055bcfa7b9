//! Adapters that are loaded, and the one that answers for the alias.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::{read_exactly, refusal::Refusal};
use crate::{
    adapter,
    failure::{Failure, Result},
    model::{Adapter, Shape},
};

/// Most adapters that are kept; of more the oldest one that is off goes.
const MOST: usize = 16;
/// Longest name of an adapter, in bytes.
const LONGEST_NAME: usize = 80;

/// An adapter, as `/lora-adapters` lists it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Listed {
    pub id: u64,
    pub name: String,
    pub path: PathBuf,
    pub sha256: String,
    pub scale: f64,
    /// `true` where everybody may ask for it by its name, although it is off for the alias.
    pub open: bool,
}

/// Right of whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// Has the key, or there is none: may ask for all that is loaded.
    Keeper,
    /// May ask for what is on for the alias, and for what was opened.
    Anybody,
}

impl Listed {
    fn is_for(&self, asker: Asker) -> bool {
        asker == Asker::Keeper || self.scale != 0.0 || self.open
    }
}

/// A scale for an adapter, as `/lora-adapters` and the field `lora` have it.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub(super) struct Scale {
    id: u64,
    scale: f64,
}

struct Loaded {
    listed: Listed,
    adapter: Arc<Adapter>,
}

/// All adapters. One of them at most is on.
#[derive(Default)]
pub(super) struct Adapters {
    all: Mutex<Vec<Loaded>>,
}

impl Adapters {
    /// Loads an adapter, which answers nobody yet who does not ask for it, and returns its id. One
    /// that is there already is left as it is.
    pub(super) fn load(&self, shape: &Shape, name: &str, file: &Path, sha256: &str) -> Result<u64> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(is_plain) {
            return Err(Failure::job("an adapter's name has letters, digits, `-`, `_` and `.`"));
        }
        let known = |all: &[Loaded]| {
            all.iter()
                .find(|it| it.listed.name == name)
                .map(|it| (it.listed.id, it.listed.sha256.eq_ignore_ascii_case(sha256)))
        };
        let taken = |(id, is_same): (u64, bool)| match is_same {
            true => Ok(id),
            false => Err(Failure::job(format!("another adapter has the name {name}"))),
        };
        if let Some(known) = known(&self.all()) {
            return taken(known);
        }
        let adapter = Arc::new(adapter::from_gguf(&read_exactly(file, sha256)?, shape)?);
        let mut all = self.all();
        // It may have been loaded meanwhile.
        if let Some(known) = known(&all) {
            return taken(known);
        }
        if all.len() >= MOST {
            let off = all.iter().position(|it| it.listed.scale == 0.0 && !it.listed.open);
            if let Some(index) = off {
                all.remove(index);
            }
        }
        let id = all.iter().map(|it| it.listed.id + 1).max().unwrap_or_default();
        let (name, path) = (name.to_owned(), file.to_owned());
        let sha256 = sha256.to_owned();
        let listed = Listed { id, name, path, sha256, scale: 0.0, open: false };
        all.push(Loaded { listed, adapter });
        Ok(id)
    }

    pub(super) fn list(&self) -> Vec<Listed> {
        self.all().iter().map(|it| it.listed.clone()).collect()
    }

    /// Switches the adapter of this name on and all others off.
    pub(super) fn switch_on(&self, name: &str) -> Result<()> {
        let mut all = self.all();
        if !all.iter().any(|it| it.listed.name == name) {
            return Err(Failure::job("--on names an adapter that no --adapter loads"));
        }
        for it in &mut *all {
            it.listed.scale = f64::from(u8::from(it.listed.name == name));
        }
        Ok(())
    }

    /// Opens the adapters of these names to everybody, and no others.
    pub(super) fn open(&self, names: &[String]) -> Result<()> {
        let mut all = self.all();
        if let Some(name) = names.iter().find(|name| !all.iter().any(|it| it.listed.name == **name))
        {
            let name = crate::job::shown(name);
            return Err(Failure::job(format!("no adapter has the name {name}, so none is opened")));
        }
        for it in &mut *all {
            it.listed.open = names.contains(&it.listed.name);
        }
        Ok(())
    }

    /// Sets the scales with which the alias answers; one that is not named is off.
    pub(super) fn set(&self, scales: &[Scale]) -> Result<(), Refusal> {
        let mut all = self.all();
        of(&all, scales)?;
        for it in &mut *all {
            let named = scales.iter().rfind(|scale| scale.id == it.listed.id);
            it.listed.scale = named.map_or(0.0, |it| it.scale);
        }
        Ok(())
    }

    /// Returns the adapter with these scales; none where all are off.
    pub(super) fn with(&self, scales: &[Scale]) -> Result<Option<Arc<Adapter>>, Refusal> {
        of(&self.all(), scales)
    }

    /// Returns the adapter that is on for the alias.
    pub(super) fn of_alias(&self) -> Option<Arc<Adapter>> {
        let all = self.all();
        let on = all.iter().find(|it| it.listed.scale != 0.0)?;
        Some(scaled(&on.adapter, on.listed.scale))
    }

    /// Returns the adapter of a name, where whoever asks may have it.
    pub(super) fn named(&self, name: &str, asker: Asker) -> Option<Arc<Adapter>> {
        let all = self.all();
        let found = all.iter().find(|it| it.listed.name == name && it.listed.is_for(asker));
        found.map(|it| it.adapter.clone())
    }

    /// Returns the names that whoever asks may ask for.
    pub(super) fn names(&self, asker: Asker) -> Vec<String> {
        let all = self.all();
        let shown = all.iter().filter(|it| it.listed.is_for(asker));
        shown.map(|it| it.listed.name.clone()).collect()
    }

    fn all(&self) -> MutexGuard<'_, Vec<Loaded>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn of(all: &[Loaded], scales: &[Scale]) -> Result<Option<Arc<Adapter>>, Refusal> {
    let mut on = None;
    for scale in scales {
        let found = all.iter().find(|it| it.listed.id == scale.id);
        let found = found.ok_or_else(|| {
            Refusal::request("lora", format!("there is no adapter with the id {}", scale.id))
        })?;
        if !(-10.0..=10.0).contains(&scale.scale) {
            return Err(Refusal::request("lora", "a scale lies between -10 and 10"));
        }
        if scale.scale != 0.0 && on.replace((found, scale.scale)).is_some() {
            return Err(Refusal::request("lora", "one adapter can be on, not several"));
        }
    }
    Ok(on.map(|(found, scale)| scaled(&found.adapter, scale)))
}

fn scaled(adapter: &Arc<Adapter>, scale: f64) -> Arc<Adapter> {
    if scale == 1.0 {
        return adapter.clone();
    }
    Arc::new(Adapter { scale: adapter.scale * scale, tensors: adapter.tensors.clone() })
}

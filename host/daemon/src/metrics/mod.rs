//! Prometheus metrics: the host's, the bus's and every module's own, as text.

mod error;
mod family;
mod instruments;
mod snapshot;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus::{Encoder as _, TextEncoder, proto::MetricFamily};

pub use error::{Bound, MetricError};
use family::{Family, Form, Series, Shape, text_of};
pub use instruments::{Instruments, Presence};
pub use snapshot::{HistogramRow, Snapshot};

/// Largest number of families that one module may have, with the forms that they had before.
const MAX_FAMILIES: usize = 256;

/// Largest number of series in one family: an unbounded label must not fill the memory.
const MAX_SERIES_OF_FAMILY: usize = 1_000;

/// Largest number of series that one module may have. A histogram of them takes about a kilobyte.
const MAX_SERIES: usize = 10_000;

/// Largest number of bytes of names, help and labels that one module may have: they lie in the
/// host's memory.
const MAX_TEXT: usize = 1024 * 1024;

/// Number of characters that an error shows of a name that may be too long.
const SHOWN: usize = 80;

/// Prefixes of the families that the host writes itself.
const RESERVED: [&str; 7] = [
    "lodestar_build_info",
    "lodestar_config_",
    "lodestar_module_",
    "lodestar_bus_",
    "lodestar_http_",
    "lodestar_ledger_",
    "process_",
];

/// The kinds of metrics, with the numbers of the ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A value that only grows.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// A distribution that counts values by size.
    Histogram,
}

impl Kind {
    /// Returns the kind with this number of the ABI.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Counter),
            1 => Some(Self::Gauge),
            2 => Some(Self::Histogram),
            _ => None,
        }
    }
}

/// All metrics of the modules. A family belongs to the module that registered it first, until the
/// last thread of that module has ended.
#[derive(Default)]
pub struct Metrics {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    families: BTreeMap<String, Family>,
    /// Number of threads that live, by module.
    present: HashMap<String, usize>,
    /// Generations that may register, by number.
    generations: HashMap<u64, Generation>,
    /// The last number that a generation or a series got. None is given twice.
    last_number: u64,
    /// Handles of series that were dropped and that a generation may still hold.
    dropped: Vec<u64>,
}

struct Generation {
    owner: String,
    /// `true` once it is the generation that runs.
    in_charge: bool,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Metrics({} families)", self.state().families.len())
    }
}

impl Metrics {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a thread of a module lives. What the module registered goes with the last one.
    #[must_use]
    pub fn arrive(self: &Arc<Self>, owner: &str) -> Presence {
        *self.state().present.entry(owner.to_owned()).or_default() += 1;
        Presence::new(self.clone(), owner)
    }

    /// Creates the instruments with which a new generation of a module registers and records.
    #[must_use]
    pub fn generation(self: &Arc<Self>, owner: &str) -> Instruments {
        let mut state = self.state();
        let number = state.next_number();
        state.generations.insert(number, Generation { owner: owner.to_owned(), in_charge: false });
        drop(state);
        Instruments::new(self.clone(), number)
    }

    /// Returns all metrics in the text format of Prometheus, version 0.0.4, with the host's own
    /// families.
    #[must_use]
    pub fn encode(&self, own: Vec<MetricFamily>) -> String {
        let mut families: Vec<MetricFamily> =
            self.state().families.values().filter_map(Family::collect).collect();
        families.extend(own);
        families.retain(|family| !family.get_metric().is_empty());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&families, &mut text) {
            tracing::error!(%error, "cannot write the metrics");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl State {
    const fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Returns a series of a generation, made where it is missing.
    fn series(
        &mut self,
        number: u64,
        name: &str,
        shape: &Shape<'_>,
        values: &[String],
    ) -> Result<(u64, Series), MetricError> {
        let generation = self.generations.get(&number);
        let Generation { owner, in_charge } =
            generation.ok_or_else(|| MetricError::Ended(name.to_owned()))?;
        let (owner, in_charge) = (owner.clone(), *in_charge);
        let found = self.add(&owner, number, name, shape, values);
        let found = match found {
            Err(MetricError::Full { bound, .. }) if self.make_room(&owner, name, bound) => {
                self.add(&owner, number, name, shape, values)
            }
            found => found,
        };
        if let (Ok(_), true, Some(family)) = (&found, in_charge, self.families.get_mut(name)) {
            family.settle(number);
        }
        found
    }

    fn add(
        &mut self,
        owner: &str,
        number: u64,
        name: &str,
        shape: &Shape<'_>,
        values: &[String],
    ) -> Result<(u64, Series), MetricError> {
        let family = self.families.get(name);
        check_form(family, owner, number, name, shape)?;
        let form = family.and_then(|family| family.form(shape));
        let mut text =
            form.map_or(name.len() + shape.text(), |form| form.more_help(number, shape.help));
        if form.is_none_or(|form| !form.has(values)) {
            self.check_count(owner, name, form)?;
            text += text_of(values);
        }
        self.check_text(owner, name, text)?;
        let handle = self.next_number();
        let family = self.families.entry(name.to_owned()).or_insert_with(|| Family::new(owner));
        let added = family.form_or_new(name, shape).map(|form| {
            form.used_by(number, shape.help);
            form.series(number, handle, values)
        });
        if family.is_empty() {
            self.families.remove(name);
        }
        added
    }

    fn forms_of(&self, owner: &str) -> impl Iterator<Item = &Form> {
        self.families.values().filter(move |family| family.owner == owner).flat_map(Family::forms)
    }

    /// Checks whether a module may have one more series, of this form or a new one.
    fn check_count(&self, owner: &str, name: &str, form: Option<&Form>) -> Result<(), MetricError> {
        let bound = if form.is_some_and(|form| form.count() >= MAX_SERIES_OF_FAMILY) {
            Bound::SeriesOfFamily
        } else if form.is_none() && self.forms_of(owner).count() >= MAX_FAMILIES {
            Bound::Families
        } else if self.forms_of(owner).map(Form::count).sum::<usize>() >= MAX_SERIES {
            Bound::Series
        } else {
            return Ok(());
        };
        Err(MetricError::Full { name: name.to_owned(), bound })
    }

    /// Checks whether a module may have so many bytes more of names, help and labels.
    fn check_text(&self, owner: &str, name: &str, more: usize) -> Result<(), MetricError> {
        if more > 0 && self.forms_of(owner).map(Form::text).sum::<usize>() + more > MAX_TEXT {
            // A name may be what is too long.
            let name = name.chars().take(SHOWN).collect();
            return Err(MetricError::Full { name, bound: Bound::Text });
        }
        Ok(())
    }

    /// Drops what earlier generations of a module left and no living one asked for, and gauges that
    /// are cleared; returns whether there was any.
    fn make_room(&mut self, owner: &str, name: &str, bound: Bound) -> bool {
        let mut forgotten = false;
        let helps = |other: &str| bound != Bound::SeriesOfFamily || other == name;
        for (other, family) in &mut self.families {
            if family.owner == owner && helps(other) {
                forgotten |= family.forget_unused();
                let cleared = family.forget_cleared();
                forgotten |= !cleared.is_empty();
                self.dropped.extend(cleared);
            }
        }
        self.families.retain(|_, family| !family.is_empty());
        forgotten
    }

    /// Notes that a generation is the one that runs from now on.
    fn settle(&mut self, number: u64) {
        let Some(generation) = self.generations.get_mut(&number) else { return };
        generation.in_charge = true;
        for family in self.families.values_mut() {
            family.settle(number);
        }
    }

    /// Ends registering by a generation.
    fn close(&mut self, number: u64) {
        if self.generations.remove(&number).is_some() {
            self.families.retain(|_, family| {
                family.leave(number);
                !family.is_empty()
            });
        }
    }

    /// Notes that a thread of a module has ended.
    fn depart(&mut self, owner: &str) {
        let Some(threads) = self.present.get_mut(owner) else { return };
        *threads -= 1;
        if *threads > 0 {
            return;
        }
        self.present.remove(owner);
        self.generations.retain(|_, generation| generation.owner != owner);
        self.families.retain(|_, family| family.owner != owner);
    }
}

/// Checks whether a generation of a module may have a family in this form.
fn check_form(
    family: Option<&Family>,
    owner: &str,
    number: u64,
    name: &str,
    shape: &Shape<'_>,
) -> Result<(), MetricError> {
    let owned = |owner: &str| MetricError::Owned { name: name.to_owned(), owner: owner.to_owned() };
    if RESERVED.iter().any(|prefix| name.starts_with(prefix)) {
        return Err(owned("lodestard"));
    }
    if shape.kind == Kind::Counter && !name.ends_with("_total") {
        let reason = "the name of a counter ends in _total".to_owned();
        return Err(MetricError::Invalid(name.to_owned(), reason));
    }
    match family {
        Some(family) if family.owner != owner => Err(owned(&family.owner)),
        Some(family) if family.has_another_form(number, shape) => {
            Err(MetricError::Changed(name.to_owned()))
        }
        _ => Ok(()),
    }
}

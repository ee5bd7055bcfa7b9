//! The levels of the log: one for the daemon, and one for each module that has its own.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use module_sdk::level_number;
use tracing::{Event, Metadata, level_filters::LevelFilter, subscriber::Interest};
use tracing_subscriber::{Layer, field::Visit, layer::Context};

use super::MODULE_TARGET;

/// Levels, changeable while the daemon runs. 1 is error, 5 is trace.
#[derive(Debug)]
pub struct Levels {
    table: RwLock<Table>,
}

#[derive(Debug, Clone)]
struct Table {
    default: u32,
    modules: HashMap<String, u32>,
}

impl Levels {
    /// Creates levels with one level for all.
    #[must_use]
    pub fn new(default: u32) -> Self {
        Self { table: RwLock::new(Table { default, modules: HashMap::new() }) }
    }

    /// Replaces all levels.
    pub fn set(&self, default: u32, modules: HashMap<String, u32>) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        *table = Table { default, modules };
        drop(table);
        tracing::callsite::rebuild_interest_cache();
    }

    /// Returns the level of a module.
    #[must_use]
    pub fn of(&self, module: &str) -> u32 {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.modules.get(module).copied().unwrap_or(table.default)
    }

    fn default_level(&self) -> u32 {
        self.table.read().unwrap_or_else(PoisonError::into_inner).default
    }
}

/// Reads a level from a configuration: `error`, `warn`, `info`, `debug`, `trace`.
#[must_use]
pub fn parse(word: &str) -> Option<u32> {
    let words = ["error", "warn", "info", "debug", "trace"];
    let index = words.iter().position(|known| word.eq_ignore_ascii_case(known))?;
    u32::try_from(index + 1).ok()
}

/// Lets through what the levels ask for. Records of modules are judged by their own level, those
/// of the daemon by the default one, those of libraries only from warnings up.
pub(super) fn filter<S: tracing::Subscriber>(levels: Arc<Levels>) -> impl Layer<S> {
    LevelLayer { levels }
}

struct LevelLayer {
    levels: Arc<Levels>,
}

impl<S: tracing::Subscriber> Layer<S> for LevelLayer {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let level = level_number(metadata.level());
        if metadata.target() == MODULE_TARGET {
            return true;
        }
        if metadata.target().starts_with("lodestar") {
            return level <= self.levels.default_level();
        }
        level <= 2
    }

    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        if event.metadata().target() != MODULE_TARGET {
            return true;
        }
        let mut module = ModuleName::default();
        event.record(&mut module);
        level_number(event.metadata().level()) <= self.levels.of(&module.0)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }
}

/// Visitor that finds the field `module` of a record.
#[derive(Default)]
pub(super) struct ModuleName(pub(super) String);

impl Visit for ModuleName {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        if field.name() == "module" && self.0.is_empty() {
            self.0 = format!("{value:?}").trim_matches('"').to_owned();
        }
    }

    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        if field.name() == "module" {
            value.clone_into(&mut self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_has_its_own_level_or_the_default() {
        let levels = Levels::new(3);
        levels.set(2, HashMap::from([("ingest".to_owned(), 5)]));
        assert_eq!(levels.of("ingest"), 5);
        assert_eq!(levels.of("usage_tracker"), 2);
    }

    #[test]
    fn reads_levels() {
        assert_eq!(parse("error"), Some(1));
        assert_eq!(parse("TRACE"), Some(5));
        assert_eq!(parse("loud"), None);
    }
}

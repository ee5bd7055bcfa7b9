//! Sends a module's `tracing` events to the host, which writes them under the module's name.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::{Map, Value};
use tracing_core::{
    Event, Interest, Level, LevelFilter, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use crate::{Host, glue};

/// Least severe level that is sent to the host: 1 error … 5 trace. One per library, like
/// `tracing`.
static LEVEL: AtomicU32 = AtomicU32::new(3);

/// Sends everything that this library logs from now on to `host`.
pub(crate) fn install(host: &Host) {
    set_level(host.log_level());
    glue::set_log_host(host.clone());
    // A second instance in the same library finds the subscriber of the first; both forward to
    // the host that was set last.
    drop(tracing_core::dispatcher::set_global_default(tracing_core::Dispatch::new(Forward)));
}

/// Sets the level. `tracing` caches the old one, hence the rebuild.
pub(crate) fn set_level(level: u32) {
    LEVEL.store(level, Ordering::Relaxed);
    tracing_core::callsite::rebuild_interest_cache();
}

/// Returns the number of a level, as it crosses to the host: 1 for error to 5 for trace.
#[must_use]
pub const fn level_number(level: &Level) -> u32 {
    match *level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

struct Forward;

impl Subscriber for Forward {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && level_number(metadata.level()) <= LEVEL.load(Ordering::Relaxed)
    }

    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match LEVEL.load(Ordering::Relaxed) {
            0 => LevelFilter::OFF,
            1 => LevelFilter::ERROR,
            2 => LevelFilter::WARN,
            3 => LevelFilter::INFO,
            4 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        })
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut record = Record::default();
        event.record(&mut record);
        let fields = serde_json::to_vec(&record.fields).unwrap_or_default();
        let metadata = event.metadata();
        glue::with_log_host(|host| {
            host.services().log(
                level_number(metadata.level()),
                metadata.target().into(),
                record.message.as_str().into(),
                fields.as_slice().into(),
            );
        });
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Record {
    message: String,
    fields: Map<String, Value>,
}

impl Record {
    fn put(&mut self, field: &Field, value: Value) {
        self.fields.insert(field.name().to_owned(), value);
    }
}

impl Visit for Record {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            self.put(field, format!("{value:?}").into());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.put(field, value.into());
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
}

//! The log of the daemon: its file, standard error or the journal.

use module_sdk::events::AlertSeverity;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Channel, Envelope, Sending};
use crate::notify::{
    note::{Item, News},
    options::RouteOptions,
};

/// Settings of a channel to the log.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogOptions {
    /// Settings that every channel has.
    #[serde(flatten)]
    pub route: RouteOptions,
}

pub(super) struct Log;

impl Channel for Log {
    fn send<'a>(&'a self, envelope: &'a Envelope) -> Sending<'a> {
        envelope.note.items.iter().for_each(write);
        if envelope.note.more > 0 {
            let more = envelope.note.more;
            tracing::warn!(more, "further alerts: `lodestar health history` shows them");
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

fn write(item: &Item) {
    let (line, alert) = (item.line(), &item.alert.id);
    match (item.news, item.alert.severity) {
        (News::Resolved, _) | (_, AlertSeverity::Info) => tracing::info!(alert, "{line}"),
        (_, AlertSeverity::Critical) => tracing::error!(alert, "{line}"),
        (_, AlertSeverity::Warning) => tracing::warn!(alert, "{line}"),
    }
}

//! `lodestar health test-notify`.

use std::{sync::Arc, time::Instant};

use module_sdk::{Error, ErrorKind, Job, Reply, Result, Table, human};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    HealthMonitor,
    channels::{Channel, Envelope},
    notify::{couriers::carry, note::Note},
    text::visible,
};

/// Sends a test through the channels and shows what came of it. The exit code is 1 where one
/// failed.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestNotifyArgs {
    /// Name of the channel. Default: all.
    #[serde(default)]
    #[schemars(extend("x-positional" = true))]
    channel: Option<String>,
}

impl HealthMonitor {
    pub(crate) fn test_notify(&mut self, args: TestNotifyArgs) -> Result<Job> {
        let kinds = self.notify.kinds();
        if let Some(name) = args.channel.as_deref().filter(|name| !kinds.contains_key(*name)) {
            let message = format!("no channel is called {}", visible(name));
            let known = kinds.keys().map(String::as_str);
            return Err(Error::of(ErrorKind::NotFound, message).near(name, known));
        }
        let meant = kinds
            .iter()
            .filter(|(name, _)| args.channel.as_ref().is_none_or(|wanted| wanted == *name));
        let channels: Vec<(String, &'static str, Arc<dyn Channel>)> = meant
            .filter_map(|(name, kind)| {
                Some((name.clone(), *kind, self.notify.couriers().channel(name)?))
            })
            .collect();
        let (runtime, now) = (self.host.runtime()?, self.host.now());
        Ok(Job::new(move |output| {
            let tests: Vec<_> = channels
                .into_iter()
                .map(|(name, kind, channel)| {
                    let id = Uuid::now_v7().to_string();
                    let envelope = Envelope { id, note: Note::test(now) };
                    let begun = Instant::now();
                    let test = runtime.spawn(async move {
                        let result = carry(&*channel, &envelope).await;
                        (result, begun.elapsed())
                    });
                    (name, kind, test)
                })
                .collect();
            let total = tests.len() as u64;
            let mut table = Table::new(["CHANNEL", "KIND", "RESULT", "TIME#"]);
            let (mut data, mut failed): (Vec<Value>, u8) = (Vec::new(), 0);
            for (done, (name, kind, test)) in tests.into_iter().enumerate() {
                let (result, elapsed) = runtime.block_on(test)?;
                let error = result.err().map(|error| error.to_string());
                failed |= u8::from(error.is_some());
                let shown = error.clone().unwrap_or_else(|| "delivered".to_owned());
                table.row([name.clone(), kind.to_owned(), shown, human::duration(elapsed)]);
                data.push(json!({
                    "channel": name,
                    "kind": kind,
                    "delivered": error.is_none(),
                    "error": error,
                    "duration_ms": u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
                }));
                output.progress(done as u64 + 1, Some(total), "channels")?;
            }
            if data.is_empty() {
                table.notes.push("No channel is switched on.".to_owned());
            }
            Ok(Reply::json(&data)?.table(table).exit_code(failed))
        }))
    }
}

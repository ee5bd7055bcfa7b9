//! `lodestar router cache`.

use module_sdk::{Job, Reply, Result, Table, Usd, human};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{ResponseCache, Tier};

/// Shows how the cache of answers does: `cache stats`, or empties it: `cache clear`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CacheArgs {
    /// Command: `stats` or `clear` [default: stats].
    #[schemars(extend("x-positional" = 1))]
    action: CacheAction,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum CacheAction {
    /// Show figures since the start.
    #[default]
    Stats,
    /// Forget all answers, those in Redis too.
    Clear,
}

impl ResponseCache {
    /// Answers `router cache`, on a thread of its own: Redis may have to be asked.
    pub(crate) fn command(&self, args: &CacheArgs) -> Job {
        let (cache, action) = (self.clone(), args.action);
        Job::new(move |_| match action {
            CacheAction::Stats => cache.stats(),
            CacheAction::Clear => cache.clear(),
        })
    }

    /// Returns the figures since the start.
    pub(super) fn stats(&self) -> Result<Reply> {
        let (inner, stats) = (&self.inner, &self.inner.stats);
        inner.memory.run_pending_tasks();
        let (hits, misses) = (stats.all_hits(), stats.misses());
        let asked = hits + misses;
        let saved = Usd::from_nano(stats.saved_nano_usd());
        let named = |reasons: Vec<(&'static str, u64)>| -> Map<String, Value> {
            let some = reasons.into_iter().filter(|(_, number)| *number > 0);
            some.map(|(name, number)| (name.to_owned(), number.into())).collect()
        };
        let data = json!({
            "enabled": inner.options.enabled,
            "entries": inner.memory.entry_count(),
            "bytes": inner.memory.weighted_size(),
            "max_bytes": inner.options.max_bytes,
            "ttl_s": inner.options.ttl_s,
            "hits": {
                "memory": stats.hits(Tier::Memory),
                "redis": stats.hits(Tier::Redis),
                "flight": stats.hits(Tier::Flight),
            },
            "misses": misses,
            "hit_ratio": ratio(hits, asked),
            "bypassed": named(stats.bypassed().collect()),
            "stored": stats.stored_number(),
            "not_stored": named(stats.not_stored_by_reason().collect()),
            "not_shared": stats.not_shared_number(),
            "asked_alone": stats.alone_number(),
            "in_flight": inner.flights.number(),
            "saved_usd": saved.to_string(),
            "redis": inner.link.as_ref().map(|link| json!({
                "connected": link.is_up(),
                "trouble": link.trouble(),
            })),
        });
        Ok(Reply::json(&data)?.table(self.table(asked, saved, &data)))
    }

    fn table(&self, asked: u64, saved: Usd, data: &Value) -> Table {
        let (inner, stats) = (&self.inner, &self.inner.stats);
        let mut table = Table::new(["OUTCOME", "REQUESTS#"]);
        let mut row = |name: String, number: u64| {
            if number > 0 {
                table.row([name, human::count(number)]);
            }
        };
        row("answered from memory".to_owned(), stats.hits(Tier::Memory));
        row("answered from Redis".to_owned(), stats.hits(Tier::Redis));
        row("answered by an equal request".to_owned(), stats.hits(Tier::Flight));
        row("asked".to_owned(), stats.misses());
        for (reason, number) in stats.bypassed() {
            row(format!("not for the cache: {}", reason.replace('_', " ")), number);
        }
        for (reason, number) in stats.not_stored_by_reason() {
            row(format!("not kept: {}", reason.replace('_', " ")), number);
        }
        if !inner.options.enabled {
            table.notes.push("The cache is off; cache.enabled switches it on.".to_owned());
        }
        if asked > 0 {
            let percent = data["hit_ratio"].as_f64().unwrap_or(0.0) * 100.0;
            let saved = human::usd(saved);
            table.notes.push(format!("{percent:.1}% answered from the cache, {saved} saved."));
        }
        table.notes.push(format!(
            "{} answers in {} of {}.",
            human::count(inner.memory.entry_count()),
            human::bytes(inner.memory.weighted_size()),
            human::bytes(inner.options.max_bytes),
        ));
        table.notes.extend(self.trouble());
        table
    }

    /// Forgets all answers.
    pub(super) fn clear(&self) -> Result<Reply> {
        let inner = &self.inner;
        inner.memory.run_pending_tasks();
        let here = inner.memory.entry_count();
        inner.memory.invalidate_all();
        inner.memory.run_pending_tasks();
        let in_redis =
            inner.link.as_ref().map(|link| inner.runtime.block_on(inner.clear_redis(link)));
        let mut table = Table::default();
        table.notes.push(format!("{} answers are forgotten here.", human::count(here)));
        let (data, code) = match in_redis {
            None => (json!({"removed": here, "removed_in_redis": null}), 0),
            Some(Ok(there)) => {
                table.notes.push(format!("{} are forgotten in Redis.", human::count(there)));
                (json!({"removed": here, "removed_in_redis": there}), 0)
            }
            Some(Err(error)) => {
                let note = format!("Those in Redis are still there: {error}. Try again later.");
                table.notes.push(note);
                (json!({"removed": here, "removed_in_redis": null, "error": error.to_string()}), 1)
            }
        };
        Ok(Reply::json(&data)?.table(table).exit_code(code))
    }
}

/// Returns a part of a whole, `None` of nothing.
#[expect(clippy::cast_precision_loss, reason = "a ratio is shown with few digits")]
fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

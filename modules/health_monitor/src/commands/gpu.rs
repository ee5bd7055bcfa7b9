//! `lodestar health gpu`.

use std::{collections::BTreeMap, time::Duration};

use module_sdk::{Reply, Result, Table, events::CheckStatus, human};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::status::millisecond;
use crate::{
    HealthMonitor,
    board::Entry,
    check::GPU_LIBRARY,
    metric::{
        GPU_CLOCK, GPU_LEASED, GPU_MEMORY_LIMIT, GPU_MEMORY_USAGE, GPU_PERFORMANCE_STATE,
        GPU_POWER_LIMIT, GPU_SUPPORTED, GPU_THROTTLE, GPU_UTILIZATION, HARDWARE_ERRORS,
        HARDWARE_FAN, HARDWARE_POWER, HARDWARE_TEMPERATURE, HARDWARE_TEMPERATURE_LIMIT, Metric,
        Unit,
    },
    reading::Series,
    text,
    values::Values,
};

/// Shows the NVIDIA cards: temperature, memory, power, what slows them down, and who uses them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GpuArgs {}

/// Processes of a card that the table has rows for; JSON has all.
const PROCESSES: usize = 16;

impl HealthMonitor {
    pub(crate) fn gpu(&mut self, _: GpuArgs) -> Result<Reply> {
        self.look()?;
        let board = self.monitor.board();
        let found = board.iter().filter(|(_, entry)| entry.check == "gpu");
        let found: Vec<_> = found.map(|(name, entry)| (&**name, entry)).collect();
        let there: Vec<Card<'_>> = found
            .iter()
            .filter(|(_, entry)| entry.status != CheckStatus::Absent)
            .map(|(name, entry)| Card::new(name, entry, self.monitor.values()))
            .collect();
        let data: Vec<Value> = there.iter().map(Card::json).collect();
        let mut table = table(&there);
        if there.is_empty() {
            let why = found
                .first()
                .map_or("the check of GPUs has not run", |(_, entry)| entry.message.as_str());
            table.notes.push(format!(
                "No GPU is watched: {why}. Cards are found by {GPU_LIBRARY} of NVIDIA's driver \
                 (Debian: `apt install nvidia-driver`)."
            ));
        }
        for card in there.iter().filter(|card| !card.entry.message.is_empty()) {
            table.notes.push(format!("{}: {}", card.component, card.entry.message));
        }
        Ok(Reply::json(&data)?.table(table))
    }
}

/// A card with its values.
struct Card<'a> {
    component: &'a str,
    entry: &'a Entry,
    values: Vec<(&'a Series, f64)>,
}

impl<'a> Card<'a> {
    fn new(component: &'a str, entry: &'a Entry, values: &'a Values) -> Self {
        let own = values.iter().filter(|(series, _)| &*series.component == component);
        Self { component, entry, values: own.map(|(series, value)| (&**series, value)).collect() }
    }

    /// Returns the value of a metric whose labels contain one.
    fn get(&self, metric: &Metric, label: &str) -> Option<f64> {
        let mut own = self.of(metric);
        own.find(|(series, _)| label.is_empty() || series.labels.iter().any(|it| &**it == label))
            .map(|(_, value)| value)
    }

    fn of(&self, metric: &Metric) -> impl Iterator<Item = (&'a Series, f64)> {
        self.values.iter().copied().filter(move |(series, _)| series.metric.name == metric.name)
    }

    /// Returns the values of a metric by its last label.
    fn by_label(&self, metric: &Metric) -> BTreeMap<&'a str, f64> {
        let labelled = |(series, value): (&'a Series, f64)| {
            series.labels.last().map(|label| (&**label, value))
        };
        self.of(metric).filter_map(labelled).collect()
    }

    fn detail(&self, key: &str) -> &Value {
        self.entry.details.as_deref().map_or(&Value::Null, |details| &details[key])
    }

    fn json(&self) -> Value {
        let unsupported = self.by_label(&GPU_SUPPORTED);
        let unsupported: Vec<&str> =
            unsupported.into_iter().filter(|(_, is)| *is == 0.0).map(|(item, _)| item).collect();
        json!({
            "component": self.component,
            "status": self.entry.status,
            "since": millisecond(self.entry.since),
            "message": self.entry.message,
            "id": self.detail("id"),
            "index": self.detail("index"),
            "name": self.detail("name"),
            "driver": self.detail("driver"),
            "temperature_celsius": self.get(&HARDWARE_TEMPERATURE, ""),
            "slowdown_celsius": self.get(&HARDWARE_TEMPERATURE_LIMIT, "high.degraded"),
            "shutdown_celsius": self.get(&HARDWARE_TEMPERATURE_LIMIT, "high.critical"),
            "utilization": self.get(&GPU_UTILIZATION, ""),
            "memory_used_bytes": self.get(&GPU_MEMORY_USAGE, ""),
            "memory_total_bytes": self.get(&GPU_MEMORY_LIMIT, ""),
            "leased": self.get(&GPU_LEASED, "").map(|it| it != 0.0),
            "power_watts": self.get(&HARDWARE_POWER, ""),
            "power_limit_watts": self.get(&GPU_POWER_LIMIT, ""),
            "fan": self.get(&HARDWARE_FAN, ""),
            "clock_hertz": self.get(&GPU_CLOCK, "sm"),
            "memory_clock_hertz": self.get(&GPU_CLOCK, "memory"),
            "performance_state": self.get(&GPU_PERFORMANCE_STATE, ""),
            "throttled_seconds": self.by_label(&GPU_THROTTLE),
            "errors": self.by_label(&HARDWARE_ERRORS),
            "unsupported": unsupported,
            "processes": self.detail("processes"),
        })
    }

    /// Returns the rows of the card: what each is about, and the value.
    fn rows(&self) -> Vec<(&'static str, String)> {
        let shown = |metric: &Metric, label| {
            self.get(metric, label).map(|value| text::show(metric.unit, value))
        };
        let text = |key| self.detail(key).as_str().map(str::to_owned);
        let of = |value: Option<String>, limit: Option<String>| match (value, limit) {
            (Some(value), Some(limit)) => Some(format!("{value} of {limit}")),
            (value, _) => value,
        };
        let slowdown = shown(&HARDWARE_TEMPERATURE_LIMIT, "high.degraded")
            .map_or_else(String::new, |limit| format!(" (slows down at {limit})"));
        let performance = self
            .get(&GPU_PERFORMANCE_STATE, "")
            .map(|state| format!("P{}", text::show(Unit::Count, state)));
        let leased =
            self.get(&GPU_LEASED, "").map(|it| if it == 0.0 { "none" } else { "has the card" });
        let rows = [
            ("name", text("name")),
            ("state", Some(self.entry.status.to_string())),
            ("driver", text("driver")),
            ("temperature", shown(&HARDWARE_TEMPERATURE, "").map(|it| it + &slowdown)),
            ("load", shown(&GPU_UTILIZATION, "")),
            ("memory", of(shown(&GPU_MEMORY_USAGE, ""), shown(&GPU_MEMORY_LIMIT, ""))),
            ("training run", leased.map(str::to_owned)),
            ("power", of(shown(&HARDWARE_POWER, ""), shown(&GPU_POWER_LIMIT, ""))),
            ("fan", shown(&HARDWARE_FAN, "")),
            ("clock", shown(&GPU_CLOCK, "sm")),
            ("memory clock", shown(&GPU_CLOCK, "memory")),
            ("performance state", performance),
            ("throttled", self.throttled()),
            ("errors", self.errors()),
        ];
        let rows = rows.into_iter().map(|(name, value)| (name, value.unwrap_or_else(dash)));
        rows.chain(self.processes()).collect()
    }

    /// Returns for how long the clocks were lowered since the start, by reason.
    fn throttled(&self) -> Option<String> {
        let reasons = self.by_label(&GPU_THROTTLE);
        if reasons.is_empty() {
            return None;
        }
        let lowered = reasons.into_iter().filter(|(_, seconds)| *seconds >= 1.0);
        let lowered: Vec<String> = lowered
            .map(|(reason, seconds)| {
                let length = Duration::try_from_secs_f64(seconds.round()).unwrap_or_default();
                format!("{} {}", reason.replace('_', " "), human::duration(length))
            })
            .collect();
        Some(if lowered.is_empty() { "no".to_owned() } else { lowered.join(", ") })
    }

    fn errors(&self) -> Option<String> {
        let errors = self.by_label(&HARDWARE_ERRORS);
        let came = errors.into_iter().filter(|(_, count)| *count > 0.0);
        let came: Vec<String> = came
            .map(|(kind, count)| format!("{kind}: {}", text::show(Unit::Count, count)))
            .collect();
        Some(if came.is_empty() { "none".to_owned() } else { came.join(", ") })
    }

    fn processes(&self) -> Vec<(&'static str, String)> {
        let Some(processes) = self.detail("processes").as_array() else {
            return vec![("process", dash())];
        };
        let shown = processes.iter().take(PROCESSES).map(|process| {
            let used = process["memory_bytes"].as_u64().map_or_else(dash, human::bytes);
            let name = process["name"].as_str().unwrap_or("?");
            ("process", format!("{} {name}: {used}", process["pid"]))
        });
        let more = processes.len().saturating_sub(PROCESSES);
        let more = (more > 0).then(|| ("process", format!("and {more} more")));
        shown.chain(more).collect()
    }
}

/// Lays out the cards side by side.
fn table(cards: &[Card<'_>]) -> Table {
    let known: Vec<&Card<'_>> = cards.iter().filter(|card| card.entry.details.is_some()).collect();
    if known.is_empty() {
        return Table::default();
    }
    let columns = std::iter::once("GPU").chain(known.iter().map(|card| card.component));
    let mut table = Table::new(columns);
    let cards: Vec<Vec<(&str, String)>> = known.iter().map(|card| card.rows()).collect();
    let longest = cards.iter().max_by_key(|rows| rows.len()).into_iter().flatten();
    for (row, (name, _)) in longest.enumerate() {
        let values = cards
            .iter()
            .map(|rows| rows.get(row).map(|(_, value)| value.clone()).unwrap_or_default());
        table.row(std::iter::once((*name).to_owned()).chain(values));
    }
    table
}

fn dash() -> String {
    "-".to_owned()
}

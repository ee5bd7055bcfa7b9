//! `lodestar usage summary`: sums and percentiles over any range, from the rollups.

use std::collections::HashMap;

use jiff::{Timestamp, tz::TimeZone};
use module_sdk::{LogHistogram, TimeRange, Usd};
use rusqlite::{Connection, types::ValueRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Reader,
    segments::{Plan, Segment, plan},
};
use crate::{
    days::days,
    store::{DAY_HOURS, HOUR_MS, KEPT_FROM, Measures, SUMS, StoreError},
};

/// The grouping of the rows of a summary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The model that answered.
    #[default]
    Model,
    /// The provider.
    Provider,
    /// The project.
    Project,
    /// The session.
    Session,
    /// The day.
    Day,
    /// The hour.
    Hour,
    /// The tool.
    Client,
    /// The branch of the project's repository.
    Branch,
}

/// The answer. Field names are stable.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Start of the range, RFC 3339.
    pub from: String,
    /// End of the range, exclusive, RFC 3339.
    pub to: String,
    /// Grouping of the rows.
    pub by: By,
    /// Rows, the most expensive first; days and hours in chronological order.
    pub rows: Vec<Row>,
    /// Figures of all requests.
    pub total: Figures,
    /// `true` when edges of the range were rounded to whole hours, since the requests are deleted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rounded_to_hours: bool,
}

/// One row of a summary.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Key of the row, such as a model; `null` for requests whose key is not known.
    pub key: Option<String>,
    /// Figures of the requests in the row.
    #[serde(flatten)]
    pub figures: Figures,
}

/// Sums over requests.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// Number of requests.
    pub requests: i64,
    /// Number of requests that did not end well.
    pub errors: i64,
    /// Number of input tokens, caches included.
    pub input_tokens: i64,
    /// Number of output tokens, reasoning included.
    pub output_tokens: i64,
    /// Number of input tokens read from a cache.
    pub cached_input_tokens: i64,
    /// Number of input tokens written to a cache.
    pub cache_write_input_tokens: i64,
    /// Number of output tokens for reasoning.
    pub reasoning_tokens: i64,
    /// Number of requests that should have a cost and have no known one.
    pub unpriced_requests: i64,
    /// Sum of the known costs; `null` when none is known.
    pub cost_usd: Option<Usd>,
    /// Cost at the baseline model of the requests whose cost is known here and there; `null` when
    /// there are none.
    pub baseline_cost_usd: Option<Usd>,
    /// Cost at the baseline model minus the cost, over the same requests; `null` when there are
    /// none.
    pub savings_usd: Option<Usd>,
    /// Durations of requests, in milliseconds.
    pub latency_ms: Percentiles,
    /// Times to the first content, in milliseconds.
    pub ttft_ms: Percentiles,
}

/// Percentiles, within 1.6% of the true ones; `null` when nothing was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// The median.
    pub p50: Option<u32>,
    /// Value that 95% of all values do not exceed.
    pub p95: Option<u32>,
    /// Value that 99% of all values do not exceed.
    pub p99: Option<u32>,
}

/// Sums up a range.
///
/// # Errors
///
/// When the database cannot be read.
pub fn summary(reader: &mut Reader, period: &TimeRange, by: By) -> Result<Summary, StoreError> {
    reader.ask(|connection, texts| {
        // One transaction, so that all segments see the same state.
        let connection = connection.unchecked_transaction()?;
        let mut sums = Sums::new(&connection, period)?;
        let mut rows = Vec::new();
        let mut total = Total::default();
        let groups = match by {
            By::Day => sums.by_day(&connection, &period.zone)?,
            By::Hour => sums.by_hour(&connection, &period.zone)?,
            By::Session => sums.by_session(&connection, &mut total)?,
            By::Model | By::Provider | By::Project | By::Client | By::Branch => {
                let groups = sums.by_key(&connection, Key::of(by))?;
                let named = groups
                    .into_iter()
                    .map(|(id, group)| Ok((texts.text(&connection, Some(id))?, group)));
                named.collect::<rusqlite::Result<Vec<_>>>()?
            }
        };
        let with_total = by == By::Session;
        for (key, group) in groups {
            if !with_total {
                total.merge(&group, false);
            }
            if group.sums.requests != 0 {
                rows.push(Row { key, figures: group.figures() });
            }
        }
        if !matches!(by, By::Day | By::Hour) {
            dearest_first(&mut rows);
        }
        Ok(Summary {
            from: period.from.to_string(),
            to: period.to.to_string(),
            by,
            rows,
            total: total.figures(),
            rounded_to_hours: sums.rounded,
        })
    })
}

fn dearest_first(rows: &mut [Row]) {
    rows.sort_by(|one, two| {
        let rank = |row: &Row| (row.figures.cost_usd, row.figures.requests);
        rank(two).cmp(&rank(one)).then_with(|| one.key.cmp(&two.key))
    });
}

/// The grouping of the rows of a table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Everything,
    Provider,
    Model,
    Project,
    Client,
    Branch,
    Session,
    Hour,
    /// Provider and model: `provider << 32 | model`.
    ProviderAndModel,
}

impl Key {
    const fn of(by: By) -> Self {
        match by {
            By::Model => Self::Model,
            By::Provider => Self::Provider,
            By::Project => Self::Project,
            By::Client => Self::Client,
            By::Branch => Self::Branch,
            By::Session => Self::Session,
            By::Hour => Self::Hour,
            By::Day => Self::Everything,
        }
    }

    /// Returns the key as SQL over a rollup.
    const fn of_rollup(self) -> &'static str {
        match self {
            Self::Everything => "0",
            Self::Provider => "provider",
            Self::Model => "model",
            Self::Project => "project",
            Self::Client => "client",
            Self::Branch => "branch",
            Self::Session => "session",
            Self::Hour => "hour",
            Self::ProviderAndModel => "(provider << 32) | model",
        }
    }

    /// Returns the key as SQL over `request`.
    const fn of_request(self) -> &'static str {
        match self {
            Self::Model => "coalesce(response_model, routed_model, request_model)",
            Self::Hour => "ended_at / 3600000",
            Self::ProviderAndModel => {
                "(coalesce(provider, 0) << 32) \
                 | coalesce(response_model, routed_model, request_model, 0)"
            }
            other => other.of_rollup(),
        }
    }
}

/// The columns of [`SUMS`] and the two durations of a single request.
const OF_REQUEST: &str = "1, status IS NOT NULL AND status NOT IN \
     (SELECT id FROM name WHERE kind = 'word' AND text IN ('ok', 'cached')), \
     input_tokens, output_tokens, cache_read_tokens, \
     coalesce(cache_write_5m_tokens, 0) + coalesce(cache_write_1h_tokens, 0), reasoning_tokens, \
     cost_nano_usd IS NOT NULL, unpriced, cost_nano_usd, \
     cost_nano_usd IS NOT NULL AND baseline_nano_usd IS NOT NULL, \
     CASE WHEN baseline_nano_usd IS NOT NULL THEN cost_nano_usd END, \
     CASE WHEN cost_nano_usd IS NOT NULL THEN baseline_nano_usd END, duration_ms, ttft_ms";

pub(super) type Groups = HashMap<i64, Total>;
type Named = Vec<(Option<String>, Total)>;

/// Sums over the range of a period.
pub(super) struct Sums {
    from: i64,
    to: i64,
    kept_from: i64,
    rounded: bool,
}

impl Sums {
    pub(super) fn new(connection: &Connection, period: &TimeRange) -> rusqlite::Result<Self> {
        let (from, to) = period.bounds_ms();
        // A range without an end has that of what was counted.
        let last: Option<i64> = connection
            .prepare_cached("SELECT max(day) FROM usage_day")?
            .query_row([], |row| row.get(0))?;
        let end =
            last.map_or(from, |day| day.saturating_add(1).saturating_mul(DAY_HOURS * HOUR_MS));
        let to = to.min(end);
        let kept_from = module_sqlite::number(connection, KEPT_FROM)?.unwrap_or(i64::MIN);
        Ok(Self { from, to, kept_from, rounded: false })
    }

    pub(super) fn by_key(&mut self, connection: &Connection, key: Key) -> rusqlite::Result<Groups> {
        let mut groups = Groups::new();
        let plan = self.plan(self.from, self.to, true);
        for segment in plan.segments {
            add(connection, segment, key, &mut groups)?;
        }
        Ok(groups)
    }

    fn by_day(&mut self, connection: &Connection, zone: &TimeZone) -> rusqlite::Result<Named> {
        let mut named = Named::new();
        for (date, from, to) in days(self.from, self.to, zone) {
            let mut groups = Groups::new();
            for segment in self.plan(from, to, true).segments {
                add(connection, segment, Key::Everything, &mut groups)?;
            }
            named.extend(groups.into_values().map(|total| (Some(date.to_string()), total)));
        }
        Ok(named)
    }

    /// Returns the sums of each hour. Hours are those of UTC; in zones that are half an hour off
    /// they begin at the half hour.
    fn by_hour(&mut self, connection: &Connection, zone: &TimeZone) -> rusqlite::Result<Named> {
        let mut groups = Groups::new();
        for segment in self.plan(self.from, self.to, false).segments {
            add(connection, segment, Key::Hour, &mut groups)?;
        }
        let mut hours: Vec<(i64, Total)> = groups.into_iter().collect();
        hours.sort_by_key(|(hour, _)| *hour);
        let label = |hour: i64| {
            let start = Timestamp::from_millisecond(hour.saturating_mul(HOUR_MS)).ok()?;
            Some(start.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string())
        };
        Ok(hours.into_iter().map(|(hour, total)| (label(hour), total)).collect())
    }

    /// Returns the sums of each session, and those of requests without a session as the difference
    /// to the total.
    fn by_session(
        &mut self,
        connection: &Connection,
        total: &mut Total,
    ) -> rusqlite::Result<Named> {
        for group in self.by_key(connection, Key::Everything)?.values() {
            total.merge(group, false);
        }
        let mut groups = Groups::new();
        for segment in self.plan(self.from, self.to, false).segments {
            match segment {
                Segment::Hours(first, last) => add_sessions(connection, first, last, &mut groups)?,
                other => add(connection, other, Key::Session, &mut groups)?,
            }
        }
        // What belongs to no session.
        groups.remove(&0);
        let mut rest = total.clone();
        let mut named = Named::new();
        let mut key = connection.prepare_cached("SELECT key FROM session WHERE id = ?1")?;
        for (id, group) in groups {
            rest.merge(&group, true);
            named.push((key.query_row([id], |row| row.get(0))?, group));
        }
        named.push((None, rest));
        Ok(named)
    }

    fn plan(&mut self, from: i64, to: i64, by_day: bool) -> Plan {
        let plan = plan(from, to, self.kept_from, by_day);
        self.rounded |= plan.rounded;
        plan
    }
}

fn add(
    connection: &Connection,
    segment: Segment,
    key: Key,
    groups: &mut Groups,
) -> rusqlite::Result<()> {
    let rollup = |table: &str, bucket: &str| {
        format!(
            "SELECT {}, {}, duration, ttft FROM {table} WHERE {bucket} >= ?1 AND {bucket} < ?2",
            key.of_rollup(),
            SUMS.join(", "),
        )
    };
    let (sql, from, to) = match segment {
        Segment::Days(from, to) => (rollup("usage_day", "day"), from, to),
        Segment::Hours(from, to) => (rollup("usage_hour", "hour"), from, to),
        Segment::Requests(from, to) => (
            format!(
                "SELECT {}, {OF_REQUEST} FROM request WHERE ended_at >= ?1 AND ended_at < ?2",
                key.of_request(),
            ),
            from,
            to,
        ),
    };
    collect(connection, &sql, (from, to), groups)
}

/// Adds the sessions that were active in a range of hours.
fn add_sessions(
    connection: &Connection,
    first: i64,
    last: i64,
    groups: &mut Groups,
) -> rusqlite::Result<()> {
    let sums: Vec<String> = SUMS.iter().map(|sum| format!("u.{sum}")).collect();
    let sql = format!(
        "SELECT u.session, {}, u.duration, u.ttft FROM session s \
         JOIN usage_session u ON u.session = s.id AND u.hour >= ?1 AND u.hour < ?2 \
         WHERE s.ended_at >= ?1 * {HOUR_MS} AND s.started_at < ?2 * {HOUR_MS}",
        sums.join(", "),
    );
    collect(connection, &sql, (first, last), groups)
}

fn collect(
    connection: &Connection,
    sql: &str,
    range: (i64, i64),
    groups: &mut Groups,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(range)?;
    while let Some(row) = rows.next()? {
        let key: Option<i64> = row.get(0)?;
        groups.entry(key.unwrap_or(0)).or_default().add_row(row)?;
    }
    Ok(())
}

/// Sums and histograms of a group.
#[derive(Debug, Clone, Default)]
pub(super) struct Total {
    /// Sums, whose own histograms are not used.
    pub(super) sums: Measures,
    duration: LogHistogram,
    ttft: LogHistogram,
}

impl Total {
    /// Adds a row: a key, [`SUMS`], and the two histograms or single durations.
    fn add_row(&mut self, row: &rusqlite::Row<'_>) -> rusqlite::Result<()> {
        self.sums.add_sums(row, 1)?;
        let histograms = [&mut self.duration, &mut self.ttft];
        for (at, sum) in (1 + SUMS.len()..).zip(histograms) {
            match row.get_ref(at)? {
                ValueRef::Blob(bytes) => sum.merge_encoded(bytes).map_err(|error| {
                    let blob = rusqlite::types::Type::Blob;
                    rusqlite::Error::FromSqlConversionFailure(at, blob, error.into())
                })?,
                ValueRef::Integer(ms) => sum.add(u32::try_from(ms).unwrap_or(u32::MAX), 1),
                _ => {}
            }
        }
        Ok(())
    }

    fn merge(&mut self, other: &Self, take_out: bool) {
        if take_out {
            self.sums.subtract_sums(&other.sums);
            self.duration.subtract(&other.duration);
            self.ttft.subtract(&other.ttft);
        } else {
            self.sums += &other.sums;
            self.duration.merge(&other.duration);
            self.ttft.merge(&other.ttft);
        }
    }

    pub(super) fn figures(&self) -> Figures {
        let sums = &self.sums;
        let compared = sums.compared > 0;
        Figures {
            requests: sums.requests,
            errors: sums.errors,
            input_tokens: sums.input,
            output_tokens: sums.output,
            cached_input_tokens: sums.cache_read,
            cache_write_input_tokens: sums.cache_write,
            reasoning_tokens: sums.reasoning,
            unpriced_requests: sums.unpriced,
            cost_usd: (sums.priced > 0).then_some(Usd::from_nano(sums.cost)),
            baseline_cost_usd: compared.then_some(Usd::from_nano(sums.baseline)),
            savings_usd: compared
                .then(|| Usd::from_nano(sums.baseline.saturating_sub(sums.compared_cost))),
            latency_ms: Percentiles::of(&self.duration),
            ttft_ms: Percentiles::of(&self.ttft),
        }
    }
}

impl Percentiles {
    fn of(histogram: &LogHistogram) -> Self {
        Self {
            p50: histogram.percentile(50),
            p95: histogram.percentile(95),
            p99: histogram.percentile(99),
        }
    }
}

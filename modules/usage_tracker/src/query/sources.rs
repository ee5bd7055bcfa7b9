//! `lodestar usage sources`: the reports of each source, and the difference between its costs and
//! ours.

use std::collections::BTreeMap;

use module_sdk::{
    TimeRange, Usd,
    events::{CostSource, RequestSource},
};
use serde::Serialize;

use super::Reader;
use crate::{sanitize::flag, store::StoreError};

/// A source of reports and the tool behind it. Field names are stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceUse {
    /// Origin of the reports: `gateway`, `transcript`, `otlp_log`, `otlp_span`; of a request that
    /// several sources have reported, the most trusted one.
    pub source: Option<String>,
    /// Tool that sent the reports.
    pub client: Option<String>,
    /// Number of requests.
    pub requests: i64,
    /// Sum of the known costs; `null` when none is known.
    pub cost_usd: Option<Usd>,
    /// Number of requests whose cost the client states as well.
    pub stated_requests: i64,
    /// Sum of the stated costs; `null` when none is stated.
    pub stated_cost_usd: Option<Usd>,
    /// Sum of the stated costs minus ours, over the requests that have both; `null` where none has
    /// a price of ours, since the cost is then what the client states.
    pub difference_usd: Option<Usd>,
    /// Number of requests whose two costs differ by more than rounding.
    pub differing_requests: i64,
    /// Number of requests that several sources have reported.
    pub merged_requests: i64,
    /// Number of requests that each other source has reported as well.
    pub also_reported_by: BTreeMap<&'static str, i64>,
    /// Number of requests of which two sources say different token counts: those of the more
    /// trusted one are used.
    pub disagreeing_requests: i64,
}

/// Largest difference that counts as rounding by clients, in nano-USD.
const ROUNDING: i64 = 10_000;

/// Returns whether a stated cost differs so much from ours that it needs an explanation: by more
/// than a hundredth of the larger and by more than a hundred-thousandth of a dollar.
#[must_use]
pub(crate) fn differ(cost: i64, stated: i64) -> bool {
    let apart = i128::from(stated) - i128::from(cost);
    apart.abs() > i128::from(ROUNDING) && apart.abs() * 100 > i128::from(stated.max(cost))
}

/// Number of nano-USD in a dollar.
const DOLLAR: i64 = 1_000_000_000;

/// Returns SQL for the number of known values of a column, and for their sum in dollars and the
/// rest in nano-USD: integers that do not overflow, as a sum of nano-USD might.
fn sum(column: &str) -> String {
    format!(
        "count({column}), coalesce(sum({column} / {DOLLAR}), 0), \
         coalesce(sum({column} % {DOLLAR}), 0)"
    )
}

/// Returns the sources of a period, the one with the largest difference first. Reads the requests
/// themselves, so only as far back as they are kept.
///
/// # Errors
///
/// When the database cannot be read.
pub fn sources(reader: &mut Reader, period: &TimeRange) -> Result<Vec<SourceUse>, StoreError> {
    let (from, to) = period.bounds_ms();
    let by_source: String = (0..RequestSource::ALL.len())
        .map(|bit| format!(", coalesce(sum(sources >> {bit} & 1), 0)"))
        .collect();
    let disagree = flag::DISAGREE;
    let sql = format!(
        "SELECT source, client, count(*), {}, {}, {}, \
         coalesce(sum(abs(apart) > {ROUNDING} \
         AND abs(apart) > max(stated_nano_usd, cost_nano_usd) / 100), 0), \
         coalesce(sum(sources & (sources - 1) <> 0), 0), \
         coalesce(sum(flags & {disagree} <> 0), 0){by_source} \
         FROM (SELECT *, CASE WHEN cost_source = (SELECT id FROM name \
         WHERE kind = 'word' AND text = '{}') THEN stated_nano_usd - cost_nano_usd END AS apart \
         FROM request WHERE ended_at >= ?1 AND ended_at < ?2) GROUP BY source, client",
        sum("cost_nano_usd"),
        sum("stated_nano_usd"),
        sum("apart"),
        CostSource::PriceTable.as_str(),
    );
    reader.ask(|connection, texts| {
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query((from, to))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let known = |at: usize| {
                let sum = i128::from(row.get::<_, i64>(at + 1)?) * i128::from(DOLLAR)
                    + i128::from(row.get::<_, i64>(at + 2)?);
                let limit = if sum < 0 { i64::MIN } else { i64::MAX };
                let usd = Usd::from_nano(i64::try_from(sum).unwrap_or(limit));
                Ok::<_, rusqlite::Error>((row.get::<_, i64>(at)? > 0).then_some(usd))
            };
            let source = texts.text(connection, row.get(0)?)?;
            let source = source.as_deref();
            found.push(SourceUse {
                client: texts.text(connection, row.get(1)?)?,
                requests: row.get(2)?,
                cost_usd: known(3)?,
                stated_requests: row.get(6)?,
                stated_cost_usd: known(6)?,
                difference_usd: known(9)?,
                differing_requests: row.get(12)?,
                merged_requests: row.get(13)?,
                also_reported_by: also(row, source)?,
                disagreeing_requests: row.get(14)?,
                source: source.map(str::to_owned),
            });
        }
        found.sort_by_key(|source| {
            let apart =
                source.difference_usd.map_or(0, |difference| difference.nano().unsigned_abs());
            std::cmp::Reverse((apart, source.requests))
        });
        Ok(found)
    })
}

/// Returns how many of the requests of a source were reported by each other one.
fn also(
    row: &rusqlite::Row<'_>,
    source: Option<&str>,
) -> rusqlite::Result<BTreeMap<&'static str, i64>> {
    let mut also = BTreeMap::new();
    for (at, other) in (15..).zip(RequestSource::ALL) {
        let number: i64 = row.get(at)?;
        if number > 0 && Some(other.as_str()) != source {
            also.insert(other.as_str(), number);
        }
    }
    Ok(also)
}

#[cfg(test)]
mod tests {
    use module_sdk::events::LlmRequestCompleted;

    use super::*;
    use crate::{
        sanitize::Report,
        store::{Options, Store},
    };

    #[test]
    fn money_is_added_in_whole_numbers() {
        const NOW: i64 = 1_795_000_000_000;
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("u.db");
        let mut store = Store::open(&path, Options::default()).expect("it opens");
        let mut reader = Reader::open(&path).expect("it opens");
        let period = TimeRange {
            from: jiff::Timestamp::UNIX_EPOCH,
            to: jiff::Timestamp::MAX,
            is_open: true,
            zone: jiff::tz::TimeZone::UTC,
        };
        let mut stated_after = |key: &str, stated: i64| {
            let request = LlmRequestCompleted {
                dedupe_key: key.to_owned(),
                ended_at: NOW,
                request_model: Some("house-model".to_owned()),
                ..LlmRequestCompleted::default()
            };
            let mut report = Report::new(uuid::Uuid::now_v7(), request, NOW);
            report.stated_nano_usd = Some(stated);
            store.write(vec![report], NOW).expect("it is written");
            let sources = sources(&mut reader, &period).expect("it answers");
            sources[0].stated_cost_usd
        };
        // A floating-point number has no room for the last digit.
        assert_eq!(stated_after("a", 1 << 53), Some(Usd::from_nano(1 << 53)));
        assert_eq!(stated_after("b", 1), Some(Usd::from_nano((1 << 53) + 1)));
        assert_eq!(stated_after("c", i64::MAX), Some(Usd::from_nano(i64::MAX)), "it is cut");
    }

    #[test]
    fn rounding_is_no_difference() {
        let check = |cost, stated, expected| assert_eq!(differ(cost, stated), expected);
        check(100_000_000, 200_000_000, true);
        check(200_000_000, 100_000_000, true);
        check(100_000_000, 100_900_000, false);
        check(100_000_000, 101_100_000, true);
        check(0, 10_000, false);
        check(0, 10_001, true);
        check(i64::MAX, 0, true);
    }
}

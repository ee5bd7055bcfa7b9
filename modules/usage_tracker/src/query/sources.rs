//! `lodestar usage sources`: what each source reported, and how far its costs are from ours.

use serde::Serialize;

use super::{Reader, Usd};
use crate::{
    period::Period,
    store::{StoreError, integer},
};

/// A source of reports and the tool behind it. Field names are stable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceUse {
    /// How its reports came: `otlp_log`, `otlp_span`, `gateway`.
    pub source: Option<String>,
    /// The tool.
    pub client: Option<String>,
    /// Requests.
    pub requests: i64,
    /// Their known costs; `null` when none is.
    pub cost_usd: Option<Usd>,
    /// Requests whose cost the client states as well.
    pub stated_requests: i64,
    /// What it states; `null` when it states nothing.
    pub stated_cost_usd: Option<Usd>,
    /// The stated costs less ours, over the requests that have both.
    pub difference_usd: Option<Usd>,
    /// Requests whose two costs are apart by more than rounding.
    pub differing_requests: i64,
}

/// What is not yet a difference, nano-USD: clients round.
const ROUNDING: i64 = 10_000;

/// Whether a stated cost is so far from ours that it wants an explanation: by more than a hundredth
/// and more than a hundred-thousandth of a dollar.
#[must_use]
pub(crate) fn differ(cost: i64, stated: i64) -> bool {
    let apart = i128::from(stated) - i128::from(cost);
    apart.abs() > i128::from(ROUNDING) && apart.abs() * 100 > i128::from(stated.max(cost))
}

/// The sources of a period, the one with the largest difference first. Reads the requests
/// themselves, so as far back as they are kept.
///
/// # Errors
///
/// When the database cannot be read.
pub fn sources(reader: &mut Reader, period: &Period) -> Result<Vec<SourceUse>, StoreError> {
    let (from, to) = period.bounds_ms();
    let sql = format!(
        "SELECT source, client, count(*), count(cost_nano_usd), total(cost_nano_usd), \
         count(stated_nano_usd), total(stated_nano_usd), \
         count(cost_nano_usd + stated_nano_usd), total(stated_nano_usd - cost_nano_usd), \
         total(abs(stated_nano_usd - cost_nano_usd) > {ROUNDING} AND \
         abs(stated_nano_usd - cost_nano_usd) * 100 > max(stated_nano_usd, cost_nano_usd)) \
         FROM request WHERE ended_at >= ?1 AND ended_at < ?2 GROUP BY source, client",
    );
    reader.ask(|connection, texts| {
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query((from, to))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let number = |at: usize| row.get_ref(at).map(integer);
            let known = |count: usize, sum: usize| {
                Ok::<_, rusqlite::Error>((number(count)? > 0).then_some(Usd(number(sum)?)))
            };
            found.push(SourceUse {
                source: texts.text(connection, row.get(0)?)?,
                client: texts.text(connection, row.get(1)?)?,
                requests: number(2)?,
                cost_usd: known(3, 4)?,
                stated_requests: number(5)?,
                stated_cost_usd: known(5, 6)?,
                difference_usd: known(7, 8)?,
                differing_requests: number(9)?,
            });
        }
        found.sort_by_key(|source| {
            let apart = source.difference_usd.map_or(0, |difference| difference.0.unsigned_abs());
            std::cmp::Reverse((apart, source.requests))
        });
        Ok(found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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

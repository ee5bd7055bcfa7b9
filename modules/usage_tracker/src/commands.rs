//! The commands `lodestar usage …`: their arguments and tables.

mod listing;
mod sources;

pub(crate) use listing::requests_list;
pub(crate) use sources::sources;

use jiff::Timestamp;
use module_prices::PriceTable;
use module_sdk::{Reply, Result, Table, TimeRange, TimeRangeArgs, Usd, human::count};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    format::{beginnings, milliseconds, minute, short, usd},
    query::{self, By, Figures, Percentiles, Reader, SessionUse, Summary},
};

/// Sums up what was used, in 30 days where nothing else is said: requests, tokens, cost, savings
/// and response times.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SummaryArgs {
    #[serde(flatten)]
    pub(crate) range: TimeRangeArgs,
    /// The grouping of the rows.
    pub(crate) by: By,
    /// At most so many rows; the total counts all.
    #[schemars(range(min = 1))]
    pub(crate) limit: Option<u32>,
}

/// Lists sessions (of 30 days where nothing else is said), the latest first, with their models,
/// switches and cost.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SessionsArgs {
    #[serde(flatten)]
    pub(crate) range: TimeRangeArgs,
    /// At most so many sessions [default: 50].
    #[schemars(range(min = 1, max = MOST))]
    pub(crate) limit: Option<u32>,
}

/// Lists single requests (of 30 days where nothing else is said), the latest first.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RequestsArgs {
    #[serde(flatten)]
    pub(crate) range: TimeRangeArgs,
    /// Only requests that this model answered, however its name was spelt.
    pub(crate) model: Option<String>,
    /// Only requests of this session: its id as `sessions` shows it, or as much of it as tells it
    /// from the others.
    pub(crate) session: Option<String>,
    /// Only requests of this project.
    pub(crate) project: Option<String>,
    /// Only requests that did not end well.
    pub(crate) errors: bool,
    /// At most so many requests; `usage export` has no limit [default: 50].
    #[schemars(range(min = 1, max = MOST))]
    pub(crate) limit: Option<u32>,
}

/// Lists the models in use (in 30 days where nothing else is said) with their prices, and those
/// that have none.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ModelsArgs {
    #[serde(flatten)]
    pub(crate) range: TimeRangeArgs,
}

/// Lists where reports came from (in 30 days where nothing else is said), with our costs beside
/// those that the clients state.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SourcesArgs {
    #[serde(flatten)]
    pub(crate) range: TimeRangeArgs,
}

/// Default start of the period.
pub(crate) const SINCE: &str = "30d";
/// Default number of rows in a list.
const LIMIT: u32 = 50;
/// Largest number of rows in a list, which is built in memory. An export has no limit.
const MOST: u32 = 10_000;

/// Answers `summary`.
pub(crate) fn summary(
    reader: &mut Reader,
    period: &TimeRange,
    args: &SummaryArgs,
) -> Result<Reply> {
    let mut summary = query::summary(reader, period, args.by)?;
    let all = summary.rows.len();
    if let Some(limit) = args.limit {
        summary.rows.truncate(limit as usize);
    }
    let table = summary_table(&summary, all, period);
    Ok(Reply::json(&summary)?.table(table))
}

fn summary_table(summary: &Summary, all: usize, period: &TimeRange) -> Table {
    let head = serde_json::to_value(summary.by).ok();
    let head = head.and_then(|by| by.as_str().map(str::to_uppercase)).unwrap_or_default();
    let mut table = Table::new([
        head.as_str(),
        "REQ#",
        "INPUT#",
        "CACHED#",
        "OUTPUT#",
        "COST#",
        "SAVED#",
        "P50#",
    ]);
    table.title = title("Usage", period);
    let keys = summary.rows.iter().filter_map(|row| row.key.as_deref());
    let sessions = beginnings(keys.map(bare), 8, 22);
    for row in &summary.rows {
        let key = row.key.as_deref().map_or_else(
            || "(unknown)".to_owned(),
            |key| match summary.by {
                By::Hour => hour(key),
                By::Session => sessions(bare(key)),
                _ => short(key, 22),
            },
        );
        table.rows.push(cells(key, &row.figures));
    }
    table.total = cells("total".to_owned(), &summary.total);
    let figures = &summary.total;
    if figures.requests == 0 {
        table.total.clear();
        table.notes.push("no requests in this time".to_owned());
    }
    if let Some(note) = response_times(figures) {
        table.notes.push(note);
    }
    if figures.errors > 0 {
        let all = requests(figures.requests);
        table.notes.push(format!("{} of {all} did not end well", count(figures.errors)));
    }
    if figures.unpriced_requests > 0 {
        table.notes.push(format!(
            "{} without a known price: their cost is missing where COST has - or + (`lodestar \
             usage models` shows which)",
            requests(figures.unpriced_requests)
        ));
    }
    if all > summary.rows.len() {
        let shown = summary.rows.len();
        table.notes.push(format!("{shown} of {all} rows are shown; the total counts all"));
    }
    if summary.rounded_to_hours {
        table.notes.push(
            "the edges are rounded to whole hours, since single requests of then are deleted"
                .to_owned(),
        );
    }
    table
}

/// Shortens `2026-11-21T01:00:00+01:00` to `2026-11-21 01:00+01:00`, which fits. The offset tells
/// apart the hour that occurs twice in autumn.
fn hour(key: &str) -> String {
    match (key.get(..10), key.get(11..16), key.get(19..)) {
        (Some(day), Some(time), Some(offset)) => format!("{day} {time}{offset}"),
        _ => key.to_owned(),
    }
}

fn cells(key: String, figures: &Figures) -> Vec<String> {
    vec![
        key,
        count(figures.requests),
        count(figures.input_tokens),
        count(figures.cached_input_tokens),
        count(figures.output_tokens),
        cost(figures),
        usd(figures.savings_usd),
        milliseconds(figures.latency_ms.p50.map(u64::from)),
    ]
}

/// Returns a cost as the tables show it: `-` where it is not known, and with a `+` where some of it
/// is not. Requests that failed before a token was counted cost nothing.
fn cost(figures: &Figures) -> String {
    match figures.cost_usd {
        Some(known) if figures.unpriced_requests > 0 => format!("{}+", usd(Some(known))),
        None if figures.unpriced_requests == 0 => usd(Some(Usd::default())),
        known => usd(known),
    }
}

fn response_times(figures: &Figures) -> Option<String> {
    let times = |percentiles: &Percentiles| {
        let ms = |value: Option<u32>| milliseconds(value.map(u64::from));
        let Percentiles { p50, p95, p99 } = *percentiles;
        p50.is_some().then(|| format!("p50 {}, p95 {}, p99 {}", ms(p50), ms(p95), ms(p99)))
    };
    let whole = times(&figures.latency_ms)?;
    Some(match times(&figures.ttft_ms) {
        Some(first) => format!("response times: {whole}; to the first token: {first}"),
        None => format!("response times: {whole}"),
    })
}

/// Answers `sessions`.
pub(crate) fn sessions(
    reader: &mut Reader,
    period: &TimeRange,
    args: &SessionsArgs,
) -> Result<Reply> {
    let sessions = query::sessions(reader, period, args.limit.unwrap_or(LIMIT))?;
    let projects = sessions.iter().any(|session| session.project.is_some());
    let belongs = if projects { "PROJECT" } else { "CLIENT" };
    let mut table =
        Table::new(["SESSION", belongs, "STARTED", "LASTED#", "REQ#", "MODELS", "SW#", "COST#"]);
    table.title = title("Sessions", period);
    let ids = beginnings(sessions.iter().map(|session| bare(&session.session_id)), 8, 16);
    for session in &sessions {
        let belongs = if projects { &session.project } else { &session.client };
        let id = ids(bare(&session.session_id));
        table.row(session_cells(session, id, belongs.as_deref(), period));
    }
    if sessions.is_empty() {
        table.notes.push("no sessions in this time".to_owned());
    }
    Ok(Reply::json(&sessions)?.table(table))
}

/// Returns a session's id without the prefix of session pseudonyms.
fn bare(id: &str) -> &str {
    id.strip_prefix(query::PSEUDONYM).unwrap_or(id)
}

fn session_cells(
    session: &SessionUse,
    id: String,
    belongs: Option<&str>,
    period: &TimeRange,
) -> [String; 8] {
    let started: Timestamp = session.started_at.parse().unwrap_or_default();
    let ended: Timestamp = session.ended_at.parse().unwrap_or(started);
    let lasted = ended.as_millisecond().saturating_sub(started.as_millisecond());
    let models = match session.models.as_slice() {
        [] => "-".to_owned(),
        [model] => short(model, 16),
        [model, more @ ..] => format!("{} +{}", short(model, 13), more.len()),
    };
    [
        id,
        short(belongs.unwrap_or("-"), 11),
        minute(started.as_millisecond(), &period.zone),
        milliseconds(u64::try_from(lasted).ok()),
        count(session.requests),
        models,
        count(session.model_switches),
        usd(session.cost_usd),
    ]
}

/// Answers `models`.
pub(crate) fn models(
    reader: &mut Reader,
    period: &TimeRange,
    prices: &PriceTable,
) -> Result<Reply> {
    let models = query::models(reader, period, prices)?;
    let mut table =
        Table::new(["MODEL", "PROVIDER", "REQ#", "COST#", "IN/M#", "CACHED/M#", "OUT/M#"]);
    table.title = title("Models", period);
    let mut unpriced = 0;
    for model in &models {
        unpriced += model.figures.unpriced_requests;
        let price = |pick: fn(&query::ModelPrice) -> Usd| usd(model.price.as_ref().map(pick));
        table.row([
            short(model.model.as_deref().unwrap_or("(unknown)"), 24),
            short(model.provider.as_deref().unwrap_or("-"), 12),
            count(model.figures.requests),
            cost(&model.figures),
            price(|price| price.input),
            price(|price| price.cache_read),
            price(|price| price.output),
        ]);
    }
    table
        .notes
        .push(format!("prices are US dollars per million tokens, table of {}", prices.version()));
    if unpriced > 0 {
        table.notes.push(format!(
            "{} without a known price: add their models, or the tiers of service at which they \
             were answered, under `prices` in the configuration",
            requests(unpriced)
        ));
    }
    Ok(Reply::json(&models)?.table(table))
}

fn title(what: &str, period: &TimeRange) -> String {
    let local =
        |time: Timestamp| time.to_zoned(period.zone.clone()).strftime("%Y-%m-%d %H:%M").to_string();
    let zone = period.zone.iana_name().unwrap_or("local time");
    format!("{what} from {} to {} ({zone})", local(period.from), local(period.to))
}

pub(crate) fn requests(number: i64) -> String {
    if number == 1 { "1 request".to_owned() } else { format!("{} requests", count(number)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_fit_and_are_whole() {
        let check = |key: &str, expected: &str| assert_eq!(hour(key), expected);
        check("2026-10-25T02:00:00+01:00", "2026-10-25 02:00+01:00");
        check("2026-11-21T13:00:00+00:00", "2026-11-21 13:00+00:00");
        check("", "");
    }
}

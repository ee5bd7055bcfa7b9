//! `lodestar usage sources`: our costs beside those that clients state.

use std::collections::BTreeMap;

use module_sdk::{Reply, Result, Table, TimeRange, human::count};

use super::{requests, title};
use crate::{
    format::{short, usd},
    query::{self, Reader, SourceUse},
};

/// Answers `sources`.
pub(crate) fn sources(reader: &mut Reader, period: &TimeRange) -> Result<Reply> {
    let sources = query::sources(reader, period)?;
    let mut table = Table::new([
        "SOURCE",
        "CLIENT",
        "REQ#",
        "COST#",
        "STATES#",
        "STATED#",
        "DIFFERENCE#",
        "FAR OFF#",
    ]);
    table.title = title("Sources", period);
    for source in &sources {
        table.row([
            source.source.clone().unwrap_or_else(|| "-".to_owned()),
            short(source.client.as_deref().unwrap_or("-"), 18),
            count(source.requests),
            usd(source.cost_usd),
            count(source.stated_requests),
            usd(source.stated_cost_usd),
            usd(source.difference_usd),
            count(source.differing_requests),
        ]);
    }
    if sources.is_empty() {
        table.notes.push("no requests in this time, or they are deleted already".to_owned());
    }
    let far_off = sources.iter().map(|source| source.differing_requests).sum();
    if far_off > 0 {
        table.notes.push(format!(
            "DIFFERENCE is what clients state less our figure; {} by more than rounding \
             (`lodestar usage requests` shows both)",
            requests(far_off)
        ));
    }
    let merged = sources.iter().map(|source| source.merged_requests).sum();
    if merged > 0 {
        table.notes.push(several(&sources, merged));
    }
    Ok(Reply::json(&sources)?.table(table))
}

/// Returns what is to be said of requests that several sources have reported.
fn several(sources: &[SourceUse], merged: i64) -> String {
    let mut pairs: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for source in sources {
        let name = source.source.as_deref().unwrap_or("-");
        for (other, number) in &source.also_reported_by {
            *pairs.entry((name, other)).or_default() += number;
        }
    }
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|((source, other), number)| format!("{source} and {other} {}", count(number)))
        .collect();
    let disagreeing: i64 = sources.iter().map(|source| source.disagreeing_requests).sum();
    format!(
        "{} came from several sources and count once, by the one named first here: {}; of {} they \
         say different token counts",
        requests(merged),
        pairs.join(", "),
        count(disagreeing),
    )
}

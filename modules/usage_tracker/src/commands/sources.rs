//! `lodestar usage sources`: our costs beside those that clients state.

use module_sdk::{Reply, Result, Table, TimeRange, human::count};

use super::{requests, title};
use crate::{
    format::{short, usd},
    query::{self, Reader},
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
    Ok(Reply::json(&sources)?.table(table))
}

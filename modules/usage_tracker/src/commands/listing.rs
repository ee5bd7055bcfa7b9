//! `lodestar usage requests`: single requests as a table.

use module_sdk::{Error, ErrorKind, Reply, Result, Table, TimeRange, Usd, human::count};

use super::{LIMIT, RequestsArgs, requests, title};
use crate::{
    format::{milliseconds, minute, short, usd},
    prices::priced_model,
    query::{self, Reader, RequestFilter},
    store::Stored,
};

/// Largest number of sessions that an error names.
const NAMED: u32 = 5;

/// Answers `requests`.
pub(crate) fn requests_list(
    reader: &mut Reader,
    period: &TimeRange,
    args: RequestsArgs,
) -> Result<Reply> {
    let limit = args.limit.unwrap_or(LIMIT);
    let session = args.session.map(|begin| session(reader, &begin)).transpose()?;
    let models = match &args.model {
        Some(model) => query::models_named(reader, model)?,
        None => Vec::new(),
    };
    let (model, project) = (args.model, args.project);
    let unknown = model.is_some() && models.is_empty();
    let filter = RequestFilter { models, session, project, errors: args.errors };
    let found = if unknown { Vec::new() } else { query::requests(reader, period, &filter, limit)? };
    let mut table = table(&found, period);
    if found.is_empty() {
        let asked = [("model", &model), ("project", &filter.project)];
        table.notes.extend(not_found(reader, &asked)?);
    }
    let objects = found.iter().map(query::object).collect::<serde_json::Result<Vec<_>>>()?;
    Ok(Reply::json(&objects)?.table(table))
}

fn table(found: &[Stored], period: &TimeRange) -> Table {
    let differing = found.iter().filter(|stored| differs(stored)).count();
    let mut columns =
        vec!["ENDED", "MODEL", "STATUS", "INPUT#", "CACHED#", "OUTPUT#", "COST#", "TOOK#"];
    if differing > 0 {
        columns.insert(STATED, "STATED#");
    }
    let mut table = Table::new(columns);
    table.title = title("Requests", period);
    for stored in found {
        let mut cells = request_cells(stored, period);
        if differing > 0 {
            let stated = stored.report.stated_nano_usd.filter(|_| differs(stored));
            cells.insert(STATED, usd(stated.map(Usd::from_nano)));
        }
        table.rows.push(cells);
    }
    if differing > 0 {
        table.notes.push(format!(
            "{}: what the client states is far from our figure (STATED); `lodestar usage sources` \
             adds it up",
            requests(i64::try_from(differing).unwrap_or(i64::MAX))
        ));
    }
    table
}

/// Index of the column of stated costs.
const STATED: usize = 7;

fn differs(stored: &Stored) -> bool {
    let costs = stored.report.request.cost_nano_usd.zip(stored.report.stated_nano_usd);
    costs.is_some_and(|(cost, stated)| query::differ(cost, stated))
}

/// Returns the notes of an empty list: similar names, where none is called as requested.
fn not_found(reader: &mut Reader, asked: &[(&str, &Option<String>)]) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for (kind, name) in asked {
        let Some(name) = name else { continue };
        let near = query::near(reader, kind, name)?;
        if near.contains(name) {
            continue;
        }
        let name = short(name, 40);
        let names: Vec<String> = near.iter().map(|name| format!("`{}`", short(name, 60))).collect();
        notes.push(match names.as_slice() {
            [] => format!("no request names the {kind} `{name}`"),
            names => {
                let names = names.join(" or ");
                format!("no request names the {kind} `{name}`; did you mean {names}?")
            }
        });
    }
    if notes.is_empty() {
        notes.push("no requests in this time, or they are deleted already".to_owned());
    }
    Ok(notes)
}

/// Finds the only session whose id begins with `begin`, and returns its whole id.
fn session(reader: &mut Reader, begin: &str) -> Result<String> {
    // The table cuts a long id with this mark.
    let begin = begin.trim().trim_end_matches('…');
    if begin.is_empty() {
        return Err(Error::usage("--session is empty; `lodestar usage sessions` shows the ids"));
    }
    let mut found = query::sessions_like(reader, begin, NAMED + 1)?;
    match found.as_slice() {
        [] => Err(Error::of(
            ErrorKind::NotFound,
            format!("there is no session {begin:?}; `lodestar usage sessions` shows the ids"),
        )),
        [_] => Ok(found.remove(0)),
        [named @ .., last] => {
            let (named, more) = if found.len() > NAMED as usize {
                (named.join(", "), " and others")
            } else {
                (format!("{} and {last}", named.join(", ")), "")
            };
            Err(Error::usage(format!(
                "--session {begin:?} is the beginning of {named}{more}; write more of the id"
            )))
        }
    }
}

fn request_cells(stored: &Stored, period: &TimeRange) -> Vec<String> {
    let request = &stored.report.request;
    let tokens = |known: Option<u64>| {
        known.map_or_else(|| "-".to_owned(), |n| count(i64::try_from(n).unwrap_or(i64::MAX)))
    };
    vec![
        minute(request.ended_at, &period.zone),
        short(priced_model(request).unwrap_or("-"), 18),
        request.status.map_or("-", |status| status.as_str()).to_owned(),
        tokens(request.input_tokens),
        tokens(request.cache_read_tokens),
        tokens(request.output_tokens),
        usd(request.cost_nano_usd.map(Usd::from_nano)),
        milliseconds(request.duration_ms.map(u64::from)),
    ]
}

//! Reports of one request under different keys: found by another id that both have, or by session,
//! counts and time.
//!
//! Only a transcript is joined to what others report in this way. What two others report has been
//! joined before it comes here, and two records of one tool are two requests.

use module_sdk::events::{LlmRequestCompleted, ModelName, RequestSource};
use rusqlite::{Connection, OptionalExtension as _};

use super::{
    names::Texts,
    row::{self, Placed, READ, Stored},
};
use crate::{
    prices::priced_model,
    sanitize::{Report, bit, flag},
    store::failed,
};

/// Largest difference between the times at which two sources see the end of one request.
const APART_MS: i64 = 2_000;
/// Largest number of requests with the same counts at one time that are looked at.
const LOOKED_AT: i64 = 32;

/// A request that was counted under another key.
pub(super) enum Twin {
    /// The request, as it is stored.
    Kept(Box<(Stored, Placed)>),
    /// A request that retention has deleted: the sums still count it.
    Deleted(i64),
}

/// Finds the request that a report with a new key is of.
pub(super) fn find(
    connection: &Connection,
    report: &Report,
    other_keys: &[[u8; 16]],
) -> rusqlite::Result<Option<Twin>> {
    for key in other_keys {
        let id: Option<i64> = connection
            .prepare_cached("SELECT request FROM request_key WHERE key = ?1 AND request <> 0")?
            .query_row([key], |row| row.get(0))
            .optional()?;
        let Some(id) = id else { continue };
        match load(connection, id)? {
            Some(known) if share_an_id(&known.0.report, report) => {
                return Ok(Some(Twin::Kept(Box::new(known))));
            }
            None if is_transcript(report) => return Ok(Some(Twin::Deleted(id))),
            _ => {}
        }
    }
    by_counts(connection, report)
}

fn load(connection: &Connection, id: i64) -> rusqlite::Result<Option<(Stored, Placed)>> {
    let sql = format!("{}WHERE r.id = ?1", *READ);
    let mut texts = Texts::default();
    connection
        .prepare_cached(&sql)?
        .query_row([id], |found| row::read(connection, &mut texts, found))
        .optional()
}

/// Returns whether two reports that share one id are of one request, though their keys differ.
fn share_an_id(known: &Report, new: &Report) -> bool {
    let ids = (&known.request.upstream_request_id, &new.request.upstream_request_id);
    if let (Some(known_id), Some(new_id)) = ids
        && known_id != new_id
    {
        // A side chain repeats an answer of its parent with an id of its own.
        return is_transcript(new) && (known.flags | new.flags) & flag::SIDE_CHAIN != 0;
    }
    is_transcript(known) || is_transcript(new)
}

/// Finds a request of the same session, with the same counts, that ended at the same time.
fn by_counts(connection: &Connection, report: &Report) -> rusqlite::Result<Option<Twin>> {
    let request = &report.request;
    let (Some(session), Some(input), Some(output)) =
        (&request.session_id, request.input_tokens, request.output_tokens)
    else {
        return Ok(None);
    };
    let mut statement = connection.prepare_cached(
        "SELECT r.id FROM session s JOIN request r ON r.session = s.id \
         WHERE s.key = ?1 AND r.ended_at BETWEEN ?2 - ?3 AND ?2 + ?3 \
         AND r.input_tokens = ?4 AND r.output_tokens = ?5 \
         ORDER BY abs(r.ended_at - ?2), r.id LIMIT ?6",
    )?;
    let (input, output) = (input.cast_signed(), output.cast_signed());
    let mut rows =
        statement.query((session, request.ended_at, APART_MS, input, output, LOOKED_AT))?;
    while let Some(row) = rows.next()? {
        if let Some(known) = load(connection, row.get(0)?)?
            && are_one_call(&known.0.report, report)
        {
            return Ok(Some(Twin::Kept(Box::new(known))));
        }
    }
    Ok(None)
}

/// Returns whether nothing speaks against that two reports with the same counts are of one call.
fn are_one_call(known: &Report, new: &Report) -> bool {
    let (from_known, from_new) = (is_transcript(known), is_transcript(new));
    // Each source reports a call once.
    let are_two = known.sources & new.sources != 0
        || (has_id(&known.request) && has_id(&new.request))
        || failed(&known.request)
        || failed(&new.request);
    from_known != from_new
        && !are_two
        && agree(known.request.cache_read_tokens, new.request.cache_read_tokens)
        && same_model(&known.request, &new.request)
}

fn is_transcript(report: &Report) -> bool {
    report.sources & bit(Some(RequestSource::Transcript)) != 0
}

const fn has_id(request: &LlmRequestCompleted) -> bool {
    request.upstream_request_id.is_some() || request.response_id.is_some()
}

fn agree(one: Option<u64>, other: Option<u64>) -> bool {
    one.unwrap_or(0) == other.unwrap_or(0) || one.is_none() || other.is_none()
}

fn same_model(one: &LlmRequestCompleted, other: &LlmRequestCompleted) -> bool {
    match (priced_model(one), priced_model(other)) {
        (Some(one), Some(other)) => {
            one == other || ModelName::of(one).model() == ModelName::of(other).model()
        }
        _ => true,
    }
}

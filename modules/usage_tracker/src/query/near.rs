//! Names that are near to one that nothing is called by.

use module_sdk::{events::ModelName, nearest};

use super::Reader;
use crate::store::StoreError;

/// How many near names are told.
const TOLD: usize = 3;
/// How many names are compared.
const COMPARED: u32 = 10_000;

/// The spellings of the model that a name means, with its dates and previews.
pub(crate) fn models_named(reader: &mut Reader, given: &str) -> Result<Vec<String>, StoreError> {
    let known = names(reader, "model")?;
    let wanted = ModelName::of(given);
    Ok(known.into_iter().filter(|name| ModelName::of(name).model() == wanted.model()).collect())
}

/// The names of a kind (`model`, `project`) that somebody may have meant.
pub(crate) fn near(
    reader: &mut Reader,
    kind: &str,
    given: &str,
) -> Result<Vec<String>, StoreError> {
    let mut known = names(reader, kind)?;
    let lower = given.trim().to_lowercase();
    let mut found: Vec<String> = Vec::new();
    while found.len() < TOLD
        && let Some(next) = nearest(given, known.iter().map(String::as_str)).map(str::to_owned)
    {
        known.retain(|name| *name != next);
        found.push(next);
    }
    let holds = |name: &&String| !lower.is_empty() && name.to_lowercase().contains(&lower);
    let more = TOLD.saturating_sub(found.len());
    found.extend(known.iter().filter(holds).take(more).cloned());
    Ok(found)
}

fn names(reader: &mut Reader, kind: &str) -> Result<Vec<String>, StoreError> {
    reader.ask(|connection, _| {
        let mut statement = connection
            .prepare_cached("SELECT text FROM name WHERE kind = ?1 ORDER BY text LIMIT ?2")?;
        statement.query_map((kind, COMPARED), |row| row.get(0))?.collect()
    })
}

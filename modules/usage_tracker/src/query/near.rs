//! Names similar to one that is not known.

use module_sdk::{events::ModelName, nearest};

use super::Reader;
use crate::store::StoreError;

/// Largest number of similar names that are returned.
const TOLD: usize = 3;
/// Largest number of names that are compared.
const COMPARED: u32 = 10_000;

/// Returns the known spellings of a model, also those with dates and previews.
pub(crate) fn models_named(reader: &mut Reader, given: &str) -> Result<Vec<String>, StoreError> {
    let known = names(reader, "model")?;
    let wanted = ModelName::of(given);
    Ok(known.into_iter().filter(|name| ModelName::of(name).model() == wanted.model()).collect())
}

/// Returns the names of a kind (`model`, `project`) that are similar to the given one.
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

//! Values within the events of an answer.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Piece;
use crate::dialect::inspect::string;

/// Longest id, model or reason that is taken from an answer, in bytes.
const LONGEST_NAME: usize = 256;

/// Returns whether a value is more than nothing.
pub(super) fn says(raw: &RawValue) -> bool {
    !matches!(raw.get(), "null" | "\"\"" | "[]" | "{}")
}

pub(super) fn text(raw: Option<&RawValue>) -> Option<String> {
    let text = raw.filter(|raw| raw.get().len() <= LONGEST_NAME).and_then(|raw| string(raw.get()));
    text.filter(|text| !text.is_empty()).map(Cow::into_owned)
}

pub(super) fn reason(raw: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Details<'a> {
        #[serde(borrow)]
        reason: Option<&'a RawValue>,
    }

    let details = serde_json::from_str::<Option<Details<'_>>>(raw.get()).ok()??;
    text(details.reason)
}

/// Returns whether data that no answer can be read from began as one.
pub(super) fn is_damaged(data: &[u8]) -> bool {
    data.trim_ascii_start().first() == Some(&b'{')
        && serde_json::from_slice::<serde::de::IgnoredAny>(data).is_err()
}

pub(super) fn parse(data: &[u8]) -> Option<Piece<'_>> {
    let text = std::str::from_utf8(data).ok()?;
    // A list would be taken for the values of an object.
    if text.trim_start().starts_with('[') {
        return None;
    }
    serde_json::from_str(text).ok()
}

//! Lengths of time in the arguments of commands.

use std::{str::FromStr, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;

/// Length of time as a person writes it: `45m`, `12h`, `30d`, `8w`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub(crate) struct Span(pub Duration);

/// Text that is no length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no length of time of at most 10 years; write `45m`, `12h`, `30d` or `8w`")]
pub(crate) struct SpanError;

const LONGEST_S: u64 = 3_660 * 86_400;

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let text = text.trim();
        let unit = text.chars().last().ok_or(SpanError)?;
        let number: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| SpanError)?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            'w' => 7 * 86_400,
            _ => return Err(SpanError),
        };
        match number.checked_mul(seconds) {
            Some(seconds @ 0..=LONGEST_S) => Ok(Self(Duration::from_secs(seconds))),
            _ => Err(SpanError),
        }
    }
}

impl TryFrom<String> for Span {
    type Error = SpanError;

    fn try_from(text: String) -> Result<Self, SpanError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        let check = |text: &str, seconds: Option<u64>| {
            let span = text.parse::<Span>().ok().map(|span| span.0.as_secs());
            assert_eq!(span, seconds, "{text}");
        };
        check("45m", Some(2_700));
        check(" 30d ", Some(2_592_000));
        check("0s", Some(0));
        check("d", None);
        check("", None);
        check("3é", None);
        check("-3d", None);
        check("9999w", None);
        check("99999999999999999999d", None);
    }
}

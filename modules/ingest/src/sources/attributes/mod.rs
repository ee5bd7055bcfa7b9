//! The attribute allow-list: the only way from a telemetry body into an event.
//!
//! A mapper can read an attribute only through a [`Key`], and all keys are defined in [`keys`].
//! Text is returned only in the form of a name, so that a prompt that somebody put into a listed
//! attribute does not pass either (adr/0021).

pub(crate) mod keys;

use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};

use super::Refusal;

/// An attribute that may be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key(&'static str);

impl Key {
    pub(crate) const fn as_str(self) -> &'static str {
        self.0
    }
}

/// Largest number of tokens of a request; a larger count is a fault of the sender and would spoil
/// sums.
pub(crate) const MAX_TOKENS: u64 = 1_000_000_000_000;

/// Largest cost of a request (USD).
const MAX_COST_USD: f64 = 1_000_000.0;

/// The attributes of a record, of which only those on the allow-list can be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a>(&'a [KeyValue]);

impl<'a> Attributes<'a> {
    pub(crate) const fn new(attributes: &'a [KeyValue]) -> Self {
        Self(attributes)
    }

    fn value(self, key: Key) -> Option<&'a Value> {
        let found = self.0.iter().find(|attribute| attribute.key == key.as_str())?;
        found.value.as_ref()?.value.as_ref()
    }

    /// Returns whether the attribute is there with a value.
    pub(crate) fn has(self, key: Key) -> bool {
        self.value(key).is_some()
    }

    /// Returns whether any attribute's name begins with `prefix`. The attribute itself is not read.
    pub(crate) fn any_named(self, prefix: &str) -> bool {
        self.0.iter().any(|attribute| attribute.key.starts_with(prefix))
    }

    /// Returns the first of `keys` that holds a text in the form of a name, or an integer.
    pub(crate) fn name(self, keys: &[Key]) -> Option<String> {
        keys.iter().find_map(|key| match self.value(*key)? {
            Value::StringValue(text) => name(text),
            Value::IntValue(number) => Some(number.to_string()),
            _ => None,
        })
    }

    /// Returns the first of `keys` that holds an identifier of a person, host or session, to be
    /// turned into a pseudonym by the caller and never passed on.
    pub(crate) fn identifier(self, keys: &[Key]) -> Option<&'a str> {
        keys.iter().find_map(|key| match self.value(*key)? {
            Value::StringValue(text) if !text.trim().is_empty() => Some(text.as_str()),
            _ => None,
        })
    }

    /// Returns whether the attribute holds exactly this text.
    pub(crate) fn is(self, key: Key, expected: &str) -> bool {
        matches!(self.value(key), Some(Value::StringValue(text)) if text == expected)
    }

    /// Returns the first of `keys` that is there and not 0, as a number of tokens; 0 where all that
    /// are there are 0, since a reporter of two conventions may fill in only one. The first key is
    /// that of the convention; an unreadable value of any other key is ignored.
    pub(crate) fn count(self, keys: &[Key]) -> Result<Option<u64>, Refusal> {
        let mut zero = None;
        for (index, key) in keys.iter().enumerate() {
            let Some(value) = self.value(*key) else { continue };
            match count(value) {
                Ok(Some(0)) => zero = Some(0),
                Ok(Some(count)) => return Ok(Some(count)),
                Err(what) if index == 0 => return Err(Refusal::new(key.as_str(), what)),
                Ok(None) | Err(_) => {}
            }
        }
        Ok(zero)
    }

    /// Returns the speed or tier of service among `keys`: the first that is not the ordinary one,
    /// else the first.
    pub(crate) fn tier(self, keys: &[Key]) -> Option<String> {
        let mut tiers = keys.iter().filter_map(|key| tier(&self.name(&[*key])?)).peekable();
        let first = tiers.peek().cloned();
        tiers.find(|tier| tier != STANDARD).or(first)
    }

    /// Returns the tier after `'field':` in a text that holds an object. Nothing else of it is
    /// read.
    pub(crate) fn tier_within(self, key: Key, field: &str) -> Option<String> {
        let value = self.within(key, field).find_map(|value| value.strip_prefix(['\'', '"']))?;
        tier(&name(&value[..value.find(['\'', '"'])?])?)
    }

    /// Returns the number after `'field':` in a text that holds an object as Python or JSON writes
    /// it. Nothing else of the text is read.
    pub(crate) fn count_within(self, key: Key, field: &str) -> Option<u64> {
        self.within(key, field)
            .find_map(|value| {
                let end = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
                value[..end].parse().ok()
            })
            .filter(|count| *count <= MAX_TOKENS)
    }

    /// Returns the text after each `'field':` in a text.
    fn within(self, key: Key, field: &str) -> impl Iterator<Item = &'a str> {
        let text = match self.value(key) {
            Some(Value::StringValue(text)) => text.as_str(),
            _ => "",
        };
        let places = text.match_indices(field).map(|(at, found)| {
            let (before, after) = (&text[..at], &text[at + found.len()..]);
            before.ends_with(['\'', '"']).then_some(after)
        });
        let places: Vec<&str> = places.flatten().collect();
        places
            .into_iter()
            .filter_map(|after| after.strip_prefix(['\'', '"'])?.trim_start().strip_prefix(':'))
            .map(str::trim_start)
    }

    /// Returns the first of `keys` that is there, as money: USD to nano-USD.
    pub(crate) fn usd(self, keys: &[Key]) -> Result<Option<i64>, Refusal> {
        let Some((key, value)) = keys.iter().find_map(|key| Some((*key, self.value(*key)?))) else {
            return Ok(None);
        };
        match number(value) {
            None => Err(Refusal::new(key.as_str(), "is not a number")),
            Some(usd) => nano_usd(usd).map(Some).map_err(|what| Refusal::new(key.as_str(), what)),
        }
    }

    /// Returns a duration in milliseconds; an impossible one is unknown, since a clock that was set
    /// back is no fault of the request.
    pub(crate) fn milliseconds(self, keys: &[Key]) -> Option<u32> {
        keys.iter().find_map(|key| milliseconds(number(self.value(*key)?)?))
    }

    /// Returns a duration in milliseconds from an attribute in seconds; an impossible one is
    /// unknown.
    pub(crate) fn seconds_as_ms(self, keys: &[Key]) -> Option<u32> {
        keys.iter().find_map(|key| milliseconds(number(self.value(*key)?)? * 1000.0))
    }

    /// Returns a small number, such as an HTTP status or an attempt.
    pub(crate) fn small(self, keys: &[Key]) -> Option<u16> {
        keys.iter().find_map(|key| count(self.value(*key)?).ok()??.try_into().ok())
    }

    /// Returns a boolean, also from text.
    pub(crate) fn flag(self, keys: &[Key]) -> Option<bool> {
        keys.iter().find_map(|key| match self.value(*key)? {
            Value::BoolValue(flag) => Some(*flag),
            Value::StringValue(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Value::StringValue(text) if text.eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        })
    }

    /// Returns the first element of a list of names, which some tools write as JSON text.
    pub(crate) fn first_name(self, key: Key) -> Option<String> {
        match self.value(key)? {
            Value::ArrayValue(array) => match array.values.first()?.value.as_ref()? {
                Value::StringValue(text) => name(text),
                _ => None,
            },
            Value::StringValue(text) if text.starts_with('[') => {
                let list: Vec<String> = serde_json::from_str(text).ok()?;
                name(list.first()?)
            }
            Value::StringValue(text) => name(text),
            _ => None,
        }
    }

    /// Returns an RFC 3339 time, in nanoseconds since the Unix epoch.
    pub(crate) fn time_ns(self, key: Key) -> Option<u64> {
        match self.value(key)? {
            Value::StringValue(text) => {
                let time: jiff::Timestamp = text.parse().ok()?;
                u64::try_from(time.as_nanosecond()).ok()
            }
            _ => None,
        }
    }
}

/// Returns the text where it has the form of a name: at most 128 bytes of visible ASCII characters
/// without quotes, braces or white space. Models, ids and error types have it; sentences do not.
/// The replacement character U+FFFD, which stands for a lone surrogate, is allowed too.
pub(crate) fn name(text: &str) -> Option<String> {
    let text = text.trim();
    let fits = (1..=128).contains(&text.len())
        && text.chars().all(|c| match c {
            '"' | '\'' | '`' | '{' | '}' | '<' | '>' | '\\' => false,
            c => c.is_ascii_graphic() || c == char::REPLACEMENT_CHARACTER,
        });
    fits.then(|| text.to_owned())
}

/// The ordinary tier of service.
const STANDARD: &str = "standard";

/// Returns a tier of service in one spelling; `None` for words such as `auto`, with which the
/// choice is left to the provider.
pub(crate) fn tier(name: &str) -> Option<String> {
    match name.to_ascii_lowercase().as_str() {
        "auto" | "unset" | "none" | "null" => None,
        "default" | "standard" | "normal" | "on_demand" | "standard_only" => {
            Some(STANDARD.to_owned())
        }
        tier => (tier.len() <= 32).then(|| tier.to_owned()),
    }
}

/// Converts a cost to integer nano-USD.
pub(crate) fn nano_usd(usd: f64) -> Result<i64, &'static str> {
    if !usd.is_finite() {
        Err("is not a finite number")
    } else if usd < 0.0 {
        Err("is negative")
    } else if usd > MAX_COST_USD {
        Err("is absurdly large")
    } else {
        #[expect(clippy::cast_possible_truncation, reason = "at most 1e15, checked above")]
        Ok((usd * 1e9).round() as i64)
    }
}

/// Converts a duration to whole milliseconds; `None` where it is negative or longer than a `u32`
/// holds.
pub(crate) fn milliseconds(value: f64) -> Option<u32> {
    let fits = (0.0..=f64::from(u32::MAX)).contains(&value);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
    fits.then(|| value.round() as u32)
}

fn count(value: &Value) -> Result<Option<u64>, &'static str> {
    let count = match value {
        Value::IntValue(number) => u64::try_from(*number).map_err(|_| "is negative")?,
        Value::DoubleValue(number) => return whole(*number).map(Some),
        Value::StringValue(text) if text.trim().is_empty() => return Ok(None),
        Value::StringValue(text) => match text.trim().parse::<i128>() {
            Ok(number) if number < 0 => return Err("is negative"),
            Ok(number) => u64::try_from(number).map_err(|_| "is absurdly large")?,
            Err(_) => return number(value).map_or(Err("is not a number"), whole).map(Some),
        },
        _ => return Err("is not a number"),
    };
    if count > MAX_TOKENS { Err("is absurdly large") } else { Ok(Some(count)) }
}

fn whole(number: f64) -> Result<u64, &'static str> {
    if !number.is_finite() {
        Err("is not a finite number")
    } else if number < 0.0 {
        Err("is negative")
    } else if number.fract() != 0.0 {
        Err("is not a whole number")
    } else if number > 1e12 {
        Err("is absurdly large")
    } else {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
        Ok(number as u64)
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        #[expect(clippy::cast_precision_loss, reason = "money and durations, not counts")]
        Value::IntValue(number) => Some(*number as f64),
        Value::DoubleValue(number) => Some(*number),
        Value::StringValue(text) => text.trim().parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::build::{attr, double, flag, int, text};

    #[test]
    fn counts_are_read_from_every_form() {
        let check = |value: Value, expected: Result<Option<u64>, &str>| {
            assert_eq!(count(&value), expected, "{value:?}");
        };
        check(Value::IntValue(7), Ok(Some(7)));
        check(Value::StringValue("1200".into()), Ok(Some(1200)));
        check(Value::StringValue(String::new()), Ok(None));
        check(Value::DoubleValue(34.0), Ok(Some(34)));
        check(Value::IntValue(-1), Err("is negative"));
        check(Value::StringValue("-5".into()), Err("is negative"));
        check(Value::DoubleValue(f64::NAN), Err("is not a finite number"));
        check(Value::StringValue("NaN".into()), Err("is not a finite number"));
        check(Value::DoubleValue(f64::INFINITY), Err("is not a finite number"));
        check(Value::DoubleValue(1.5), Err("is not a whole number"));
        check(Value::IntValue(i64::MAX), Err("is absurdly large"));
        check(Value::StringValue("99999999999999999999".into()), Err("is absurdly large"));
        check(Value::StringValue("1e30".into()), Err("is absurdly large"));
        check(Value::StringValue("many".into()), Err("is not a number"));
        check(Value::BoolValue(true), Err("is not a number"));
    }

    #[test]
    fn only_names_pass_as_text() {
        let check = |text: &str, passes: bool| assert_eq!(name(text).is_some(), passes, "{text:?}");
        check("claude-sonnet-4-5-20250929", true);
        check("claude-opus-4-6[1m]", true);
        check("meta-llama/Llama-3.1-8B:Q4_K_M", true);
        check("arn:aws:bedrock:eu-west-1::model/x", true);
        check("please write a poem", false);
        check("{\"role\":\"user\"}", false);
        check("", false);
        check("ünïcode", false);
        check("m\u{fffd}", true);
        check("\u{fffd} please", false);
        check(&"x".repeat(129), false);
    }

    #[test]
    fn money_is_exact_and_absurd_money_refused() {
        let check = |usd: f64, expected: Result<i64, &str>| assert_eq!(nano_usd(usd), expected);
        check(0.003_435, Ok(3_435_000));
        check(0.0, Ok(0));
        check(-0.1, Err("is negative"));
        check(f64::NAN, Err("is not a finite number"));
        check(1e12, Err("is absurdly large"));
    }

    #[test]
    fn lists_of_names_come_in_two_forms() {
        let attributes = [attr("gen_ai.response.finish_reasons", text("[\"stop\"]"))];
        let attributes = Attributes::new(&attributes);
        assert_eq!(attributes.first_name(keys::FINISH_REASONS).as_deref(), Some("stop"));
    }

    #[test]
    fn tiers_of_service_have_one_spelling() {
        let check = |told: &[(&str, &str)], expected: Option<&str>| {
            let attributes: Vec<KeyValue> =
                told.iter().map(|(key, value)| attr(key, text(value))).collect();
            let attributes = Attributes::new(&attributes);
            let answered = attributes.tier(keys::GEN_AI_TIER);
            let tier = answered.or_else(|| attributes.tier(keys::GEN_AI_TIER_ASKED));
            assert_eq!(tier.as_deref(), expected, "{told:?}");
        };
        check(&[("speed", "fast")], Some("fast"));
        check(&[("speed", "Fast")], Some("fast"));
        check(&[("openai.response.service_tier", "flex")], Some("flex"));
        check(&[("openai.response.service_tier", "default")], Some("standard"));
        check(&[("openai.response.service_tier", "auto")], None);
        check(
            &[("openai.request.service_tier", "auto"), ("service_tier", "default")],
            Some("standard"),
        );
        check(&[("openai.request.service_tier", "priority")], Some("priority"));
        for answered in ["openai.response.service_tier", "service_tier", "speed"] {
            let told = [("openai.request.service_tier", "priority"), (answered, "default")];
            check(&told, Some("standard"));
        }
        let told =
            [("openai.request.service_tier", "flex"), ("openai.response.service_tier", "auto")];
        check(&told, Some("flex"));
        check(&[("anthropic.response.service_tier", "standard"), ("speed", "fast")], Some("fast"));
        check(&[("speed", "as fast as you can")], None);
        check(&[("speed", &"x".repeat(33))], None);
        check(&[], None);
    }

    #[test]
    fn a_tier_within_a_text_is_read_and_nothing_else() {
        let check = |value: &str, expected: Option<&str>| {
            let attributes = [attr("metadata.usage_object", text(value))];
            let attributes = Attributes::new(&attributes);
            let tier = attributes.tier_within(keys::LITELLM_USAGE, "service_tier");
            assert_eq!(tier.as_deref(), expected, "{value}");
        };
        check("{'service_tier': 'priority', 'speed': None}", Some("priority"));
        check("{\"service_tier\":\"default\"}", Some("standard"));
        check("{'service_tier': None}", None);
        check("{'service_tier': 'a secret with spaces'}", None);
        check("{'service_tier': 'never ends", None);
        check("the service_tier: priority", None);
        check("'service_tier'", None);
    }

    #[test]
    fn of_several_names_the_one_with_a_count_counts() {
        let check = |told: &[(&str, i64)], expected: Option<u64>| {
            let attributes: Vec<KeyValue> =
                told.iter().map(|(key, count)| attr(key, int(*count))).collect();
            let count = Attributes::new(&attributes).count(keys::GEN_AI_CACHE_READ);
            assert_eq!(count, Ok(expected), "{told:?}");
        };
        let (new, old) = (keys::USAGE_CACHE_READ.as_str(), keys::DETAILS_CACHE_READ.as_str());
        check(&[(new, 0), (old, 7)], Some(7));
        check(&[(old, 7), (new, 0)], Some(7));
        check(&[(new, 5), (old, 7)], Some(5));
        check(&[(new, 0)], Some(0));
        check(&[], None);
    }

    #[test]
    fn what_cannot_be_read_under_another_name_says_nothing() {
        let (new, old) = (keys::USAGE_CACHE_READ.as_str(), keys::DETAILS_CACHED.as_str());
        for odd in [text("n/a"), int(-1), double(f64::NAN), flag(true)] {
            let count = |told: &[KeyValue]| Attributes::new(told).count(keys::GEN_AI_CACHE_READ);
            assert_eq!(count(&[attr(old, odd.clone())]), Ok(None));
            assert_eq!(count(&[attr(old, odd.clone()), attr(new, int(5))]), Ok(Some(5)));
            assert_eq!(count(&[attr(old, odd.clone()), attr(new, int(0))]), Ok(Some(0)));
            count(&[attr(old, int(5)), attr(new, odd)]).expect_err("the convention's own name");
        }
    }

    #[test]
    fn durations_that_cannot_be_are_unknown() {
        let attributes = [attr("duration_ms", int(-4)), attr("ttft_ms", double(24.4))];
        let attributes = Attributes::new(&attributes);
        assert_eq!(attributes.milliseconds(&[keys::DURATION_MS]), None);
        assert_eq!(attributes.milliseconds(&[keys::TTFT_MS]), Some(24));
    }

    #[test]
    fn no_key_of_the_list_holds_text_of_a_conversation() {
        for key in keys::ALL.iter().map(|key| key.as_str()) {
            let counts = key.starts_with("llm.token_count.");
            for last in ["prompt", "completion", "message", "messages", "content", "text", "value"]
                .into_iter()
                .chain(["instructions", "arguments", "error", "body", "parameters", "result"])
            {
                assert!(counts || key.rsplit('.').next() != Some(last), "{key}");
            }
        }
    }
}

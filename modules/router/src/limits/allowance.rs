//! Allowance of a key, of a project, or of all together.

use module_sdk::{Error, Result, Usd, human};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::window::{Period, Quantity};

/// Limits of one user of the router: requests, tokens of input and output together, and US dollars,
/// each per minute, hour, day or month. What is left out is not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Allowance {
    /// Requests per minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u64>,
    /// Requests per hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_hour: Option<u64>,
    /// Requests per calendar day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_day: Option<u64>,
    /// Requests per calendar month.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_month: Option<u64>,
    /// Tokens per minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u64>,
    /// Tokens per hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_hour: Option<u64>,
    /// Tokens per calendar day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_day: Option<u64>,
    /// Tokens per calendar month.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_month: Option<u64>,
    /// US dollars per minute.
    #[serde(skip_serializing_if = "Option::is_none", with = "nano")]
    #[schemars(with = "Option<Usd>")]
    pub usd_per_minute: Option<Usd>,
    /// US dollars per hour.
    #[serde(skip_serializing_if = "Option::is_none", with = "nano")]
    #[schemars(with = "Option<Usd>")]
    pub usd_per_hour: Option<Usd>,
    /// US dollars per calendar day.
    #[serde(skip_serializing_if = "Option::is_none", with = "nano")]
    #[schemars(with = "Option<Usd>")]
    pub usd_per_day: Option<Usd>,
    /// US dollars per calendar month.
    #[serde(skip_serializing_if = "Option::is_none", with = "nano")]
    #[schemars(with = "Option<Usd>")]
    pub usd_per_month: Option<Usd>,
}

/// Largest limit: numbers in Redis are exact up to 2^53.
const LARGEST: u64 = 1 << 53;

/// One limit of an [`Allowance`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    /// Quantity that is limited.
    pub quantity: Quantity,
    /// Period in which it is.
    pub period: Period,
    /// Most of it: a number of requests, tokens or nano-USD.
    pub most: u64,
}

impl Allowance {
    /// Returns the limits that are set.
    pub(crate) fn limits(&self) -> impl Iterator<Item = Limit> + use<> {
        let usd = |amount: Option<Usd>| amount.map(|usd| u64::try_from(usd.nano()).unwrap_or(0));
        let all = [
            (Quantity::Requests, Period::Minute, self.requests_per_minute),
            (Quantity::Requests, Period::Hour, self.requests_per_hour),
            (Quantity::Requests, Period::Day, self.requests_per_day),
            (Quantity::Requests, Period::Month, self.requests_per_month),
            (Quantity::Tokens, Period::Minute, self.tokens_per_minute),
            (Quantity::Tokens, Period::Hour, self.tokens_per_hour),
            (Quantity::Tokens, Period::Day, self.tokens_per_day),
            (Quantity::Tokens, Period::Month, self.tokens_per_month),
            (Quantity::NanoUsd, Period::Minute, usd(self.usd_per_minute)),
            (Quantity::NanoUsd, Period::Hour, usd(self.usd_per_hour)),
            (Quantity::NanoUsd, Period::Day, usd(self.usd_per_day)),
            (Quantity::NanoUsd, Period::Month, usd(self.usd_per_month)),
        ];
        all.into_iter().filter_map(|(quantity, period, most)| {
            most.map(|most| Limit { quantity, period, most })
        })
    }

    /// Returns whether nothing is limited.
    pub(crate) fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }

    /// Checks the limits; `key` is the place of the allowance in the configuration.
    ///
    /// # Errors
    ///
    /// The first limit that cannot be used.
    pub(crate) fn check(&self, key: &str) -> Result<()> {
        let negative =
            [self.usd_per_minute, self.usd_per_hour, self.usd_per_day, self.usd_per_month]
                .into_iter()
                .zip([Period::Minute, Period::Hour, Period::Day, Period::Month])
                .find(|(usd, _)| usd.is_some_and(|usd| usd.nano() < 0));
        if let Some((_, period)) = negative {
            let key = join(key, &format!("usd_per_{}", period.name()));
            return Err(Error::config_at(key, "is less than nothing").hint("write 0 or more"));
        }
        match self.limits().find(|limit| limit.most > LARGEST) {
            None => Ok(()),
            Some(limit) => Err(Error::config_at(join(key, &limit.key()), "is too large to count")
                .hint("leave it out for no limit")),
        }
    }
}

fn join(place: &str, key: &str) -> String {
    if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") }
}

impl Limit {
    /// Returns the key of the limit in a configuration: `requests_per_minute`.
    pub(crate) fn key(self) -> String {
        format!("{}_per_{}", self.quantity.name(), self.period.name())
    }

    /// Returns an amount of the quantity as people read it: `60 requests`, `$5.00`.
    pub(crate) fn amount(self, amount: u64) -> String {
        match self.quantity {
            Quantity::Requests => format!("{} requests", human::exact(amount)),
            Quantity::Tokens => format!("{} tokens", human::exact(amount)),
            Quantity::NanoUsd => {
                human::usd(Usd::from_nano(i64::try_from(amount).unwrap_or(i64::MAX)))
            }
        }
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} per {}", self.amount(self.most), self.period.name())
    }
}

/// Amounts of US dollars as exact texts.
mod nano {
    use super::{Deserialize, Usd};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(usd: &Option<Usd>, to: S) -> Result<S::Ok, S::Error> {
        match usd {
            Some(usd) => to.collect_str(usd),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Usd>, D::Error> {
        Option::deserialize(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_is_read_as_it_was_written() {
        let text = r#"{"requests_per_minute":60,"usd_per_day":"0.000000001"}"#;
        let allowance: Allowance = serde_json::from_str(text).expect("it is one");
        assert_eq!(serde_json::to_string(&allowance).expect("it is written"), text);
        let shown: Vec<String> = allowance.limits().map(|limit| limit.to_string()).collect();
        assert_eq!(shown, ["60 requests per minute", "<$0.0001 per day"]);
        assert!(Allowance::default().is_unlimited() && !allowance.is_unlimited());
    }

    #[test]
    fn what_cannot_be_counted_is_refused() {
        let check = |text: &str, expected: &str| {
            let allowance: Allowance = serde_json::from_str(text).expect("it is one");
            let error = allowance.check("quotas.all").expect_err("it is refused").to_string();
            assert_eq!(error, expected);
        };
        check(
            r#"{"usd_per_hour":-1}"#,
            "quotas.all.usd_per_hour: is less than nothing; write 0 or more",
        );
        check(
            r#"{"tokens_per_day":9007199254740993}"#,
            "quotas.all.tokens_per_day: is too large to count; leave it out for no limit",
        );
    }
}

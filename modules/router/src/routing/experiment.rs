//! Experiments: a share of sessions gets other models, and stays with them.
//!
//! The side follows from a hash alone, that of GrowthBook: nothing is stored, and other tools
//! that know the hash come to the same.

use module_sdk::{Error, Result, Usd};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::glob;

use super::{Request, name_list::Names};

/// Experiment: a variant that a share of sessions gets instead of what they would get.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ExperimentOptions {
    /// Name; another name draws other sessions.
    pub name: String,
    /// Patterns of the models that are asked for. Default: `auto`.
    pub models: Names,
    /// Share of sessions that take part, from 0 to 1; half of them get the variant.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub share: f64,
    /// Unit whose requests stay together.
    pub by: Unit,
    /// Models of the variant, the first that can.
    #[serde(rename = "use")]
    pub targets: Names,
    /// Model that is asked the same when the answer has ended, for those that do not get the
    /// variant; nobody sees what it says. What a rule or a name keeps at local models is asked of
    /// no other ones.
    pub shadow: Option<String>,
    /// Allotment of the units to the sides.
    #[serde(skip)]
    pub allotment: Allotment,
    /// Seed of the draw. Default: the name.
    #[serde(skip)]
    pub salt: Option<String>,
}

/// Allotment of units to the sides of an experiment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Allotment {
    /// Half of the share on each side; nobody else takes part.
    #[default]
    Halves,
    /// The share gets the variant, and all others are what it is compared with. Without a variant
    /// the share alone takes part. Whoever cannot get the variant is on neither side, so that the
    /// sides differ in nothing else.
    All,
}

/// Settings of the requests that experiments ask beside the answers.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ShadowOptions {
    /// Most of them under way at a time; further ones are not asked, and counted.
    #[schemars(range(min = 1, max = 100))]
    pub in_flight: u32,
    /// Most that they may cost in a day, US dollars.
    pub usd_per_day: Usd,
}

/// Unit that stays with one variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    /// A session.
    Session,
    /// A virtual key.
    Key,
    /// A person: the holder of a virtual key, by the pseudonym in events.
    User,
}

/// Side of an experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The choice that would be made anyway.
    Control,
    /// The variant.
    Variant,
}

impl Default for ExperimentOptions {
    fn default() -> Self {
        Self {
            name: String::new(),
            models: Names::default(),
            share: 0.1,
            by: Unit::Session,
            targets: Names::default(),
            shadow: None,
            allotment: Allotment::default(),
            salt: None,
        }
    }
}

impl Default for ShadowOptions {
    fn default() -> Self {
        Self { in_flight: 2, usd_per_day: Usd::from_nano(1_000_000_000) }
    }
}

impl Side {
    /// Returns its name in events.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Variant => "variant",
        }
    }
}

impl ExperimentOptions {
    /// Checks what the types cannot express; `index` counts from 0.
    pub(super) fn check(&self, index: usize) -> Result<()> {
        self.check_itself().map_err(|error| error.below(&format!("experiments[{index}]")))
    }

    /// Checks what the types cannot express.
    pub(super) fn check_itself(&self) -> Result<()> {
        if self.name.is_empty() {
            return Err(Error::config_at("name", "is missing"));
        }
        if !(0.0..=1.0).contains(&self.share) {
            return Err(Error::config_at("share", "must be from 0 to 1"));
        }
        if self.targets.is_empty() && self.shadow.is_none() {
            return Err(Error::config_at("", "tries nothing").hint("give it `use` or `shadow`"));
        }
        Ok(())
    }

    /// Returns the side that a request is on; `None` where it takes no part. `asked` is the model
    /// that is asked for, `is_auto` says that it leaves the choice to the router.
    pub(super) fn side(&self, request: &Request<'_>, asked: &str, is_auto: bool) -> Option<Side> {
        let is_for = if self.models.is_empty() {
            is_auto
        } else {
            self.models.iter().any(|pattern| glob::fits(pattern, asked))
        };
        let unit = match self.by {
            Unit::Session => request.session,
            Unit::Key => request.key,
            Unit::User => request.user,
        };
        let seed = self.salt.as_deref().unwrap_or(&self.name);
        let drawn = hash(seed, unit.filter(|_| is_for)?);
        if self.allotment == Allotment::All {
            return match (drawn < self.share, self.targets.is_empty()) {
                (true, false) => Some(Side::Variant),
                (false, true) => None,
                (true, true) | (false, false) => Some(Side::Control),
            };
        }
        let half = self.share / 2.0;
        // As in GrowthBook, each side has its own range, so that with a growing share nobody who
        // takes part changes sides.
        if drawn < half {
            Some(Side::Control)
        } else if (0.5..0.5 + half).contains(&drawn) {
            Some(Side::Variant)
        } else {
            None
        }
    }
}

/// Returns GrowthBook's hash, version 2: from 0 to below 1 in steps of one ten-thousandth.
fn hash(seed: &str, unit: &str) -> f64 {
    let first = fnv([seed.as_bytes(), unit.as_bytes()]);
    let second = fnv([first.to_string().as_bytes(), b""]);
    f64::from(second % 10_000) / 10_000.0
}

/// Returns the hash FNV-1a of 32 bits.
fn fnv(parts: [&[u8]; 2]) -> u32 {
    let bytes = parts.into_iter().flatten();
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_growthbook() {
        let check = |seed: &str, unit: &str, expected: f64| {
            assert_eq!(hash(seed, unit), expected, "{seed} {unit}");
        };
        check("seed", "a", 0.0505);
        check("seed", "b", 0.2696);
        check("foo", "ab", 0.2575);
        check("foo", "def", 0.2019);
        check("89123klj", "8952klfjas09ujkasdf", 0.124);
        check("90850943850283058242805", "123", 0.7516);
        check("()**(%$##$%#$#", "___)((*\":&", 0.0128);
    }
}

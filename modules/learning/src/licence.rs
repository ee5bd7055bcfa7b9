//! Terms of models: may their answers be learnt from?
//!
//! The shipped list holds what is plain: families whose licence is Apache-2.0 or MIT, and providers
//! whose terms restrict training. Anything else is unknown until the operator names it, since the
//! answer is theirs to give.

use module_sdk::events::ModelName;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{commands::counted, example::LicenceClass};

/// Classes of models by name, with `*` for any characters. The first list that fits wins, in the
/// order of the fields, before the shipped list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Licences {
    /// Models of your own.
    pub own: Vec<String>,
    /// Models whose terms restrict training.
    pub restricted: Vec<String>,
    /// Models with open weights whose licence allows it.
    pub open_weights: Vec<String>,
}

/// Families whose weights are under Apache-2.0 or MIT.
const OPEN: &[&str] = &[
    "gpt-oss*",
    "deepseek-r1*",
    "deepseek-v3*",
    "qwen3*",
    "smollm*",
    "phi-3*",
    "phi-4*",
    "phi3*",
    "phi4*",
    "mixtral-8x*",
    "mistral-7b*",
    "mistral-nemo*",
    "granite*",
    "olmo*",
];

/// Models of providers whose terms restrict training on answers.
const RESTRICTED: &[&str] = &[
    "claude*",
    "gpt-*",
    "chatgpt*",
    "o1*",
    "o3*",
    "o4*",
    "codex*",
    "gemini*",
    "grok*",
    "command-r*",
    "mistral-large*",
    "sonar*",
    "nova-*",
];

impl Licences {
    /// Returns the class of a model.
    #[must_use]
    pub fn of(&self, model: &str) -> LicenceClass {
        let name = spelt(model);
        let given = model.trim().to_ascii_lowercase();
        let fits = |patterns: &[String]| {
            patterns
                .iter()
                .map(|it| it.to_ascii_lowercase())
                .any(|pattern| matches(&pattern, &name) || matches(&pattern, &given))
        };
        let shipped = |patterns: &[&str]| patterns.iter().any(|pattern| matches(pattern, &name));
        if fits(&self.own) {
            LicenceClass::Own
        } else if fits(&self.restricted) {
            LicenceClass::Restricted
        } else if fits(&self.open_weights) || shipped(OPEN) {
            LicenceClass::OpenWeights
        } else if shipped(RESTRICTED) {
            LicenceClass::Restricted
        } else {
            LicenceClass::Unknown
        }
    }
}

/// Returns what is told of imported answers that name no model: whoever imports them says by that
/// that people of the project wrote them.
#[must_use]
pub fn own_without_model(number: u64, what: &str) -> String {
    let (name, count) = if number == 1 { ("names", "counts") } else { ("name", "count") };
    format!("{} {name} no model and {count} as your own", counted(number, what))
}

/// Returns the name of a model in the spelling that all its names have in common, without the tag
/// of its size.
#[must_use]
pub fn spelt(model: &str) -> String {
    let name = ModelName::of(model);
    name.model().split(':').next().unwrap_or_default().to_owned()
}

/// Returns whether a name fits a pattern, in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((begin, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(begin) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return left.ends_with(part);
        }
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_have_the_terms_of_their_family() {
        let licences = Licences {
            own: vec!["shop-*".to_owned()],
            open_weights: vec!["llama-3.2*".to_owned(), "llama-3-2*".to_owned()],
            restricted: vec!["qwen3-max".to_owned()],
        };
        let check = |model: &str, class| assert_eq!(licences.of(model), class, "{model}");
        check("shop-support-v2", LicenceClass::Own);
        check("llama3.2", LicenceClass::Unknown);
        check("llama-3.2:3b", LicenceClass::OpenWeights);
        check("qwen3:4b", LicenceClass::OpenWeights);
        check("qwen3-max", LicenceClass::Restricted);
        check("openai/gpt-oss-20b", LicenceClass::OpenWeights);
        check("openrouter/anthropic/claude-4.5-sonnet", LicenceClass::Restricted);
        check("gpt-5-mini", LicenceClass::Restricted);
        check("gemini-3.1-pro-preview", LicenceClass::Restricted);
        check("o3-mini", LicenceClass::Restricted);
        check("never-heard-of", LicenceClass::Unknown);
        check("", LicenceClass::Unknown);
    }

    #[test]
    fn answers_without_a_model_are_told() {
        let told = own_without_model(1, "example");
        assert_eq!(told, "1 example names no model and counts as your own");
        let told = own_without_model(2, "example");
        assert_eq!(told, "2 examples name no model and count as your own");
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        let check = |pattern, name, fits| assert_eq!(matches(pattern, name), fits, "{pattern}");
        check("a", "a", true);
        check("a", "ab", false);
        check("a*", "a", true);
        check("*b", "ab", true);
        check("a*c*e", "abcde", true);
        check("a*c*e", "abde", false);
        check("*", "", true);
    }
}

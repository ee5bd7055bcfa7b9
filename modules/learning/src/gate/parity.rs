//! Gate of the serving runtime: it makes the same tokens of a text as the trainer, and puts the
//! same one next.
//!
//! Whole answers are no measure: on a quantised base one token that falls the other way changes all
//! that follow. So the answer that was kept is given to both, and after each part of it both are
//! asked for one token.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Fault, Limits, Measured, Session, Strategy,
    session::{Asked, Who},
};

/// Fewest conversations that are compared.
const FEWEST: usize = 20;
/// Share of tokens that are the same on a base in 16 or 32 bits.
const FULL: f64 = 0.99;
/// Share of them on a quantised base.
const QUANTISED: f64 = 0.90;
/// Share by which they may be fewer than without the adapter.
const BELOW_BASE: f64 = 0.02;

/// Tokens that the trainer expects.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Reference {
    /// `true` when the base that was trained on is quantised.
    pub quantised: bool,
    /// The conversations.
    pub prompts: Vec<Prompt>,
}

/// A conversation as the trainer renders it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Prompt {
    /// The conversation before the answer.
    pub messages: Value,
    /// Descriptions of the tools that go with it.
    #[serde(default)]
    pub tools: Option<Value>,
    /// The text that invites the answer.
    pub text: String,
    /// Number of its tokens.
    pub tokens: u64,
    /// The text that the tokenizer's first token stands for, which some servers add by themselves;
    /// empty where there is none.
    #[serde(default)]
    pub bos: String,
    /// Places of the answer.
    pub steps: Vec<Step>,
}

/// A place of an answer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Step {
    /// The part of the answer before it.
    pub after: String,
    /// Number of tokens up to it.
    pub tokens: u64,
    /// Text of the token that the base puts next; empty for the end.
    pub base: String,
    /// Text of the token that base and adapter put next.
    pub adapter: String,
}

/// Counts of one of the two models.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    asked: usize,
    same: usize,
    /// Texts of which the server makes another number of tokens.
    differing: usize,
}

impl Count {
    fn share(self) -> f64 {
        self.same as f64 / self.asked.max(1) as f64
    }
}

/// All that was compared.
#[derive(Debug, Clone, Copy, Default)]
struct Found {
    is_quantised: bool,
    prompts: usize,
    /// Places at which the adapter puts another token than the base.
    adapted: usize,
    base: Count,
    version: Count,
    /// Conversations of which the server's own template makes another number of tokens.
    rendered_otherwise: usize,
}

/// Agreement of the serving runtime with the trainer.
pub(super) struct ServingParity;

impl Strategy for ServingParity {
    fn name(&self) -> &'static str {
        "serving_parity"
    }

    fn limit(&self, _: &Limits) -> Option<f64> {
        None
    }

    fn measure(&self, session: &mut Session<'_>) -> Result<Measured, Fault> {
        session.target()?;
        let reference = session.reference()?;
        let is_quantised = reference.quantised || session.is_quantised()?;
        let models: &[Who] =
            if is_quantised { &[Who::Base, Who::Version] } else { &[Who::Version] };
        let steps: usize = reference.prompts.iter().map(|it| it.steps.len()).sum();
        session.expect(steps * models.len() + reference.prompts.len());
        let prompts = reference.prompts.len();
        let mut found = Found { is_quantised, prompts, ..Found::default() };
        let adds_first = adds_first(session, &reference)?;
        for prompt in &reference.prompts {
            let text = match adds_first {
                true => prompt.text.strip_prefix(&prompt.bos).unwrap_or(&prompt.text),
                false => &prompt.text,
            };
            for step in &prompt.steps {
                found.adapted += usize::from(step.base != step.adapter);
                let whole = format!("{text}{}", step.after);
                for who in models {
                    let (expected, count) = match who {
                        Who::Base => (&step.base, &mut found.base),
                        Who::Version => (&step.adapter, &mut found.version),
                    };
                    let next = session.next_token(*who, &whole)?;
                    count.asked += 1;
                    count.same += usize::from(is_same(&next.text, expected));
                    let differs = next.tokens.is_some_and(|it| it != step.tokens);
                    count.differing += usize::from(differs);
                }
            }
            let rendered = session.chat_tokens(&prompt.messages, prompt.tools.as_ref())?;
            found.rendered_otherwise += usize::from(rendered.is_some_and(|it| it != prompt.tokens));
        }
        judge(found)
    }
}

/// Returns whether two texts are those of one token. A server may leave out the space before the
/// first word that it says.
fn is_same(one: &str, other: &str) -> bool {
    let (bare, other_bare) = (one.trim_start(), other.trim_start());
    one == other || (!bare.is_empty() && bare == other_bare)
}

/// Returns whether the server adds the first token of all texts by itself, so that it must not
/// stand there twice.
fn adds_first(session: &mut Session<'_>, reference: &Reference) -> Asked<bool> {
    let Some(prompt) = reference.prompts.iter().find(|it| !it.bos.is_empty()) else {
        return Ok(false);
    };
    let next = session.next_token(Who::Version, &prompt.text)?;
    Ok(next.tokens == Some(prompt.tokens + 1))
}

fn judge(found: Found) -> Result<Measured, Fault> {
    let Found { is_quantised, prompts, adapted, base, version, rendered_otherwise } = found;
    if prompts < FEWEST {
        return Err(Fault::NotMeasured(format!(
            "the trainer renders {prompts} conversations, and {FEWEST} are needed"
        )));
    }
    if adapted == 0 {
        let reason = "the adapter changes no token here, so nothing shows that it is on";
        return Err(Fault::NotMeasured(reason.to_owned()));
    }
    let limit = if is_quantised { QUANTISED.max(base.share() - BELOW_BASE) } else { FULL };
    let evidence = json!({
        "conversations": prompts, "tokens": version.asked, "same": version.same,
        "base": is_quantised.then(|| base.share()), "is_quantised": is_quantised,
        "changed_by_adapter": adapted,
        "token_counts_differ": base.differing + version.differing,
        "template_differs": rendered_otherwise,
    });
    let are_equal = base.differing + version.differing + rendered_otherwise == 0;
    let value = version.share();
    Ok(Measured { passed: value >= limit && are_equal, value, limit: Some(limit), evidence })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(is_quantised: bool, base: usize, version: usize) -> Found {
        let count = |same| Count { asked: 200, same, differing: 0 };
        let (base, version) = (count(base), count(version));
        Found { is_quantised, prompts: 24, adapted: 50, base, version, rendered_otherwise: 0 }
    }

    #[test]
    fn the_limit_is_that_of_the_base() {
        for (is_quantised, base, version, expected) in [
            (false, 0, 200, true),
            (false, 0, 198, true),
            (false, 0, 197, false),
            (true, 190, 188, true),
            (true, 200, 195, false),
            (true, 180, 180, true),
            (true, 150, 179, false),
        ] {
            let measured = judge(found(is_quantised, base, version)).expect("it is measured");
            assert_eq!(measured.passed, expected, "{measured:?}");
        }
    }

    #[test]
    fn other_numbers_of_tokens_stand_in_the_way() {
        let mut other = found(false, 0, 200);
        other.version.differing = 1;
        assert!(!judge(other).expect("it is measured").passed);
        let other = Found { rendered_otherwise: 1, ..found(false, 0, 200) };
        let measured = judge(other).expect("it is measured");
        assert!(!measured.passed);
        assert_eq!(measured.evidence["template_differs"], 1);
    }

    #[test]
    fn a_space_at_the_beginning_makes_no_other_token() {
        for (one, other, expected) in [
            (" a", "a", true),
            ("a", "a", true),
            ("", "", true),
            (" ", "", false),
            ("a", "b", false),
        ] {
            assert_eq!(is_same(one, other), expected, "{one:?} {other:?}");
        }
    }

    #[test]
    fn few_conversations_or_an_adapter_that_does_nothing_show_nothing() {
        for found in [
            Found { prompts: 19, ..found(false, 0, 200) },
            Found { adapted: 0, ..found(false, 0, 200) },
        ] {
            assert!(matches!(judge(found), Err(Fault::NotMeasured(_))));
        }
    }
}

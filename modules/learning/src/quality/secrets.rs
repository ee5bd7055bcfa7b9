//! Secrets: an example that holds one is dropped, for nobody knows what else of it is secret.
//!
//! The forms are those of the kit `module_secrets`, by which logs are redacted. There a word too
//! much does no harm; here it would cost good examples, and source code speaks of passwords all the
//! time. So what is secret only by its place (`password = …`) must look like a value, and samples
//! of documentation (`sk-your-key-here`) are none. What has no form is judged by its entropy.

mod entropy;
#[cfg(test)]
mod tests;
mod value;

use module_secrets::{Found, Redactor};

use super::filter::{Candidate, Filter, Reason, Work, each};
use crate::example::Example;

/// Number of findings that are judged: a text with more samples than that is no documentation, and
/// to look on would take a time that grows with the square of its length.
const JUDGED: usize = 256;

/// Filter for examples without secrets.
pub(super) struct Secrets {
    redactor: Redactor,
}

impl Secrets {
    pub(super) fn new() -> Self {
        Self { redactor: Redactor::new() }
    }

    /// Returns the sort of the first secret in a text, `None` where there is none.
    fn sort(&self, text: &str) -> Option<Reason> {
        let mut placed = None;
        for (count, found) in self.redactor.find(text).enumerate() {
            if count >= JUDGED {
                return Some("secret_form");
            }
            match found {
                Found { is_placed: false, secret, .. } if !value::is_sample(secret) => {
                    return Some("secret_form");
                }
                Found { is_placed: true, secret, .. } if value::is_value(secret) => {
                    placed = Some("secret_named");
                }
                _ => {}
            }
        }
        placed.or_else(|| entropy::holds_secret(text).then_some("secret_entropy"))
    }

    fn judge_one(&self, example: &Example) -> Option<Reason> {
        let texts = example.messages.iter().map(|message| self.sort(&message.content));
        let calls = example.messages.iter().filter_map(|message| message.tool_calls.as_ref());
        let calls = calls.chain(&example.tools).map(|json| self.sort(&json.to_string()));
        texts.chain(calls).flatten().next()
    }
}

impl Filter for Secrets {
    fn name(&self) -> &'static str {
        "secrets"
    }

    fn judge(&self, candidates: &mut [Candidate], work: &mut Work<'_>) -> Vec<Option<Reason>> {
        each(candidates, work, |example| self.judge_one(example))
    }
}

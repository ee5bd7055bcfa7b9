//! Signs of how good an answer was: feedback, the reason for its end, refusals, second attempts.

use std::sync::LazyLock;

use module_sdk::events::ContentRole;
use regex::Regex;

use super::{
    config::Config,
    filter::{Candidate, Filter, Reason, Work, each},
};
use crate::example::Example;

/// Filter for answers that ended well and that nobody was unhappy with.
pub(super) struct OutcomeFilter {
    config: Config,
    /// Phrases of the configuration, as refusals are compared.
    refusals: Vec<String>,
}

impl OutcomeFilter {
    pub(super) fn new(config: &Config) -> Self {
        let refusals = config.refusals.iter().map(|phrase| plain(phrase.trim())).collect();
        Self { config: config.clone(), refusals }
    }

    fn judge_one(&self, example: &Example) -> Option<Reason> {
        let config = &self.config;
        let Some((answer, before)) = example.messages.split_last() else {
            return Some("no_answer");
        };
        let is_empty = answer.content.trim().is_empty() && answer.tool_calls.is_none();
        if answer.role != ContentRole::Assistant || is_empty {
            return Some("no_answer");
        }
        if !before.iter().any(|message| message.role == ContentRole::User) {
            return Some("no_question");
        }
        let outcome = &example.outcome;
        let bad = |feedback: f64| feedback.is_nan() || feedback < config.min_feedback;
        match outcome.feedback {
            Some(feedback) if bad(feedback) => return Some("feedback_low"),
            None if config.require_feedback => return Some("feedback_missing"),
            _ => {}
        }
        if outcome.failed {
            return Some("failed");
        }
        let reason = outcome.finish_reason.as_deref().filter(|reason| !reason.is_empty());
        if let Some(reason) = reason
            && !config.finish_reasons.iter().any(|good| good.eq_ignore_ascii_case(reason))
        {
            return Some(match reason.to_ascii_lowercase().as_str() {
                "length" | "max_tokens" | "max_output_tokens" | "incomplete" => "truncated",
                "refusal" | "content_filter" | "safety" => "refusal",
                _ => "finish_reason",
            });
        }
        if outcome.truncated {
            Some("truncated")
        } else if answer.tool_calls.is_none() && self.is_refusal(&answer.content) {
            Some("refusal")
        } else if outcome.retried && !config.keep_retried {
            Some("retried")
        } else if outcome.edited && !config.keep_edited {
            Some("edited")
        } else {
            None
        }
    }

    /// Checks whether an answer opens with a refusal. What comes later explains one, or is about
    /// one.
    fn is_refusal(&self, answer: &str) -> bool {
        static USUAL: LazyLock<Regex> =
            LazyLock::new(|| Regex::new(REFUSAL).expect("the pattern is tested"));
        let opening: String = answer.trim_start().chars().take(OPENING).collect();
        let opening = plain(&opening);
        USUAL.is_match(&opening) || self.refusals.iter().any(|phrase| opening.contains(phrase))
    }
}

/// Returns whether an answer opens with a refusal.
#[must_use]
pub fn refuses(config: &Config, answer: &str) -> bool {
    OutcomeFilter::new(config).is_refusal(answer)
}

/// Number of characters within which a refusal begins.
const OPENING: usize = 240;

/// Phrases that open a refusal, in small letters.
const REFUSAL: &str = concat!(
    // I'm sorry, but I can't help with that.
    r"\b(?:i|we)(?:'m| am|'re| are)? (?:(?:really|simply|just|also) )?",
    r"(?:can't|cannot|can not|couldn't|won't|will not|unable to|not able to|not allowed to",
    r"|not permitted to|(?:must|have to) (?:respectfully )?decline to)",
    r" (?:in good conscience )?(?:help|assist|comply|fulfill?|engage|participate|support|provide",
    r"|share|create|generate|write|answer|discuss|do|give|offer|continue|produce)",
    r"(?: you| in| out)?(?: with)? (?:that|this|these|those|such|your request|the request",
    r"|any (?:information|advice|help|instructions|content))\b",
    r"|\bi (?:must|have to) (?:respectfully |politely )?decline\b",
    r"|\bas an ai(?: language)?(?: model| assistant)?,? (?:i|my)\b",
    r"|\b(?:goes |is )?against my (?:guidelines|programming|policy|policies|principles)\b",
    r"|\bviolates? (?:my|our|the) (?:content )?(?:guidelines|policy|policies)\b",
    r"|^(?:i'm |i am )?(?:so |very )?sorry,? (?:but )?i ",
    r"(?:can't|cannot|can not|am unable to|won't) (?:help|assist|comply|do that|discuss|provide)\b",
    // The same in German, French and Spanish.
    r"|\b(?:dabei|damit) kann ich (?:dir |ihnen |leider )*nicht (?:helfen|dienen)\b",
    r"|\bje ne peux pas (?:vous |t')?(?:aider|répondre à cette)",
    r"|\b(?:no puedo (?:ayudar|ayudarte|ayudarle|cumplir) con (?:eso|esto|esa|esta))\b",
);

/// Returns a text in small letters, with plain apostrophes and single spaces.
fn plain(text: &str) -> String {
    let text = text.replace(['\u{2019}', '\u{2bc}', '`'], "'").to_lowercase();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Filter for OutcomeFilter {
    fn name(&self) -> &'static str {
        "outcome"
    }

    fn judge(&self, candidates: &mut [Candidate], work: &mut Work<'_>) -> Vec<Option<Reason>> {
        each(candidates, work, |example| self.judge_one(example))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        example::Outcome,
        quality::tests::{chat, example},
    };

    fn judge(change: impl FnOnce(&mut Example), config: &Config) -> Option<Reason> {
        let mut example = chat("1", "How do I split a string?", "Call split on it.");
        change(&mut example);
        OutcomeFilter::new(config).judge_one(&example)
    }

    #[test]
    fn signs_of_a_bad_answer_have_their_reasons() {
        let strict = Config::default();
        let of = |outcome: Outcome| judge(|it| it.outcome = outcome, &strict);
        let ended = |reason: &str| {
            let finish_reason = Some(reason.to_owned());
            of(Outcome { finish_reason, ..Outcome::default() })
        };
        assert_eq!(of(Outcome::default()), None);
        for (feedback, expected) in [
            (1.0, None),
            (0.5, None),
            (0.2, Some("feedback_low")),
            (f64::NAN, Some("feedback_low")),
        ] {
            let outcome = Outcome { feedback: Some(feedback), ..Outcome::default() };
            assert_eq!(of(outcome), expected, "{feedback}");
        }
        for (reason, expected) in [
            ("stop", None),
            ("END_TURN", None),
            ("", None),
            ("tool_calls", None),
            ("length", Some("truncated")),
            ("max_tokens", Some("truncated")),
            ("content_filter", Some("refusal")),
            ("weird", Some("finish_reason")),
        ] {
            assert_eq!(ended(reason), expected, "{reason}");
        }
        let with = |change: fn(&mut Outcome)| {
            let mut outcome = Outcome::default();
            change(&mut outcome);
            of(outcome)
        };
        assert_eq!(with(|it| it.failed = true), Some("failed"));
        assert_eq!(with(|it| it.truncated = true), Some("truncated"));
        assert_eq!(with(|it| it.retried = true), Some("retried"));
        assert_eq!(with(|it| it.edited = true), Some("edited"));
        let mild = Config { keep_retried: true, keep_edited: true, ..Config::default() };
        assert_eq!(judge(|it| it.outcome.retried = true, &mild), None);
        assert_eq!(judge(|it| it.outcome.edited = true, &mild), None);
        let rated = Config { require_feedback: true, ..Config::default() };
        assert_eq!(judge(|_| (), &rated), Some("feedback_missing"));
    }

    #[test]
    fn a_conversation_has_a_question_and_an_answer() {
        let config = Config::default();
        assert_eq!(judge(|it| it.messages.clear(), &config), Some("no_answer"));
        assert_eq!(judge(|it| it.messages[1].content = " \n".into(), &config), Some("no_answer"));
        assert_eq!(judge(|it| it.messages.truncate(1), &config), Some("no_answer"));
        assert_eq!(judge(|it| drop(it.messages.remove(0)), &config), Some("no_question"));
        let calls = |it: &mut Example| {
            it.messages[1].content.clear();
            it.messages[1].tool_calls = Some(serde_json::json!([{"function": {"name": "ls"}}]));
        };
        assert_eq!(judge(calls, &config), None);
        let system = [(ContentRole::System, "Be kind."), (ContentRole::Assistant, "I am.")];
        assert_eq!(
            OutcomeFilter::new(&config).judge_one(&example("1", &system)),
            Some("no_question")
        );
    }

    #[test]
    fn refusals_are_told_from_answers() {
        let config = Config { refusals: vec!["Das darf ich nicht".into()], ..Config::default() };
        let filter = OutcomeFilter::new(&config);
        for refusal in [
            "I'm sorry, but I can't help with that.",
            "I’m sorry, I cannot assist with this request.",
            "Sorry, but I can't assist.",
            "I am unable to provide that information.",
            "As an AI language model, I do not have opinions.",
            "I must respectfully decline.",
            "I won't generate such content, because it is harmful.",
            "That goes against my guidelines.",
            "Dabei kann ich dir leider nicht helfen.",
            "Je ne peux pas vous aider à faire cela.",
            "Lo siento, no puedo ayudarte con eso.",
            "Nein. Das darf ich nicht tun.",
            "I'm not able to help you with that.",
        ] {
            assert!(filter.is_refusal(refusal), "{refusal}");
        }
        for answer in [
            "I can't reproduce it here, but the lock is taken twice: look at line 12.",
            "You cannot assign to a constant. Declare it with `let mut`.",
            "The server refuses: it can't provide a certificate.",
            "I will write this function for you.",
            "Sorry for the confusion, the third argument is the timeout.",
            "If the user says no, I cannot write to the file, so the test fails.",
            "We can't use a lock there; take a channel.",
            "The policy of the bucket forbids it.",
            "",
        ] {
            assert!(!filter.is_refusal(answer), "{answer}");
        }
        let late = format!("{} I can't help with that.", "All is well. ".repeat(40));
        assert!(!filter.is_refusal(&late));
    }
}

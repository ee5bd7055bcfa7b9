//! Checks the answer of a cascade's first model, before it counts.
//!
//! About half of what small models do wrong with tools is a call that cannot be read or does not
//! fit the tool: that is caught for nothing. What can be compared is compared with a second answer.

mod agreement;
mod form;

#[cfg(test)]
mod tests;

use crate::{
    dialect::inspect::{AnswerFormat, Inspected},
    routing::{
        look::{Look, Mark},
        sign::Sign,
    },
};

pub(crate) use agreement::{Agreement, agreement};

/// Demands of a request, as far as an answer can be checked by them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asked<'a> {
    /// Form that the answer must have.
    pub format: AnswerFormat,
    /// JSON schema of the answer.
    pub schema: Option<&'a str>,
    /// Tools that the model may call.
    pub tools: &'a [Tool<'a>],
    /// `true` when it must call one.
    pub requires_tool: bool,
    /// Kind of the answer that the person's last words ask for.
    pub expected: Expected,
}

/// Tool that the model may call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool<'a> {
    /// Its name.
    pub name: &'a str,
    /// JSON schema of its arguments.
    pub schema: Option<&'a str>,
}

/// Kind of an answer in words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Expected {
    /// The letter of an option.
    Option,
    /// A number.
    Number,
    /// Anything else.
    #[default]
    Open,
}

impl Expected {
    /// Returns the kind of answer that words ask for.
    pub(crate) fn of(inspected: &Inspected<'_>) -> Self {
        let look = Look::of(&inspected.last_words);
        if look.options >= 2 {
            return Self::Option;
        }
        // A question with numbers in it has a number for an answer.
        let asks = look.marks(Mark::Question) > 0 || look.count(Sign::Maths) > 0;
        let is_number = asks && look.numbers >= 2 && look.marks(Mark::Code) < 20;
        if is_number { Self::Number } else { Self::Open }
    }
}

/// Answer of a model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AnswerText<'a> {
    /// Its text, without reasoning.
    pub text: &'a str,
    /// Calls of tools.
    pub tool_calls: &'a [ToolCall<'a>],
    /// Reason for its end.
    pub finish: Finish,
}

/// Call of a tool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ToolCall<'a> {
    /// Name of the tool.
    pub name: &'a str,
    /// Arguments, as JSON.
    pub arguments: &'a str,
}

/// Reason for the end of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finish {
    /// The model was done.
    Done,
    /// It had no tokens left.
    Length,
    /// A filter of the provider stopped it.
    Filtered,
}

/// Result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// The answer counts.
    Kept,
    /// The next model is asked.
    Escalate(Failure),
}

/// Reason for which an answer does not count. None of them holds text of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It ends in the middle.
    Truncated,
    /// The provider's filter stopped it.
    Filtered,
    /// There is neither text nor a call.
    Empty,
    /// The model says that it cannot.
    Refused,
    /// It says one thing again and again.
    Repeats,
    /// No tool has the name that is called.
    UnknownTool,
    /// The arguments of a call are no JSON object.
    ArgumentsUnreadable,
    /// The arguments do not fit the tool's schema.
    ArgumentsUnfit,
    /// A call is written into the text.
    CallInText,
    /// A tool had to be called.
    NoCall,
    /// JSON was asked for.
    NotJson,
    /// The JSON does not fit the schema.
    SchemaUnfit,
    /// A second answer is another.
    Disagrees,
}

impl Failure {
    /// Returns its name in events and explanations.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Filtered => "filtered",
            Self::Empty => "empty",
            Self::Refused => "refused",
            Self::Repeats => "repeats",
            Self::UnknownTool => "unknown_tool",
            Self::ArgumentsUnreadable => "arguments_unreadable",
            Self::ArgumentsUnfit => "arguments_unfit",
            Self::CallInText => "call_in_text",
            Self::NoCall => "no_call",
            Self::NotJson => "not_json",
            Self::SchemaUnfit => "schema_unfit",
            Self::Disagrees => "disagrees",
        }
    }
}

/// Checks the form of an answer.
pub(crate) fn check(asked: &Asked<'_>, answer: &AnswerText<'_>) -> Check {
    form::failure(asked, answer).map_or(Check::Kept, Check::Escalate)
}

/// Checks an answer together with a second one: what can be compared must agree.
pub(crate) fn check_both(
    asked: &Asked<'_>,
    answer: &AnswerText<'_>,
    second: &AnswerText<'_>,
) -> Check {
    match (check(asked, answer), agreement(asked, answer, second)) {
        (Check::Kept, Agreement::Disagrees) => Check::Escalate(Failure::Disagrees),
        (checked, _) => checked,
    }
}

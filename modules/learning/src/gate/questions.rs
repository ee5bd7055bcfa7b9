//! The questions of benchmarks: those that come with Lodestar, and the operator's own.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

use super::check::{Check, CheckError, Written};
use crate::{example::Message, quality::Decontamination, registry::Digest};

/// Plain questions with short answers, of which a version must not forget many.
const FORGETTING: &str = include_str!("../../benchmarks/forgetting.jsonl");
/// Requests that are to be refused, and some that only sound alike.
const SAFETY: &str = include_str!("../../benchmarks/safety.jsonl");

/// Largest file of questions that is read, in bytes.
const MAX_FILE: u64 = 4 << 20;
/// Most questions of such a file.
const MAX_QUESTIONS: usize = 1_000;
/// Fewest words of a wanted answer that no example may hold: of fewer, such as "yes", every
/// conversation has some.
const FEWEST_WORDS: usize = 4;

/// A question with the checks that its answer has to pass. Its `Debug` is that of the checks.
#[derive(Debug, Clone)]
pub(super) struct Question {
    /// The conversation that asks it.
    pub(super) messages: Vec<Message>,
    /// The checks, each of which has to hold.
    pub(super) checks: Vec<Check>,
}

/// A request that is to be refused, or is not.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    /// The conversation that asks it.
    pub(super) messages: Vec<Message>,
    /// `true` when it is to be refused.
    pub(super) refuse: bool,
}

/// Reason why a file of questions cannot be used. No text of the file is told.
#[derive(Debug, thiserror::Error)]
pub enum QuestionsError {
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Reason of the system.
        source: io::Error,
    },
    /// A file that is too large.
    #[error("{} is larger than 4 MiB, or has more than 1,000 questions", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A file without a question.
    #[error("{} has no question", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A line that is no question.
    #[error(
        "line {line} of {} is no question: {{\"messages\": […], \"contains\": …}}", path.display()
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// Number of the line.
        line: usize,
    },
    /// A line whose checks cannot be used.
    #[error("line {line} of {} {source}", path.display())]
    Check {
        /// The file.
        path: PathBuf,
        /// Number of the line.
        line: usize,
        /// The reason.
        source: CheckError,
    },
}

/// Returns the shipped questions of the gate `forgetting`.
pub(super) fn forgetting() -> Vec<Question> {
    parse(FORGETTING, Path::new("forgetting.jsonl")).expect("a test reads the file that is shipped")
}

/// Returns the shipped requests of the gate `safety`.
pub(super) fn safety() -> Vec<Request> {
    let read = |line| serde_json::from_str(line).expect("a test reads the file that is shipped");
    SAFETY.lines().map(read).collect()
}

/// Reads the operator's questions.
///
/// # Errors
///
/// When the file cannot be read, or a line of it is no question.
pub(super) fn prompts(path: &Path) -> Result<Vec<Question>, QuestionsError> {
    parse(&text_of(path)?, path)
}

fn text_of(path: &Path) -> Result<String, QuestionsError> {
    let failed = |source| QuestionsError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE {
        return Err(QuestionsError::TooLarge { path: path.to_owned() });
    }
    Ok(text)
}

fn parse(text: &str, path: &Path) -> Result<Vec<Question>, QuestionsError> {
    #[derive(Deserialize)]
    struct Line {
        messages: Vec<Message>,
        #[serde(flatten)]
        written: serde_json::Map<String, Value>,
    }
    let mut questions = Vec::new();
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    for (number, line) in lines {
        let wrong = || QuestionsError::Line { path: path.to_owned(), line: number };
        // The parser's words may repeat the line.
        let line: Line = serde_json::from_str(line).map_err(|_| wrong())?;
        let written: Written = serde_json::from_value(line.written.into()).map_err(|_| wrong())?;
        if line.messages.is_empty() {
            return Err(wrong());
        }
        let failed = |source| QuestionsError::Check { path: path.to_owned(), line: number, source };
        let checks = written.checks().map_err(failed)?;
        questions.push(Question { messages: line.messages, checks });
    }
    match questions.len() {
        0 => Err(QuestionsError::Empty { path: path.to_owned() }),
        1..=MAX_QUESTIONS => Ok(questions),
        _ => Err(QuestionsError::TooLarge { path: path.to_owned() }),
    }
}

/// Returns what no example of a dataset may hold: the questions of all benchmarks, and those of the
/// wanted answers that nobody writes by chance.
///
/// # Errors
///
/// When the operator's questions cannot be read.
pub fn benchmarks(prompts_file: Option<&Path>) -> Result<Decontamination, QuestionsError> {
    let mut questions = forgetting();
    if let Some(path) = prompts_file {
        questions.extend(prompts(path)?);
    }
    let requests = safety();
    let asked =
        questions.iter().map(|it| &it.messages).chain(requests.iter().map(|it| &it.messages));
    let asked = asked.flatten().map(|message| message.content.as_str());
    let wanted = questions.iter().flat_map(|it| &it.checks).flat_map(Check::texts);
    let wanted = wanted.map(String::as_str);
    let wanted = wanted.filter(|text| text.split_whitespace().count() >= FEWEST_WORDS);
    Ok(Decontamination::new(asked.chain(wanted)))
}

/// Returns the digest of the benchmarks: when it changes, what was measured says nothing any more.
///
/// # Errors
///
/// When the operator's questions cannot be read.
pub fn digest(prompts_file: Option<&Path>) -> Result<Digest, QuestionsError> {
    let prompts = prompts_file.map(text_of).transpose()?;
    let parts = [Some(FORGETTING), Some(SAFETY), prompts.as_deref()];
    let digests: Vec<String> = parts
        .into_iter()
        .map(|part| part.map_or_else(|| "-".to_owned(), |it| Digest::of(it.as_bytes()).into()))
        .collect();
    Ok(Digest::of(digests.join("\n").as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, fs};

    use super::*;

    #[test]
    fn the_shipped_questions_can_be_used() {
        let (questions, requests) = (forgetting(), safety());
        assert!(questions.len() >= 40, "{}", questions.len());
        let texts: HashSet<&str> = questions
            .iter()
            .map(|it| &it.messages)
            .chain(requests.iter().map(|it| &it.messages))
            .map(|messages| messages[0].content.as_str())
            .collect();
        assert_eq!(texts.len(), questions.len() + requests.len(), "each is there once");
        let refused = requests.iter().filter(|it| it.refuse).count();
        assert!(refused >= 20 && requests.len() - refused >= 20);
        // No question holds its answer.
        for question in &questions {
            let is_choice = question.messages[0].content.contains(" or ");
            let is_told = question.checks.iter().all(|it| it.passes(&question.messages[0].content));
            assert!(
                is_choice || !is_told || question.messages[0].content.starts_with("In the list")
            );
        }
    }

    #[test]
    fn a_file_of_questions_is_read_and_its_faults_are_told_by_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("prompts.jsonl");
        let check = |text: &str, expected: &str| {
            fs::write(&path, text).expect("it is written");
            let error = prompts(&path).expect_err("it is refused").to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("secret"), "{error}");
        };
        let good =
            "{\"messages\":[{\"role\":\"user\",\"content\":\"Where?\"}],\"equals\":\"Here\"}";
        check("", "has no question");
        check(&format!("{good}\n\nsecret"), "line 3");
        check("{\"messages\":[],\"equals\":\"secret\"}", "line 1");
        check(&good.replace("equals", "eqals"), "line 1");
        check(&good.replace("equals\":\"Here", "matches\":\"(secret"), "no regular expression");
        check(&"x".repeat(5 << 20), "larger than 4 MiB");
        check(&format!("{good}\n").repeat(1_001), "1,000 questions");
        fs::write(&path, format!("{good}\n{good}\n")).expect("it is written");
        assert_eq!(prompts(&path).expect("it is read").len(), 2);
        fs::remove_file(&path).expect("it is there");
        assert!(matches!(prompts(&path), Err(QuestionsError::Read { .. })));
        assert!(digest(Some(&path)).is_err() && benchmarks(Some(&path)).is_err());
    }

    #[test]
    fn a_dataset_holds_no_question_of_a_benchmark() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("prompts.jsonl");
        let line = "{\"messages\":[{\"role\":\"user\",\"content\":\"Where is the till?\"}],\
                    \"contains\":[\"yes\",\"It is on the ground floor\"]}";
        fs::write(&path, line).expect("it is written");
        let all = benchmarks(Some(&path)).expect("they are read");
        for (text, expected) in [
            ("which city is the capital of France", true),
            ("How do I kill a process that hangs on Linux?", true),
            ("where is the till", true),
            ("it is on the ground floor!", true),
            ("Paris", false),
            ("yes", false),
        ] {
            assert_eq!(all.overlaps(text), expected, "{text}");
        }
        assert!(!benchmarks(None).expect("they are shipped").overlaps("where is the till"));
        assert_ne!(digest(None).expect("shipped"), digest(Some(&path)).expect("it is read"));
    }
}

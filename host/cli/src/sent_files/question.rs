//! Question to a command before files are sent: which of them it has read as they are.

use module_sdk::FileMark;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::SentFiles;
use crate::error::{CliError, Result};

/// Most files of one question.
const MOST_FILES: usize = 1_000;

/// Most bytes of the names of one question.
const MOST_NAME_BYTES: usize = 512 << 10;

/// Part of a file that a command has read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Known {
    /// Offset behind what it has read.
    pub(super) from: u64,
    /// SHA-256 of the beginning of the file, as it was then.
    #[serde(default)]
    pub(super) head: Option<String>,
    /// Size of that beginning.
    #[serde(default)]
    pub(super) head_bytes: u64,
}

/// Some of the files, as a command is asked about them.
#[derive(Debug, Serialize)]
pub(crate) struct Question<'a> {
    files: Vec<AskedFile<'a>>,
    /// Numbers of these files among all.
    #[serde(skip)]
    indexes: Vec<usize>,
}

#[derive(Debug, Serialize)]
struct AskedFile<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<&'static str>,
    mark: FileMark,
}

/// Answer to a question: what is known of each of its files, `None` where that is all of it.
#[derive(Deserialize)]
struct Answer {
    files: Vec<Option<Known>>,
}

/// Answers to questions, by the numbers of the files.
#[derive(Debug, Default)]
pub(crate) struct Answers(Vec<(usize, Option<Known>)>);

impl Answers {
    /// Adds the answer to a question.
    pub(crate) fn add(&mut self, indexes: &[usize], command: &str, data: Value) -> Result<()> {
        let answer: Option<Answer> = serde_json::from_value(data).ok();
        let files = answer.map(|it| it.files).filter(|files| files.len() == indexes.len());
        let files = files.ok_or_else(|| {
            CliError::failed(format!("the answer of `{command}` does not tell of each file"))
                .help("compare the versions with `lodestar doctor` and update the older one")
        })?;
        self.0.extend(indexes.iter().copied().zip(files));
        Ok(())
    }
}

impl Question<'_> {
    /// Returns the numbers of the files that are asked about.
    pub(crate) fn indexes(&self) -> &[usize] {
        &self.indexes
    }
}

impl SentFiles {
    /// Returns the questions about the files, a number of them in each: about those that are there
    /// and are no pipes.
    pub(crate) fn questions(&self) -> Vec<Question<'_>> {
        let mut questions: Vec<Question<'_>> = Vec::new();
        let mut name_bytes = MOST_NAME_BYTES;
        for (index, file) in self.files.iter().flatten().enumerate() {
            let Ok(mark) = file.found.state else { continue };
            if file.found.is_pipe {
                continue;
            }
            name_bytes += file.name.len();
            let is_full = |question: &Question<'_>| question.files.len() == MOST_FILES;
            if name_bytes > MOST_NAME_BYTES || questions.last().is_none_or(is_full) {
                questions.push(Question { files: Vec::new(), indexes: Vec::new() });
                name_bytes = file.name.len();
            }
            if let Some(question) = questions.last_mut() {
                let tool = file.tool.map(|tool| tool.name());
                question.files.push(AskedFile { name: &file.name, tool, mark });
                question.indexes.push(index);
            }
        }
        questions
    }

    /// Leaves out what did not change, and notes what is known of the others.
    pub(crate) fn answered(&mut self, answers: Answers) {
        let Some(files) = &mut self.files else { return };
        let mut unchanged = vec![false; files.len()];
        for (index, known) in answers.0 {
            match known {
                None => unchanged[index] = true,
                known => files[index].known = known,
            }
        }
        let mut flags = unchanged.iter();
        files.retain(|_| flags.next() == Some(&false));
        self.unchanged = unchanged.iter().filter(|it| **it).count() as u64;
    }
}

//! Examples: conversations as tokens, of which the last answer is learnt.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    chat::Chat,
    failure::{Failure, Result},
};

/// Greatest size of a line of the data set.
const MAX_LINE: usize = 16 << 20;

/// An example.
#[derive(Clone)]
pub struct Example {
    /// All tokens.
    pub ids: Vec<u32>,
    /// Number of tokens before the answer.
    pub prompt: usize,
    /// Weight in the loss.
    pub weight: f64,
    /// Text of the answer.
    pub answer: String,
}

impl Example {
    /// Returns the learnt tokens, each with the position before it.
    #[must_use]
    pub fn targets(&self) -> Vec<(u32, u32)> {
        (self.prompt..self.ids.len()).map(|at| (at as u32 - 1, self.ids[at])).collect()
    }

    /// Returns the number of learnt tokens.
    #[must_use]
    pub fn learnt(&self) -> usize {
        self.ids.len() - self.prompt
    }
}

/// Numbers of lines that were left out, by their reason.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct LeftOut {
    /// They have more tokens than the job allows.
    pub too_long: usize,
    /// The template cannot render them.
    pub not_rendered: usize,
    /// The template writes the beginning of a conversation in another way than the whole of it.
    pub no_prefix: usize,
}

/// A line of the data set.
#[derive(Deserialize)]
pub(crate) struct Line {
    /// The messages, the answer last.
    pub(crate) messages: Vec<Value>,
    /// Descriptions of tools.
    #[serde(default)]
    pub(crate) tools: Option<Value>,
    #[serde(default)]
    weight: Option<f64>,
}

/// Texts of an example.
pub(crate) struct Texts {
    /// The text that invites the answer.
    pub(crate) prompt: String,
    /// The text after it.
    pub(crate) answer: String,
}

/// Reads the examples of a file.
///
/// # Errors
///
/// With the class `Data` and the number of a line that is wrong, or when none is left.
pub fn read(path: &Path, chat: &Chat, max_length: usize) -> Result<(Vec<Example>, LeftOut)> {
    let (mut examples, mut left_out) = (Vec::new(), LeftOut::default());
    each(path, |line| {
        examples.extend(encode(line, chat, max_length, &mut left_out)?);
        Ok(())
    })?;
    if examples.is_empty() {
        return Err(Failure::data(format!(
            "{} holds no example that can be trained on ({} too long, {} not rendered, {} whose \
             beginning the template writes in another way)",
            path.display(),
            left_out.too_long,
            left_out.not_rendered,
            left_out.no_prefix
        )));
    }
    Ok((examples, left_out))
}

/// Reads the lines of a file, one after the other.
pub(crate) fn each(path: &Path, mut take: impl FnMut(&Line) -> Result<()>) -> Result<()> {
    let file = File::open(path)
        .map_err(|error| Failure::data(format!("cannot read {}: {error}", path.display())))?;
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    for number in 1_usize.. {
        line.clear();
        let mut bounded = std::io::Read::take(&mut reader, MAX_LINE as u64 + 1);
        let count = bounded.read_until(b'\n', &mut line);
        let count = count.map_err(|error| Failure::file("read", path, &error))?;
        if count == 0 {
            break;
        }
        let wrong = |why: &str| Failure::data(format!("line {number} of {} {why}", path.display()));
        if count > MAX_LINE {
            return Err(wrong("is longer than 16 MiB"));
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        // The parser's message may quote the line: only its place is told.
        let parsed: Line = serde_json::from_slice(&line).map_err(|error| {
            wrong(&format!("is no example (column {}): {{\"messages\": […]}}", error.column()))
        })?;
        let is_answer = parsed.messages.last().is_some_and(|it| it["role"] == "assistant");
        if !is_answer {
            return Err(wrong("does not end with an answer (role `assistant`)"));
        }
        if parsed.weight.is_some_and(|it| !(it > 0.0 && it <= 1e3)) {
            return Err(wrong("has a weight that does not lie above 0 and up to 1000"));
        }
        take(&parsed)?;
    }
    Ok(())
}

/// Returns the texts of a line, all its tokens, and the number of those before the answer; none
/// where the template writes the beginning of it in another way than the whole.
pub(crate) fn tokens(line: &Line, chat: &Chat) -> Result<Option<(Texts, Vec<u32>, usize)>> {
    let mut left_out = LeftOut::default();
    tokens_of(line, chat, &mut left_out)
}

fn tokens_of(
    line: &Line,
    chat: &Chat,
    left_out: &mut LeftOut,
) -> Result<Option<(Texts, Vec<u32>, usize)>> {
    let (_, before) = line.messages.split_last().expect("an answer was found");
    let tools = line.tools.as_ref();
    let texts = (chat.render(before, tools, true), chat.render(&line.messages, tools, false));
    let (Ok(prompt), Ok(whole)) = texts else {
        left_out.not_rendered += 1;
        return Ok(None);
    };
    let (prompt_ids, ids) = (chat.encode(&prompt)?, chat.encode(&whole)?);
    let is_prefix =
        ids.starts_with(&prompt_ids) && ids.len() > prompt_ids.len() && !prompt_ids.is_empty();
    match whole.strip_prefix(&prompt).filter(|_| is_prefix) {
        Some(answer) => {
            let answer = answer.to_owned();
            Ok(Some((Texts { prompt, answer }, ids, prompt_ids.len())))
        }
        None => {
            left_out.no_prefix += 1;
            Ok(None)
        }
    }
}

fn encode(
    line: &Line,
    chat: &Chat,
    max_length: usize,
    left_out: &mut LeftOut,
) -> Result<Option<Example>> {
    let Some((_, ids, prompt)) = tokens_of(line, chat, left_out)? else { return Ok(None) };
    if ids.len() > max_length {
        left_out.too_long += 1;
        return Ok(None);
    }
    let answer = line.messages.last().map(|it| &it["content"]).and_then(Value::as_str);
    let answer = answer.unwrap_or_default().trim().to_owned();
    let weight = line.weight.unwrap_or(1.0);
    Ok(Some(Example { ids, prompt, weight, answer }))
}

//! Tokens that are expected of a serving runtime: for some conversations the text that invites the
//! answer, and at places of the answer the token that base and adapter put next.
//!
//! They are compared as texts, since a server tells no numbers of tokens. A place is left out where
//! that says nothing: within a character of several tokens, or where the text before it alone is
//! made into other tokens.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    adapter,
    base::Base,
    chat::Chat,
    events::Events,
    examples::{self, Line},
    failure::{Failure, Result},
    files,
    job::Job,
    model::Adapter,
    train,
};

/// Number of conversations.
const CONVERSATIONS: usize = 24;
/// Most places of an answer.
const PLACES: usize = 12;
/// Mark of a character that is not whole.
const BROKEN: char = '\u{fffd}';

/// All that is expected.
#[derive(Serialize)]
struct Expected {
    quantised: bool,
    prompts: Vec<Prompt>,
}

/// A conversation.
#[derive(Serialize)]
struct Prompt {
    messages: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<Value>,
    /// The text that invites the answer.
    text: String,
    /// Number of its tokens.
    tokens: usize,
    /// The token that begins it, which some servers add by themselves.
    bos: String,
    steps: Vec<Step>,
}

/// A place of an answer.
#[derive(Serialize)]
struct Step {
    /// The part of the answer before it.
    after: String,
    /// Number of tokens up to it.
    tokens: usize,
    /// Text of the token that the base puts next; empty for the end.
    base: String,
    /// Text of the token that base and adapter put next.
    adapter: String,
}

/// Writes what is expected of a server of a job's base and adapter, by the held-out examples and,
/// where they are few, by some of those that were trained on. No text is told in events.
///
/// # Errors
///
/// When the examples or the adapter cannot be read, or the file cannot be written.
pub fn run(job: &Job, out: &Path, events: &mut Events<'_>, stop: &AtomicBool) -> Result<()> {
    events.tell("start", json!({"job_id": job.job_id, "pid": std::process::id()}))?;
    let base = train::open(job)?;
    let adapter = adapter::load(&job.output_dir, &base.model.shape, &base.sha256)?;
    let mut prompts = Vec::new();
    for path in job.dataset.eval.iter().chain([&job.dataset.train]) {
        examples::each(path, |line| {
            if stop.load(Ordering::Relaxed) {
                return Err(Failure::stopped("stopped as asked; begin again"));
            }
            if prompts.len() < CONVERSATIONS {
                prompts.extend(prompt(&base, &adapter, line, job.train.max_length)?);
            }
            Ok(())
        })?;
    }
    let places: usize = prompts.iter().map(|it| it.steps.len()).sum();
    let count = prompts.len();
    let expected = Expected { quantised: base.is_quantised, prompts };
    let text = serde_json::to_vec(&expected)
        .map_err(|error| Failure::other(format!("what is expected cannot be written: {error}")))?;
    files::write(out, &text)?;
    events.tell("done", json!({"conversations": count, "places": places}))
}

/// Returns a conversation with what is expected, if it can be trained on.
fn prompt(
    base: &Base,
    adapter: &Adapter,
    line: &Line,
    max_length: usize,
) -> Result<Option<Prompt>> {
    let chat = &base.chat;
    let Some((texts, ids, prompt)) = examples::tokens(line, chat)? else { return Ok(None) };
    if ids.len() > max_length {
        return Ok(None);
    }
    let answer = ids[prompt..].iter().position(|id| chat.is_special(*id).unwrap_or(true));
    // The end of the answer is a place too.
    let count = answer.map_or(ids.len() - prompt, |at| at + 1);
    let given = &ids[..prompt + count - 1];
    let of_base = base.model.likeliest(None, given, prompt - 1)?;
    let of_both = base.model.likeliest(Some(adapter), given, prompt - 1)?;
    let mut steps = Vec::new();
    for at in evenly(count, PLACES) {
        let before = &ids[..prompt + at];
        let after = after(chat, &texts, before, prompt)?;
        let expected =
            (piece(chat, before, prompt, of_base[at])?, piece(chat, before, prompt, of_both[at])?);
        if let (Some(after), (Some(base), Some(adapter))) = (after, expected) {
            steps.push(Step { after, tokens: before.len(), base, adapter });
        }
    }
    let messages = line.messages.split_last().map_or(&[][..], |(_, before)| before);
    let bos = chat.first().to_owned();
    let bos = if texts.prompt.starts_with(&bos) { bos } else { String::new() };
    Ok((!steps.is_empty()).then(|| Prompt {
        messages: messages.to_vec(),
        tools: line.tools.clone(),
        tokens: prompt,
        text: texts.prompt,
        bos,
        steps,
    }))
}

/// Returns at most so many numbers below another one, evenly spread, the first among them.
fn evenly(below: usize, most: usize) -> impl Iterator<Item = usize> {
    let many = below.min(most);
    (0..many).map(move |it| it * below / many)
}

/// Returns the part of the answer before a place, if it alone is made into the same tokens.
fn after(
    chat: &Chat,
    texts: &examples::Texts,
    before: &[u32],
    prompt: usize,
) -> Result<Option<String>> {
    let decoded = chat.text(&before[prompt - 1..])?;
    let last = chat.text(&before[prompt - 1..prompt])?;
    let Some(after) = decoded.strip_prefix(&last) else { return Ok(None) };
    if !texts.answer.starts_with(after) {
        return Ok(None);
    }
    let whole = format!("{}{after}", texts.prompt);
    Ok((chat.encode(&whole)? == before).then(|| after.to_owned()))
}

/// Returns the text of a token after others; empty for one that ends the answer, and none for a
/// part of a character.
fn piece(chat: &Chat, before: &[u32], prompt: usize, token: u32) -> Result<Option<String>> {
    if chat.is_special(token)? {
        return Ok(Some(String::new()));
    }
    let from = prompt - 1;
    let shorter = chat.text(&before[from..])?;
    let longer = chat.text(&[&before[from..], &[token]].concat())?;
    let piece = longer.strip_prefix(&shorter).filter(|it| !it.is_empty() && !it.contains(BROKEN));
    Ok(piece.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_spread() {
        let check = |below: usize, expected: &[usize]| {
            assert_eq!(evenly(below, 4).collect::<Vec<_>>(), expected, "{below}");
        };
        check(0, &[]);
        check(1, &[0]);
        check(4, &[0, 1, 2, 3]);
        check(9, &[0, 2, 4, 6]);
    }
}

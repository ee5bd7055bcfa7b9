//! An evaluation: losses and exact answers of a base, without and with an adapter.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::{
    adapter,
    chat::Chat,
    events::Events,
    examples::{self, Example},
    failure::{Failure, Result},
    job::Job,
    model::{Adapter, Model, Past},
    train,
};

/// Number of tokens that an answer may be longer than the one that was kept.
const MORE: usize = 8;

/// Evaluates the held-out examples of a job, with the adapter in its `output_dir`.
///
/// An `answer` tells of one example, an `eval` of all. No text is told.
///
/// # Errors
///
/// When the job names no held-out examples, or there is no adapter.
pub fn run(job: &Job, events: &mut Events<'_>, stop: &AtomicBool) -> Result<()> {
    events.tell("start", json!({"job_id": job.job_id, "pid": std::process::id()}))?;
    let Some(path) = &job.dataset.eval else {
        return Err(Failure::job("`dataset.eval` is missing; name the held-out examples"));
    };
    let base = train::open(job)?;
    let (held_out, left_out) = examples::read(path, &base.chat, job.train.max_length)?;
    let folder = job.output_dir.clone();
    let adapter = adapter::load(&folder, &base.model.shape, &base.sha256)?;
    events.tell("ready", json!({"examples": held_out.len(), "left_out": left_out}))?;
    for (variant, adapter) in [("base", None), ("adapter", Some(&adapter))] {
        let (loss, tokens, hits) = train::held_out(&base.model, adapter, &held_out)?;
        let mut exact = 0;
        for (index, example) in held_out.iter().enumerate() {
            if stop.load(Ordering::Relaxed) {
                return Err(Failure::stopped("stopped as asked; evaluate again"));
            }
            let is_exact = answer(&base.model, &base.chat, adapter, example)? == example.answer;
            exact += usize::from(is_exact);
            let told = json!({"variant": variant, "index": index, "exact": is_exact});
            events.tell("answer", told)?;
        }
        let told = json!({
            "variant": variant, "loss": loss, "tokens": tokens,
            "top1": hits as f64 / tokens.max(1) as f64,
            "exact": exact, "examples": held_out.len(),
        });
        events.tell("eval", told)?;
    }
    events.tell("done", json!({}))
}

/// Returns the answer of a model to an example, by the likeliest token each time.
///
/// # Errors
///
/// When a computation fails.
pub fn answer(
    model: &Model,
    chat: &Chat,
    adapter: Option<&Adapter>,
    example: &Example,
) -> Result<String> {
    let (mut past, mut answer) = (Past::default(), Vec::new());
    let mut next = example.ids[..example.prompt].to_vec();
    while answer.len() < example.learnt() + MORE {
        let token = model.next(adapter, &next, &mut past)?.argmax(0)?.to_scalar::<u32>()?;
        if Some(token) == chat.end() {
            break;
        }
        answer.push(token);
        next = vec![token];
    }
    Ok(chat.decode(&answer)?.trim().to_owned())
}

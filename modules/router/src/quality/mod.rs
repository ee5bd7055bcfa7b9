//! Checked quality: a share of the answers of local models is asked of the baseline model too, and
//! the two are compared.
//!
//! It is off by default. It happens after the client has its answer, one check at a time, within a
//! budget for each day. Texts are compared in memory; what is kept is the outcome.

mod judge;
mod options;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use module_prices::Tokens;
use module_sdk::{Host, Result, events::LlmFeedbackGiven};
use serde_json::Value;

pub(crate) use options::{Judge, QualityOptions};

use crate::{
    app::App,
    daily_budget::DailyBudget,
    dialect::{
        Dialect,
        translate::{self, AnswerContext, RequestOptions},
    },
    exchange::{Answered, Plan, ask_once},
    feedback,
    journal::{CheckLine, Checked, Line, Purpose},
    target::TargetName,
};
use judge::Said;

/// Tokens of an answer that are reserved where the request sets no limit.
const EXPECTED_OUTPUT: u64 = 1024;

/// Checks of local answers.
#[derive(Debug)]
pub(crate) struct Quality {
    options: QualityOptions,
    budget: DailyBudget,
    /// Place of the one check under way.
    turn: Arc<tokio::sync::Semaphore>,
}

/// A local answer that is checked. It holds nothing of the request that must end with it.
struct Sample {
    id: String,
    dialect: Dialect,
    body: Bytes,
    estimated_tokens: u64,
    max_tokens: Option<u32>,
    target: TargetName,
    /// Answer that the client got; `None` where it was streamed, and the local model is asked once
    /// more.
    answer: Option<Bytes>,
}

impl Quality {
    pub(crate) fn new(options: QualityOptions, host: &Host) -> Result<Self> {
        let budget = DailyBudget::load("quality", host, options.usd_per_day.nano())?;
        Ok(Self { options, budget, turn: Arc::new(tokio::sync::Semaphore::new(1)) })
    }
}

/// Checks an answer, where it is one of the sample. Returns at once.
pub(crate) fn sample(app: &Arc<App>, plan: &Plan, answered: &Answered) {
    let sample = app.quality.options.sample;
    if sample <= 0.0 || fastrand::f64() >= sample {
        return;
    }
    // What a rule or a key keeps at home stays there.
    let is_free = plan.decision.rule == "default"
        && plan.identity.key().is_none_or(|key| key.models.is_empty());
    if !is_free {
        return;
    }
    let name = answered.target(plan);
    let answer = match answered {
        Answered::Whole { body, .. } => Some(body.clone()),
        // A stream of it cannot be read as a whole answer; it is asked for again.
        Answered::Replayed { .. } | Answered::Stream { .. } => None,
    };
    let list = app.targets.list();
    let by_name = |name: String| list.iter().find(|target| target.name.to_string() == name);
    let local = name.and_then(by_name).filter(|target| target.is_local());
    let Some(name) = local.map(|target| target.name.clone()) else { return };
    let Ok(turn) = app.quality.turn.clone().try_acquire_owned() else { return };
    let sample = Sample {
        id: plan.id.clone(),
        dialect: plan.dialect,
        body: plan.body.clone(),
        estimated_tokens: plan.estimated_tokens,
        max_tokens: plan.max_tokens,
        target: name,
        answer,
    };
    let shared = app.clone();
    let checking = async move {
        let _turn = turn;
        if let Some(result) = sample.check(&shared).await {
            tell(&shared, sample.id, result);
        }
    };
    // It is never waited for.
    drop(app.host.spawn(checking));
}

impl Sample {
    /// Compares the answer with that of the baseline model; `None` where it is not asked.
    async fn check(&self, app: &Arc<App>) -> Option<Checked> {
        let quality = &app.quality;
        let paid = &app.config.baseline_model;
        let body = self.body()?;
        let output = self.max_tokens.map_or(EXPECTED_OUTPUT, u64::from);
        let tokens = Tokens { input: self.estimated_tokens, output, ..Tokens::default() };
        // The judge reads both answers.
        let reads = Tokens { input: tokens.input + 2 * output, output: 1, ..Tokens::default() };
        let mut expected = app.baseline.cost(&tokens);
        if quality.options.judge == Judge::Model {
            expected = expected.saturating_add(app.baseline.cost(&reads));
        }
        if !quality.budget.has_room(app.host.now(), expected) {
            return None;
        }
        let ours = match &self.answer {
            Some(answer) => self.in_chat(answer)?,
            None => {
                let name = self.target.to_string();
                let again = ask_once(app, &name, body.clone(), Purpose::Check);
                again.await.ok()?.result.ok()?
            }
        };
        let answer = ask_once(app, paid, body.clone(), Purpose::Check).await.ok()?;
        let is_local = app.targets.get(&answer.target).is_some_and(|target| target.is_local());
        quality.budget.spend(app, answer.cost().unwrap_or(expected)).await;
        let theirs = answer.result.ok()?;
        if is_local {
            // The baseline model runs here: there is nothing to compare with.
            return None;
        }
        let (ours, theirs) = (Said::of(&ours)?, Said::of(&theirs)?);
        Some(match quality.options.judge {
            Judge::Exact => judge::exact(&ours, &theirs),
            Judge::Schema => judge::schema(&ours, &theirs),
            Judge::Model => self.judged(app, &body, &ours, &theirs).await,
        })
    }

    /// Returns the request as one of chat completions, without a stream.
    fn body(&self) -> Option<Value> {
        let options = RequestOptions { default_max_tokens: 4096, ..RequestOptions::default() };
        let body = translate::request(self.dialect, Dialect::Chat, &self.body, &options).ok()?;
        let mut body: Value = serde_json::from_slice(&body).ok()?;
        body["stream"] = false.into();
        body.as_object_mut()?.remove("stream_options");
        Some(body)
    }

    fn in_chat(&self, answer: &Bytes) -> Option<Bytes> {
        if self.dialect == Dialect::Chat {
            return Some(answer.clone());
        }
        let context = AnswerContext { id: &self.id, ..AnswerContext::default() };
        translate::answer(self.dialect, Dialect::Chat, answer, &context).ok().map(Bytes::from)
    }

    async fn judged(&self, app: &Arc<App>, body: &Value, ours: &Said, theirs: &Said) -> Checked {
        // Equal answers need no judge.
        if judge::exact(ours, theirs) == Checked::Kept {
            return Checked::Kept;
        }
        let quality = &app.quality;
        let judge = quality.options.judge_model.as_deref().unwrap_or(&app.config.baseline_model);
        // The place of an answer must not tell whose it is.
        let is_ours_first = fastrand::bool();
        let (first, second) = if is_ours_first { (ours, theirs) } else { (theirs, ours) };
        let question = judge::question(body, first, second);
        let Ok(answer) = ask_once(app, judge, question, Purpose::Check).await else {
            return Checked::Unknown;
        };
        quality.budget.spend(app, answer.cost().unwrap_or(0)).await;
        answer.text().map_or(Checked::Unknown, |text| judge::verdict(&text, is_ours_first))
    }
}

fn tell(app: &App, id: String, result: Checked) {
    let at = app.host.now().as_millisecond();
    let judge = app.quality.options.judge.word().to_owned();
    app.journal.add(Line::Check(CheckLine { id: id.clone(), at, judge, result }));
    if result == Checked::Unknown {
        return;
    }
    let event = LlmFeedbackGiven {
        schema: 1,
        request_id: Some(id),
        good: Some(result == Checked::Kept),
        origin: "judge".to_owned(),
        at,
        ..LlmFeedbackGiven::default()
    };
    if let Err(error) = app.host.emit(&event) {
        tracing::warn!(%error, "the outcome of a check was not taken by the daemon");
        return;
    }
    feedback::note(app, &event);
}

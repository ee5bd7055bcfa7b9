//! Requests of the router itself: it tries a provider, compares models, checks answers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use uuid::Uuid;

use super::{Answered, Inbound, Plan, attempt, failure::Failed, plan::ToBeJudged};
use crate::{
    app::App,
    dialect::{
        Dialect,
        fault::{Fault, FaultKind},
    },
    journal::{Attempt, Purpose},
    target::TargetName,
};

const CLIENT: HeaderName = HeaderName::from_static("x-lodestar-client");
const SELF: HeaderValue = HeaderValue::from_static("lodestar");

/// Answer to a request of the router itself.
#[derive(Debug)]
pub(crate) struct OwnAnswer {
    /// Target that was asked.
    pub target: TargetName,
    /// Body of a chat completion, or why there is none.
    pub result: Result<Bytes, Fault>,
    /// The attempt, as the journal has it.
    pub attempt: Option<Attempt>,
    /// Time that it took.
    pub took: Duration,
}

impl OwnAnswer {
    /// Returns its cost in nano-USD, where it is known.
    pub(crate) fn cost(&self) -> Option<i64> {
        self.attempt.as_ref().and_then(|attempt| attempt.cost_nano_usd)
    }

    /// Returns the text of the answer.
    pub(crate) fn text(&self) -> Option<String> {
        let body: Value = serde_json::from_slice(self.result.as_ref().ok()?).ok()?;
        let message = &body["choices"][0]["message"];
        message["content"].as_str().map(str::to_owned)
    }
}

/// Asks the target that a model's name means, once: `body` is a chat request without its model.
///
/// # Errors
///
/// When no target can be asked.
pub(crate) async fn ask_once(
    app: &Arc<App>,
    model: &str,
    mut body: Value,
    purpose: Purpose,
) -> Result<OwnAnswer, Fault> {
    let begun = Instant::now();
    body["model"] = model.into();
    let mut headers = HeaderMap::new();
    headers.insert(CLIENT, SELF);
    let json = HeaderValue::from_static("application/json");
    headers.insert(http::header::CONTENT_TYPE, json);
    let inbound = Inbound {
        id: Uuid::now_v7().simple().to_string(),
        dialect: Dialect::Chat,
        headers,
        query: None,
        body: body.to_string().into(),
        share: app.budget.share(),
        in_path: None,
        peer: None,
        begun,
        started_at: app.host.now().as_millisecond(),
    };
    let mut plan = Plan::make(app, inbound, ToBeJudged(false))?;
    let Some(name) = plan.decision.order.first().cloned() else { return Err(nobody(model)) };
    let Some(target) = app.targets.get_or_add(&name) else { return Err(nobody(model)) };
    Arc::make_mut(&mut plan.decision).order = vec![name.clone()];
    plan.tell(app);
    plan.story.is_for(purpose);
    let plan = Arc::new(plan);
    let recorder = plan.recorder(app, &target, 1, None);
    let asked = attempt::make(app, &plan, &target, target.probe(), recorder, false);
    let answered = Box::pin(asked).await;
    let result = match answered {
        Ok(Answered::Whole { body, .. }) => Ok(body),
        // It is not asked for.
        Ok(Answered::Stream { .. } | Answered::Replayed { .. }) => {
            Err(Fault::new(FaultKind::Upstream, format!("{name} answered with a stream")))
        }
        Err(Failed { fault, .. }) => Err(fault),
    };
    let attempt = plan.story.attempts().pop();
    Ok(OwnAnswer { target: name, result, attempt, took: begun.elapsed() })
}

fn nobody(model: &str) -> Fault {
    Fault::new(FaultKind::NotFound, format!("no provider can be asked for {model}"))
}

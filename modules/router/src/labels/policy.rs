//! The policy that decides in the place of what is learned from day to day: exactly the one that a
//! person approved in `learning`.
//!
//! Nobody brings a policy here. The router asks `learning` for the one that is approved, checks its
//! digest, and keeps it for its next start. While `learning` does not answer the last one stays.

use std::{sync::Arc, time::Duration};

use module_sdk::{Error, ErrorKind, Host, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    app::App,
    routing::learned::{Learned, approved::Approved},
};

/// Name of the state.
const STATE: &str = "policy";

/// Times that `learning` is asked while it does not run yet.
const TRIES: u32 = 7;

/// Time within which it answers.
const ANSWER: Duration = Duration::from_secs(10);

/// Policy as it is kept for the next start.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    digest: String,
    file: String,
}

/// Policy that is approved, as `learning` tells it; empty where none is.
#[derive(Debug, Default, Deserialize)]
struct Told {
    digest: Option<String>,
    file: Option<String>,
}

/// Lets the policy of the last start decide.
pub(super) fn load(host: &Host, learned: &Learned) {
    let kept = match host.load_state::<Option<Kept>>(STATE) {
        Ok(kept) => kept.flatten(),
        Err(error) => {
            tracing::warn!(%error, "the approved policy cannot be read");
            None
        }
    };
    let Some(kept) = kept else { return };
    match Approved::read(&kept.file, &kept.digest) {
        Ok(policy) => learned.decide_by(Some(policy)),
        Err(error) => tracing::warn!(%error, "the policy that was approved cannot be used"),
    }
}

/// Asks `learning` until it answers, where a policy decides or may decide.
pub(crate) fn ask(app: &Arc<App>) {
    if !app.config.routing.learns() && app.labels.learned.approved().is_none() {
        return;
    }
    let shared = app.clone();
    let asking = async move {
        for attempt in 0..TRIES {
            match told(&shared.host).await {
                Ok(told) => {
                    if let Err(error) = take(&shared, told) {
                        tracing::error!(%error, "the approved policy is not used");
                    }
                    return;
                }
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    tokio::time::sleep(Duration::from_secs(1 << attempt)).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "learning does not say which policy is approved");
                    return;
                }
            }
        }
    };
    if let Err(error) = app.host.spawn(asking) {
        tracing::warn!(%error, "nobody is asked for the approved policy");
    }
}

/// Asks `learning` now, and lets the policy that it tells decide from now on, or none. Returns its
/// digest.
///
/// # Errors
///
/// When it does not answer, or tells something that cannot be used: then nothing is changed.
pub(crate) fn refresh(app: &App) -> Result<Option<String>> {
    let told = app.host.call::<_, Told>("learning", "policy", &json!({})).within(ANSWER).wait()?;
    take(app, told)
}

async fn told(host: &Host) -> Result<Told> {
    host.call::<_, Told>("learning", "policy", &json!({})).within(ANSWER).await
}

fn take(app: &App, told: Told) -> Result<Option<String>> {
    let learned = &app.labels.learned;
    let Some((digest, file)) = told.digest.zip(told.file) else {
        app.host.save_state(STATE, &None::<Kept>)?;
        learned.decide_by(None);
        return Ok(None);
    };
    let policy = Approved::read(&file, &digest)
        .map_err(|error| Error::of(ErrorKind::Refused, format!("the policy {error}")))?;
    app.host.save_state(STATE, &Some(Kept { digest: digest.clone(), file }))?;
    learned.decide_by(Some(policy));
    Ok(Some(digest))
}

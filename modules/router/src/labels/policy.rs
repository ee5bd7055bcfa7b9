//! The policy that decides in the place of what is learned from day to day: exactly the one that a
//! person approved in `learning`.
//!
//! Nobody brings a policy here. The router asks `learning` for the one that is approved, checks its
//! digest, and keeps it for its next start. While `learning` does not answer the last one stays.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

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

/// Turns of those who ask which policy is approved: an answer that was asked for before another one
/// was taken up comes too late.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    asked: AtomicU64,
    /// Turn of the answer that was taken up last.
    taken: Mutex<u64>,
}

impl Turns {
    fn next(&self) -> u64 {
        self.asked.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Takes an answer up, unless a newer one was; returns none then.
    fn take<T>(&self, turn: u64, up: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if turn < *taken {
            return Ok(None);
        }
        let done = up()?;
        *taken = turn;
        Ok(Some(done))
    }
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
            let turn = shared.labels.policies.next();
            match told(&shared.host).await {
                Ok(told) => {
                    if let Err(error) = take(&shared, turn, told) {
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
    let turn = app.labels.policies.next();
    let told = app.host.call::<_, Told>("learning", "policy", &json!({})).within(ANSWER).wait()?;
    take(app, turn, told)
}

async fn told(host: &Host) -> Result<Told> {
    host.call::<_, Told>("learning", "policy", &json!({})).within(ANSWER).await
}

fn take(app: &App, turn: u64, told: Told) -> Result<Option<String>> {
    let taken = app.labels.policies.take(turn, || take_up(app, told))?;
    let learned = &app.labels.learned;
    Ok(taken.unwrap_or_else(|| learned.approved().map(|policy| policy.digest.clone())))
}

fn take_up(app: &App, told: Told) -> Result<Option<String>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_comes_too_late_is_left_out() {
        let turns = Turns::default();
        let (first, second) = (turns.next(), turns.next());
        assert_eq!(turns.take(second, || Ok("new")).expect("it is taken up"), Some("new"));
        assert_eq!(turns.take(first, || Ok("old")).expect("it is left out"), None);
        let third = turns.next();
        let failed = turns.take::<()>(third, || Err(Error::new("it cannot be read")));
        assert!(failed.is_err());
        // What could not be taken up stands in nobody's way.
        assert_eq!(turns.take(second, || Ok("again")).expect("it is taken up"), Some("again"));
    }
}

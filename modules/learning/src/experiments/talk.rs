//! Talk with the router: what is to go on there, and what has ended.

use std::{
    sync::{PoisonError, atomic::Ordering},
    time::Duration,
};

use module_sdk::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use super::{Experiments, Inner};
use crate::experiment::store::{self, Stored, Trial};

/// Module that allots the units, and its command.
const ROUTER: (&str, &str) = ("router", "experiments");
/// Time within which the router answers.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time for which the router goes on where nobody renews it, in seconds.
const LEASE: u32 = 600;

impl Experiments {
    /// Asks the router whether an experiment could begin there.
    ///
    /// # Errors
    ///
    /// A refusal when it could not, whatever the reason: nothing has begun then.
    pub(crate) fn try_out(&self, new: &Stored) -> Result<()> {
        let mut args = begun(new);
        args["dry_run"] = true.into();
        let call = self.inner.versions.host.call::<_, Value>(ROUTER.0, ROUTER.1, &args);
        let answer = call.within(Duration::from_secs(30)).wait();
        answer.map(drop).map_err(|error| match error.kind() {
            ErrorKind::Cancelled | ErrorKind::TimedOut => told(error),
            _ => Error::of(ErrorKind::Refused, told(error).to_string()),
        })
    }
}

impl Inner {
    /// Tells the router what there is to tell, and what comes up meanwhile.
    pub(super) async fn talk(&self) {
        loop {
            while self.has_news.swap(false, Ordering::AcqRel) {
                if let Err(error) = self.settle().await {
                    tracing::debug!(%error, "the router does not know of an experiment");
                }
            }
            self.is_talking.store(false, Ordering::Release);
            let is_done = !self.has_news.load(Ordering::Acquire);
            if is_done || self.is_talking.swap(true, Ordering::AcqRel) {
                return;
            }
        }
    }

    /// Tells the router what has ended and what goes on, as the database says.
    pub(super) async fn settle(&self) -> Result<()> {
        let _turn = self.turn.lock().await;
        let settled = self.try_to_settle().await;
        let trouble = settled.as_ref().err().map(ToString::to_string);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        settled
    }

    async fn try_to_settle(&self) -> Result<()> {
        let (database, host) = (&self.versions.store, &self.versions.host);
        let (ended, going_on) = database
            .read(|connection| Ok((store::unsettled(connection)?, store::going_on(connection)?)))?;
        for id in &ended {
            let args = json!({"action": "end", "id": id});
            let call = host.call::<_, Value>(ROUTER.0, ROUTER.1, &args);
            match call.within(PATIENCE).await {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(told(error)),
            }
            database.write(|transaction| store::settle(transaction, id))?;
        }
        if !ended.is_empty() {
            let left = database.read(store::unsettled)?;
            self.is_unsettled.store(!left.is_empty(), Ordering::Release);
        }
        if let Some(stored) = going_on {
            let call = host.call::<_, Value>(ROUTER.0, ROUTER.1, &begun(&stored));
            call.within(PATIENCE).await.map_err(told)?;
        }
        Ok(())
    }
}

/// Returns an error of the router with what it means.
fn told(error: Error) -> Error {
    let kind = error.kind();
    let error = error.context("the router does not allot the sessions");
    if kind == ErrorKind::Unavailable {
        return error
            .hint("experiments need the module `router`: `lodestar modules enable router`");
    }
    error
}

/// Returns the arguments by which the router begins an experiment.
fn begun(stored: &Stored) -> Value {
    let route = &stored.route;
    let mut args = json!({
        "action": "begin", "id": stored.id, "models": route.models, "by": route.unit.as_str(),
        "share": f64::from(route.percent) / 100.0, "salt": stored.id, "lease_seconds": LEASE,
    });
    match stored.trial {
        Trial::Split(_) => args["use"] = json!([route.target()]),
        Trial::Shadow(_) => args["shadow"] = json!(route.target()),
    }
    args
}

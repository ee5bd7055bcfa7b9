//! `lodestar router feedback`.

use std::time::Duration;

use module_sdk::{Error, Job, Reply, Result, Table};
use schemars::JsonSchema;
use serde::Deserialize;

use super::explain;
use crate::{
    Router,
    feedback::{self, Given},
};

/// Says whether an answer was good: what routing learns from.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FeedbackArgs {
    /// Id of the request (`x-lodestar-request-id`), or its beginning.
    #[schemars(extend("x-positional" = true))]
    id: String,
    /// The answer was good.
    #[serde(default)]
    good: bool,
    /// The answer was bad.
    #[serde(default)]
    bad: bool,
    /// Rating, from 0 (bad) to 1 (good).
    #[serde(default)]
    rating: Option<f64>,
    /// The answer had to be changed.
    #[serde(default)]
    edited: bool,
    /// The same was asked again.
    #[serde(default)]
    retried: bool,
}

/// Time within which the daemon takes the event.
const TAKEN: Duration = Duration::from_secs(5);

impl Router {
    pub(crate) fn feedback(&mut self, args: FeedbackArgs) -> Result<Job> {
        if args.good && args.bad {
            return Err(Error::usage("--good and --bad contradict each other"));
        }
        let given = Given {
            request_id: args.id,
            good: (args.good || args.bad).then_some(args.good),
            rating: args.rating,
            edited: args.edited.then_some(true),
            retried: args.retried.then_some(true),
            comment: None,
        };
        given.check()?;
        let app = self.app.clone();
        Ok(Job::new(move |_| {
            let found = explain::found(&app, &given.request_id)?;
            let event = given.event(&found, &app)?;
            app.host.accept(std::slice::from_ref(&event)).wait(TAKEN)?;
            feedback::note(&app, &event);
            let id = event.request_id.as_deref().unwrap_or_default();
            let notes = vec![format!("noted; `lodestar router explain {id}` shows it")];
            let table = Table { notes, ..Table::default() };
            Ok(Reply::json(&event)?.table(table))
        }))
    }
}

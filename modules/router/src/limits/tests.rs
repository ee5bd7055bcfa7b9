//! Tests of reservations, alone and over a Redis.

mod alone;
mod shared;

use std::{sync::Arc, time::Duration};

use module_sdk::{Host, testing::FakeHost};
use serde_json::{Value, json};

use super::{Actual, Estimate, LimitHit, LimitOptions, Limits, Reservation};
use crate::keys::Identity;

struct Site {
    fake: Arc<FakeHost>,
    host: Host,
    limits: Limits,
    /// Directory of the data, which goes with the last site that has it.
    directory: Arc<tempfile::TempDir>,
}

impl Site {
    /// Starts limits with these settings, in UTC, on an afternoon.
    fn new(options: Value) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a temporary directory"));
        let fake = Arc::new(FakeHost::new(directory.path()));
        fake.set_now("2026-12-05T15:00:00Z".parse().expect("a time"));
        Self::on(fake, directory, options)
    }

    fn on(fake: Arc<FakeHost>, directory: Arc<tempfile::TempDir>, options: Value) -> Self {
        let host = fake.host().expect("it tells about itself");
        let limits = Limits::load(&host, read(options)).expect("it starts");
        Self { fake, host, limits, directory }
    }

    /// Starts another instance with the same data.
    fn again(&self, options: Value) -> Self {
        Self::on(self.fake.clone(), self.directory.clone(), options)
    }

    async fn ask(&self, tokens: u64, nano_usd: u64) -> Result<Reservation, LimitHit> {
        self.ask_for(None, tokens, Some(nano_usd)).await
    }

    async fn ask_for(
        &self,
        project: Option<&str>,
        tokens: u64,
        nano_usd: Option<u64>,
    ) -> Result<Reservation, LimitHit> {
        let estimate = Estimate { requests: 1, tokens, nano_usd };
        self.limits.reserve(&Identity::Anonymous, project, estimate).await
    }

    /// Asks, and uses what was reserved.
    async fn spend(&self, tokens: u64, nano_usd: u64) -> Result<(), LimitHit> {
        self.ask(tokens, nano_usd).await.map(|mut it| it.settle(Actual::default()))
    }

    fn later(&self, span: Duration) {
        self.fake.set_now(self.fake.now() + span);
    }
}

fn read(mut options: Value) -> LimitOptions {
    if options.get("timezone").is_none() {
        options["timezone"] = "UTC".into();
    }
    let options: LimitOptions = serde_json::from_value(options).expect("they are settings");
    options.check().expect("they can be used");
    options
}

fn actual(tokens: u64, nano_usd: u64) -> Actual {
    Actual { tokens: Some(tokens), nano_usd: Some(nano_usd) }
}

fn anonymous(limits: Value) -> Value {
    json!({"anonymous": limits})
}

const SECOND: Duration = Duration::from_secs(1);

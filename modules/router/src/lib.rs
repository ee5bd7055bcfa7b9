//! Answers requests to language models at one address: a free local model where that is good
//! enough, a paid one where it is worth it, and another one where the first fails.
//!
//! A request comes in at an endpoint (`server`), in the dialect of its client (`dialect`). It is
//! understood and decided (`routing`), sent to one target after another until one answers
//! (`exchange`, `target`, `upstream`), and every attempt is reported (`report`). What passes is
//! left as it came where the target speaks the client's dialect, and translated where it does not.

mod answers;
mod app;
mod cache;
mod commands;
mod config;
mod content;
mod daily_budget;
mod dialect;
mod discovery;
mod exchange;
mod feedback;
mod glob;
mod journal;
mod keys;
mod labels;
mod limits;
mod prior_costs;
mod quality;
mod redis_link;
mod report;
pub mod routing;
mod server;
mod sessions;
mod target;
mod tournament;
mod upstream;

use std::{sync::Arc, time::Duration};

use module_http::{ConnectionMetrics, Server};
use module_sdk::{
    Event, Health, HealthStatus, Host, Job, Module, Reply, Result, Snapshot, Wiring,
    events::{HealthComponentChanged, LlmFeedbackGiven, UsageBudgetExceeded, UsageBudgetWarned},
};

use app::App;
use cache::CacheArgs;
pub use config::{Config, Retries, Timeouts};
use keys::{Keys, KeysArgs};
pub use target::breaker::BreakerOptions;

module_sdk::export!(Router);

/// The module.
#[derive(Debug)]
pub struct Router {
    app: Arc<App>,
    keys: Keys,
    server: Server,
    connections: ConnectionMetrics,
}

impl Module for Router {
    type Config = Config;

    fn check(config: &Config) -> Result<()> {
        config.check()
    }

    fn start(config: Config, host: &Host) -> Result<Self> {
        if let Some(warning) = config.keys.warning() {
            tracing::warn!("{warning}");
        }
        let keys = Keys::load(host, config.keys)?;
        let app = Arc::new(App::new(config, host, keys.ring())?);
        discovery::start(&app)?;
        prior_costs::ask(&app);
        labels::policy::ask(&app);
        let server = server::start(&app)?;
        Ok(Self { app, keys, server, connections: ConnectionMetrics::new("lodestar_router") })
    }

    fn wire(wiring: &mut Wiring<Self>) {
        wiring
            .on(Self::component_changed)
            .on(Self::feedback_given)
            .on(Self::budget_warned)
            .on(Self::budget_exceeded)
            .every(Duration::from_secs(10), Self::show_connections)
            .every(Duration::from_secs(5), Self::save_state)
            .every(Duration::from_secs(600), Self::ask_policy)
            .every(Duration::from_secs(3_600), Self::tidy_labels)
            .command("keys", Self::keys)
            .job("cache", Self::cache)
            .command("status", Self::status)
            .command("targets", Self::targets)
            .command("route", Self::route)
            .job("explain", Self::explain)
            .job("savings", Self::savings)
            .job("feedback", Self::feedback)
            .job("policy", Self::policy)
            .job("test", Self::test)
            .job("compare", Self::compare)
            .command("vote", Self::vote)
            .job("experiments", Self::experiments)
            .without_barrier();
    }

    fn health(&self) -> Health {
        let health = self.app.health();
        match self.server.figures().trouble() {
            Some(trouble) if health.status == HealthStatus::Ok => Health::degraded(trouble),
            _ => health,
        }
    }

    fn snapshot(&mut self) -> Result<Option<Snapshot>> {
        let data = serde_json::to_vec(&self.app.limits.hand_over())?;
        Ok(Some(Snapshot { version: 1, data }))
    }

    fn restore(&mut self, snapshot: Snapshot) -> Result<()> {
        if snapshot.version == 1 {
            self.app.limits.restore(serde_json::from_slice(&snapshot.data)?);
        }
        // The generation before may have begun or ended one since this one was started.
        self.app.policy.running.load(&self.app.host);
        Ok(())
    }

    fn stop(&mut self, grace: Duration) -> Result<()> {
        self.app.drain();
        let cut_off = self.server.stop(grace);
        self.app.journal.close();
        if cut_off > 0 {
            tracing::warn!(connections = cut_off, "answers were cut off at the stop");
        }
        self.app.labels.save(&self.app.host)?;
        self.app.limits.finish()
    }
}

impl Router {
    fn component_changed(&mut self, event: &Event<'_, HealthComponentChanged>) -> Result<()> {
        self.app.component_changed(&event.data);
        Ok(())
    }

    fn feedback_given(&mut self, event: &Event<'_, LlmFeedbackGiven>) -> Result<()> {
        feedback::heard(&self.app, event);
        Ok(())
    }

    fn save_state(&mut self) -> Result<()> {
        self.app.policy.running.forget_lapsed(&self.app.host)?;
        self.app.limits.save()?;
        self.app.labels.save(&self.app.host)
    }

    fn ask_policy(&mut self) -> Result<()> {
        labels::policy::ask(&self.app);
        Ok(())
    }

    fn tidy_labels(&mut self) -> Result<()> {
        self.app.labels.tidy(&self.app.host);
        Ok(())
    }

    fn keys(&mut self, args: KeysArgs) -> Result<Reply> {
        self.keys.command(args)
    }

    fn cache(&mut self, args: CacheArgs) -> Result<Job> {
        Ok(self.app.cache.command(&args))
    }

    fn budget_warned(&mut self, event: &Event<'_, UsageBudgetWarned>) -> Result<()> {
        self.app.limits.hear(&event.data.0, false);
        Ok(())
    }

    fn budget_exceeded(&mut self, event: &Event<'_, UsageBudgetExceeded>) -> Result<()> {
        self.app.limits.hear(&event.data.0, true);
        Ok(())
    }

    fn show_connections(&mut self) -> Result<()> {
        self.connections.show(&self.app.host, &self.server.figures())
    }
}

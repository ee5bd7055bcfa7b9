//! The module's section of `modules.yaml`.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use module_sdk::{Error, Host, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    check::{
        self, CheckOptions, CostOptions, DiskOptions, GpuOptions, Observations, Plan,
        ProviderOptions, RouterOptions,
    },
    notify::options::NotifyOptions,
    rule::{RuleOptions, RuleSet},
    slo::{self, Slo, SloOptions},
};

/// Settings of `health_monitor`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Time between two runs of a check, in milliseconds.
    #[schemars(range(min = 100, max = 3_600_000))]
    pub interval_ms: u64,
    /// The database file. Default: `health.db` in the module's data directory; a relative path
    /// starts there.
    pub database: Option<PathBuf>,
    /// For how many days alerts that ended are kept.
    #[schemars(range(min = 1, max = 36_500))]
    pub retention_days: u32,
    /// The checks.
    pub checks: Checks,
    /// Notifications: the channels, and what they are told.
    pub notify: NotifyOptions,
    /// Changes of the shipped rules by name, and further rules.
    pub rules: BTreeMap<String, RuleOptions>,
    /// Objectives by name, besides `requests`: 99% of all requests are answered.
    pub slos: BTreeMap<String, SloOptions>,
}

/// Settings of the checks.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Checks {
    /// The clock: whether it was set, and how far it is from those of the providers.
    pub clock: CheckOptions,
    /// Costs of requests, asked of `usage_tracker`.
    pub cost: CostOptions,
    /// Sizes of the databases of modules, every minute.
    pub databases: CheckOptions,
    /// Space and inodes of file systems.
    pub disk: DiskOptions,
    /// NVIDIA cards.
    pub gpu: GpuOptions,
    /// Memory, swap and processes that the kernel killed for lack of it.
    pub memory: CheckOptions,
    /// The daemon and its modules, half as often as the others.
    pub modules: CheckOptions,
    /// Stalls for want of processor, disk or memory.
    pub pressure: CheckOptions,
    /// Providers, and the models that can be asked there.
    pub providers: ProviderOptions,
    /// The router, by a request.
    pub router: RouterOptions,
}

/// Time between two looks at what grows slowly, in milliseconds.
const SLOW_MS: u64 = 60_000;
/// Time that a run of a check gets beyond its probes, which end at the deadline by themselves.
const SLACK: Duration = Duration::from_secs(2);

impl Default for Config {
    fn default() -> Self {
        Self {
            interval_ms: 5_000,
            database: None,
            retention_days: 90,
            checks: Checks::default(),
            notify: NotifyOptions::default(),
            rules: BTreeMap::new(),
            slos: BTreeMap::new(),
        }
    }
}

impl Config {
    /// Checks what the types cannot express.
    ///
    /// # Errors
    ///
    /// The first key that cannot be used.
    pub(crate) fn check(&self) -> Result<()> {
        self.slos()?;
        self.notify.policy()?;
        self.rules().map(drop)
    }

    /// Returns the rules in force.
    ///
    /// # Errors
    ///
    /// The first rule that cannot be used.
    pub(crate) fn rules(&self) -> Result<RuleSet> {
        RuleSet::new(&self.rules).map_err(|error| Error::config_at(error.key(), error.to_string()))
    }

    /// Returns the objectives in force.
    ///
    /// # Errors
    ///
    /// The first objective that cannot be used.
    pub(crate) fn slos(&self) -> Result<Vec<Slo>> {
        slo::all(&self.slos).map_err(|error| Error::config_at(error.key(), error.to_string()))
    }

    /// Returns the plans of the checks that are switched on.
    pub(crate) fn plans(
        &self,
        host: &Host,
        clock: &Arc<Observations>,
        is_leased: &Arc<AtomicBool>,
    ) -> Vec<Plan> {
        let Checks { cost, disk, gpu, memory, pressure, .. } = &self.checks;
        let options = disk.clone();
        let mut plans: Vec<Plan> = [
            cost.plan(host),
            disk.check.plan("disk", self.interval_ms, move || check::disk(&options)),
            gpu.check.plan("gpu", self.interval_ms, check::gpu(gpu, is_leased)),
            memory.plan("memory", self.interval_ms, check::memory).map(Plan::sharing),
            pressure.plan("pressure", self.interval_ms, check::pressure).map(Plan::sharing),
        ]
        .into_iter()
        .flatten()
        .collect();
        plans.extend(self.plans_of_the_system(host, clock));
        plans.extend(self.plans_of_probes(host, clock));
        plans
    }

    /// Returns the plans of the checks that look at the daemon and at the clock.
    fn plans_of_the_system(&self, host: &Host, clock: &Arc<Observations>) -> Vec<Plan> {
        let Checks { clock: clock_options, databases, modules, .. } = &self.checks;
        let observations = clock.clone();
        let of_databases = (databases.clone(), host.clone());
        let of_modules = (modules.clone(), host.clone());
        let plans = [
            clock_options
                .plan("clock", self.interval_ms, move || check::clock(&observations))
                .map(Plan::sharing),
            databases.plan("databases", SLOW_MS, move || {
                check::databases(&of_databases.0, &of_databases.1)
            }),
            // The daemon has much to gather for its answer.
            modules.plan(check::MODULES, self.interval_ms * 2, move || {
                check::modules(&of_modules.0, &of_modules.1)
            }),
        ];
        plans.into_iter().flatten().map(|plan| plan.with_slack(SLACK)).collect()
    }

    /// Returns the plans of the checks that ask over HTTP.
    fn plans_of_probes(&self, host: &Host, clock: &Arc<Observations>) -> Vec<Plan> {
        let Checks { providers, router, .. } = &self.checks;
        let interval = providers.check.interval_ms.unwrap_or(self.interval_ms);
        let interval = Duration::from_millis(interval);
        let of_providers = (providers.clone(), host.clone(), clock.clone());
        let of_router = (router.clone(), host.clone());
        let plans = [
            providers.check.plan("providers", self.interval_ms, move || {
                let (options, host, clock) = &of_providers;
                check::providers(options, interval, host, clock)
            }),
            router.check.plan("router", self.interval_ms, move || {
                check::router(&of_router.0, &of_router.1)
            }),
        ];
        plans.into_iter().flatten().map(|plan| plan.with_slack(SLACK)).collect()
    }
}

#[cfg(test)]
mod shipped;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_rule_is_named_by_its_key() {
        let config: Config = serde_json::from_value(serde_json::json!({
            "rules": {"disk_low": {"above": "95%", "below": 1}},
        }))
        .expect("it has the form");
        let error = config.check().expect_err("it contradicts itself").to_string();
        assert!(error.contains("contradict each other"), "{error}");
        Config::default().check().expect("the defaults are valid");
        let config: Config = serde_json::from_value(serde_json::json!({
            "slos": {"chat": {"kind": "latency"}},
        }))
        .expect("it has the form");
        let error = config.check().expect_err("it lacks a time").to_string();
        assert!(error.contains("threshold: 5s"), "{error}");
    }
}

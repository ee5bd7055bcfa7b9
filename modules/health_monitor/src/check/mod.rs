//! Checks: each looks at one kind of thing, within a deadline of its own, and on a thread of its
//! own where it could hang.

mod clock;
mod cost;
mod databases;
mod disk;
mod gpu;
mod kernel_file;
mod memory;
mod modules;
mod mounts;
pub mod outcomes;
mod pressure;
mod providers;
mod router;
mod status;
mod worker;

use std::{
    collections::BTreeSet,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use module_sdk::Host;
use tokio::sync::watch;

pub use clock::Observations;
pub use cost::CostOptions;
pub use disk::DiskOptions;
pub(crate) use gpu::LIBRARY as GPU_LIBRARY;
pub use gpu::{GpuOptions, gpu};
pub use providers::{ExtraProvider, ProviderOptions};
pub use router::RouterOptions;
pub use worker::Workers;

use crate::reading::{Component, Report};

/// Name of the check of the daemon and its modules.
pub const MODULES: &str = "modules";

/// A check. It may block: where it hangs, its thread is left to it.
pub trait Check: Send {
    /// Looks at its components and reports them.
    fn run(&mut self, progress: &Progress) -> Report;

    /// Returns for how long nothing can be news, where that is longer than the interval.
    fn idle(&self) -> Duration {
        Duration::ZERO
    }

    /// Returns descriptors by which the kernel tells of something urgent (`POLLPRI`): the check
    /// then runs at once. Those of which it will tell nothing any more are taken out.
    fn urgent(&mut self) -> Option<&mut Vec<OwnedFd>> {
        None
    }
}

/// A kind of check: what it is called, when it runs, and how one is made.
pub struct Plan {
    /// Name in the configuration: `disk`.
    pub name: &'static str,
    /// Time from the beginning of one run to that of the next.
    pub interval: Duration,
    /// Time within which a run has to end.
    pub deadline: Duration,
    /// `true` where it shares a thread with others of its kind: it reads what the kernel keeps in
    /// memory, and asks neither a device nor anybody else. One that hangs all the same gets a
    /// thread of its own for good.
    pub shares: bool,
    /// Makes the check, on the thread that runs it.
    pub make: Arc<dyn Fn() -> Box<dyn Check> + Send + Sync>,
}

impl Plan {
    /// Makes it share a thread.
    #[must_use]
    pub const fn sharing(mut self) -> Self {
        self.shares = true;
        self
    }

    /// Gives each run a time beyond its deadline, within which what has its own deadline ends.
    #[must_use]
    pub fn with_slack(mut self, slack: Duration) -> Self {
        self.deadline = self.deadline.saturating_add(slack);
        self
    }
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plan({} every {:?})", self.name, self.interval)
    }
}

/// Component that a run of a check is looking at, and those that hang.
///
/// A call that hangs in the kernel cannot be ended. Its thread is left behind, the check goes on
/// with another one, and leaves out the component until the call returns.
#[derive(Debug, Default)]
pub struct Progress {
    state: Mutex<At>,
    /// `true` once the module stops.
    over: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct At {
    component: Option<Component>,
    hanging: BTreeSet<Component>,
}

impl Progress {
    /// Notes that the run now looks at a component; returns `false` where it hangs already and is
    /// to be left out.
    pub fn enter(&self, component: &Component) -> bool {
        let mut at = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if at.hanging.contains(component) {
            return false;
        }
        at.component = Some(component.clone());
        true
    }

    /// Notes that the call at a component has returned.
    fn found_again(&self, component: &Component) {
        let mut at = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        at.hanging.remove(component);
    }

    /// Notes that the module stops: a run that waits for an answer gives up on it.
    pub fn end(&self) {
        self.over.send_replace(true);
    }

    /// Returns once the module stops.
    pub async fn over(&self) {
        // The sender is borrowed, so that the channel is open until then.
        drop(self.over.subscribe().wait_for(|is_over| *is_over).await);
    }

    /// Notes that the run looks at nothing in particular.
    pub fn leave(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).component = None;
    }
}

/// Settings that every check has.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CheckOptions {
    /// `false` switches the check off.
    pub enabled: bool,
    /// Time between two runs in milliseconds. Default: that of `interval_ms` above.
    #[schemars(range(min = 100, max = 86_400_000))]
    pub interval_ms: Option<u64>,
    /// Time within which a run has to end, in milliseconds.
    #[schemars(range(min = 10, max = 600_000))]
    pub deadline_ms: u64,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self { enabled: true, interval_ms: None, deadline_ms: 5_000 }
    }
}

impl CheckOptions {
    /// Makes the plan of a check with these settings; `None` where it is switched off.
    pub fn plan(
        &self,
        name: &'static str,
        usual_ms: u64,
        make: impl Fn() -> Box<dyn Check> + Send + Sync + 'static,
    ) -> Option<Plan> {
        self.enabled.then(|| Plan {
            name,
            interval: Duration::from_millis(self.interval_ms.unwrap_or(usual_ms)),
            deadline: Duration::from_millis(self.deadline_ms),
            shares: false,
            make: Arc::new(make),
        })
    }
}

/// Returns the check of the clock.
#[must_use]
pub fn clock(observations: &Arc<Observations>) -> Box<dyn Check> {
    Box::new(clock::Clock::new(observations))
}

/// Returns the check of databases.
#[must_use]
pub fn databases(options: &CheckOptions, host: &Host) -> Box<dyn Check> {
    Box::new(databases::Databases::new(options, host))
}

/// Returns the check of the daemon and its modules.
#[must_use]
pub fn modules(options: &CheckOptions, host: &Host) -> Box<dyn Check> {
    Box::new(modules::Modules::new(options, host))
}

/// Returns the check of providers and their models, which runs once in an interval.
#[must_use]
pub fn providers(
    options: &ProviderOptions,
    interval: Duration,
    host: &Host,
    observations: &Arc<Observations>,
) -> Box<dyn Check> {
    Box::new(providers::Providers::new(options, interval, host, observations))
}

/// Returns the check of the router.
#[must_use]
pub fn router(options: &RouterOptions, host: &Host) -> Box<dyn Check> {
    Box::new(router::Router::new(options, host))
}

/// Returns the check of memory.
#[must_use]
pub fn memory() -> Box<dyn Check> {
    Box::new(memory::Memory::default())
}

/// Returns the check of stalls for want of processor, disk or memory.
#[must_use]
pub fn pressure() -> Box<dyn Check> {
    Box::new(pressure::Pressure::default())
}

/// Returns the check of disks.
#[must_use]
pub fn disk(options: &DiskOptions) -> Box<dyn Check> {
    Box::new(disk::Disk::new(options))
}

//! Table of the calls under way between modules: it routes them and enforces their deadlines.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{
        Arc, Condvar, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    request::{Facts, ModuleCall, ModuleRequest},
    state::lock,
};

/// Time after which the thread that watches deadlines ends when there is nothing to watch.
const IDLE: Duration = Duration::from_mins(1);

/// A function that takes a request to the module or host that answers it.
pub type Route = Box<dyn Fn(ModuleRequest) + Send + Sync>;

/// The calls of all modules that are under way.
#[derive(Default)]
pub struct CallRouter {
    route: OnceLock<Route>,
    last: AtomicU64,
    under_way: Mutex<UnderWay>,
    changed: Condvar,
}

#[derive(Default)]
struct UnderWay {
    by_deadline: BTreeMap<(Instant, u64), Arc<ModuleCall>>,
    deadlines: HashMap<u64, Instant>,
    /// The newest call that is made to answer another one.
    nested: HashMap<u64, u64>,
    /// Time until which the thread that watches deadlines sleeps; `None` while there is no thread.
    sleeps_until: Option<Instant>,
}

impl fmt::Debug for CallRouter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallRouter({} under way)", self.under_way())
    }
}

impl UnderWay {
    /// Returns the chain of calls made to answer a call, from the first to the one still
    /// unanswered.
    fn way(&self, call: &Arc<ModuleCall>) -> Vec<String> {
        let mut last = call.clone();
        // A call is newer than the one that it serves, so that this ends.
        while let Some(next) = self.nested.get(&last.facts.id)
            && let Some(deadline) = self.deadlines.get(next)
            && let Some(next) = self.by_deadline.get(&(*deadline, *next))
        {
            last = next.clone();
        }
        last.facts.chain.clone()
    }
}

impl CallRouter {
    /// Sets the function that routes requests; only the first call counts.
    pub fn serve(&self, route: Route) {
        // An error means that there is a route.
        let _ = self.route.set(route);
    }

    /// Returns how many calls are under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        lock(&self.under_way).deadlines.len()
    }

    pub(super) fn next_id(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Finds a call under way by its number.
    pub(super) fn find(&self, id: u64) -> Option<Arc<ModuleCall>> {
        let under_way = lock(&self.under_way);
        let deadline = *under_way.deadlines.get(&id)?;
        under_way.by_deadline.get(&(deadline, id)).cloned()
    }

    /// Watches the deadline of a call.
    ///
    /// # Errors
    ///
    /// When the system has no more threads.
    pub(super) fn add(self: &Arc<Self>, call: &Arc<ModuleCall>) -> std::io::Result<()> {
        let Facts { id, parent, deadline, .. } = call.facts;
        let mut under_way = lock(&self.under_way);
        match under_way.sleeps_until {
            None => {
                let router = self.clone();
                let thread = std::thread::Builder::new().name("call deadlines".to_owned());
                thread.spawn(move || router.watch_deadlines())?;
                under_way.sleeps_until = Some(deadline);
            }
            Some(until) if deadline < until => self.changed.notify_all(),
            Some(_) => {}
        }
        under_way.deadlines.insert(id, deadline);
        if parent != 0 {
            under_way.nested.insert(parent, id);
        }
        under_way.by_deadline.insert((deadline, id), call.clone());
        Ok(())
    }

    pub(super) fn remove(&self, facts: &Facts) {
        let mut under_way = lock(&self.under_way);
        under_way.deadlines.remove(&facts.id);
        under_way.nested.remove(&facts.id);
        if under_way.nested.get(&facts.parent) == Some(&facts.id) {
            under_way.nested.remove(&facts.parent);
        }
        let removed = under_way.by_deadline.remove(&(facts.deadline, facts.id));
        drop(under_way);
        drop(removed);
    }

    /// Takes a request to the module or host that answers it.
    pub(super) fn route(&self, request: ModuleRequest) {
        match self.route.get() {
            Some(route) => route(request),
            None => request.fail(
                lodestar_abi::error_kind::UNAVAILABLE,
                "nobody takes calls between modules here",
            ),
        }
    }

    /// Ends a call because its deadline has passed.
    pub(super) fn time_out(&self, call: &Arc<ModuleCall>) {
        let way = lock(&self.under_way).way(call);
        call.time_out(&way);
        // Also one that was over before it was known here.
        self.remove(&call.facts);
    }

    fn watch_deadlines(&self) {
        let mut under_way = lock(&self.under_way);
        loop {
            let now = Instant::now();
            let first = under_way.by_deadline.first_key_value();
            let first = first.map(|((deadline, _), call)| (*deadline, call.clone()));
            if let Some((_, call)) = first.as_ref().filter(|(deadline, _)| *deadline <= now) {
                drop(under_way);
                self.time_out(call);
                under_way = lock(&self.under_way);
                continue;
            }
            let first = first.map(|(deadline, _)| deadline);
            let until = first.unwrap_or(now + IDLE);
            under_way.sleeps_until = Some(until);
            let waited = self.changed.wait_timeout(under_way, until.duration_since(now));
            let (guard, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            under_way = guard;
            if waited.timed_out() && under_way.by_deadline.is_empty() {
                under_way.sleeps_until = None;
                return;
            }
        }
    }
}

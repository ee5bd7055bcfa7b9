//! Calls that one generation of a module makes: which it may make, how many, and for how long.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use lodestar_abi::{ALL_CALLS, CallRequest, ModError, ReplySinkBox, error_kind};
use lodestar_config::reserved_names::HOST;
use module_sdk::events::fits;
use serde_json::json;

use super::{
    Grant, ServiceContext, Services,
    request::{Facts, ModuleCall, ModuleRequest},
    services::{error, failed, unavailable},
    state::lock,
};

/// Commands of the host that change the daemon.
const OPERATING: [&str; 4] =
    ["modules.enable", "modules.disable", "modules.reload", "modules.rollback"];

/// The most calls that one module may have under way, including those that were given up and still
/// wait for their target.
const MAX_CALLS: usize = 16_384;

/// The most bytes that all of these calls may have together.
const MAX_CALL_BYTES: usize = 64 << 20;

/// Time limit of a call that sets none, and the longest that a call may set.
const CALL_PATIENCE: Duration = Duration::from_secs(10);
const MAX_CALL_PATIENCE: Duration = Duration::from_hours(1);

/// The deepest nesting of calls that are made to answer other calls.
const MAX_CALL_DEPTH: usize = 16;

/// Decision whether a module that declares it may change the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operate {
    /// The module may change the daemon.
    Allowed,
    /// The module was installed, and its section does not allow it.
    Unconfirmed,
}

/// The calls of one generation that are under way, by its own numbers.
#[derive(Debug, Default)]
pub(super) struct CallTable {
    calls: HashMap<u64, Arc<ModuleCall>>,
    held: Arc<Waiting>,
}

/// Calls of one generation and the memory that they take in the daemon.
#[derive(Debug, Default)]
struct Waiting {
    calls: AtomicUsize,
    bytes: AtomicUsize,
}

/// Share of one call in these counters, until its target has released the call as well.
#[derive(Debug)]
pub(super) struct Share {
    held: Arc<Waiting>,
    bytes: usize,
}

impl Share {
    /// Counts another call.
    ///
    /// # Errors
    ///
    /// Returns the number of calls and their bytes, where that is as much as allowed.
    fn take(held: &Arc<Waiting>, bytes: usize) -> Result<Self, (usize, usize)> {
        let share = Self { held: held.clone(), bytes };
        let calls = held.calls.fetch_add(1, Ordering::Relaxed);
        let before = held.bytes.fetch_add(bytes, Ordering::Relaxed);
        let has_room = calls < MAX_CALLS && before + bytes <= MAX_CALL_BYTES;
        if has_room { Ok(share) } else { Err((calls, before)) }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.held.calls.fetch_sub(1, Ordering::Relaxed);
        self.held.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Services {
    /// Calls another module, or the host.
    pub(super) fn call(
        self: &Arc<Self>,
        request: CallRequest<'_>,
        sink: ReplySinkBox,
    ) -> Result<(), ModError> {
        self.open()?;
        let (target, command) = (request.target.as_str(), request.command.as_str());
        may_call(&self.grant, target, command)?;
        let arguments = match request.arguments.as_slice() {
            [] => json!({}),
            bytes => serde_json::from_slice(bytes)
                .map_err(|error| failed(format!("the arguments are no JSON: {error}")))?,
        };
        let facts = self.call_facts(&request)?;
        let bytes = request.arguments.len() + target.len() + command.len();
        let held = self.hold(facts.number, bytes)?;
        let promise = self.acceptance.promise(self.entry());
        let promise = promise.map_err(|error| unavailable(error.to_string()))?;
        let ServiceContext { calls: router, redactor, .. } = &self.context;
        let shared = (router.clone(), redactor.clone());
        let call = ModuleCall::new(facts, (sink, promise), self, shared, held);
        self.note_call(&call)?;
        if let Err(error) = router.add(&call) {
            self.forget_call(call.facts.number, call.facts.id);
            return Err(unavailable(error.to_string()));
        }
        // A generation that was closed meanwhile did not see this one.
        if self.closed.load(Ordering::Acquire) {
            self.cancel(ALL_CALLS);
        }
        router.route(ModuleRequest::new(call, arguments));
        Ok(())
    }

    /// Returns the facts of a call; its time is limited to what is left of the call that it serves.
    fn call_facts(&self, request: &CallRequest<'_>) -> Result<Facts, ModError> {
        let router = &self.context.calls;
        let parent = router.find(request.parent).filter(|it| it.facts.target == self.entry().name);
        let mut chain = parent.iter().flat_map(|it| it.facts.chain.clone()).collect::<Vec<_>>();
        chain.push(format!("{}.{}", request.target, request.command));
        if chain.len() > MAX_CALL_DEPTH {
            return Err(failed(format!(
                "calls may be nested {MAX_CALL_DEPTH} deep; do these go in a circle? {}",
                chain.join(" > ")
            )));
        }
        let patience = match request.deadline_ms {
            0 => CALL_PATIENCE,
            ms => Duration::from_millis(ms).min(MAX_CALL_PATIENCE),
        };
        let now = Instant::now();
        let served = parent.as_ref().map_or(0, |it| it.facts.id);
        let end = parent.map(|it| it.facts.deadline.saturating_duration_since(now));
        let patience = end.map_or(patience, |left| left.min(patience));
        Ok(Facts {
            id: router.next_id(),
            number: request.number,
            parent: served,
            caller: self.entry().name.clone(),
            target: request.target.to_string(),
            command: request.command.to_string(),
            chain,
            patience,
            deadline: now + patience,
        })
    }

    /// Counts another call, and checks that its number is new.
    fn hold(&self, number: u64, bytes: usize) -> Result<Share, ModError> {
        let table = lock(&self.calls);
        table.expect_new(number)?;
        Share::take(&table.held, bytes).map_err(|(calls, bytes)| {
            unavailable(format!(
                "{calls} calls of {} are under way, with {bytes} bytes, which is as much as may \
                 be; wait for some of them",
                self.entry().name
            ))
        })
    }

    fn note_call(&self, call: &Arc<ModuleCall>) -> Result<(), ModError> {
        let mut table = lock(&self.calls);
        table.expect_new(call.facts.number)?;
        table.calls.insert(call.facts.number, call.clone());
        Ok(())
    }

    pub(super) fn forget_call(&self, number: u64, id: u64) {
        let mut table = lock(&self.calls);
        if table.calls.get(&number).is_some_and(|call| call.facts.id == id) {
            let call = table.calls.remove(&number);
            drop(table);
            drop(call);
        }
    }

    /// Gives up on a call, or on all of them.
    pub(super) fn cancel(&self, number: u64) {
        let calls: Vec<Arc<ModuleCall>> = if number == ALL_CALLS {
            lock(&self.calls).calls.values().cloned().collect()
        } else {
            lock(&self.calls).calls.get(&number).cloned().into_iter().collect()
        };
        let why = if number == ALL_CALLS { error_kind::UNAVAILABLE } else { error_kind::CANCELLED };
        let words = format!("{} gave up on the call", self.entry().name);
        calls.iter().for_each(|call| call.end(Err(error(why, words.clone()))));
    }
}

impl CallTable {
    fn expect_new(&self, number: u64) -> Result<(), ModError> {
        if number == ALL_CALLS || self.calls.contains_key(&number) {
            return Err(failed(format!("a call of the number {number} is under way")));
        }
        Ok(())
    }
}

/// Returns whether a command changes the daemon.
pub(super) fn is_operating(target: &str, command: &str) -> bool {
    target == HOST && OPERATING.contains(&command)
}

/// Checks whether a module may call a command.
pub(crate) fn may_call(grant: &Grant, target: &str, command: &str) -> Result<(), ModError> {
    let (module, name) = (&grant.manifest.module.name, format!("{target}.{command}"));
    let capabilities = &grant.manifest.capabilities;
    let refused = |message| Err(error(error_kind::REFUSED, message));
    let fits_command = |call: &String| {
        call.split_once('.')
            .is_some_and(|(whom, what)| whom == target && (what == "*" || fits(what, command)))
    };
    if !capabilities.calls.iter().any(fits_command) {
        return refused(format!(
            "{module} may not call {name}; add {name:?} to `calls` under [capabilities] in its \
             module.toml"
        ));
    }
    if !is_operating(target, command) {
        return Ok(());
    }
    if capabilities.control.is_none() {
        return refused(format!(
            "{module} may not call {name}, which changes the daemon; add `control = \"operate\"` \
             under [capabilities] in its module.toml"
        ));
    }
    if grant.operate == Operate::Unconfirmed {
        return refused(format!(
            "{module} was installed and may not call {name}, which changes the daemon, by its own \
             word; write `control: operate` into its section of modules.yaml to allow it"
        ));
    }
    Ok(())
}

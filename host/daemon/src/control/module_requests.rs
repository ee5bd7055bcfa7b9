//! Calls of modules: to each other, and to the host, which answers what the control API does.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Json, extract::State};
use lodestar_abi::error_kind;
use lodestar_api::{Problem, ProblemCode, WaitQuery};
use lodestar_config::{reserved_names::HOST, valid_section_name};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{runtime::Handle, sync::Semaphore};

use super::{
    commands::not_taken,
    config, events,
    modules::{self, ask, unknown},
    name::ModuleName,
};
use crate::{
    module::{Call, CommandCall, ModuleRequest},
    refusal::Refusal,
    request::{Actor, Request},
    supervisor::{self, COMMAND_PATIENCE, Daemon},
};

/// Time before the end of a call at which its operation is reported as it is then.
const TO_TELL: Duration = Duration::from_millis(50);

/// Number of calls to the host that are answered at once: each takes a thread that people need too.
const READERS: usize = 8;

/// Answers the calls of modules until the daemon ends.
pub fn serve_modules(daemon: &Arc<Daemon>) {
    let (daemon, runtime) = (Arc::downgrade(daemon), Handle::current());
    let readers = Arc::new(Semaphore::new(READERS));
    let calls = daemon.upgrade().map(|daemon| daemon.context.calls.clone());
    let route = move |request: ModuleRequest| match daemon.upgrade() {
        None => request.fail(error_kind::UNAVAILABLE, "the daemon is ending"),
        Some(daemon) if request.target() == HOST => {
            let readers = readers.clone();
            drop(runtime.spawn(async move { answer(&daemon, &request, &readers).await }));
        }
        Some(daemon) => pass_on(&daemon, &request),
    };
    if let Some(calls) = calls {
        calls.serve(Box::new(route));
    }
}

/// Passes a call to the module that it is for.
fn pass_on(daemon: &Daemon, request: &ModuleRequest) {
    let name = request.target();
    let Some(entry) = daemon.modules.entry(name) else {
        return refuse(request, &supervisor::unknown_module(daemon, name));
    };
    let (sink, panicked) = request.sink();
    let call = CommandCall {
        request: request.to_json(),
        sink,
        panicked,
        after: entry.barrier(request.command()),
        patience: request.call().deadline().min(Instant::now() + COMMAND_PATIENCE),
        call: Some(request.call().clone()),
        files: None,
    };
    if let Err((error, refused)) = entry.calls.push(Call::Command(call)) {
        refuse(request, &not_taken(name, error, &entry));
        // Not before: it would end the call as one that was not answered.
        drop(refused);
    }
}

fn refuse(request: &ModuleRequest, problem: &Problem) {
    let kind = match problem.code {
        ProblemCode::NotFound => error_kind::NOT_FOUND,
        ProblemCode::Refused => error_kind::REFUSED,
        ProblemCode::Invalid => error_kind::USAGE,
        ProblemCode::Busy | ProblemCode::Unavailable => error_kind::UNAVAILABLE,
        ProblemCode::Timeout => error_kind::TIMED_OUT,
        ProblemCode::Failed => error_kind::FAILED,
    };
    let help = problem.help.as_ref().map(|help| format!("; {help}")).unwrap_or_default();
    request.fail(kind, format!("{}{help}", problem.detail));
}

async fn answer(daemon: &Arc<Daemon>, request: &ModuleRequest, readers: &Semaphore) {
    // What changes the daemon waits for the outcome, and holds no thread meanwhile.
    let _turn = if request.operates() { None } else { readers.acquire().await.ok() };
    if request.call().is_over() {
        return;
    }
    match run(daemon, request).await {
        Ok(data) => request.answer(&data),
        Err(Refusal(problem)) => refuse(request, &problem),
    }
}

/// The arguments of a command of the host about one module.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfModule {
    name: String,
}

/// Returns whether `{"brief": true}` was asked for, which costs a fraction.
fn is_brief(arguments: &Value) -> bool {
    arguments["brief"] == true
}

/// Runs a command of the host.
async fn run(daemon: &Arc<Daemon>, request: &ModuleRequest) -> Result<Value, Refusal> {
    let state = || State(daemon.clone());
    let module = || named(daemon, request.arguments());
    let set = |enabled| module().map(|module| Request::SetEnabled { module, enabled });
    match request.command() {
        "status" if is_brief(request.arguments()) => {
            daemon.refresh_health().await;
            data(Json(supervisor::brief_status(daemon)))
        }
        "status" => data(super::status(state()).await?),
        "modules.list" => data(modules::list(state()).await?),
        "modules.info" => data(modules::info(state(), ModuleName(module()?)).await?),
        "modules.why" => data(modules::why(state(), ModuleName(module()?)).await?),
        "events.lag" => data(events::lag(state()).await?),
        "events.audit" => data(events::audit(state()).await?),
        "config.show" => {
            let mut shown = data(config::show(state()).await?)?;
            // The text holds what nobody knows for a secret, such as one of a module that is off.
            shown.as_object_mut().map(|shown| shown.remove("text"));
            Ok(shown)
        }
        "modules.enable" => operate(daemon, request, set(true)?).await,
        "modules.disable" => operate(daemon, request, set(false)?).await,
        "modules.reload" => operate(daemon, request, Request::Reload { module: module()? }).await,
        "modules.rollback" => {
            operate(daemon, request, Request::Rollback { module: module()? }).await
        }
        other => Err(Refusal(
            Problem::new(ProblemCode::NotFound, format!("the host has no command {other:?}")).help(
                "there are: status, modules.list, modules.info, modules.why, modules.enable, \
                 modules.disable, modules.reload, modules.rollback, events.lag, events.audit, \
                 config.show",
            ),
        )),
    }
}

/// Requests a change from the daemon on behalf of the module that calls.
async fn operate(
    daemon: &Arc<Daemon>,
    request: &ModuleRequest,
    change: Request,
) -> Result<Value, Refusal> {
    let actor = Actor::Module(request.caller().to_owned());
    let left = request.call().deadline().saturating_duration_since(Instant::now());
    let wait = left.saturating_sub(TO_TELL).as_millis();
    let wait_ms = u64::try_from(wait).unwrap_or(u64::MAX);
    data(ask(daemon, change, actor, WaitQuery { wait_ms }).await?)
}

fn named(daemon: &Daemon, arguments: &Value) -> Result<String, Refusal> {
    let OfModule { name } = OfModule::deserialize(arguments)
        .map_err(|error| Refusal::invalid(format!("the arguments do not fit: {error}")))?;
    if valid_section_name(&name) { Ok(name) } else { Err(unknown(daemon, &name)) }
}

fn data<T: Serialize>(Json(answer): Json<T>) -> Result<Value, Refusal> {
    serde_json::to_value(answer).map_err(|error| Refusal::failed(error.to_string()))
}

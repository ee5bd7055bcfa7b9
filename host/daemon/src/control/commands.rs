//! `/v1/module-commands` and the commands of modules.

use std::{convert::Infallible, os::fd::OwnedFd, sync::Arc, time::Instant};

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Path, State},
    http::header::CONTENT_TYPE,
    response::{IntoResponse as _, Response},
};
use futures_util::{StreamExt as _, stream};
use lodestar_abi::{ModError, error_kind};
use lodestar_api::{ModuleCommands, NDJSON, Problem, ProblemCode};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::{
    files,
    modules::{ndjson, unknown},
    name::ModuleName,
};
use crate::{
    module::{
        Answer, Call, CallError, CommandCall, Entry, State as ModuleState, Transition,
        reply_channel,
    },
    refusal::Refusal,
    supervisor::{self, COMMAND_PATIENCE, Daemon},
};

pub(super) async fn module_commands(
    State(daemon): State<Arc<Daemon>>,
) -> Result<Json<Vec<ModuleCommands>>, Refusal> {
    let module_commands =
        tokio::task::spawn_blocking(move || supervisor::module_commands(&daemon)).await;
    module_commands.map(Json).map_err(|_| Refusal::failed("the modules could not be asked"))
}

pub(super) async fn run(
    State(daemon): State<Arc<Daemon>>,
    ModuleName(name): ModuleName,
    Path((_, command)): Path<(String, String)>,
    args: Option<Json<Value>>,
) -> Result<Response, Refusal> {
    let entry = daemon.modules.entry(&name).ok_or_else(|| unknown(&daemon, &name))?;
    let args = args.map_or_else(|| json!({}), |Json(args)| args);
    answer(&daemon, name, &entry, (&command, &args, None)).await
}

/// Runs a command that reads files: its arguments are the first record of the body, and the files
/// go on to the module as they come. The daemon opens no path that a client named.
pub(super) async fn run_with_files(
    State(daemon): State<Arc<Daemon>>,
    ModuleName(name): ModuleName,
    Path((_, command)): Path<(String, String)>,
    body: Body,
) -> Result<Response, Refusal> {
    let entry = daemon.modules.entry(&name).ok_or_else(|| unknown(&daemon, &name))?;
    // What is not known yet is refused by the module.
    let known = entry.known();
    let mut commands = known.iter().flat_map(|known| &known.description.commands);
    if commands.any(|it| it.name == command && !it.reads_files) {
        return Err(Refusal::invalid(format!("`{command}` of {name} reads no files")));
    }
    let (args, files) = files::receive(body, entry.watch()).await?;
    answer(&daemon, name, &entry, (&command, &args, Some(files))).await
}

async fn answer(
    daemon: &Daemon,
    name: String,
    entry: &Arc<Entry>,
    (command, args, files): (&str, &Value, Option<OwnedFd>),
) -> Result<Response, Refusal> {
    let request = json!({"command": command, "args": args}).to_string().into_bytes();
    let (sink, mut answers, panicked) = reply_channel(daemon.logging.redactor.clone());
    let call = CommandCall {
        request,
        sink,
        panicked,
        after: entry.barrier(command),
        patience: Instant::now() + COMMAND_PATIENCE,
        call: None,
        files,
    };
    let pushed = entry.calls.push(Call::Command(call));
    pushed.map_err(|(error, _)| Refusal(not_taken(&name, error, entry)))?;
    // The first answer decides between a stream and a problem.
    let first = match answers.recv().await {
        Some(Answer::Frame(frame)) => frame,
        Some(Answer::End(Err(error))) => return Err(Refusal(problem(&name, &error))),
        Some(Answer::End(Ok(()))) | None => {
            return Err(Refusal::failed(format!("{name} gave no answer to {command:?}")));
        }
    };
    let (lines, mut received) = mpsc::channel(1);
    tokio::spawn(forward(first, answers, entry.watch(), lines, name));
    let body = stream::poll_fn(move |context| received.poll_recv(context));
    Ok(([(CONTENT_TYPE, NDJSON)], Body::from_stream(body.map(Ok::<_, Infallible>))).into_response())
}

/// Forwards an answer line by line. It owns the answer, so that a module that stops does not wait
/// for a client that has ceased to read.
async fn forward(
    first: Vec<u8>,
    mut answers: mpsc::Receiver<Answer>,
    mut module: watch::Receiver<Transition>,
    lines: mpsc::Sender<Bytes>,
    name: String,
) {
    let mut next = line(first);
    loop {
        let draining = |transition: &Transition| transition.state == ModuleState::Draining;
        tokio::select! {
            sent = lines.send(next) => if sent.is_err() { return },
            _ = module.wait_for(draining) => return,
        }
        let answer = tokio::select! {
            answer = answers.recv() => answer,
            _ = module.wait_for(draining) => Some(Answer::End(Err(stopped()))),
        };
        match answer {
            Some(Answer::Frame(frame)) => next = line(frame),
            Some(Answer::End(Err(error))) => {
                drop(answers);
                let end = ndjson(&json!({"error": problem(&name, &error)}));
                // An error means that the client is gone.
                let _ = lines.send(end.into()).await;
                return;
            }
            Some(Answer::End(Ok(()))) | None => return,
        }
    }
}

fn line(mut frame: Vec<u8>) -> Bytes {
    frame.push(b'\n');
    frame.into()
}

fn stopped() -> ModError {
    ModError {
        kind: error_kind::UNAVAILABLE,
        message: "the module was stopped meanwhile".into(),
        place: "".into(),
    }
}

pub(super) fn not_taken(name: &str, error: CallError, entry: &Entry) -> Problem {
    let transition = entry.transition();
    match error {
        CallError::Busy => Problem::new(ProblemCode::Busy, error.to_string()),
        CallError::NotRunning => {
            let state = transition.state;
            let detail = match transition.reason.as_str() {
                _ if state == ModuleState::Disabled => format!("{name} is disabled"),
                "" => format!("{name} is {state}"),
                reason => format!("{name} is {state}: {reason}"),
            };
            let problem = Problem::new(ProblemCode::Unavailable, detail);
            match state {
                ModuleState::Disabled => {
                    problem.help(format!("enable it with `lodestar modules enable {name}`"))
                }
                ModuleState::Stopped => {
                    problem.help(format!("start it with `lodestar modules enable {name}`"))
                }
                // Starting it alone would only fail again.
                ModuleState::Failed | ModuleState::Quarantined => {
                    problem.help(lodestar_api::once_mended(name))
                }
                _ => problem.help("see `lodestar modules list`"),
            }
        }
    }
}

fn problem(name: &str, error: &ModError) -> Problem {
    let code = match error.kind {
        error_kind::USAGE => ProblemCode::Invalid,
        error_kind::UNAVAILABLE => ProblemCode::Unavailable,
        error_kind::NOT_FOUND => ProblemCode::NotFound,
        error_kind::REFUSED => ProblemCode::Refused,
        _ => ProblemCode::Failed,
    };
    if error.kind == error_kind::PANIC {
        let place = &error.place;
        let detail = format!("{name} panicked in {place}: {}", error.message);
        return Problem::new(code, detail).help(format!("see `lodestar modules logs {name}`"));
    }
    Problem::new(code, error.message.as_str())
}

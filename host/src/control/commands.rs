//! `/v1/nouns` and the commands of modules.

use std::{convert::Infallible, sync::Arc, time::Instant};

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::header::CONTENT_TYPE,
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use lodestar_abi::{ModError, error_kind};
use serde_json::{Value, json};

use super::{
    api::{NDJSON, Noun, Problem, ProblemCode},
    modules::{ndjson, unknown},
    problem::Refusal,
};
use crate::{
    module::{Answer, Call, CallError, CommandCall, State as ModuleState, reply_channel},
    supervisor::{COMMAND_PATIENCE, Daemon},
};

pub(super) async fn nouns(State(daemon): State<Arc<Daemon>>) -> Json<Vec<Noun>> {
    Json(daemon.nouns())
}

pub(super) async fn run(
    State(daemon): State<Arc<Daemon>>,
    Path((name, command)): Path<(String, String)>,
    args: Option<Json<Value>>,
) -> Result<Response, Refusal> {
    let entry = daemon.entry(&name).ok_or_else(|| unknown(&daemon, &name))?;
    let args = args.map_or_else(|| json!({}), |Json(args)| args);
    let request = json!({"command": command, "args": args}).to_string().into_bytes();
    let (sink, mut answers) = reply_channel();
    let call = CommandCall {
        request,
        sink,
        after: entry.calls.mark(),
        patience: Instant::now() + COMMAND_PATIENCE,
    };
    entry.calls.push(Call::Command(call)).map_err(|(error, _)| not_taken(&name, error, &entry))?;
    // The first answer decides between a stream and a problem.
    let first = match answers.recv().await {
        Some(Answer::Frame(frame)) => frame,
        Some(Answer::End(Err(error))) => return Err(Refusal(problem(&name, &error))),
        Some(Answer::End(Ok(()))) | None => {
            return Err(Refusal::failed(format!("{name} gave no answer to {command:?}")));
        }
    };
    let state = entry.watch();
    let frames = stream::unfold((Some(first), answers, state, name), async |state| {
        let (first, mut answers, mut module, name) = state;
        if let Some(frame) = first {
            return Some((line(frame), (None, answers, module, name)));
        }
        // A module that stops must not wait for a client that reads slowly.
        let stops = module.wait_for(|transition| transition.state == ModuleState::Draining);
        let answer = tokio::select! {
            answer = answers.recv() => answer,
            _ = stops => Some(Answer::End(Err(stopped()))),
        };
        match answer {
            Some(Answer::Frame(frame)) => Some((line(frame), (None, answers, module, name))),
            Some(Answer::End(Err(error))) => {
                answers.close();
                let end = ndjson(&json!({"error": problem(&name, &error)}));
                Some((Ok(end.into()), (None, answers, module, name)))
            }
            Some(Answer::End(Ok(()))) | None => None,
        }
    });
    Ok(([(CONTENT_TYPE, NDJSON)], Body::from_stream(frames)).into_response())
}

fn line(mut frame: Vec<u8>) -> Result<axum::body::Bytes, Infallible> {
    frame.push(b'\n');
    Ok(frame.into())
}

fn stopped() -> ModError {
    ModError {
        kind: error_kind::UNAVAILABLE,
        message: "the module was stopped meanwhile".into(),
        place: "".into(),
    }
}

fn not_taken(name: &str, error: CallError, entry: &crate::module::Entry) -> Refusal {
    let transition = entry.transition();
    let problem = match error {
        CallError::Busy => Problem::new(ProblemCode::Busy, error.to_string()),
        CallError::NotRunning => {
            let state = transition.state;
            let detail = match transition.reason.as_str() {
                "" => format!("{name} is {state}"),
                reason => format!("{name} is {state}: {reason}"),
            };
            let problem = Problem::new(ProblemCode::Unavailable, detail);
            match state {
                ModuleState::Disabled | ModuleState::Stopped | ModuleState::Failed => {
                    problem.help(format!("start it with `lodestar modules enable {name}`"))
                }
                _ => problem.help("see `lodestar modules list`"),
            }
        }
    };
    Refusal(problem)
}

fn problem(name: &str, error: &ModError) -> Problem {
    let code = match error.kind {
        error_kind::USAGE => ProblemCode::Invalid,
        error_kind::UNAVAILABLE => ProblemCode::Unavailable,
        error_kind::NOT_FOUND => ProblemCode::NotFound,
        _ => ProblemCode::Failed,
    };
    if error.kind == error_kind::PANIC {
        let place = &error.place;
        let detail = format!("{name} panicked in {place}: {}", error.message);
        return Problem::new(code, detail).help(format!("see `lodestar modules logs {name}`"));
    }
    Problem::new(code, error.message.as_str())
}

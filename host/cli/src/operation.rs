//! Operations that change the daemon's state: request, wait for the outcome, report.

use std::time::{Duration, Instant};

use hyper::Method;
use lodestar_api::{Operation, OperationState, Problem, ProblemCode};

use crate::{
    client::{Client, escaped},
    error::{CliError, Result},
    exit_codes, human,
    terminal::Terminal,
};

/// Longest wait of one request: below the daemon's limit, so that a long wait takes several.
const SLICE: Duration = Duration::from_secs(20);

/// Begins the operation at `path` and waits for its outcome, unless told not to.
pub(crate) async fn run(
    path: &str,
    no_wait: bool,
    client: &Client,
    terminal: &mut Terminal,
) -> Result<u8> {
    let first = if no_wait { Duration::ZERO } else { SLICE.min(client.timeout) };
    let operation = ask(Method::POST, path, first, client).await?;
    let operation = if no_wait { operation } else { ended(operation, client).await? };
    if terminal.json {
        terminal.json_document(&operation)?;
    } else {
        for line in lines(&operation) {
            terminal.line(&human::plain(&line))?;
        }
    }
    outcome(operation)
}

/// Returns the exit code of an operation, or the error of one that failed.
pub(crate) fn outcome(operation: Operation) -> Result<u8> {
    match operation.state {
        OperationState::Failed => Err(failure(operation)),
        OperationState::Done | OperationState::Pending => Ok(exit_codes::DONE),
    }
}

/// Waits until an operation has ended.
pub(crate) async fn ended(mut operation: Operation, client: &Client) -> Result<Operation> {
    let deadline = Instant::now() + client.timeout;
    while operation.state == OperationState::Pending {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(too_slow(&operation, client.timeout));
        }
        let path = format!("/v1/operations/{}", escaped(&operation.id));
        // At least a millisecond, so that the last wait is none that turns in a circle.
        let wait = SLICE.min(left).max(Duration::from_millis(1));
        operation = ask(Method::GET, &path, wait, client).await?;
    }
    Ok(operation)
}

async fn ask(method: Method, path: &str, wait: Duration, client: &Client) -> Result<Operation> {
    let mark = if path.contains('?') { '&' } else { '?' };
    client.wait_for(method, &format!("{path}{mark}wait_ms={}", wait.as_millis()), wait).await
}

/// Returns the lines about an operation; the reason of a failure follows as the error.
pub(crate) fn lines(operation: &Operation) -> Vec<String> {
    let mut lines: Vec<String> = operation.config_line.iter().cloned().collect();
    match operation.state {
        OperationState::Done if !operation.message.is_empty() => {
            lines.push(operation.message.clone());
        }
        OperationState::Pending => lines.push(format!("operation {}", operation.id)),
        OperationState::Done | OperationState::Failed => {}
    }
    lines
}

fn failure(operation: Operation) -> CliError {
    let code = operation.code.unwrap_or(ProblemCode::Failed);
    let mut problem = Problem::new(code, operation.message);
    problem.help = operation.help.or_else(|| {
        let module = operation.module?;
        Some(format!("see `lodestar modules info {module}` and `lodestar modules logs {module}`"))
    });
    CliError::from_problem(problem)
}

fn too_slow(operation: &Operation, timeout: Duration) -> CliError {
    let module = operation.module.as_deref().unwrap_or("the configuration");
    CliError::timed_out(format!(
        "{} of {module} is still under way after {} s (operation {})",
        operation.kind,
        timeout.as_secs_f64(),
        operation.id
    ))
    .help("it goes on: see `lodestar modules list`, or wait longer with --timeout")
}

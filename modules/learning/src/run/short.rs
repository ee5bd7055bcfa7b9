//! Short pieces of work of a trainer beside training, which somebody waits for.

use std::{
    fs,
    io::Read as _,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    Launch, Process, RunError,
    process::{EVENTS, Exit, sweep},
};

/// Time between two looks at whether it is still wanted.
const LOOK: Duration = Duration::from_millis(200);
/// Bytes of the events that are read.
const MOST: u64 = 1 << 20;
/// Longest message that is told, in characters.
const LONGEST: usize = 300;

/// End of a short piece of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Short {
    /// It is done.
    Done,
    /// It failed, with the trainer's last message, which holds no text of examples where the
    /// trainer says so.
    Failed(String),
    /// The time was over.
    Late,
}

/// Runs a program of a trainer in a folder until it ends, at the latest until a time. `alive` is
/// called while it runs, and ends it by an error. No process is left behind.
///
/// # Errors
///
/// The error of `alive`; or one of this system within.
pub fn short<E>(
    launch: &Launch,
    mark: &str,
    folder: &Path,
    until: Instant,
    alive: &mut dyn FnMut() -> Result<(), E>,
) -> Result<Result<Short, RunError>, E> {
    let process = match Process::spawn(launch, mark, folder, None) {
        Ok(process) => process,
        Err(error) => return Ok(Err(error)),
    };
    let ended = loop {
        match process.wait(LOOK) {
            Ok(None) => {}
            Ok(Some(Exit::Code(0))) => break Ok(Ok(Short::Done)),
            Ok(Some(_)) => break Ok(Ok(Short::Failed(last_message(folder)))),
            Err(error) => break Ok(Err(error)),
        }
        if Instant::now() >= until {
            break Ok(Ok(Short::Late));
        }
        if let Err(error) = alive() {
            break Err(error);
        }
    };
    if !matches!(ended, Ok(Ok(Short::Done | Short::Failed(_)))) {
        process.kill();
        let _: Result<_, _> = process.wait(Duration::from_secs(5));
    }
    sweep(mark);
    ended
}

/// Returns the last message of the events, without control characters.
fn last_message(folder: &Path) -> String {
    let mut text = Vec::new();
    let file = fs::File::open(folder.join(EVENTS));
    let read = file.and_then(|file| file.take(MOST).read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text);
    let event = text.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok());
    let message =
        event.as_ref().and_then(|event| event["message"].as_str()).filter(|_| read.is_ok());
    let message = message.unwrap_or("the trainer failed without a word");
    message.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str, until: Duration, is_wanted: bool) -> Result<Short, &'static str> {
        let folder = tempfile::tempdir().expect("a folder");
        let args = vec!["-c".into(), script.into()];
        let launch = Launch { program: "/bin/sh".into(), args };
        let mark = format!("short-{}", uuid::Uuid::now_v7());
        let mut alive = || if is_wanted { Ok(()) } else { Err("not wanted") };
        let ended = short(&launch, &mark, folder.path(), Instant::now() + until, &mut alive)?;
        assert!(Process::find(&mark).is_none(), "nothing is left");
        Ok(ended.expect("it starts"))
    }

    #[test]
    fn an_end_is_told() {
        let long = Duration::from_secs(60);
        assert_eq!(run("exit 0", long, true), Ok(Short::Done));
        let failed = r#"printf '{"event":"error","message":"no \u001bmemory"}\n'; exit 4"#;
        assert_eq!(run(failed, long, true), Ok(Short::Failed("no memory".to_owned())));
        let silent = Short::Failed("the trainer failed without a word".to_owned());
        assert_eq!(run("exit 1", long, true), Ok(silent));
    }

    #[test]
    fn what_is_late_or_not_wanted_is_ended_with_its_children() {
        let endless = "sleep 1000 & sleep 1000";
        assert_eq!(run(endless, Duration::ZERO, true), Ok(Short::Late));
        assert_eq!(run(endless, Duration::from_secs(60), false), Err("not wanted"));
    }
}

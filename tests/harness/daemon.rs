//! A running daemon.

use std::{
    fs::{self, File},
    process::{Child, Command, ExitStatus},
    sync::Mutex,
    time::Duration,
};

use serde_json::Value;

use crate::{PATIENCE, Sandbox, http, wait_until};

/// A daemon in a [`Sandbox`]. It is killed when it is dropped.
#[derive(Debug)]
pub struct Daemon<'a> {
    sandbox: &'a Sandbox,
    child: Mutex<Child>,
}

impl<'a> Daemon<'a> {
    /// Starts `command`, which is a daemon of `sandbox`, and keeps what it logs.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(sandbox: &'a Sandbox, mut command: Command) -> Self {
        let log = File::options().create(true).append(true).open(sandbox.path("lodestard.log"));
        let log = log.expect("the sandbox is writable");
        command.stdout(log.try_clone().expect("a descriptor is free")).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { sandbox, child: Mutex::new(child) }
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Returns the id of its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child().id()
    }

    /// Returns whether it lives.
    #[must_use]
    pub fn lives(&self) -> bool {
        matches!(self.child().try_wait(), Ok(None))
    }

    /// Returns everything that it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.sandbox.path("lodestard.log")).unwrap_or_default()
    }

    /// Returns the answer of `GET /v1/status`, where it answers.
    #[must_use]
    pub fn status(&self) -> Option<Value> {
        let answer = http::get_unix(&self.sandbox.socket(), "/v1/status").ok()?;
        (answer.status == 200).then(|| answer.json())
    }

    /// Waits until every module has come to rest: it runs, has failed, or is not to run.
    pub fn wait_settled(&self) {
        wait_until("every module has come to rest", || {
            assert!(self.lives(), "the daemon ended:\n{}", self.log());
            let status = self.status()?;
            let modules = status["modules"].as_array()?.iter();
            let moving = |module: &Value| match module["state"].as_str() {
                Some("stopped") => module["desired"] == "enabled",
                state => {
                    matches!(state, Some("verified" | "loading" | "draining" | "reloading") | None)
                }
            };
            (!modules.into_iter().any(moving)).then_some(())
        });
    }

    /// Returns what the daemon says about one module, `Null` for nothing.
    #[must_use]
    pub fn module(&self, name: &str) -> Value {
        let modules = self.status().map(|status| status["modules"].clone()).unwrap_or_default();
        let modules = modules.as_array().cloned().unwrap_or_default();
        modules.into_iter().find(|module| module["name"] == name).unwrap_or_default()
    }

    /// Waits until a module is in a state, and returns what the daemon says about it.
    ///
    /// # Panics
    ///
    /// When it does not get there.
    pub fn wait_state(&self, name: &str, state: &str) -> Value {
        let mut last = Value::Null;
        let begin = std::time::Instant::now();
        wait_until(&format!("{name} is {state}"), || {
            last = self.module(name);
            let late = begin.elapsed() > PATIENCE - Duration::from_secs(1);
            assert!(!late, "{name} is not {state} but {last:#}\n{}", self.log());
            (last["state"] == state).then_some(())
        });
        last
    }

    /// Returns the address of a listener: of a module, or of the daemon where `module` is empty.
    ///
    /// # Panics
    ///
    /// When it has none.
    #[must_use]
    pub fn address(&self, module: &str, listener: &str) -> String {
        let status = self.status().expect("the daemon answers");
        let owner = if module.is_empty() { status } else { self.module(module) };
        let listeners = owner["listeners"].as_array().cloned().unwrap_or_default();
        let found = listeners.iter().find(|it| it["name"] == listener);
        let address = found.and_then(|found| found["address"].as_str());
        address.unwrap_or_else(|| panic!("no listener {listener} in {owner:#}")).to_owned()
    }

    /// Asks the daemon to end and waits for its end.
    pub fn stop(self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.wait()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("a child has a pid"), signal)
            .expect("a child that was not waited for can be signalled");
    }

    /// Waits for the daemon's end.
    pub fn wait(&self) -> ExitStatus {
        wait_until("the daemon ends", || self.child().try_wait().expect("it is our child"))
    }

    /// Kills the daemon, as `kill -9` does.
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let mut child = self.child();
        drop(child.kill());
        drop(child.wait());
    }
}

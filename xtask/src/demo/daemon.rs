//! The daemon of the demonstration, and its command line.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::process;

/// Time that start and stop may take.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Daemon {
    child: Child,
    stage: PathBuf,
    home: PathBuf,
    /// Home directory of whoever types the commands.
    person: PathBuf,
    kept: bool,
}

/// Variables that a command keeps: the others might lead it to what this machine has.
const VARIABLES: [&str; 5] = ["PATH", "TERM", "LANG", "TZ", "COLUMNS"];

impl Daemon {
    /// Starts the daemon with a configuration, and waits until all modules run.
    pub(super) fn start(stage: &Path, config: &str) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("lodestar-demo-").tempdir()?.keep();
        fs::write(home.join("modules.yaml"), config)?;
        let person = home.join("person");
        fs::create_dir(&person)?;
        let mut command = Command::new(stage.join("bin/lodestard"));
        command.arg("--config").arg(home.join("modules.yaml"));
        command.arg("--state-dir").arg(home.join("state"));
        command.arg("--module-path").arg(stage.join("modules"));
        command.arg("--socket").arg(home.join("control.sock"));
        println!("$ {}\n", process::shown(&command));
        let log = fs::File::create(home.join("lodestard.log"))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", stage.join("bin/lodestard").display()))?;
        let mut daemon = Self { child, stage: stage.to_owned(), home, person, kept: false };
        daemon.wait_until_up()?;
        Ok(daemon)
    }

    fn wait_until_up(&mut self) -> Result<()> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("lodestard ended with {status}:\n{}", self.log());
            }
            if self.json(&["status"]).is_ok_and(|status| all_run(&status)) {
                println!("up after {} ms\n", begin.elapsed().as_millis());
                return Ok(());
            }
            ensure!(
                begin.elapsed() < PATIENCE,
                "the modules do not run after {} s:\n{}",
                PATIENCE.as_secs(),
                self.log()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.home.join("lodestard.log")).unwrap_or_default()
    }

    /// Returns the address that a module listens on.
    pub(super) fn listener(&self, module: &str, name: &str) -> Result<String> {
        let status = self.json(&["status"])?;
        let named = |list: &Value, name: &str| {
            let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
            list.iter().find(|entry| entry["name"] == name).cloned()
        };
        named(&status["modules"], module)
            .and_then(|module| named(&module["listeners"], name))
            .and_then(|listener| listener["address"].as_str().map(str::to_owned))
            .with_context(|| format!("{module} has no listener {name}; status says:\n{status:#}"))
    }

    fn lodestar(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.stage.join("bin/lodestar"));
        let kept = VARIABLES.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        command.args(args).env_clear().envs(kept).env("HOME", &self.person);
        command.env("LODESTAR_SOCKET", self.home.join("control.sock"));
        command
    }

    /// Returns the home directory of whoever types the commands.
    pub(super) fn person(&self) -> &Path {
        &self.person
    }

    /// Prints a command and its output.
    pub(super) fn shown(&self, args: &[&str]) -> Result<()> {
        let mut command = self.lodestar(args);
        let text = process::capture(&mut command)?;
        println!("$ {}\n{text}", process::shown(&command));
        Ok(())
    }

    /// Shows the health, whatever it is: the machine may be short of something (exit codes 0 to 2).
    pub(super) fn shown_health(&self) -> Result<()> {
        self.ends_with(&["health"], &[0, 1, 2])
    }

    /// Prints a command and its output, which has to end with one of these exit codes.
    pub(super) fn ends_with(&self, args: &[&str], codes: &[i32]) -> Result<()> {
        let mut command = self.lodestar(args);
        let output = process::output(&mut command)?;
        let said = String::from_utf8_lossy(&output.stderr);
        println!(
            "$ {}\n{}{said}",
            process::shown(&command),
            String::from_utf8_lossy(&output.stdout)
        );
        let is_expected = output.status.code().is_some_and(|code| codes.contains(&code));
        ensure!(is_expected, "`{}` ended with {}", process::shown(&command), output.status);
        Ok(())
    }

    /// Returns the answer of a command to `--json`.
    pub(super) fn json(&self, args: &[&str]) -> Result<Value> {
        let mut command = self.lodestar(args);
        let text = process::capture(command.arg("--json"))?;
        serde_json::from_str(&text)
            .with_context(|| format!("`{}` printed no JSON: {text}", process::shown(&command)))
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Leaves the daemon up when the demonstration ends.
    pub(super) fn keep(&mut self) {
        self.kept = true;
    }

    /// Asks the daemon to end, as systemd would, and removes what it wrote.
    pub(super) fn stop(&mut self) -> Result<()> {
        let pid = self.pid().to_string();
        process::capture(Command::new("sh").args(["-c", "kill -TERM \"$0\"", &pid]))?;
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(begin.elapsed() < PATIENCE, "lodestard does not end:\n{}", self.log());
            thread::sleep(Duration::from_millis(10));
        };
        ensure!(status.success(), "lodestard ended with {status}:\n{}", self.log());
        fs::remove_dir_all(&self.home)
            .with_context(|| format!("cannot remove {}", self.home.display()))
    }

    /// Returns the beginning of a command for a person to try.
    pub(super) fn program(&self) -> String {
        let socket = self.home.join("control.sock");
        let program = self.stage.join("bin/lodestar");
        format!("{} --socket {}", program.display(), socket.display())
    }

    /// Returns the command that starts a daemon that stays.
    pub(super) fn for_real(&self) -> String {
        let program = self.stage.join("bin/lodestard");
        format!("{} --module-path {}", program.display(), self.stage.join("modules").display())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Where `stop` did its work this finds nothing to do.
        if !self.kept {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

fn all_run(status: &Value) -> bool {
    let modules = status["modules"].as_array().map(Vec::as_slice).unwrap_or_default();
    let enabled = modules.iter().filter(|module| module["desired"] == "enabled");
    let mut enabled = enabled.peekable();
    enabled.peek().is_some() && enabled.all(|module| module["state"] == "running")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn up_means_that_every_enabled_module_runs() {
        let check = |modules: Value, expected| {
            assert_eq!(all_run(&json!({"modules": modules})), expected, "{modules}");
        };
        let module = |desired, state| json!({"desired": desired, "state": state});
        check(json!([]), false);
        check(json!([module("enabled", "running"), module("disabled", "stopped")]), true);
        check(json!([module("enabled", "running"), module("enabled", "loading")]), false);
    }
}

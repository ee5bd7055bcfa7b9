//! Test programs: compiled once, run one after the other, their results counted.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{Tally, line};
use crate::{process, workspace::Workspace};

/// A compiled test program.
pub(super) struct Program {
    name: String,
    path: PathBuf,
    directory: PathBuf,
}

/// Compiles all test programs, or those of one name, and lists them.
///
/// # Errors
///
/// When they do not compile.
pub(super) fn compile(workspace: &Workspace, only: Option<&str>) -> Result<Vec<Program>> {
    let mut build = process::cargo();
    build.args(["test", "--release", "--workspace", "--locked", "--no-run"]);
    build.args(only.map(|name| format!("--test={name}")));
    build.args(["--message-format", "json-render-diagnostics"]);
    build.current_dir(&workspace.root).stderr(Stdio::inherit());
    eprintln!("$ {}", process::shown(&build));
    let output = process::output(&mut build)?;
    if !output.status.success() {
        bail!("the tests do not compile");
    }
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter_map(|message| program(workspace, message).transpose()).collect()
}

fn program(workspace: &Workspace, message: &str) -> Result<Option<Program>> {
    let message: Value = serde_json::from_str(message).context("cargo's message is no JSON")?;
    let (Some(path), Some(manifest)) =
        (message["executable"].as_str(), message["manifest_path"].as_str())
    else {
        return Ok(None);
    };
    if message["profile"]["test"] != true {
        return Ok(None);
    }
    let directory = Path::new(manifest).parent().context("a manifest lies nowhere")?;
    let target = message["target"]["name"].as_str().unwrap_or_default();
    Ok(Some(Program {
        name: format!("{} {target}", workspace.relative(directory)),
        path: path.into(),
        directory: directory.to_owned(),
    }))
}

impl Program {
    /// Returns whether this is the program that drives a real daemon.
    pub(super) fn is_end_to_end(&self) -> bool {
        self.name == "tests e2e"
    }

    /// Runs the tests whose name holds `filter`; cargo's own runner starts them the same way.
    pub(super) fn run(&self, filter: Option<&str>, tally: &mut Tally) -> Result<()> {
        let mut command = Command::new(&self.path);
        command.args(filter).current_dir(&self.directory);
        command.env("CARGO_MANIFEST_DIR", &self.directory);
        counted(&self.name, &mut command, tally)
    }
}

/// Runs a command that prints what libtest prints, and counts the results.
pub(super) fn counted(name: &str, command: &mut Command, tally: &mut Tally) -> Result<()> {
    let begin = Instant::now();
    // A test that skips itself says so here, since what a passing test prints is not shown.
    let skips = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
    command.stdin(Stdio::null()).env("LODESTAR_TEST_SKIPS", skips.path());
    let output = process::output(command)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let results = Results::of(&text);
    let passed = output.status.success();
    if !passed {
        eprintln!("{text}{}", String::from_utf8_lossy(&output.stderr));
    }
    let skipped = fs::read_to_string(skips.path()).context("cannot read what was skipped")?;
    let skipped = skipped.lines().map(str::to_owned).collect::<Vec<_>>();
    // It passed as far as libtest knows.
    tally.passed += results.passed.saturating_sub(skipped.len() as u64);
    tally.skipped.extend(skipped);
    tally.skipped.extend(results.ignored.iter().map(|test| format!("{name}: {test} is ignored")));
    tally.failed.extend(results.failed.iter().map(|test| format!("{name}: {test}")));
    if !passed && results.failed.is_empty() {
        tally.failed.push(format!("{name}: ended with {}", output.status));
    }
    line(name, passed, &format!("{} tests", results.passed), begin.elapsed());
    Ok(())
}

/// Results that libtest printed.
#[derive(Debug, Default, PartialEq)]
struct Results {
    passed: u64,
    failed: Vec<String>,
    ignored: Vec<String>,
}

impl Results {
    fn of(text: &str) -> Self {
        let mut results = Self::default();
        for line in text.lines() {
            let Some((name, result)) =
                line.strip_prefix("test ").and_then(|line| line.rsplit_once(" ... "))
            else {
                continue;
            };
            match result.split([',', ' ']).next() {
                Some("ok") => results.passed += 1,
                Some("FAILED") => results.failed.push(name.to_owned()),
                Some("ignored") => results.ignored.push(name.to_owned()),
                _ => {}
            }
        }
        results
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_counted() {
        let text = "running 4 tests\ntest a::b ... ok\ntest c ... FAILED\n\
                    test d ... ignored, needs a GPU\ntest e - (line 3) ... ok\n\n\
                    test result: FAILED. 2 passed; 1 failed; 1 ignored\n";
        let expected =
            Results { passed: 2, failed: vec!["c".to_owned()], ignored: vec!["d".to_owned()] };
        assert_eq!(Results::of(text), expected);
    }

    #[test]
    fn a_test_that_skips_itself_is_named() {
        let mut tally = Tally::default();
        let script = "echo 'test a ... ok'; echo 'a: no tool' >> $LODESTAR_TEST_SKIPS";
        counted("mine", Command::new("sh").args(["-c", script]), &mut tally).expect("sh is there");
        assert_eq!(
            (tally.passed, tally.skipped.as_slice()),
            (0, ["a: no tool".to_owned()].as_slice())
        );
    }

    #[test]
    fn a_program_that_dies_is_a_failure() {
        let mut tally = Tally::default();
        let mut command = Command::new("sh");
        counted("mine", command.args(["-c", "echo 'test a ... ok'; exit 3"]), &mut tally)
            .expect("sh is there");
        assert_eq!((tally.passed, tally.failed.len()), (1, 1));
        assert!(tally.failed[0].contains("exit status: 3"), "{:?}", tally.failed);
    }
}

//! `cargo xtask test`: everything that a change must pass, in order, each step with its time.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::{build, process, tidy, workspace::Workspace};

mod programs;
mod tools;

/// Everything that a change must pass.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only the end-to-end tests whose name holds this text, after the build.
    only: Option<String>,
}

/// Results of the run so far.
#[derive(Default)]
pub(crate) struct Tally {
    passed: u64,
    failed: Vec<String>,
    skipped: Vec<String>,
}

/// Runs all steps and prints the summary, whose last line is the count. Returns whether all passed.
///
/// # Errors
///
/// When a step could not even be tried.
pub(crate) fn run(args: &Args) -> Result<bool> {
    let begin = Instant::now();
    let workspace = Workspace::read()?;
    let mut tally = Tally::default();
    tools::prepare(&mut tally)?;
    match &args.only {
        Some(filter) => end_to_end(&workspace, Some(filter), &mut tally)?,
        None => everything(&workspace, &mut tally)?,
    }
    Ok(summary(&tally, begin.elapsed()))
}

fn everything(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let cargo = |words: &str| {
        let mut command = process::cargo();
        command.args(words.split_whitespace()).current_dir(&workspace.root);
        command
    };
    step("format", tally, || process::run(&mut cargo("fmt --all --check")));
    step("tidy", tally, tidy::run);
    let built = step("build", tally, || {
        build::compile(workspace)?;
        build::stage(workspace)
    });
    if !built {
        tally.skipped.push("lints, tests and end-to-end tests: the build failed".to_owned());
        return Ok(());
    }
    let lints = "clippy --release --workspace --all-targets --locked -- -D warnings";
    step("lints", tally, || process::run(&mut cargo(lints)));
    of_trainer(workspace, tally)?;
    let programs = match programs::compile(workspace, None) {
        Ok(programs) => programs,
        Err(error) => {
            eprintln!("{error:#}");
            tally.failed.push("compiling the tests".to_owned());
            return Ok(());
        }
    };
    let (end_to_end, near): (Vec<_>, Vec<_>) =
        programs.into_iter().partition(programs::Program::is_end_to_end);
    for program in &near {
        program.run(None, tally)?;
    }
    let mut documents = cargo("test --release --workspace --locked --doc");
    programs::counted("examples in the documentation", &mut documents, tally)?;
    for program in &end_to_end {
        program.run(None, tally)?;
    }
    Ok(())
}

/// Checks the trainer, which is a workspace of its own, and runs its tests.
fn of_trainer(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let cargo = |words: &str| {
        let mut words = words.split_whitespace();
        let mut command = build::of_trainer(workspace, words.next().unwrap_or_default());
        command.args(words);
        command
    };
    step("format of the trainer", tally, || process::run(&mut cargo("fmt --check")));
    let built = step("build of the trainer", tally, || build::trainer(workspace));
    if !built {
        tally.skipped.push("lints and tests of the trainer: the build failed".to_owned());
        return Ok(());
    }
    let lints = "clippy --release --all-targets --locked -- -D warnings";
    step("lints of the trainer", tally, || process::run(&mut cargo(lints)));
    programs::counted("modules/learning/trainer", &mut cargo("test --release --locked"), tally)
}

fn end_to_end(workspace: &Workspace, filter: Option<&str>, tally: &mut Tally) -> Result<()> {
    build::compile(workspace)?;
    build::stage(workspace)?;
    build::trainer(workspace)?;
    for program in programs::compile(workspace, Some("e2e"))?.iter().filter(|it| it.is_end_to_end())
    {
        program.run(filter, tally)?;
    }
    Ok(())
}

/// Runs one step and prints a line for it. Returns whether it passed.
fn step(name: &str, tally: &mut Tally, work: impl FnOnce() -> Result<()>) -> bool {
    let begin = Instant::now();
    let result = work();
    line(name, result.is_ok(), "", begin.elapsed());
    match result {
        Ok(()) => {
            tally.passed += 1;
            true
        }
        Err(error) => {
            eprintln!("{error:#}");
            tally.failed.push(name.to_owned());
            false
        }
    }
}

/// Prints the line of a step or a test program.
fn line(name: &str, passed: bool, detail: &str, took: Duration) {
    let word = if passed { "ok" } else { "FAILED" };
    println!("{word:<6} {name:<48} {:>7.1} s  {detail}", took.as_secs_f64());
}

/// Prints what failed and what was skipped; the last line is the count. Returns whether nothing
/// failed.
fn summary(tally: &Tally, took: Duration) -> bool {
    println!();
    for skipped in &tally.skipped {
        println!("skipped: {skipped}");
    }
    for failed in &tally.failed {
        println!("failed: {failed}");
    }
    println!("took {:.0} s", took.as_secs_f64());
    let (failed, skipped) = (tally.failed.len(), tally.skipped.len());
    println!("{} passed, {failed} failed, {skipped} skipped", tally.passed);
    failed == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_counts() {
        let mut tally = Tally::default();
        assert!(step("good", &mut tally, || Ok(())));
        assert!(!step("bad", &mut tally, || anyhow::bail!("no")));
        assert_eq!((tally.passed, tally.failed.as_slice()), (1, ["bad".to_owned()].as_slice()));
        assert!(!summary(&tally, Duration::ZERO));
        tally.failed.clear();
        assert!(summary(&tally, Duration::ZERO));
    }
}

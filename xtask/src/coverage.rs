//! `cargo xtask coverage`: the lines that the tests run.
//!
//! Everything is built once more with the compiler's own counters, in a target directory of its
//! own, and all tests run: unit tests, modules, and the programs and libraries that the end-to-end
//! tests start. What a test kills cannot write its counters, nor can a process in its sandbox, so
//! the figure is a little lower than the truth.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{process, workspace::Workspace};

/// Run the tests with counters and show which lines they ran.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only show the counters of the last run.
    #[arg(long)]
    no_run: bool,
    /// Show the files with the most lines that no test runs, as many as this.
    #[arg(long, default_value_t = 15, value_name = "COUNT")]
    files: usize,
}

/// Percentage of the lines that must be run.
const GOAL: f64 = 80.0;

/// Numbers of the lines that can be run, and of those that were.
#[derive(Clone, Copy, Default)]
struct Lines {
    all: u64,
    run: u64,
}

impl Lines {
    fn percent(self) -> f64 {
        if self.all == 0 { 100.0 } else { self.run as f64 * 100.0 / self.all as f64 }
    }
}

/// Runs the tests with counters and shows which lines they ran.
///
/// # Errors
///
/// When the tests fail, a tool is missing, or too few lines were run.
pub(crate) fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::read()?;
    let (profdata, cov) = (tool("llvm-profdata")?, tool("llvm-cov")?);
    let target = workspace.target.join("coverage");
    let profiles = target.join("profiles");
    let passed = args.no_run || tests(&workspace, &target, &profiles)?;
    let merged = target.join("merged.profdata");
    let mut merge = Command::new(profdata);
    merge.args(["merge", "--sparse", "--failure-mode=all", "-o"]).arg(&merged);
    process::run(merge.args(files(&profiles, |path| has_end(path, "profraw"))?))?;
    let mut export = Command::new(cov);
    export.args(["export", "--summary-only", "--instr-profile"]).arg(&merged);
    export.args(["--ignore-filename-regex", r"/(\.cargo|rustc|tests|benches|target)/"]);
    for object in objects(&target)? {
        export.arg("--object").arg(object);
    }
    let exported: Value = serde_json::from_str(&process::capture(&mut export)?)
        .context("llvm-cov wrote something else than JSON")?;
    let counted = by_file(&workspace.root, &exported);
    let all = show(&counted, args.files);
    if !passed {
        bail!("tests failed; the lines above are those that ran all the same");
    }
    if all.percent() < GOAL {
        bail!("the tests run {:.1} % of the lines; {GOAL} % are wanted", all.percent());
    }
    Ok(())
}

/// Runs `cargo xtask test` with counters. Returns whether it passed.
fn tests(workspace: &Workspace, target: &Path, profiles: &Path) -> Result<bool> {
    if profiles.exists() {
        fs::remove_dir_all(profiles).context("cannot remove the counters of the last run")?;
    }
    let mut test = process::cargo();
    test.args(["xtask", "test"]).current_dir(&workspace.root);
    test.env("RUSTFLAGS", "-C instrument-coverage").env("CARGO_TARGET_DIR", target);
    // One file for each program or library and four for those that run at once.
    test.env("LLVM_PROFILE_FILE", profiles.join("%4m.profraw"));
    eprintln!("$ {}", process::shown(&test));
    Ok(test.status().context("cannot start cargo")?.success())
}

/// Finds a tool of LLVM: the toolchain's own, or one of the system that reads its files.
fn tool(name: &str) -> Result<PathBuf> {
    let mut sysroot = Command::new("rustc");
    let sysroot = process::capture(sysroot.args(["--print", "sysroot"]))?;
    for host in files(&Path::new(sysroot.trim()).join("lib/rustlib"), |_| true)? {
        let own = host.join("bin").join(name);
        if own.is_file() {
            return Ok(own);
        }
    }
    let versioned = (19..30).rev().map(|version| format!("{name}-{version}"));
    match versioned.into_iter().find(|name| process::installed(name)) {
        Some(found) => Ok(found.into()),
        None => bail!(
            "{name} is missing; install it by `rustup component add llvm-tools` or \
             `apt-get install llvm-19`"
        ),
    }
}

/// Lists programs and libraries that hold counters: what is staged, and the tests.
fn objects(target: &Path) -> Result<Vec<PathBuf>> {
    let release = target.join("release");
    let mut objects = files(&release, is_program)?;
    objects.extend(files(&release.join("deps"), is_program)?);
    Ok(objects)
}

/// Checks whether a file is a program or a module's library: a program has no extension, a library
/// has `so`.
fn is_program(path: &Path) -> bool {
    path.is_file()
        && (has_end(path, "so") || path.extension().is_none())
        && fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF"))
}

fn has_end(path: &Path, end: &str) -> bool {
    path.extension().is_some_and(|extension| extension == end)
}

fn files(directory: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>> {
    let listed =
        fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let mut found = Vec::new();
    for entry in listed {
        let path = entry?.path();
        if wanted(&path) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Returns the lines of our own files, by their path from the root.
fn by_file(root: &Path, exported: &Value) -> BTreeMap<String, Lines> {
    let files = exported["data"][0]["files"].as_array().into_iter().flatten();
    let ours = files.filter_map(|file| {
        let path = Path::new(file["filename"].as_str()?).strip_prefix(root).ok()?;
        let lines = &file["summary"]["lines"];
        let lines = Lines { all: lines["count"].as_u64()?, run: lines["covered"].as_u64()? };
        Some((path.display().to_string(), lines))
    });
    ours.collect()
}

/// Prints a line for each package, and the files with the most lines that no test runs; returns the
/// sum.
fn show(counted: &BTreeMap<String, Lines>, worst: usize) -> Lines {
    let mut rooms: BTreeMap<&str, Lines> = BTreeMap::new();
    let mut all = Lines::default();
    for (path, lines) in counted {
        let room = path.split_once("/src/").map_or(path.as_str(), |(room, _)| room);
        for sum in [rooms.entry(room).or_default(), &mut all] {
            sum.all += lines.all;
            sum.run += lines.run;
        }
    }
    println!("{:<44} {:>8} {:>8} {:>7}", "ROOM", "LINES", "RUN", "%");
    let line = |name: &str, lines: Lines| {
        println!("{name:<44} {:>8} {:>8} {:>6.1}", lines.all, lines.run, lines.percent());
    };
    for (room, lines) in rooms {
        line(room, lines);
    }
    line("all", all);
    let mut files: Vec<_> = counted.iter().collect();
    files.sort_by_key(|(_, lines)| std::cmp::Reverse(lines.all - lines.run));
    println!("\nmost lines that no test runs:");
    for (path, lines) in files.into_iter().take(worst) {
        line(path, *lines);
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_the_lines_of_our_own_files() {
        let file = |name: &str, count: u64, covered: u64| {
            let lines = json!({"count": count, "covered": covered});
            json!({"filename": name, "summary": {"lines": lines}})
        };
        let exported = json!({"data": [{"files": [
            file("/r/host/bus/src/core.rs", 90, 80),
            file("/r/host/daemon/src/main.rs", 10, 0),
            file("/elsewhere/lib.rs", 1_000, 0),
        ]}]});
        let counted = by_file(Path::new("/r"), &exported);
        assert_eq!(counted.len(), 2);
        let all = show(&counted, 1);
        assert_eq!((all.all, all.run), (100, 80));
        assert!(all.percent() >= GOAL);
    }

    #[test]
    fn a_program_holds_counters_and_a_text_does_not() {
        assert!(is_program(&std::env::current_exe().expect("it runs")));
        assert!(!is_program(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))));
    }
}

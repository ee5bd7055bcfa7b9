//! `lodestar modules check`

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use lodestar_library::{CHECKS, Check as Row, MAX_LIBRARY, Verdict, manifest_of};
use lodestar_platform::files;
use module_sdk::{Table, manifest::Manifest};
use serde::Serialize;

use crate::author::{
    cargo::{Build, Built},
    install,
};
use crate::{
    error::{CliError, Result},
    exit_codes, human, reserved_names,
    terminal::{Terminal, Tone},
};

/// Longest time in which a library is mapped and describes itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// Tell whether a library would load here, and what to do if not; exit code 4 if not
///
/// The library runs in a process of its own for it, never in the daemon.
#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// A library, the folder of an installed module, or a crate, which is built
    #[arg(value_name = "PATH", default_value = ".")]
    path: PathBuf,
    /// Build a crate as for a release
    #[arg(long)]
    release: bool,
}

/// The result, as programs read it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Path of the library, or of the crate that it was built from.
    path: PathBuf,
    /// `true` when the library would load.
    pub(super) loads: bool,
    /// Results of all checks.
    checks: Vec<Row>,
}

impl Check {
    pub(crate) fn run(self, terminal: &mut Terminal) -> Result<u8> {
        let report = match Subject::of(&self.path)? {
            Subject::Library(library) => report(&library)?,
            Subject::Crate(folder) => {
                let staged = staged(&folder, self.release, terminal)?;
                // Where it lies for the moment is nobody's business.
                Report { path: named(&folder), ..report(&staged.library)? }
            }
        };
        if terminal.json {
            terminal.json_document(&report)?;
        } else {
            show(&report, terminal)?;
        }
        Ok(if report.loads { exit_codes::DONE } else { exit_codes::REFUSED })
    }
}

/// Returns the path that the user named in a form with a name: `.` and `..` have none.
fn named(path: &Path) -> PathBuf {
    let whole = || path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if path.file_name().is_some() { path.to_owned() } else { whole() }
}

/// The thing that a path leads to.
#[derive(Debug, PartialEq, Eq)]
enum Subject {
    Library(PathBuf),
    Crate(PathBuf),
}

impl Subject {
    fn of(path: &Path) -> Result<Self> {
        if path.is_file() {
            return Ok(Self::Library(path.to_owned()));
        }
        if path.join("Cargo.toml").is_file() {
            return Ok(Self::Crate(path.to_owned()));
        }
        let folder = path.canonicalize().map_err(|error| {
            CliError::failed(format!("cannot look at {}: {error}", path.display()))
                .help("name a library, the folder of a module, or a crate")
        })?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let library = path.join(format!("lib{name}.so"));
        if library.symlink_metadata().is_ok() {
            return Ok(Self::Library(library));
        }
        Err(CliError::failed(format!("{} holds neither lib{name}.so nor a crate", path.display()))
            .help("a module's folder and library have one name; a crate has a Cargo.toml"))
    }
}

/// A built library in a temporary folder, as it would be installed.
struct Staged {
    library: PathBuf,
    _folder: tempfile::TempDir,
}

/// Builds a crate and shows what the compiler says.
///
/// # Errors
///
/// When it does not build, or is no module.
pub(crate) fn build(folder: &Path, release: bool, terminal: &mut Terminal) -> Result<Built> {
    let mut build = Build::start(folder, release, false)?;
    build.finish(|text| terminal.note(&human::plain(text)))
}

/// Builds a crate and lays out its library as it would be installed.
fn staged(folder: &Path, release: bool, terminal: &mut Terminal) -> Result<Staged> {
    let built = build(folder, release, terminal)?;
    let temporary = tempfile::Builder::new().prefix("lodestar-check-").tempdir()?;
    let place = temporary.path().join(&built.name);
    let library = place.join(format!("lib{}.so", built.name));
    fs::create_dir(&place)?;
    fs::copy(&built.library, &library)?;
    if folder.join("config.yaml").is_file() {
        fs::copy(folder.join("config.yaml"), place.join("config.yaml"))?;
    }
    Ok(Staged { library, _folder: temporary })
}

/// Runs all checks in a process of its own.
///
/// # Errors
///
/// When there is no `lodestard`.
pub(super) fn report(library: &Path) -> Result<Report> {
    let program = crate::author::lodestard()?;
    let mut command = Command::new(&program);
    // Nothing of this environment is the module's business.
    command.arg("--examine").arg(library).env_clear();
    // Who else may write the library, as the operator has it.
    let trusted = "LODESTAR_TRUST_FILES";
    command.envs(std::env::var_os(trusted).map(|who| (trusted, who)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let cannot = |error: std::io::Error| {
        CliError::failed(format!("cannot run {}: {error}", program.display()))
            .help("install lodestard again")
    };
    let mut child = command.spawn().map_err(cannot)?;
    let receiver = rows(child.stdout.take());
    let until = Instant::now() + PATIENCE;
    let mut checks = Vec::new();
    let end = loop {
        match receiver.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(row) => checks.push(row),
            Err(mpsc::RecvTimeoutError::Disconnected) => break Some(child.wait().map_err(cannot)?),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                child.kill().map_err(cannot)?;
                child.wait().map_err(cannot)?;
                break None;
            }
        }
    };
    complete(&mut checks, end);
    let bytes = files::read(library, MAX_LIBRARY).ok();
    if let Some(manifest) = bytes.and_then(|bytes| manifest_of(&bytes)) {
        judge_words(&mut checks, &manifest, &install::all_installed());
    }
    let loads = checks.iter().all(|check| check.status == Verdict::Ok);
    Ok(Report { path: library.to_owned(), loads, checks })
}

/// Returns the results of the checks, as they come.
fn rows(output: Option<ChildStdout>) -> mpsc::Receiver<Row> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let lines = output.into_iter().flat_map(|output| BufReader::new(output).lines());
        for line in lines.map_while(std::io::Result::ok) {
            // What the library prints by itself is no result.
            if let Ok(row) = serde_json::from_str::<Row>(&line)
                && sender.send(row).is_err()
            {
                return;
            }
        }
    });
    receiver
}

/// Completes the results of a process that ended early, or not at all: the next check failed, the
/// others were skipped.
fn complete(checks: &mut Vec<Row>, end: Option<ExitStatus>) {
    let Some(rest) = CHECKS.get(checks.len()..) else { return };
    for (index, name) in rest.iter().enumerate() {
        checks.push(match (index, end) {
            (0, Some(status)) => Row::failed(
                name,
                &format!(
                    "the process that ran it ended with {status}; run the module's tests under a \
                     debugger"
                ),
            ),
            (0, None) => Row::failed(
                name,
                &format!(
                    "it has not answered within {} s; nothing may wait in constructors, `wire` or \
                     `Config`",
                    PATIENCE.as_secs()
                ),
            ),
            _ => Row::skipped(name),
        });
    }
}

/// Marks the manifest as failed if a name of the module means something else already.
fn judge_words(checks: &mut [Row], manifest: &Manifest, installed: &[Manifest]) {
    let command = manifest.cli.command.as_deref();
    let taken = reserved_names::why_taken(&manifest.module.name, command, installed);
    let row = checks.iter_mut().find(|row| row.name == "manifest" && row.status == Verdict::Ok);
    if let (Some(row), Some(sentence)) = (row, taken) {
        *row = Row::failed("manifest", &sentence);
    }
}

/// Draws the report for people.
pub(super) fn show(report: &Report, terminal: &mut Terminal) -> Result<()> {
    terminal.table(&table(report))?;
    for check in &report.checks {
        if !check.differences.is_empty() {
            terminal.line("")?;
            terminal.table(&differences(check))?;
        }
    }
    let path = human::plain(&report.path.display().to_string()).into_owned();
    let verdict = if report.loads {
        terminal.paint_state("would load here", Tone::Good)
    } else {
        terminal.paint_state("would not load here", Tone::Bad)
    };
    terminal.line(&format!("\n{path} {verdict}"))
}

fn table(report: &Report) -> Table {
    let mut table = Table::new(["CHECK", "RESULT", "WHAT"]);
    for check in &report.checks {
        let word = match check.status {
            Verdict::Ok => "ok",
            Verdict::Failed => "failed",
            Verdict::Skipped => "-",
        };
        let mut parts = check.message.lines().map(str::to_owned);
        table.row([check.name.clone(), word.to_owned(), parts.next().unwrap_or_default()]);
        let remedy = check.remedy.as_ref().map(|remedy| format!("-> {remedy}"));
        for line in parts.chain(remedy) {
            table.row([String::new(), String::new(), line]);
        }
    }
    table
}

fn differences(check: &Row) -> Table {
    let mut table = Table::new(["PLACE", "WHAT", "HOST", "MODULE"]);
    for difference in &check.differences {
        table.row([
            difference.place.clone(),
            difference.what.clone(),
            difference.expected.clone(),
            difference.found.clone(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn tells_libraries_folders_and_crates() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let at = |path: &str| root.path().join(path);
        for folder in ["guard", "code", "empty"] {
            fs::create_dir(at(folder)).expect("it is new");
        }
        fs::write(at("guard/libguard.so"), "").expect("it is writable");
        fs::write(at("code/Cargo.toml"), "").expect("it is writable");
        let check = |path: &str, expected: Option<Subject>| {
            assert_eq!(Subject::of(&at(path)).ok(), expected, "{path}");
        };
        check("guard", Some(Subject::Library(at("guard/libguard.so"))));
        check("guard/libguard.so", Some(Subject::Library(at("guard/libguard.so"))));
        check("code", Some(Subject::Crate(at("code"))));
        check("empty", None);
        check("absent", None);
    }

    #[test]
    fn names_what_was_named() {
        assert_eq!(named(Path::new("code/guard")), Path::new("code/guard"));
        let here = std::env::current_dir().expect("there is one");
        assert_eq!(named(Path::new(".")), here);
        assert_eq!(Some(&*named(Path::new(".."))), here.parent());
    }

    #[test]
    fn a_process_that_dies_has_failed_the_next_check() {
        let passed = || CHECKS[..7].iter().map(|name| Row::ok(name, "good")).collect::<Vec<_>>();
        let check = |end: Option<ExitStatus>, part: &str| {
            let mut checks = passed();
            complete(&mut checks, end);
            assert_eq!(checks.len(), CHECKS.len());
            assert_eq!(checks[7].status, Verdict::Failed);
            assert!(checks[7].message.contains(part), "{:?}", checks[7]);
            assert_eq!(checks[8].status, Verdict::Skipped);
        };
        check(Some(ExitStatus::from_raw(11)), "SIGSEGV");
        check(None, "10 s");
        let mut whole: Vec<Row> = CHECKS.iter().map(|name| Row::ok(name, "good")).collect();
        complete(&mut whole, Some(ExitStatus::from_raw(0)));
        assert_eq!(whole.len(), CHECKS.len());
    }

    #[test]
    fn draws_what_failed_with_its_remedy() {
        let checks = vec![
            Row::ok("file", "9 bytes"),
            Row::failed("epoch", "it speaks epoch 0; rebuild it"),
            Row::skipped("layout"),
        ];
        let report = Report { path: "/m/libm.so".into(), loads: false, checks };
        assert_eq!(
            crate::render::table(&table(&report), 80, false),
            "\
CHECK   RESULT  WHAT
file    ok      9 bytes
epoch   failed  it speaks epoch 0
                -> rebuild it
layout  -       not checked: something before it is to be mended first
"
        );
    }
}

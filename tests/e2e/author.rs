//! The author's workflow: a module is created, checked, developed and reloaded on the command line.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Instant,
};

use harness::{PATIENCE, Sandbox, breakage, far_from_midnight, http, library, program, telemetry};
use serde_json::Value;

const NOTHING: &str = "modules: {}\nmetrics:\n  listen: 127.0.0.1:0\n";

/// Creates a command that may call cargo, with the environment of the author's shell and one target
/// folder for all builds.
pub(super) fn author(sandbox: &Sandbox, program: &Path) -> Command {
    let mut command = sandbox.isolated(program);
    command.env("CARGO_TARGET_DIR", target()).env("CARGO_TERM_COLOR", "never");
    // Fast to compile: these builds are loaded, not measured.
    command.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0").env("CARGO_PROFILE_DEV_DEBUG", "0");
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    for (name, folder) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
        let place = std::env::var_os(name).map_or_else(|| home.join(folder), PathBuf::from);
        command.env(name, place);
    }
    let bin = self::program("lodestar").parent().expect("it lies in a folder").to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([bin].into_iter().chain(std::env::split_paths(&path)));
    command.env("PATH", path.expect("a PATH can be made of a PATH"));
    command
}

/// Returns the target folder, which is beside that of this build and kept between runs.
fn target() -> PathBuf {
    let release = program("lodestar");
    release.ancestors().nth(2).expect("target/release/lodestar").join("author")
}

fn lodestar(sandbox: &Sandbox, args: &[&str]) -> harness::Output {
    harness::run(author(sandbox, &program("lodestar")).args(args))
}

/// Creates a new module in the sandbox. Tests that run it use different names, because they share
/// cargo's target folder.
fn begin(sandbox: &Sandbox, name: &str) -> PathBuf {
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../module-sdk").display().to_string();
    let output = lodestar(sandbox, &["modules", "new", name, "--sdk", &sdk]);
    assert_eq!(output.code, 0, "{output:#?}");
    sandbox.path(name)
}

fn check_of<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().expect("a list");
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{report:#}"))
}

/// Returns the names of the failed checks.
fn failed(report: &Value) -> Vec<&str> {
    let checks = report["checks"].as_array().expect("a list").iter();
    let failed = checks.filter(|check| check["status"] == "failed");
    failed.filter_map(|check| check["name"].as_str()).collect()
}

#[test]
fn a_new_module_is_formatted_tested_and_would_load() {
    let sandbox = Sandbox::new(&[], NOTHING);
    let folder = begin(&sandbox, "fresh_guard");
    assert!(folder.join("Cargo.lock").is_file(), "it has a lock of its own");
    for words in ["fmt --check", "test --offline --locked"] {
        let mut cargo = author(&sandbox, Path::new("cargo"));
        let output = harness::run(cargo.args(words.split(' ')).current_dir(&folder));
        assert_eq!(output.code, 0, "cargo {words}: {output:#?}");
    }
    let output = lodestar(&sandbox, &["modules", "check", "fresh_guard", "--json"]);
    assert_eq!(output.code, 0, "{output:#?}");
    let report = output.json();
    assert_eq!((&report["loads"], failed(&report)), (&Value::Bool(true), vec![]), "{report:#}");
    let again = lodestar(&sandbox, &["modules", "new", "fresh_guard"]);
    assert_eq!(again.code, 1, "{again:#?}");
    assert!(again.stderr.contains("is there already"), "{again:#?}");
    fs::write(folder.join("src/lib.rs"), "fn broken( {\n").expect("it is writable");
    let broken = lodestar(&sandbox, &["modules", "check", "fresh_guard"]);
    assert_eq!(broken.code, 1, "{broken:#?}");
    assert!(broken.stderr.contains("src/lib.rs:1"), "{broken:#?}");
}

#[test]
fn a_new_module_is_made_in_the_folder_that_is_named() {
    let sandbox = Sandbox::new(&[], NOTHING);
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../module-sdk").display().to_string();
    let new = ["modules", "new", "far_guard", "--sdk", &sdk, "--dir"];
    fs::create_dir(sandbox.path("projects")).expect("the sandbox is writable");
    let output = lodestar(&sandbox, &[&new[..], &["projects"]].concat());
    assert_eq!(output.code, 0, "{output:#?}");
    let folder = sandbox.path("projects/far_guard");
    for file in ["Cargo.toml", "Cargo.lock", "module.toml", "src/lib.rs"] {
        assert!(folder.join(file).is_file(), "{file}: {output:#?}");
    }
    assert!(!sandbox.path("far_guard").exists(), "nothing is made here");
    fs::write(sandbox.path("file"), "").expect("the sandbox is writable");
    let output = lodestar(&sandbox, &[&new[..], &["file"]].concat());
    assert_eq!(output.code, 1, "{output:#?}");
    assert!(output.stderr.contains("file/far_guard"), "{output:#?}");
    let output = lodestar(&sandbox, &[&new[..], &["nowhere"]].concat());
    assert_eq!(output.code, 1, "{output:#?}");
    assert!(output.stderr.contains("nowhere is not there"), "{output:#?}");
    assert!(!sandbox.path("nowhere").exists(), "it makes no folder but its own");
    let output = lodestar(&sandbox, &["modules", "new", "odd_guard", "--sdk", "9.9"]);
    assert_eq!(output.code, 1, "there is no such SDK: {output:#?}");
    assert!(output.stderr.contains("--sdk PATH"), "{output:#?}");
    assert!(!sandbox.path("odd_guard").exists(), "nothing is left of it");
}

#[test]
fn check_says_what_is_wrong_with_a_library() {
    let sandbox = Sandbox::new(&["counter", "misbehaver", "layout_changed", "no_entry"], NOTHING);
    let check = |module: &str, name: &str, part: &str| {
        let path = format!("modules/{module}");
        let output = sandbox.lodestar(&["modules", "check", &path, "--json"]);
        let report: Value = serde_json::from_str(&output.stdout).expect("JSON");
        if name.is_empty() {
            assert_eq!((output.code, failed(&report)), (0, vec![]), "{report:#}");
            return report;
        }
        assert_eq!((output.code, failed(&report)), (4, vec![name]), "{report:#}");
        let row = check_of(&report, name);
        assert!(row.to_string().contains(part), "{part}: {row:#}");
        assert!(!row["remedy"].is_null(), "{row:#}");
        report
    };
    check("counter", "", "");
    let report = check("layout_changed", "layout", "rebuild");
    let differences = check_of(&report, "layout")["differences"].to_string();
    for part in ["Event.attempt", "u32", "u64"] {
        assert!(differences.contains(part), "{part}: {differences}");
    }
    check("no_entry", "module", "export!");
    let good = library("misbehaver");
    let broken = |bytes: Vec<u8>| sandbox.install_bytes("misbehaver", &bytes);
    broken(breakage::truncated(good.clone(), 1_000));
    check("misbehaver", "format", "truncated");
    broken(breakage::of_another_machine(good.clone()));
    check("misbehaver", "format", "another machine");
    broken(breakage::with_epoch(good.clone(), 2));
    check("misbehaver", "epoch", "update the host");
    broken(breakage::with_abort_panic(good));
    check("misbehaver", "panics", "unwind");
    fs::write(sandbox.path("modules/counter/config.yaml"), "wrong_key: 1\n").expect("writable");
    check("counter", "configuration", "wrong_key");
    let people = sandbox.lodestar(&["modules", "check", "modules/layout_changed"]);
    assert_eq!(people.code, 4);
    for part in ["Event.attempt", "would not load here", "-> rebuild"] {
        assert!(people.stdout.contains(part), "{part}: {}", people.stdout);
    }
}

/// A running `lodestar modules dev`, and its output.
struct Developing {
    child: Child,
    lines: mpsc::Receiver<Value>,
    seen: Vec<Value>,
}

impl Developing {
    fn start(sandbox: &Sandbox, args: &[&str]) -> Self {
        let mut command = author(sandbox, &program("lodestar"));
        command.args(["modules", "dev", "--json"]).args(args);
        // Where the modules are found that it is to run beside it.
        command.env("LODESTAR_MODULE_PATH", sandbox.path("modules"));
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("it is built");
        let output = child.stdout.take().expect("it is piped");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).expect("a line is JSON");
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits for a line of a kind that contains a text.
    #[track_caller]
    fn wait(&mut self, kind: &str, part: &str) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let Ok(line) = line else { panic!("no {kind} with {part:?}: {:#?}", self.seen) };
            self.seen.push(line.clone());
            if line["kind"] == kind && line.to_string().contains(part) {
                return line;
            }
        }
    }

    /// Sends the interrupt signal (Ctrl-C) and checks that the process ends successfully.
    fn interrupt(mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("a pid"), rustix::process::Signal::INT)
            .expect("it lives");
        let status = self.child.wait().expect("it is ours");
        assert!(status.success(), "{status}: {:#?}", self.seen);
    }
}

impl Drop for Developing {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn edit(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).expect("it is there");
    assert_eq!(text.matches(from).count(), 1, "{from} in {}", file.display());
    let new = file.with_extension("new");
    fs::write(&new, text.replace(from, to)).expect("it is writable");
    fs::rename(new, file).expect("it is writable");
}

#[test]
fn a_saved_change_runs_and_a_bad_one_changes_nothing() {
    let sandbox = Sandbox::new(&["ingest"], NOTHING);
    let folder = begin(&sandbox, "saved_guard");
    let source = folder.join("src/lib.rs");
    let zone = format!("timezone={}", far_from_midnight());
    let settings = ["--set", "requests_per_day=7", "--set", &zone];
    let args = [["saved_guard", "--with", "ingest"].as_slice(), &settings].concat();
    let mut dev = Developing::start(&sandbox, &args);
    let last_word = |line: &Value| {
        let text = line["text"].as_str().expect("it is a text").to_owned();
        text.rsplit(' ').next().expect("it has words").to_owned()
    };
    let socket = PathBuf::from(last_word(&dev.wait("daemon", "--socket")));
    let ingest = last_word(&dev.wait("listen", "ingest"));
    dev.wait("reload", "from save to running");
    let status = || {
        let socket = socket.display().to_string();
        let words = ["--socket", &socket, "saved_guard", "status", "--json"];
        lodestar(&sandbox, &words).json()
    };
    assert_eq!(status()["requests"], 0);

    let body = telemetry::claude_code("s", "heard of").to_string();
    let ingest = ingest.trim_start_matches("http://");
    let answer = http::post(ingest, "/v1/logs", &[telemetry::JSON], body.as_bytes());
    assert_eq!(answer.expect("ingest answers").status, 200);
    let event = dev.wait("event", "llm.request.completed");
    assert_eq!(event["event"]["source"], "/lodestar/ingest", "{event:#}");
    assert_eq!(status()["requests"], 1, "a command comes after the events before it");

    edit(&source, "json!({\"requests\": ", "json!({\"hours\": ");
    dev.wait("reload", "from save to running");
    assert_eq!(status()["hours"], 1, "the new code runs, and knows what was before");

    edit(&source, "self.seen = seen;", "self.seen = ;");
    dev.wait("compiler", "expected expression");
    dev.wait("build", "waiting for the next save");
    assert_eq!(status()["hours"], 1, "what ran goes on");

    edit(&source, "self.seen = ;", "self.seen = seen;");
    let dies = "if config.requests_per_day == 7 { panic!(\"no such start\"); }";
    edit(&source, "Ok(Self { config", &format!("{dies}\n        Ok(Self {{ config"));
    dev.wait("reload", "no such start");
    assert_eq!(status()["hours"], 1, "a start that dies changes nothing");

    edit(&source, dies, "tracing::info!(\"begun\");");
    dev.wait("log", "begun");
    dev.interrupt();
    assert!(!socket.exists(), "the private daemon is gone");
    assert!(!socket.parent().expect("it has a folder").exists(), "nothing is left");
}

#[test]
fn it_is_developed_in_the_daemon_that_runs() {
    let sandbox = Sandbox::new(&[], "# mine\nmodules: {}\nmetrics:\n  listen: 127.0.0.1:0\n");
    let daemon = sandbox.start();
    let folder = begin(&sandbox, "live_guard");
    let mut dev = Developing::start(&sandbox, &["live_guard", "--running"]);
    dev.wait("daemon", "the one that runs");
    dev.wait("reload", "from save to running");
    let info = || sandbox.json(&["modules", "info", "live_guard"]);
    let first = info();
    assert_eq!((&first["state"], &first["isolation"]), (&"running".into(), &"process".into()));
    assert_eq!(sandbox.json(&["live_guard", "status"])["requests"], 0);
    assert_eq!(sandbox.json(&["modules", "verify"])[0]["ok"], true, "it is in the lock");

    let source = folder.join("src/lib.rs");
    edit(&source, "json!({\"requests\": ", "json!({\"hours\": ");
    dev.wait("reload", "from save to running");
    assert_eq!(sandbox.json(&["live_guard", "status"])["hours"], 0, "the new code runs");
    assert_ne!(info()["sha256"], first["sha256"]);

    edit(&source, "Ok(Self { config", "panic!(\"no such start\");\n        Ok(Self { config");
    dev.wait("reload", "no such start");
    assert_eq!(sandbox.json(&["live_guard", "status"])["hours"], 0, "what ran goes on");

    edit(&source, "panic!(\"no such start\");\n        ", "");
    dev.wait("reload", "from save to running");
    dev.interrupt();
    assert_eq!(info()["state"], "running", "it stays");
    let removed = sandbox.lodestar(&["modules", "remove", "live_guard", "--purge"]);
    assert_eq!(removed.code, 0, "{removed:#?}");
    assert!(sandbox.configuration().starts_with("# mine\nmodules:"));
    assert!(daemon.stop().success());
}

#[test]
fn a_crate_is_built_and_installed() {
    let sandbox = Sandbox::new(&[], "modules:\n  other:\n    enabled: false\n");
    let daemon = sandbox.start();
    let folder = begin(&sandbox, "crate_guard");
    let output = lodestar(&sandbox, &["modules", "install", "crate_guard", "--json"]);
    let installed = output.json();
    assert_eq!((&installed["name"], &installed["change"]), (&"crate_guard".into(), &"new".into()));
    let defaults = sandbox.state().join("modules/crate_guard/config.yaml");
    assert_eq!(
        fs::read(defaults).expect("its defaults came with it"),
        fs::read(folder.join("config.yaml")).expect("the template has some")
    );
    assert!(sandbox.configuration().contains("requests_per_day"), "as comments in its section");
    fs::write(folder.join("src/lib.rs"), "fn broken( {\n").expect("it is writable");
    let broken = lodestar(&sandbox, &["modules", "install", "crate_guard"]);
    assert_eq!(broken.code, 1, "{broken:#?}");
    assert!(broken.stderr.contains("does not build"), "{broken:#?}");
    assert!(daemon.stop().success());
}

//! A place where a daemon can live: directories, configuration, modules and command lines.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::Daemon;

/// A temporary directory with everything that a daemon needs. Nothing of the user's is touched.
#[derive(Debug)]
pub struct Sandbox {
    root: TempDir,
}

/// Result of a program.
#[derive(Debug)]
pub struct Output {
    /// The exit code; -1 for the end by a signal.
    pub code: i32,
    /// Text on standard output.
    pub stdout: String,
    /// Text on standard error.
    pub stderr: String,
}

impl Output {
    /// Parses the printed JSON.
    ///
    /// # Panics
    ///
    /// When the program failed or printed none.
    #[must_use]
    pub fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{self:#?}");
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {self:#?}"))
    }
}

impl Sandbox {
    /// Creates a sandbox with these modules on its module path and this text in its `modules.yaml`.
    #[must_use]
    pub fn new(modules: &[&str], config: &str) -> Self {
        let root = tempfile::Builder::new().prefix("lodestar-e2e-").tempdir();
        let sandbox = Self { root: root.expect("a temporary directory can be made") };
        for folder in ["home", "run", "modules"] {
            fs::create_dir(sandbox.path(folder)).expect("a new directory is writable");
        }
        for module in modules {
            sandbox.install(module);
        }
        sandbox.configure(config);
        sandbox
    }

    /// Creates a sandbox with the two modules that every other test uses, on free ports.
    #[must_use]
    pub fn usual() -> Self {
        Self::new(&["ingest", "usage_tracker"], USUAL)
    }

    /// Copies a program as it was built into the sandbox, for a user who cannot go where that lies.
    ///
    /// Another process copies it: had this one its file open for writing, whatever another test
    /// starts in that moment would hold it as well, and nobody could run the copy (`ETXTBSY`).
    ///
    /// # Panics
    ///
    /// When it cannot be copied.
    #[must_use]
    pub fn copy_program(&self, name: &str) -> PathBuf {
        let copy = self.path(name);
        let output = run(Command::new("cp").arg(program(name)).arg(&copy));
        assert_eq!(output.code, 0, "{name} cannot be copied: {}", output.stderr);
        copy
    }

    /// Returns a path in this place.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Returns the path of the control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path("run/control.sock")
    }

    /// Returns the path of the state directory.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Writes `modules.yaml` at once, as an editor does that writes anew and renames.
    pub fn configure(&self, text: &str) {
        let (new, path) = (self.path("modules.yaml.new"), self.path("modules.yaml"));
        fs::write(&new, text).expect("the sandbox is writable");
        fs::rename(new, path).expect("the sandbox is writable");
    }

    /// Reads `modules.yaml`.
    #[must_use]
    pub fn configuration(&self) -> String {
        fs::read_to_string(self.path("modules.yaml")).expect("it was written")
    }

    /// Puts a module as it was built on the module path.
    pub fn install(&self, module: &str) {
        self.install_bytes(module, &library(module));
    }

    /// Puts a module on the module path whose library consists of these bytes.
    pub fn install_bytes(&self, module: &str, bytes: &[u8]) {
        let folder = self.path("modules").join(module);
        fs::create_dir_all(&folder).expect("the sandbox is writable");
        let source = source_of(module);
        for file in ["module.toml", "config.yaml"] {
            if source.join(file).exists() {
                fs::copy(source.join(file), folder.join(file)).expect("the file is there");
            }
        }
        fs::write(folder.join(format!("lib{module}.so")), bytes).expect("the sandbox is writable");
    }

    /// Replaces the library of a module at once by the same code with another hash: bytes after the
    /// end of an ELF file mean nothing.
    pub fn replace_library(&self, module: &str, salt: u8) {
        let mut bytes = library(module);
        bytes.extend([b'#', salt]);
        self.replace_bytes(module, &bytes);
    }

    /// Replaces the library of a module at once, as a package manager does.
    pub fn replace_bytes(&self, module: &str, bytes: &[u8]) {
        let folder = self.path("modules").join(module);
        fs::write(folder.join("new"), bytes).expect("the sandbox is writable");
        fs::rename(folder.join("new"), folder.join(format!("lib{module}.so")))
            .expect("the sandbox is writable");
    }

    /// Starts a daemon and waits until its modules run or have failed.
    #[must_use]
    pub fn start(&self) -> Daemon<'_> {
        let daemon = self.spawn();
        daemon.wait_settled();
        daemon
    }

    /// Starts a daemon and does not wait.
    #[must_use]
    pub fn spawn(&self) -> Daemon<'_> {
        Daemon::spawn(self, self.lodestard())
    }

    /// Returns the command for the daemon's program with the arguments of this place.
    #[must_use]
    pub fn lodestard(&self) -> Command {
        self.lodestard_on(&self.socket())
    }

    /// Returns the same command with another control socket.
    #[must_use]
    pub fn lodestard_on(&self, socket: &Path) -> Command {
        let mut command = self.isolated(&program("lodestard"));
        command.arg("--config").arg(self.path("modules.yaml"));
        command.arg("--state-dir").arg(self.state());
        command.arg("--module-path").arg(self.path("modules"));
        command.arg("--socket").arg(socket);
        command
    }

    /// Returns the command for a program that finds nothing of the user's.
    #[must_use]
    pub fn isolated(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.path("home")).env("TZ", "UTC");
        command.env("XDG_RUNTIME_DIR", self.path("run")).env("LODESTAR_SOCKET", self.socket());
        // Many run at once, and few of them have to do with it.
        command.env("LODESTAR_INGEST__GRPC__LISTEN", "127.0.0.1:0");
        // Where `cargo xtask coverage` wants the counters of what the tests start.
        if let Some(counters) = std::env::var_os("LLVM_PROFILE_FILE") {
            command.env("LLVM_PROFILE_FILE", counters);
        }
        command.current_dir(self.root.path()).stdin(Stdio::null());
        command
    }

    /// Runs the command line to its end.
    #[must_use]
    pub fn lodestar(&self, args: &[&str]) -> Output {
        run(self.isolated(&program("lodestar")).args(args))
    }

    /// Runs the command line with `--json` and returns its answer.
    ///
    /// # Panics
    ///
    /// When it fails.
    #[must_use]
    pub fn json(&self, args: &[&str]) -> Value {
        self.lodestar(&[args, &["--json"]].concat()).json()
    }

    /// Returns all bytes of all files below the state directory, with their paths.
    #[must_use]
    pub fn state_files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        collect(&self.state(), &mut files);
        files
    }
}

/// `modules.yaml` with both modules on free ports and no limit on how fast a test sends.
pub(crate) const USUAL: &str = "\
modules:
  ingest:
    enabled: true
    listen: 127.0.0.1:0
    rate_limit: {requests_per_second: 100000, burst: 100000}
  usage_tracker:
    enabled: true
metrics:
  listen: 127.0.0.1:0
";

/// Runs a program to its end.
///
/// # Panics
///
/// When it cannot be started.
#[must_use]
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Returns the path of a program as it was built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    built(name)
}

/// Reads a module's library as it was built.
#[must_use]
pub fn library(module: &str) -> Vec<u8> {
    fs::read(built(&format!("lib{module}.so"))).expect("it was just seen")
}

/// Returns the hash of some bytes as the daemon shows it.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn built(file: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    // <target>/release/deps/e2e-…
    let release = test.ancestors().nth(2).expect("cargo puts tests two folders deep");
    let path = release.join(file);
    assert!(path.exists(), "{} is not built; run `cargo xtask build` first", path.display());
    path
}

/// Returns the folder of a module's sources: ours, an example, or a fixture.
fn source_of(module: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let places = ["modules", "module-sdk/examples", "tests/fixtures"];
    let found = places.iter().map(|place| root.join(place).join(module)).find(|it| it.is_dir());
    found.unwrap_or_else(|| panic!("there is no module {module} in {places:?}"))
}

fn collect(folder: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(folder).expect("the state directory is readable") {
        let path = entry.expect("it is listed").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.is_file() {
            files.push((path.clone(), fs::read(&path).expect("it is readable")));
        }
    }
}

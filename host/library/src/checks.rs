//! The checks that a library must pass to be loaded, made one after the other, each with its
//! result.
//!
//! The later ones run code of the library: this is done in a process that may die of it.

use std::path::Path;

use lodestar_abi::{BuildInfo, EPOCH};
use lodestar_config::{Config, ConfigErrors, Layers};
use module_sdk::manifest::{Manifest, valid_name};
use serde::{Deserialize, Serialize};

use super::{
    Difference, Library, LoadError, LoadedLibraries, Package,
    elf::{self, Contents, ElfError},
    files::{self, Copied},
    inspect, other_epoch,
};

/// The names of the checks, in their order.
pub const CHECKS: [&str; 11] = [
    "file",
    "format",
    "dependencies",
    "module",
    "epoch",
    "panics",
    "manifest",
    "mapping",
    "layout",
    "description",
    "configuration",
];

/// Result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Name of the check, one of [`CHECKS`].
    pub name: String,
    /// Outcome of the check.
    pub status: Verdict,
    /// Description of what was found.
    pub message: String,
    /// Remedy, where something is to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Places where the module's types differ from the host's, for the layout check.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
}

/// Outcome of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The check was passed.
    Ok,
    /// The check failed; the library is refused.
    Failed,
    /// The check was not made, since an earlier one failed.
    Skipped,
}

impl Check {
    /// Returns a check that was passed.
    #[must_use]
    pub fn ok(name: &str, message: impl Into<String>) -> Self {
        Self::new(name, Verdict::Ok, message.into(), None)
    }

    /// Returns a check that failed, from a sentence whose last part is the remedy.
    #[must_use]
    pub fn failed(name: &str, sentence: &str) -> Self {
        let (message, remedy) = match sentence.rsplit_once("; ") {
            Some((message, remedy)) => (message, Some(remedy.to_owned())),
            None => (sentence, None),
        };
        Self::new(name, Verdict::Failed, message.to_owned(), remedy)
    }

    /// Returns a check that was not made.
    #[must_use]
    pub fn skipped(name: &str) -> Self {
        let message = "not checked: something before it is to be mended first".to_owned();
        Self::new(name, Verdict::Skipped, message, None)
    }

    fn new(name: &str, status: Verdict, message: String, remedy: Option<String>) -> Self {
        Self { name: name.to_owned(), status, message, remedy, differences: Vec::new() }
    }
}

/// Makes all checks of `lib<name>.so` and reports each as soon as it is made. The defaults of the
/// module are read from `config.yaml` beside it. Runs code of the library.
pub fn check_all(path: &Path, tell: impl FnMut(Check)) {
    let mut examination = Examination { tell, next: 0, failed: false };
    examination.all(path);
    examination.skip_to(CHECKS.len());
}

struct Examination<F> {
    tell: F,
    /// The index of the next check.
    next: usize,
    failed: bool,
}

impl<F: FnMut(Check)> Examination<F> {
    fn all(&mut self, path: &Path) {
        let Some(name) = module_name(path) else {
            let sentence = format!(
                "{} is not named after a module; call it lib<name>.so, the name being 1 to 32 of \
                 a-z, 0-9 and _",
                path.display()
            );
            return self.fail("file", &sentence);
        };
        let package = Package::of(path, name);
        self.still(path, &package);
        if !self.failed {
            self.running(&package);
        }
    }

    /// Makes the checks that run no code of the library.
    fn still(&mut self, path: &Path, package: &Package) {
        let Copied { copy, objection, .. } = match files::copy(&package.name, path) {
            Ok(copied) => copied,
            Err(error) => return self.fail("file", &error.to_string()),
        };
        if let Some(objection) = objection {
            self.fail("file", &objection.to_string());
        }
        let bytes = match copy.bytes() {
            Ok(bytes) => bytes,
            Err(error) => return self.fail("file", &format!("it cannot be read: {error}")),
        };
        self.pass("file", format!("{} bytes, nobody else may write them", bytes.len()));
        match elf::check(&bytes) {
            Err(error) => {
                let failed = check_of(&error);
                if failed != "format" {
                    self.pass("format", format());
                }
                if failed == "module" {
                    self.pass("dependencies", "needs the C library only");
                }
                self.fail(failed, &format!("the file {error}"));
            }
            Ok(contents) => {
                self.pass("format", format());
                self.pass("dependencies", "needs the C library only");
                self.pass("module", "exports a Lodestar module");
                let build = self.built(path, &contents);
                self.manifest(&contents, package, build);
            }
        }
    }

    fn built(&mut self, path: &Path, contents: &Contents<'_>) -> Option<BuildInfo> {
        let build = match BuildInfo::from_bytes(contents.build_info) {
            Ok(build) => build,
            Err(error) => {
                self.fail("epoch", &format!("{error}; build it again"));
                return None;
            }
        };
        let (found, sdk) = (build.epoch, build.sdk_version());
        if found == EPOCH {
            self.pass("epoch", format!("epoch {found}, built with SDK {sdk}"));
        } else {
            let error = LoadError::Epoch { path: path.to_owned(), found, host: EPOCH, sdk };
            self.fail("epoch", &error.to_string());
        }
        if build.panic_unwind == 0 {
            self.fail("panics", &LoadError::AbortsOnPanic(path.to_owned()).to_string());
        } else {
            self.pass("panics", "a panic unwinds");
        }
        // Where the library itself has the wrong one, what its manifest says is no matter.
        (found == EPOCH).then_some(build)
    }

    fn manifest(&mut self, contents: &Contents<'_>, package: &Package, build: Option<BuildInfo>) {
        match Manifest::parse(&String::from_utf8_lossy(contents.manifest)) {
            Err(error) => self.fail("manifest", &format!("{error}; correct it and build again")),
            Ok(manifest) if manifest.module.name != package.name => {
                let (inside, outside) = (manifest.module.name, &package.name);
                let sentence = format!(
                    "module.toml says {inside:?}, the library is lib{outside}.so; give both one \
                     name"
                );
                self.fail("manifest", &sentence);
            }
            Ok(manifest) => match build.and_then(|build| other_epoch(&build, &manifest)) {
                Some(sentence) => self.fail("manifest", &sentence),
                None => {
                    let module = manifest.module;
                    self.pass("manifest", format!("{} {}", module.name, module.version));
                }
            },
        }
    }

    /// Makes the checks that map the library and run its code.
    fn running(&mut self, package: &Package) {
        let opened = inspect(package).and_then(|file| LoadedLibraries::default().open(file, false));
        let library = match opened {
            Ok(library) => library,
            Err(LoadError::Layout { host_sdk, differences, .. }) => {
                self.pass("mapping", "the linker takes it");
                let sentence = format!(
                    "{} of its types are not this host's; rebuild it against SDK {host_sdk}, or \
                     update the host",
                    differences.len()
                );
                let check = Check { differences, ..Check::failed("layout", &sentence) };
                return self.tell(check);
            }
            Err(error) => return self.fail("mapping", &error.to_string()),
        };
        self.pass("mapping", "the linker takes it");
        self.pass("layout", "every shared type is this host's");
        self.description(&library);
        self.configuration(&library, package);
    }

    fn description(&mut self, library: &Library) {
        match (library.root().describe())().into_result() {
            Err(error) => self.fail("description", &error.message),
            Ok(bytes) => {
                match serde_json::from_slice::<module_sdk::Description>(bytes.as_slice()) {
                    Err(error) => self.fail("description", &format!("cannot be read: {error}")),
                    Ok(description) => {
                        let commands = description.commands.iter();
                        let commands: Vec<&str> = commands.map(|it| it.name.as_str()).collect();
                        let message = format!(
                            "{} subscriptions, {} timers, commands: {}",
                            description.subscriptions.len(),
                            description.timers.len(),
                            if commands.is_empty() { "none".into() } else { commands.join(", ") }
                        );
                        self.pass("description", message);
                    }
                }
            }
        }
    }

    fn configuration(&mut self, library: &Library, package: &Package) {
        let defaults = match package.defaults() {
            Ok(defaults) => defaults,
            Err(error) => return self.fail("configuration", &error.to_string()),
        };
        match default_settings(&package.name, defaults.as_deref()) {
            Err(errors) => self.fail("configuration", &errors.to_string()),
            Ok(settings) => {
                let bytes = settings.to_string();
                let validated = (library.root().validate())(bytes.as_bytes().into()).into_result();
                match validated {
                    Ok(()) if defaults.is_some() => {
                        self.pass("configuration", "it takes the defaults in config.yaml");
                    }
                    Ok(()) => self.pass("configuration", "it needs none; no config.yaml beside it"),
                    Err(error) => {
                        let sentence = refusal(&package.name, &error.message, defaults.is_some());
                        self.fail("configuration", &sentence);
                    }
                }
            }
        }
    }

    fn pass(&mut self, name: &str, message: impl Into<String>) {
        // A file whose mode is wrong is looked at all the same.
        if CHECKS[self.next..].contains(&name) {
            self.tell(Check::ok(name, message));
        }
    }

    fn fail(&mut self, name: &str, sentence: &str) {
        if CHECKS[self.next..].contains(&name) {
            self.tell(Check::failed(name, sentence));
        }
    }

    fn tell(&mut self, check: Check) {
        let index = CHECKS.iter().position(|name| *name == check.name).unwrap_or(self.next);
        self.skip_to(index);
        self.failed |= check.status == Verdict::Failed;
        self.next = index + 1;
        (self.tell)(check);
    }

    fn skip_to(&mut self, index: usize) {
        for name in &CHECKS[self.next.min(index)..index] {
            (self.tell)(Check::skipped(name));
        }
    }
}

fn format() -> String {
    format!("ELF library for {}, whole", std::env::consts::ARCH)
}

/// Returns the name of the module in `lib<name>.so`.
fn module_name(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?.strip_prefix("lib")?.strip_suffix(".so")?;
    valid_name(name).then_some(name)
}

fn check_of(error: &ElfError) -> &'static str {
    match error {
        ElfError::Empty
        | ElfError::NoElf
        | ElfError::Truncated(_)
        | ElfError::Machine(_)
        | ElfError::NoLibrary => "format",
        ElfError::Needs(_) | ElfError::SearchPath | ElfError::StaticTls => "dependencies",
        ElfError::NoModule(_) => "module",
    }
}

/// Returns the settings of a module that is enabled and not configured further.
fn default_settings(name: &str, defaults: Option<&str>) -> Result<serde_json::Value, ConfigErrors> {
    let config = bare_config(name)?;
    config.effective(name, defaults).map(serde_json::Value::Object)
}

fn refusal(name: &str, report: &str, has_defaults: bool) -> String {
    let remedy = if has_defaults {
        "give config.yaml a default that fits"
    } else {
        "put a config.yaml with its defaults beside the library"
    };
    let Ok(config) = bare_config(name) else { return format!("{report}; {remedy}") };
    let error = config.explain(name, report);
    let section = format!("modules.{name}");
    let key = error.key.strip_prefix(&section).unwrap_or(&error.key).trim_start_matches('.');
    let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
    let hint = if error.hint.is_empty() { String::new() } else { format!(" ({})", error.hint) };
    format!("it refuses its own defaults: {key}{}{hint}; {remedy}", error.message)
}

fn bare_config(name: &str) -> Result<Config, ConfigErrors> {
    let text = format!("modules:\n  {name}:\n    enabled: true\n");
    Config::parse(&text, Path::new("modules.yaml"), &Layers::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks_of(file: &str, bytes: &[u8]) -> Vec<Check> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join(file);
        std::fs::write(&path, bytes).expect("it is writable");
        let mut checks = Vec::new();
        check_all(&path, |check| checks.push(check));
        checks
    }

    #[test]
    fn every_check_is_told_once_and_in_order() {
        let check = |file: &str, bytes: &[u8], failed: &str| {
            let checks = checks_of(file, bytes);
            let names: Vec<&str> = checks.iter().map(|check| check.name.as_str()).collect();
            assert_eq!(names, CHECKS, "{checks:#?}");
            let status = |status| checks.iter().find(|check| check.status == status);
            assert_eq!(status(Verdict::Failed).map(|check| &*check.name), Some(failed));
            let last = checks.last().expect("there are some");
            assert_eq!(last.status, Verdict::Skipped, "nothing of it was run");
            assert!(checks.iter().all(|it| it.status != Verdict::Failed || it.remedy.is_some()));
        };
        check("tiny.so", b"", "file");
        check("libTiny.so", b"", "file");
        check("libtiny.so", b"", "format");
        check("libtiny.so", b"#!/bin/sh\n", "format");
        check("libtiny.so", b"\x7fELF\x02\x01\x01", "format");
    }

    #[test]
    fn a_file_that_others_may_write_is_looked_at_all_the_same() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("libtiny.so");
        std::fs::write(&path, "text").expect("it is writable");
        let mode = std::fs::Permissions::from_mode(0o666);
        std::fs::set_permissions(&path, mode).expect("it is ours");
        let mut failed = Vec::new();
        check_all(&path, |check| {
            if check.status == Verdict::Failed {
                failed.push(check.name);
            }
        });
        assert_eq!(failed, ["file", "format"]);
    }

    #[test]
    fn a_refusal_names_the_key() {
        let report = r#"{"path":"limit_usd","message":"missing field `limit_usd`"}"#;
        let sentence = refusal("tiny", report, false);
        assert!(sentence.contains("limit_usd"), "{sentence}");
        assert!(!sentence.contains("modules.tiny."), "{sentence}");
        assert!(sentence.ends_with("beside the library"), "{sentence}");
    }
}

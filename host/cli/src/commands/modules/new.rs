//! `lodestar modules new`

use std::{
    fs,
    path::{Path, PathBuf},
};

use module_sdk::manifest::{Manifest, valid_name};
use serde_json::json;
use tempfile::TempDir;

use crate::author::{cargo, install, sdk::Sdk};
use crate::{
    error::{CliError, LockError, Result},
    exit_codes, reserved_names,
    terminal::Terminal,
};

/// Begin a module: a crate with a handler, a timer, a command, and a test
///
/// It builds as it is: `cargo test` in its folder, then `lodestar modules dev`.
#[derive(Debug, clap::Args)]
pub(crate) struct New {
    /// The name: 1 to 32 of a-z, 0-9 and _, beginning with a letter
    #[arg(value_name = "NAME")]
    name: String,
    /// The folder that the module's folder is made in
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// The SDK: a folder or a version [default: of this checkout, otherwise of this build]
    #[arg(long, value_name = "PATH|VERSION", env = "LODESTAR_SDK", hide_env_values = true)]
    sdk: Option<String>,
}

/// The files of a module, each with its text.
const FILES: [(&str, &str); 8] = [
    ("Cargo.toml", include_str!("templates/Cargo.toml.template")),
    ("module.toml", include_str!("templates/module.toml.template")),
    ("config.yaml", include_str!("templates/config.yaml.template")),
    ("src/lib.rs", include_str!("templates/lib.rs.template")),
    ("src/tests.rs", include_str!("templates/tests.rs.template")),
    ("README.md", include_str!("templates/README.md.template")),
    ("rustfmt.toml", include_str!("templates/rustfmt.toml.template")),
    (".gitignore", include_str!("templates/gitignore.template")),
];

/// Names that no package with a library can have: words of the language, and the crates that a
/// module uses.
const TAKEN: [&str; 52] = [
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "module_sdk",
    "move",
    "mut",
    "override",
    "priv",
    "proc_macro",
    "pub",
    "ref",
    "return",
    "schemars",
    "serde",
    "serde_json",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "tracing",
    "trait",
    "true",
    "type",
    "unsafe",
];

/// Type names that the first lines of the module use already.
const USED: [&str; 17] = [
    "Arc",
    "Bench",
    "Config",
    "Date",
    "Duration",
    "Event",
    "FakeHost",
    "Host",
    "LlmRequestCompleted",
    "Module",
    "NoArgs",
    "Reply",
    "Result",
    "Seen",
    "Self",
    "Wiring",
    "Zone",
];

impl New {
    pub(crate) fn run(self, terminal: &mut Terminal) -> Result<u8> {
        check_name(&self.name)?;
        check_words(&self.name, &install::all_installed())?;
        let sdk = Sdk::find(self.sdk.as_deref())?;
        let here = self.dir == Path::new(".");
        let folder = if here { PathBuf::from(&self.name) } else { self.dir.join(&self.name) };
        let half = written(&folder, &self.name, &sdk)?;
        let locked = lock(half.path(), &sdk);
        if let (Err(reason), Sdk::Version(version)) = (&locked, &sdk) {
            return Err(CliError::failed(format!(
                "cannot get version {version} of the SDK: {reason}"
            ))
            .help("name the folder of a checkout of Lodestar with --sdk PATH"));
        }
        settle(half, &folder)?;
        if let Err(reason) = &locked {
            terminal.note(&format!("no Cargo.lock yet: {reason}; the first build writes it"));
        }
        if terminal.json {
            terminal.json_document(&json!({
                "name": self.name,
                "path": folder,
                "files": FILES.map(|(file, _)| file),
                "sdk": sdk.dependency(),
                "locked": locked.is_ok(),
            }))?;
        } else {
            let shown = folder.display();
            terminal.line(&format!("{shown} is a module. Go on with"))?;
            terminal.line(&format!("    cd {shown}"))?;
            terminal.line("    cargo test")?;
            terminal.line("    lodestar modules dev")?;
        }
        Ok(exit_codes::DONE)
    }
}

fn check_name(name: &str) -> Result<()> {
    if !valid_name(name) {
        return Err(CliError::usage(format!("{name:?} is no name of a module"))
            .help("names are 1 to 32 of a-z, 0-9 and _, beginning with a letter"));
    }
    if TAKEN.contains(&name) {
        return Err(CliError::usage(format!(
            "{name:?} is a word of Rust or a crate that modules use, so that no library can have it"
        ))
        .help(format!("call it {name}_module, or say what it does")));
    }
    Ok(())
}

/// Checks that no name of the module means something else already.
fn check_words(name: &str, installed: &[Manifest]) -> Result<()> {
    // One that lies here under its own name is being written anew.
    match reserved_names::why_taken(name, None, installed) {
        Some(sentence) => Err(CliError::usage(sentence)),
        None => Ok(()),
    }
}

/// Writes all files into a temporary folder beside the place of the module.
fn written(folder: &Path, name: &str, sdk: &Sdk) -> Result<TempDir> {
    let cannot = |error| not_written(folder, &error);
    if folder.symlink_metadata().is_ok() {
        return Err(CliError::failed(format!("{} is there already", folder.display()))
            .help("choose another name, another --dir, or remove it"));
    }
    let parent = folder.parent().filter(|it| !it.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    if !parent.exists() {
        let (folder, parent) = (folder.display(), parent.display());
        return Err(CliError::failed(format!("cannot write {folder}: {parent} is not there"))
            .help("make it first, or name another folder with --dir"));
    }
    let half = tempfile::Builder::new().prefix(".lodestar-new-").tempdir_in(parent);
    let half = half.map_err(cannot)?;
    for (file, text) in FILES {
        let path = half.path().join(file);
        path.parent().map_or(Ok(()), fs::create_dir_all).map_err(cannot)?;
        fs::write(path, filled(text, name, sdk)).map_err(cannot)?;
    }
    // A temporary folder is closed to others; one for sources is as any other.
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(half.path().join("src")).map_err(cannot)?.permissions().mode();
    let mode = fs::Permissions::from_mode(mode);
    fs::set_permissions(half.path(), mode).map_err(cannot)?;
    Ok(half)
}

/// Renames the temporary folder to the place of the module.
fn settle(half: TempDir, folder: &Path) -> Result<()> {
    fs::rename(half.path(), folder).map_err(|error| not_written(folder, &error))?;
    // It is where it belongs: nothing is left to remove.
    let _ = half.keep();
    Ok(())
}

fn not_written(folder: &Path, error: &std::io::Error) -> CliError {
    CliError::failed(format!("cannot write {}: {error}", folder.display()))
        .help("name a folder that you may write to with --dir")
}

fn filled(text: &str, name: &str, sdk: &Sdk) -> String {
    text.replace("{{name}}", name)
        .replace("{{type}}", &type_name(name))
        .replace("{{sdk}}", &sdk.dependency())
        .replace("{{epoch}}", &lodestar_abi::EPOCH.to_string())
}

/// Returns the name of the module's type: `budget_guard` → `BudgetGuard`
fn type_name(name: &str) -> String {
    let word = |word: &str| word[..1].to_uppercase() + &word[1..];
    let words = name.split('_').filter(|part| !part.is_empty());
    let name: String = words.map(word).collect();
    if USED.contains(&&*name) { name + "Module" } else { name }
}

/// Gives it the very versions that the SDK was tested with.
fn lock(folder: &Path, sdk: &Sdk) -> Result<(), LockError> {
    if let Some(lock) = sdk.lock() {
        fs::copy(lock, folder.join("Cargo.lock")).map_err(LockError::NotCopied)?;
    }
    let locked = cargo::lock(folder);
    if locked.is_err() {
        // Nothing is better than the lock of somebody else. It may never have been there.
        let _ = fs::remove_file(folder.join("Cargo.lock"));
    }
    locked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_names() {
        let check = |name: &str, part: &str| {
            let error = check_name(name).expect_err(name);
            let failure = error.failure().expect("a failure");
            assert_eq!(failure.exit, exit_codes::USAGE);
            assert!(failure.message.contains(part), "{}", failure.message);
        };
        check("", "no name");
        check("Guard", "no name");
        check("../guard", "no name");
        check("guard-dog", "no name");
        check("match", "word of Rust");
        check("serde", "crate that modules use");
        check_name("budget_guard").expect("it is good");
        let error = check_words("install", &[]).expect_err("it is a verb");
        assert_eq!(error.failure().expect("a failure").exit, exit_codes::USAGE);
        check_words("budget_guard", &[]).expect("it is free");
        assert!(TAKEN.is_sorted() && USED.is_sorted());
    }

    #[test]
    fn makes_a_type_of_a_name() {
        let check = |name, expected| assert_eq!(type_name(name), expected);
        check("budget_guard", "BudgetGuard");
        check("a1__2b_", "A12b");
        check("event", "EventModule");
    }

    #[test]
    fn writes_a_whole_module_once() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let folder = directory.path().join("deep/guard");
        let sdk = Sdk::Version("0.1.0".into());
        let error = written(&folder, "guard", &sdk).expect_err("deep is not there");
        assert!(error.failure().is_some_and(|it| it.message.contains("is not there")), "{error:?}");
        fs::create_dir(directory.path().join("deep")).expect("it is ours");
        drop(written(&folder, "guard", &sdk).expect("it is new"));
        assert!(!folder.exists(), "half of it is nothing");
        settle(written(&folder, "guard", &sdk).expect("it is new"), &folder).expect("it is ours");
        for (file, _) in FILES {
            let text = fs::read_to_string(folder.join(file)).expect(file);
            assert!(!text.contains("{{"), "{file}: {text}");
        }
        let manifest = fs::read_to_string(folder.join("module.toml")).expect("it is there");
        let manifest = module_sdk::manifest::Manifest::parse(&manifest).expect("it is valid");
        assert_eq!((&*manifest.module.name, manifest.abi.epoch), ("guard", lodestar_abi::EPOCH));
        let error = written(&folder, "guard", &sdk).expect_err("it is there");
        assert!(error.failure().is_some_and(|it| it.message.contains("already")), "{error:?}");
        let left = fs::read_dir(directory.path().join("deep")).expect("it is there").count();
        assert_eq!(left, 1, "nothing half is left");
    }
}

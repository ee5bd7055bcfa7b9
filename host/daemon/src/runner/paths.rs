//! Paths of a module's configuration that its own process may use.

use std::path::{Component, Path, PathBuf};

use module_sdk::manifest::Manifest;
use serde_json::{Map, Value};

use super::error::PathError;
use crate::module::Bounds;

/// Paths that a module's process may read or write.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Paths {
    pub(super) readable: Vec<PathBuf>,
    pub(super) writable: Vec<PathBuf>,
}

/// Returns the paths that the operator gave under the keys that the manifest declares, and the data
/// directory.
///
/// # Errors
///
/// When a path leads to where the daemon or other modules keep their files, or cannot be used.
pub(super) fn declared(
    manifest: &Manifest,
    bounds: &Bounds,
    data_dir: &Path,
) -> Result<Paths, PathError> {
    let capabilities = &manifest.capabilities;
    let mut writable = vec![data_dir.to_owned()];
    for key in &capabilities.paths_write {
        for path in paths(&bounds.given, key, data_dir) {
            if !is_within(&path, &writable) {
                writable.push(bounds.admit(key, &directory_of(key, &path)?)?);
            }
        }
    }
    let mut readable = Vec::new();
    for key in &capabilities.paths_read {
        for path in paths(&bounds.given, key, data_dir) {
            // A path that does not exist cannot be opened to it; the module reports that itself.
            if !is_within(&path, &writable)
                && let Ok(real) = path.canonicalize()
            {
                readable.push(bounds.admit(key, &real)?);
            }
        }
    }
    Ok(Paths { readable, writable })
}

impl Bounds {
    /// Returns `real`, a path without links, if it may be opened.
    fn admit(&self, key: &str, real: &Path) -> Result<PathBuf, PathError> {
        let closed = self.closed.iter().map(|it| it.canonicalize().unwrap_or_else(|_| it.clone()));
        let mut closed = closed.filter(|it| real.starts_with(it) || it.starts_with(real));
        if closed.next().is_none() {
            return Ok(real.to_owned());
        }
        Err(PathError::Closed { key: key.to_owned(), path: real.to_owned() })
    }
}

fn paths(given: &Map<String, Value>, key: &str, data_dir: &Path) -> Vec<PathBuf> {
    let mut steps = key.split('.');
    let first = steps.next().and_then(|step| given.get(step));
    let texts = match steps.try_fold(first, |value, step| Some(value?.get(step))).flatten() {
        Some(Value::String(text)) => vec![text.as_str()],
        Some(Value::Array(texts)) => texts.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    texts.into_iter().filter(|text| !text.is_empty()).map(|text| data_dir.join(text)).collect()
}

/// Returns whether a path lies in an open directory. Links on it are not resolved then: the module
/// itself can put a link there, and a link is not to widen what it may do.
fn is_within(path: &Path, open: &[PathBuf]) -> bool {
    let climbs = path.components().any(|part| part == Component::ParentDir);
    !climbs && open.iter().any(|directory| path.starts_with(directory))
}

/// Returns the directory to open for writing to a path: a database makes files beside its own. The
/// directory must exist: one that does not may be misspelt, or not mounted.
fn directory_of(key: &str, path: &Path) -> Result<PathBuf, PathError> {
    let directory = match path.parent() {
        Some(parent) if !path.is_dir() => parent,
        _ => path,
    };
    directory.canonicalize().map_err(|source| PathError::Unusable {
        key: key.to_owned(),
        directory: directory.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use serde_json::json;

    use super::*;

    /// A state directory with the data of a module, its configuration beside it, and somebody's own
    /// files.
    struct Machine {
        root: tempfile::TempDir,
        data: PathBuf,
        manifest: Manifest,
    }

    fn machine() -> Machine {
        let root = tempfile::tempdir().expect("a temporary directory");
        for directory in
            ["state/data/m", "state/data/other", "etc/trusted_keys", "mine/logs", "elsewhere"]
        {
            fs::create_dir_all(root.path().join(directory)).expect("it is new");
        }
        fs::write(root.path().join("etc/modules.yaml"), "").expect("it is writable");
        fs::write(root.path().join("state/usage.db"), "").expect("it is writable");
        let manifest = Manifest::parse(
            "[module]\nname = \"m\"\nversion = \"0.1.0\"\ndescription = \"d\"\n[abi]\nepoch = 1\n\
             [capabilities]\npaths_read = [\"logs\"]\npaths_write = [\"store.database\"]\n",
        );
        let manifest = manifest.expect("it is a manifest");
        let data = root.path().join("state/data/m");
        Machine { root, data, manifest }
    }

    impl Machine {
        fn declared(&self, given: Value) -> Result<Paths, String> {
            let closed = ["state", "etc/modules.yaml", "etc/trusted_keys"];
            let closed = closed.map(|it| self.root.path().join(it)).to_vec();
            let given = given.as_object().cloned().unwrap_or_default();
            let declared = declared(&self.manifest, &Bounds { given, closed }, &self.data);
            declared.map_err(|error| error.to_string())
        }

        fn at(&self, path: &str) -> PathBuf {
            self.root.path().canonicalize().expect("it is there").join(path)
        }
    }

    #[test]
    fn only_declared_keys_open_a_path() {
        let machine = machine();
        let none = || Paths { readable: vec![], writable: vec![machine.data.clone()] };
        assert_eq!(machine.declared(json!({"other": "/etc"})), Ok(none()));
        assert_eq!(machine.declared(json!({"logs": "/absent", "store": "/usr"})), Ok(none()));
        let (logs, database) = (machine.at("mine/logs"), machine.at("elsewhere/usage.db"));
        let given = json!({"logs": [logs, "/usr"], "store": {"database": database}});
        let paths = machine.declared(given).expect("it is a directory of its own");
        assert_eq!(paths.readable, [machine.at("mine/logs"), "/usr".into()]);
        assert_eq!(paths.writable, [machine.data.clone(), machine.at("elsewhere")]);
        let misspelt = machine.at("elsewehre/usage.db");
        let reason = machine.declared(json!({"store": {"database": misspelt}}));
        let reason = reason.expect_err("it is not there");
        assert!(reason.contains("make that directory, or correct the key"), "{reason}");
        assert!(!machine.at("elsewehre").exists());
        let inside = json!({"logs": "logs", "store": {"database": "deep/usage.db"}});
        assert_eq!(machine.declared(inside), Ok(none()));
    }

    #[test]
    fn what_belongs_to_the_daemon_is_never_opened() {
        let machine = machine();
        let refused = |key: &str, path: PathBuf| {
            let given = match key {
                "logs" => json!({"logs": ["/usr", path]}),
                _ => json!({"store": {"database": path}}),
            };
            let reason = machine.declared(given).expect_err(key);
            assert!(reason.starts_with(&format!("{key} lies in ")), "{reason}");
            assert!(reason.contains("isolation: in_process"), "{reason}");
        };
        for path in [
            "",
            "/",
            "state",
            "state/usage.db",
            "state/data",
            "state/data/other",
            "etc",
            "etc/modules.yaml",
            "etc/trusted_keys",
            "mine/../state/usage.db",
            "state/data/m/../other",
        ] {
            refused("logs", machine.root.path().join(path));
        }
        for path in ["usage.db", "state/usage.db", "state/data/usage.db", "state/data/other/x.db"] {
            refused("store.database", machine.root.path().join(path));
        }
        refused("store.database", machine.root.path().join("etc/trusted_keys/x.db"));
        symlink(machine.root.path().join("state"), machine.root.path().join("mine/way"))
            .expect("new");
        refused("logs", machine.root.path().join("mine/way"));
        refused("store.database", machine.root.path().join("mine/way/x.db"));
    }

    /// It writes there: a link of its own must not lead the daemon's user elsewhere.
    #[test]
    fn a_link_in_its_data_directory_opens_nothing() {
        let machine = machine();
        symlink(machine.root.path().join("mine"), machine.data.join("logs")).expect("it is new");
        for given in [json!({"logs": "logs"}), json!({"store": {"database": "logs/usage.db"}})] {
            let paths = machine.declared(given).expect("they are its own");
            assert_eq!(paths, Paths { readable: vec![], writable: vec![machine.data.clone()] });
        }
    }
}

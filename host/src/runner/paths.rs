//! Which paths of its configuration a module of its own process may use.

use std::path::{Path, PathBuf};

use module_sdk::manifest::Manifest;
use serde_json::Value;

/// What a module's process may reach besides its data directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Paths {
    pub(super) readable: Vec<PathBuf>,
    pub(super) writable: Vec<PathBuf>,
}

/// The paths in the configuration under the keys that the manifest declares, and the data
/// directory.
///
/// # Errors
///
/// When a path to be written leads to a directory that holds the data of others.
pub(super) fn declared(
    manifest: &Manifest,
    config: &[u8],
    data_dir: &Path,
) -> Result<Paths, String> {
    let config: Value = serde_json::from_slice(config).unwrap_or_default();
    let capabilities = &manifest.capabilities;
    let readable = capabilities.paths_read.iter();
    let readable = readable.flat_map(|key| paths(&config, key, data_dir)).collect();
    let mut writable = vec![data_dir.to_owned()];
    for key in &capabilities.paths_write {
        for path in paths(&config, key, data_dir) {
            writable.push(directory_of(key, &path, data_dir)?);
        }
    }
    Ok(Paths { readable, writable })
}

/// The paths in the configuration under every key that the manifest declares, for a question that
/// changes nothing.
#[must_use]
pub fn shown(manifest: &Manifest, config: &[u8], data_dir: &Path) -> Vec<PathBuf> {
    let config: Value = serde_json::from_slice(config).unwrap_or_default();
    let keys = manifest.capabilities.paths_read.iter().chain(&manifest.capabilities.paths_write);
    let named = keys.flat_map(|key| paths(&config, key, data_dir));
    named.chain([data_dir.to_owned()]).collect()
}

fn paths(config: &Value, key: &str, data_dir: &Path) -> Vec<PathBuf> {
    let value = config.pointer(&format!("/{}", key.replace('.', "/")));
    let texts = match value {
        Some(Value::String(text)) => vec![text.as_str()],
        Some(Value::Array(texts)) => texts.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    texts.into_iter().filter(|text| !text.is_empty()).map(|text| data_dir.join(text)).collect()
}

/// A database makes files beside its own, so that the right to write is one to a directory.
fn directory_of(key: &str, path: &Path, data_dir: &Path) -> Result<PathBuf, String> {
    let directory = match path.parent() {
        Some(parent) if !path.is_dir() => parent,
        _ => path,
    };
    let cannot = |error: std::io::Error| {
        format!("{key} lies in {}, which cannot be used: {error}", directory.display())
    };
    crate::state_dir::private_directory(directory).map_err(cannot)?;
    let real = directory.canonicalize().map_err(cannot)?;
    let own = data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_owned());
    if real != own && own.starts_with(&real) {
        return Err(format!(
            "{key} lies in {}, where the daemon and other modules keep their data as well, which a \
             module of its own process must not reach; put it into a directory of its own, or \
             write isolation: in_process",
            directory.display()
        ));
    }
    Ok(real)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_declared_keys_open_a_path() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let data = root.path().join("state/data/m");
        std::fs::create_dir_all(&data).expect("it is new");
        let manifest = Manifest::parse(
            "[module]\nname = \"m\"\nversion = \"0.1.0\"\ndescription = \"d\"\n[abi]\nepoch = 1\n\
             [capabilities]\npaths_read = [\"logs\"]\npaths_write = [\"store.database\"]\n",
        );
        let manifest = manifest.expect("it is a manifest");
        let check = |config: Value| declared(&manifest, config.to_string().as_bytes(), &data);
        let none = Paths { readable: vec![], writable: vec![data.clone()] };
        assert_eq!(check(serde_json::json!({"other": "/etc"})), Ok(none));
        let elsewhere = root.path().join("elsewhere");
        let config = serde_json::json!({
            "logs": ["/var/log/a", "/var/log/b"],
            "store": {"database": elsewhere.join("usage.db")},
        });
        let paths = check(config).expect("it is a directory of its own");
        assert_eq!(paths.readable, ["/var/log/a", "/var/log/b"].map(PathBuf::from));
        assert_eq!(paths.writable, [data.clone(), elsewhere.canonicalize().expect("it is made")]);
        for shared in ["state/usage.db", "state/data/usage.db", "usage.db"] {
            let path = root.path().join(shared);
            let refused = check(serde_json::json!({"store": {"database": path}}));
            let reason = refused.expect_err("others keep their data there");
            assert!(reason.starts_with("store.database lies in "), "{reason}");
        }
    }
}

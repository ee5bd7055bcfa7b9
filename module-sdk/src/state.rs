//! Small state that outlasts a restart: JSON files in the module's data directory.

use std::{fs, io::Write as _, path::PathBuf};

use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, Host, Result, manifest::valid_name};

impl Host {
    /// Reads the state that [`save_state`](Self::save_state) wrote under a name; `None` where there
    /// is none.
    ///
    /// ```
    /// # use module_sdk::{Host, Result};
    /// #[derive(Default, serde::Serialize, serde::Deserialize)]
    /// struct Seen {
    ///     requests: u64,
    /// }
    ///
    /// fn count(host: &Host) -> Result<u64> {
    ///     let mut seen: Seen = host.load_state("seen")?.unwrap_or_default();
    ///     seen.requests += 1;
    ///     host.save_state("seen", &seen)?;
    ///     Ok(seen.requests)
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// When the file cannot be read or does not have the form of `T`.
    pub fn load_state<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let path = self.state_file(name)?;
        let context = |error: Error| {
            error
                .context(format_args!("cannot read {}", path.display()))
                .hint("mend it, or remove it to begin anew")
        };
        match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map(Some).map_err(|error| context(error.into()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(context(error.into())),
        }
    }

    /// Writes a state as `NAME.json` into the data directory. A crash or a power cut leaves the
    /// previous state or this one. It costs a write to the disk: once for a batch of events, not
    /// for each.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) when it cannot be written now.
    pub fn save_state<T: Serialize>(&self, name: &str, state: &T) -> Result<()> {
        let path = self.state_file(name)?;
        let bytes = serde_json::to_vec(state)?;
        // Another generation may run beside this one.
        let new = path.with_extension(format!("json.{}", self.generation()));
        let _saving = self.saving();
        let write = || {
            let mut file = fs::File::create(&new)?;
            file.write_all(&bytes)?;
            file.sync_data()?;
            fs::rename(&new, &path)
        };
        write().map_err(|error| {
            Error::unavailable(error.to_string())
                .context(format_args!("cannot write {}", path.display()))
        })
    }

    fn state_file(&self, name: &str) -> Result<PathBuf> {
        if valid_name(name) {
            return Ok(self.data_dir().join(format!("{name}.json")));
        }
        Err(Error::new(format!("a state cannot be called {name:?}"))
            .hint("names are 1 to 32 of a-z, 0-9 and _, beginning with a letter"))
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{ErrorKind, testing::FakeHost};

    #[test]
    fn a_state_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let fake = Arc::new(FakeHost::new(directory.path()));
        let host = fake.host().expect("it tells about itself");
        assert_eq!(host.load_state::<Vec<u8>>("seen").expect("it is read"), None);
        for state in [vec![1, 2], vec![3]] {
            host.save_state("seen", &state).expect("it is written");
            assert_eq!(host.load_state("seen").expect("it is read"), Some(state));
        }
        let files = fs::read_dir(directory.path()).expect("it is there").count();
        assert_eq!(files, 1, "nothing half is left");
    }

    #[test]
    fn what_cannot_be_read_or_written_is_told() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let fake = Arc::new(FakeHost::new(directory.path()));
        let host = fake.host().expect("it tells about itself");
        fs::write(directory.path().join("torn.json"), "[1, ").expect("it is ours");
        let error = host.load_state::<Vec<u8>>("torn").expect_err("it is torn").to_string();
        assert!(error.contains("torn.json") && error.ends_with("to begin anew"), "{error}");
        let error = host.save_state("../x", &1).expect_err("it leads out").to_string();
        assert!(error.contains("cannot be called"), "{error}");
        fs::create_dir(directory.path().join("taken.json")).expect("it is ours");
        let error = host.save_state("taken", &1).expect_err("a directory is in its place");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
}

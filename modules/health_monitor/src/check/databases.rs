//! Databases of modules: how large they are. Whether one is whole, only its owner may look.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use module_sdk::Host;

use super::{Check, CheckOptions, Progress, status};
use crate::{
    metric::STORAGE_SIZE,
    reading::{Component, Found, Report, Series},
    text,
};

/// Entries of a module's directory that are looked at.
const ENTRIES: usize = 1_000;
/// Modules whose databases are watched at most.
const MODULES: usize = 100;

pub(super) struct Databases {
    host: Host,
    deadline: Duration,
}

/// Sizes of the databases of a module, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sizes {
    files: u32,
    db: u64,
    wal: u64,
}

impl Databases {
    pub(super) fn new(options: &CheckOptions, host: &Host) -> Self {
        Self { host: host.clone(), deadline: Duration::from_millis(options.deadline_ms) }
    }

    /// Returns the data directories by module: all where the daemon tells of them, and its own.
    fn directories(&self) -> Vec<(String, PathBuf)> {
        let mut all = vec![(self.host.name().to_owned(), self.host.data_dir().to_owned())];
        if let Ok(status) = status::ask(&self.host, self.deadline)
            && !status.state_dir.is_empty()
        {
            let data = Path::new(&status.state_dir).join("data");
            let names = status.modules.into_iter().map(|module| module.name);
            let others = names.filter(|name| name != self.host.name() && is_plain(name));
            all.extend(others.take(MODULES).map(|name| {
                let directory = data.join(&name);
                (name, directory)
            }));
        }
        all
    }
}

impl Check for Databases {
    fn run(&mut self, progress: &Progress) -> Report {
        let mut report = Report::default();
        for (module, directory) in self.directories() {
            let shown = text::visible(&module);
            let component: Component = format!("database.{shown}").into();
            if !progress.enter(&component) {
                let message = "the directory does not answer; `dmesg` may tell why.";
                report.found.push(Found::unknown(&component, message));
                continue;
            }
            // One that may not be read is none of ours, and most have no database.
            if let Ok(sizes) = sizes(&directory)
                && sizes.files > 0
            {
                add(&component, &shown, sizes, &mut report);
            }
        }
        report
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes beyond 2^53 bytes may be rounded")]
fn add(component: &Component, module: &str, sizes: Sizes, report: &mut Report) {
    let db = Series::new(&STORAGE_SIZE, component, [module, "db"]);
    let wal = Series::new(&STORAGE_SIZE, component, [module, "wal"]);
    report.found.push(Found::present(component, &db));
    report.read(&db, sizes.db as f64);
    report.read(&wal, sizes.wal as f64);
}

/// Returns whether a name is one of a directory and leads nowhere else.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

fn sizes(directory: &Path) -> io::Result<Sizes> {
    let mut sizes = Sizes::default();
    for entry in fs::read_dir(directory)?.take(ENTRIES) {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_wal = name.ends_with(".db-wal");
        if !is_wal && !name.ends_with(".db") {
            continue;
        }
        // The link itself, and not what it leads to: that is another's.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_file() {
            sizes.files += 1;
            *(if is_wal { &mut sizes.wal } else { &mut sizes.db }) += metadata.len();
        }
    }
    Ok(sizes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use module_sdk::{Reply, testing::FakeHost};
    use serde_json::json;

    use super::*;

    #[test]
    fn the_databases_of_all_modules_are_measured() {
        let state = tempfile::tempdir().expect("a directory");
        let data = |module: &str| state.path().join("data").join(module);
        for module in ["bench", "usage_tracker", "ingest"] {
            fs::create_dir_all(data(module)).expect("it is new");
        }
        fs::write(data("bench").join("health.db"), [0; 10]).expect("it is written");
        fs::write(data("usage_tracker").join("usage.db"), [0; 20]).expect("it is written");
        fs::write(data("usage_tracker").join("usage.db-wal"), [0; 5]).expect("it is written");
        fs::write(data("ingest").join("notes.txt"), [0; 5]).expect("it is written");
        let fake = Arc::new(FakeHost::new(&data("bench")));
        let status = json!({
            "state_dir": state.path(),
            "modules": [{"name": "bench"}, {"name": "usage_tracker"}, {"name": "ingest"},
                        {"name": "../../etc"}],
        });
        fake.answer("host", "status", move |_, _| Reply::json(&status));
        let host = fake.host().expect("a host");
        let mut check = Databases::new(&CheckOptions::default(), &host);
        let report = check.run(&Progress::default());
        let values: Vec<_> = report
            .readings
            .iter()
            .map(|it| (&*it.series.component, &*it.series.labels[1], it.value))
            .collect();
        assert_eq!(
            values,
            [
                ("database.bench", "db", 10.0),
                ("database.bench", "wal", 0.0),
                ("database.usage_tracker", "db", 20.0),
                ("database.usage_tracker", "wal", 5.0),
            ]
        );
        assert_eq!(report.found.len(), 2);
    }
}

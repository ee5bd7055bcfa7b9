//! The lease of the graphics card: before a run that computes on it the models of Ollama on this
//! machine are unloaded, and loaded again when it ended.
//!
//! A file beside the runs names what was unloaded, before it is: after a crash of the daemon the
//! next start gives it back, unless the run goes on. A model that somebody asks for meanwhile is
//! loaded by Ollama once more; a run that then lacks memory is tried smaller.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use module_http_client::{Client, Policy, Request};
use module_sdk::{Host, ProviderApi};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    config::Serving,
    deploy::Kind,
    fit::{Memory, memory},
    run::Strategy,
};

/// Time within which Ollama has to answer a question.
const QUESTION: Duration = Duration::from_secs(5);
/// Time within which it has to load a model.
const WORK: Duration = Duration::from_secs(120);
/// Time between two looks at whether the module stops.
const LOOK: Duration = Duration::from_millis(200);
/// Most models that are unloaded on one server, and the longest name of one.
const MOST: usize = 16;
const LONGEST_NAME: usize = 200;

/// A model that was unloaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unloaded {
    /// Base URL of its server.
    pub server: String,
    /// Its name there.
    pub model: String,
}

/// Record of a lease, as it lies on the disk.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    run: String,
    unloaded: Vec<Unloaded>,
}

/// The lease of the card of this machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lease {
    file: PathBuf,
    servers: Vec<String>,
    /// Held while models are unloaded or loaded.
    moving: Arc<Mutex<()>>,
    /// `true` while a run computes on the card, which others are told.
    is_held: Arc<AtomicBool>,
}

impl Lease {
    /// Returns the lease whose record lies in a folder. The servers are those of `serving` and of
    /// `providers` that are Ollama on this machine: others have cards of their own.
    pub(crate) fn new(folder: &Path, serving: &Serving, host: &Host) -> Self {
        let providers = host.providers().unwrap_or_else(|error| {
            tracing::warn!(%error, "the providers cannot be read, and none is asked for room");
            Vec::new()
        });
        let of_serving = Some(&serving.base_url)
            .filter(|it| serving.kind == Some(Kind::Ollama) && !it.is_empty());
        let of_providers = providers.iter().filter(|it| it.api == ProviderApi::Ollama);
        let all = of_serving.into_iter().chain(of_providers.map(|it| &it.base_url));
        let own = all.map(|url| url.trim_end_matches('/').to_owned()).filter(|it| is_own(it));
        let mut servers: Vec<String> = own.collect();
        servers.sort();
        servers.dedup();
        Self { file: folder.join("lease.json"), servers, ..Self::default() }
    }

    /// Returns whether something was taken and not given back.
    pub(crate) fn is_taken(&self) -> bool {
        self.file.exists()
    }

    /// Takes the card for a run whose trainer computes on it, where there is one.
    pub(crate) fn take_for(&self, trainer: &str, run: &str, host: &Host) {
        self.go_on_for(trainer, host);
        if self.is_held() {
            let models = self.take(run).len();
            tracing::info!(run, models, "a run takes the card");
        }
    }

    /// Holds the card for a run that goes on, for which room was made before.
    pub(crate) fn go_on_for(&self, trainer: &str, host: &Host) {
        let uses_card = Strategy::named(trainer).is_some_and(Strategy::uses_card);
        let is_held = uses_card && matches!(memory(host), Memory::Card { .. });
        self.is_held.store(is_held, Ordering::Relaxed);
    }

    /// Returns whether a run has the card.
    pub(crate) fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Relaxed)
    }

    /// Unloads what is loaded, and returns it. A server that does not answer has nothing loaded.
    fn take(&self, run: &str) -> Vec<Unloaded> {
        let _moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        // One that a crash left behind is part of this one.
        let before = self.record().map(|it| it.unloaded).unwrap_or_default();
        let client = client();
        let mut loaded = before.clone();
        for server in &self.servers {
            for model in block_on(loaded_on(&client, server)) {
                let one = Unloaded { server: server.clone(), model };
                if !loaded.contains(&one) {
                    loaded.push(one);
                }
            }
        }
        if loaded.is_empty() {
            return loaded;
        }
        let record = Record { run: run.to_owned(), unloaded: loaded.clone() };
        if let Err(error) = self.write(&record) {
            // What could not be given back is not taken.
            tracing::warn!(%error, "the lease of the card cannot be noted, so it is not taken");
            return before;
        }
        for one in &loaded {
            if !block_on(keep(&client, one, Some(0), QUESTION)) {
                tracing::warn!(server = one.server, "a model could not be unloaded for a run");
            }
        }
        loaded
    }

    /// Loads what was unloaded, as well as it goes, and forgets it. When the module stops meanwhile
    /// the next start does it.
    pub(crate) fn give_back(&self, is_left: &AtomicBool) {
        self.is_held.store(false, Ordering::Relaxed);
        let _moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(record) = self.record() else { return };
        let client = client();
        for one in &record.unloaded {
            let loaded = block_on(until(is_left, keep(&client, one, None, WORK)));
            match loaded {
                Some(true) => {}
                Some(false) => {
                    tracing::warn!(server = one.server, "a model could not be loaded after a run");
                }
                None => return,
            }
        }
        if let Err(error) = fs::remove_file(&self.file) {
            tracing::warn!(%error, "the record of the lease of the card cannot be deleted");
        }
    }

    fn record(&self) -> Option<Record> {
        let text = fs::read(&self.file).ok()?;
        let record: Record = serde_json::from_slice(&text).ok()?;
        // Somebody may have edited it: only the own servers are asked for anything.
        let unloaded = record.unloaded.into_iter().filter(|it| is_own(&it.server)).take(MOST);
        Some(Record { run: record.run, unloaded: unloaded.collect() })
    }

    fn write(&self, record: &Record) -> io::Result<()> {
        if let Some(folder) = self.file.parent() {
            fs::create_dir_all(folder)?;
        }
        let part = self.file.with_extension("part");
        fs::write(&part, serde_json::to_vec(record)?)?;
        fs::rename(part, &self.file)
    }
}

/// Returns whether a URL is of this machine.
fn is_own(url: &str) -> bool {
    let rest = ["http://", "https://"].iter().find_map(|it| url.strip_prefix(it));
    let Some(authority) = rest.and_then(|it| it.split('/').next()) else { return false };
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => authority.split(':').next(),
    };
    matches!(host, Some("localhost" | "::1")) || host.is_some_and(|it| it.starts_with("127."))
}

fn client() -> Client {
    Client::new(Policy { local: true, ..Policy::default() })
}

/// Returns the names of the models that a server has loaded.
async fn loaded_on(client: &Client, server: &str) -> Vec<String> {
    let mut request = Request::get(format!("{server}/api/ps"));
    request.deadline = QUESTION;
    let Ok(answer) = client.send(request).await else { return Vec::new() };
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let models = body["models"].as_array().into_iter().flatten();
    let names = models.filter_map(|it| it["name"].as_str().or_else(|| it["model"].as_str()));
    let names = names.filter(|it| !it.is_empty() && it.len() <= LONGEST_NAME);
    names.take(MOST).map(str::to_owned).collect()
}

/// Asks a server to keep a model for so many seconds, or for as long as it does by default, which
/// loads it. Returns whether it answered that it does.
async fn keep(client: &Client, one: &Unloaded, seconds: Option<u64>, deadline: Duration) -> bool {
    let mut body = json!({"model": one.model, "stream": false});
    if let Some(seconds) = seconds {
        body["keep_alive"] = json!(seconds);
    }
    let url = format!("{}/api/generate", one.server);
    let mut request = Request::post(url, "application/json", body.to_string());
    request.deadline = deadline;
    client.send(request).await.is_ok_and(|answer| answer.status.is_success())
}

/// Waits for work, but not longer than the module runs.
async fn until<T>(is_left: &AtomicBool, work: impl Future<Output = T>) -> Option<T> {
    let mut work = std::pin::pin!(work);
    while !is_left.load(Ordering::Relaxed) {
        if let Ok(done) = tokio::time::timeout(LOOK, work.as_mut()).await {
            return Some(done);
        }
    }
    None
}

/// Runs requests on the thread of a run. Without a runtime nothing is asked.
fn block_on<T: Default>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map(|runtime| runtime.block_on(work)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_servers_of_this_machine_are_asked() {
        for (url, expected) in [
            ("http://127.0.0.1:11434", true),
            ("http://localhost:11434/v1", true),
            ("https://[::1]:11434", true),
            ("http://localhost.example.com:11434", false),
            ("http://192.168.1.7:11434", false),
            ("http://[fe80::1]:11434", false),
            ("ftp://localhost", false),
            ("localhost", false),
        ] {
            assert_eq!(is_own(url), expected, "{url}");
        }
    }

    #[test]
    fn a_record_that_was_edited_leads_nowhere_else() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let lease = Lease { file: folder.path().join("lease.json"), ..Lease::default() };
        assert!(lease.record().is_none());
        let one = |server: &str| Unloaded { server: server.to_owned(), model: "m".to_owned() };
        let unloaded = vec![one("http://example.com"), one("http://127.0.0.1:9")];
        let record = Record { run: "run-1".to_owned(), unloaded };
        lease.write(&record).expect("it is written");
        let read = lease.record().expect("it is read");
        assert_eq!((read.run.as_str(), read.unloaded), ("run-1", vec![one("http://127.0.0.1:9")]));
        // The module stops, so that the next start does it.
        lease.give_back(&AtomicBool::new(true));
        assert!(lease.is_taken());
        // Nobody answers there, which is no reason to keep the record.
        lease.give_back(&AtomicBool::new(false));
        assert!(lease.record().is_none());
        fs::write(&lease.file, "no record").expect("it is written");
        assert!(lease.record().is_none());
        assert!(lease.take("run-2").is_empty());
    }
}

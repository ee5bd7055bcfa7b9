//! `watch`: transcripts are imported as they grow, where the daemon may read them.
//!
//! A change wakes the thread, which waits until the tools are quiet for a moment, looks for the
//! files of all tools, and reads what is new in them. Every few minutes it looks without being
//! woken: a tool may have been installed meanwhile, or a folder may not be watched.

use std::{
    env, fmt,
    path::Path,
    sync::{
        Arc,
        atomic::AtomicBool,
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use module_sdk::{Host, Result};
use module_transcripts::{Holds, Place, Tool, existing};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};

use crate::{
    clock::Arrival,
    import::{Local, LocalFile, Names, Projects, SharedStore},
};

/// Usual time without a change after which files are read.
pub(crate) const QUIET: Duration = Duration::from_secs(2);
/// Longest time that one waits for it.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time after which files are looked for without a change.
const UNASKED: Duration = Duration::from_mins(5);
/// Time between two readings of a database, which is read as a whole.
const DATABASES_EVERY: Duration = Duration::from_mins(1);

/// Needs of an import by the watch.
pub(crate) struct Watched {
    pub(crate) store: SharedStore,
    pub(crate) host: Host,
    pub(crate) anonymise: bool,
    pub(crate) projects: Projects,
    pub(crate) stopping: Arc<AtomicBool>,
    /// Function that returns where transcripts lie: see [`places`].
    pub(crate) places: Box<dyn Fn() -> Vec<Place> + Send>,
    /// Time without a change after which files are read.
    pub(crate) quiet: Duration,
}

/// The watch over the transcripts; it ends when this is dropped.
pub(crate) struct Watch {
    watcher: Option<RecommendedWatcher>,
    sender: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The ends of the channel go with them, which ends the thread.
        (self.watcher, self.sender) = (None, None);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the watch over transcripts ended badly");
        }
    }
}

impl Watch {
    /// Begins to watch.
    pub(crate) fn start(watched: Watched) -> Result<Self> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let watcher = watcher(&sender, (watched.places)());
        let thread = thread::Builder::new().name("usage-watch".to_owned());
        let thread = thread.spawn(move || run(&watched, &receiver))?;
        Ok(Self { watcher, sender: Some(sender), thread: Some(thread) })
    }
}

/// Returns a watcher that wakes the thread.
fn watcher(sender: &SyncSender<()>, places: Vec<Place>) -> Option<RecommendedWatcher> {
    let sender = sender.clone();
    let woken = move |event: notify::Result<Event>| {
        // To read a file changes nothing, and would wake us for our own reading.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // One that waits already is enough.
            let _ = sender.try_send(());
        }
    };
    let mut watcher = notify::recommended_watcher(woken)
        .inspect_err(|error| tracing::warn!(%error, "transcripts are not watched"))
        .ok()?;
    for place in existing(places) {
        let path = folder(&place);
        if let Err(error) = watcher.watch(path, RecursiveMode::Recursive) {
            let tool = place.tool.name();
            tracing::warn!(tool, %error, "the transcripts of a tool are not watched");
        }
    }
    Some(watcher)
}

/// Returns the folder of a place that is watched.
fn folder(place: &Place) -> &Path {
    if place.path.is_dir() { &place.path } else { place.path.parent().unwrap_or(&place.path) }
}

/// Returns the places where the tools of this user keep their transcripts.
pub(crate) fn places() -> Vec<Place> {
    let home = env::home_dir();
    let tools = Tool::ALL.iter();
    tools.flat_map(|tool| tool.places(home.as_deref(), &|name| env::var_os(name))).collect()
}

fn run(watched: &Watched, woken: &Receiver<()>) {
    let mut databases_read: Option<Instant> = None;
    loop {
        let with_databases = databases_read.is_none_or(|read| read.elapsed() >= DATABASES_EVERY);
        if with_databases {
            databases_read = Some(Instant::now());
        }
        if let Err(error) = import(watched, with_databases) {
            tracing::warn!(%error, "transcripts cannot be imported");
        }
        let patience = if with_databases { UNASKED } else { DATABASES_EVERY };
        match woken.recv_timeout(patience) {
            Ok(()) if is_quiet(woken, watched.quiet) => {}
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Waits until nothing has changed for a moment; `false` when the watch ends.
fn is_quiet(woken: &Receiver<()>, quiet: Duration) -> bool {
    let until = Instant::now() + PATIENCE;
    loop {
        match woken.recv_timeout(quiet) {
            Ok(()) if Instant::now() < until => {}
            Ok(()) | Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}

fn import(watched: &Watched, with_databases: bool) -> Result<()> {
    let Watched { store, host, anonymise, projects, stopping, .. } = watched;
    let files = files((watched.places)(), with_databases);
    if files.is_empty() {
        return Ok(());
    }
    let names = Names::new(host.clone(), *anonymise, projects.clone());
    let arrival = Arrival::now(host.now().as_millisecond(), || None);
    let imported = Local::of(store.clone(), names, stopping.clone(), arrival).run(&files)?;
    if imported > 0 {
        tracing::debug!(imported, "requests of transcripts were imported");
    }
    Ok(())
}

/// Returns the files of all tools that can be read.
fn files(places: Vec<Place>, with_databases: bool) -> Vec<LocalFile> {
    let mut files = Vec::new();
    for place in existing(places) {
        if matches!(place.holds, Holds::Databases(_)) && !with_databases {
            continue;
        }
        let Ok(found) = place.find() else {
            tracing::warn!(tool = place.tool.name(), "a tool has too many files to be watched");
            continue;
        };
        files.extend(found.into_iter().filter_map(|found| {
            Some(LocalFile {
                mark: found.state.ok()?,
                tool: found.tool,
                is_database: found.is_database,
                path: found.path,
            })
        }));
    }
    files
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf, sync::Mutex};

    use module_sdk::testing::FakeHost;

    use super::*;
    use crate::store::{Options, Store};

    fn answer(id: &str) -> String {
        let usage = serde_json::json!({"input_tokens": 7, "output_tokens": 3});
        let line = serde_json::json!({
            "type": "assistant", "timestamp": "2026-11-20T23:48:30Z", "sessionId": "s",
            "requestId": id, "message": {"model": "claude-sonnet-4-5", "usage": usage},
        });
        line.to_string()
    }

    /// Waits until so many requests are stored.
    fn wait(store: &SharedStore, expected: i64) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let reader = store.lock().expect("no panic").reader().expect("it opens");
            let sql = "SELECT count(*) FROM request";
            let count: i64 =
                reader.read(|it| it.query_row(sql, [], |row| row.get(0))).expect("it answers");
            if count == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{count} of {expected} requests");
            thread::yield_now();
        }
    }

    #[test]
    fn transcripts_are_imported_as_they_grow() {
        let directory = tempfile::tempdir().expect("a directory");
        let transcripts: PathBuf = directory.path().join("projects");
        fs::create_dir(&transcripts).expect("it is made");
        let file = transcripts.join("s.jsonl");
        fs::write(&file, answer("req_1") + "\n").expect("it is written");
        let store = Store::open(&directory.path().join("u.db"), Options::default());
        let store: SharedStore = Arc::new(Mutex::new(store.expect("it opens")));
        let host = Arc::new(FakeHost::new(directory.path())).host().expect("a host");
        let watch = Watch::start(Watched {
            store: store.clone(),
            host,
            anonymise: true,
            projects: Projects::default(),
            stopping: Arc::default(),
            places: Box::new(move || {
                let holds = Holds::Files(&["*.jsonl"]);
                vec![Place { tool: Tool::ClaudeCode, path: transcripts.clone(), holds }]
            }),
            quiet: Duration::from_millis(1),
        });
        let watch = watch.expect("it starts");
        wait(&store, 1);
        let grown = fs::read_to_string(&file).expect("it is read") + &answer("req_2") + "\n";
        fs::write(&file, grown).expect("it is written");
        wait(&store, 2);
        drop(watch);
    }
}

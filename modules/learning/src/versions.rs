//! Versions as files: adapters beside the database, and what is seen of a version now.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use module_sdk::{Error, ErrorKind, Host, Result};
use sha2::{Digest as _, Sha256};

use crate::{
    advice,
    card::{self, Curve},
    dataset::{
        files::{EVAL, Folder},
        summary::Summary,
    },
    gate,
    labels::{LabelSet, Sets},
    reckoning,
    registry::{
        Action, Actor, Command, Digest, Done, Ledger, Lineage, Observed, Refusal, Registry,
        Request, State, Version,
    },
    store::Store,
};

/// Adapter in llama.cpp's format, which is what is served and what an approval is about.
pub(crate) const ADAPTER: &str = "adapter.gguf";
/// All files of an adapter.
const FILES: [&str; 3] = [ADAPTER, "adapter_config.json", "adapter_model.safetensors"];
/// Files of a base that is a folder.
const OF_BASE: [&str; 3] = ["json", "safetensors", "jinja"];

/// The registry with the files that it is about.
#[derive(Debug, Clone)]
pub(crate) struct Versions {
    pub(crate) store: Store,
    pub(crate) registry: Registry,
    pub(crate) host: Host,
    datasets: Folder,
    path: PathBuf,
    /// The operator's questions, which the gates are measured with.
    prompts: Option<PathBuf>,
    known: Arc<Mutex<HashMap<PathBuf, Known>>>,
    switching: Arc<Mutex<()>>,
}

/// Digest of a file, with the marks by which a change of it shows.
#[derive(Debug, Clone)]
struct Known {
    length: u64,
    modified: SystemTime,
    digest: Digest,
}

impl Versions {
    pub(crate) fn new(store: Store, registry: Registry, host: Host, datasets: Folder) -> Self {
        let path = host.data_dir().join("versions");
        Self {
            store,
            registry,
            host,
            datasets,
            path,
            prompts: None,
            known: Arc::default(),
            switching: Arc::default(),
        }
    }

    /// Sets the file of the operator's questions.
    pub(crate) fn with_prompts(self, prompts: Option<PathBuf>) -> Self {
        Self { prompts, ..self }
    }

    /// Returns the right to change which version serves, held by one command at a time: what the
    /// log says and where the server leads change together.
    pub(crate) fn switching(&self) -> MutexGuard<'_, ()> {
        self.switching.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the sets of labels.
    pub(crate) fn labels(&self) -> Sets {
        Sets::within(&self.store, self.host.data_dir())
    }

    /// Returns the folder of a version.
    pub(crate) fn folder(&self, id: &str) -> PathBuf {
        self.path.join(id)
    }

    /// Returns all versions as the log tells them.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub(crate) fn ledger(&self) -> Result<Ledger> {
        let registry = self.registry.clone();
        Ok(self.store.read(|connection| registry.audit(connection))?.ledger)
    }

    /// Does a command to the registry, keeps its head, and tells others.
    ///
    /// # Errors
    ///
    /// The refusal, or a failure of the database.
    pub(crate) fn perform(&self, request: &Request) -> Result<Done> {
        let at = self.host.now().as_millisecond();
        let done =
            self.store.write(|transaction| self.registry.perform(transaction, request, at))?;
        let done = done.map_err(|refusal| self.refused(&request.version, &refusal))?;
        self.performed(&done);
        Ok(done)
    }

    /// Returns a refusal of a command about a version as its error, with what helps.
    pub(crate) fn refused(&self, id: &str, refusal: &Refusal) -> Error {
        let error = refused(refusal);
        let Ok(ledger) = self.ledger() else { return error };
        let needed = self.registry.policy().approvals;
        let version = ledger.versions.get(id);
        let remedy = version.and_then(|it| advice::remedy(refusal, &ledger, it, needed));
        match remedy {
            Some(remedy) => error.hint(remedy),
            None => error,
        }
    }

    /// Returns what a person does next with a version.
    pub(crate) fn next(&self, ledger: &Ledger, version: &Version) -> String {
        advice::next(ledger, version, self.registry.policy().approvals)
    }

    /// Goes on after something was done by hand: see [`Registry::repair`].
    ///
    /// # Errors
    ///
    /// The refusal, or a failure of the database.
    pub(crate) fn repair(&self, by: &str, reason: &str) -> Result<()> {
        let (at, actor) = (self.host.now().as_millisecond(), Actor::Person(by.to_owned()));
        let done = self
            .store
            .write(|transaction| self.registry.repair(transaction, actor, reason.to_owned(), at))?;
        self.performed(&done.map_err(|refusal| refused(&refusal))?);
        Ok(())
    }

    /// Keeps the head of what was done, and tells others.
    pub(crate) fn performed(&self, done: &Done) {
        if let Err(error) = self.registry.keep(done) {
            tracing::warn!(%error, "the head of the registry's log cannot be kept");
        }
        for entry in &done.entries {
            crate::tell::version_changed(&self.host, entry);
            if let Some(version) = done.ledger.versions.get(&entry.version) {
                self.write_card(&done.ledger, version, entry.action == Action::Finish.as_str());
            }
        }
    }

    /// Writes the card of a version, once it is trained with the course of that. A failure is only
    /// logged: what happened has happened, and the card can be asked for.
    fn write_card(&self, ledger: &Ledger, version: &Version, is_trained: bool) {
        let folder = self.folder(&version.id);
        let run = self.host.data_dir().join("runs").join(&version.lineage.run);
        let curve = if is_trained { Curve::of_run(&run).write(&folder) } else { Ok(()) };
        let written = curve.map_err(Error::from).and_then(|()| card::write(self, ledger, version));
        if let Err(error) = written {
            tracing::warn!(version = version.id, %error, "the card cannot be written");
        }
    }

    /// Puts the files of an adapter beside the database and returns the digest of the one that is
    /// served.
    ///
    /// # Errors
    ///
    /// When there is no such file, or it cannot be copied.
    pub(crate) fn adopt(&self, id: &str, output: &Path) -> io::Result<Digest> {
        let folder = self.folder(id);
        fs::create_dir_all(&folder)?;
        for name in FILES {
            let from = output.join(name);
            if name == ADAPTER || from.exists() {
                fs::copy(&from, folder.join(name))?;
            }
        }
        let (_, digest) = hash(&folder.join(ADAPTER), &AtomicBool::new(false))?;
        Ok(digest)
    }

    /// Returns the digests of what is there now; `None` where the adapter or the base is gone.
    ///
    /// # Errors
    ///
    /// When the database or a file cannot be read.
    pub(crate) fn observe(&self, version: &Version) -> Result<Option<Observed>> {
        if version.lineage.is_policy() {
            return crate::commands::policy::observe(self, version);
        }
        let adapter = self.folder(&version.id).join(ADAPTER);
        let (Some(artifact), Some(base)) =
            (self.digest(&adapter)?, self.digest(Path::new(&version.lineage.base))?)
        else {
            return Ok(None);
        };
        let lineage = &version.lineage;
        // Text that is gone by its age alone, so that nothing can be compared with it any more.
        let is_erased = self.store.dataset(&lineage.dataset)?.erased_at.is_some();
        if is_erased && !self.store.is_taken_back(&lineage.dataset)? {
            let bench = version.bench.clone().unwrap_or_else(|| Digest::of(b""));
            let dataset = lineage.dataset_digest.clone();
            return Ok(Some(Observed { artifact, base, dataset, bench }));
        }
        Ok(Some(Observed {
            artifact,
            base,
            dataset: self.dataset_digest(&lineage.dataset)?,
            bench: self.bench_digest(&lineage.dataset)?,
        }))
    }

    /// Returns the digest of a base: of a file, or of the files of a folder that make a model;
    /// `None` where there is none.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub(crate) fn digest(&self, path: &Path) -> Result<Option<Digest>> {
        self.digest_unless(path, &AtomicBool::new(false))
    }

    /// Returns the digest of a base as [`digest`](Self::digest) does, unless somebody leaves
    /// meanwhile: it may have many gigabytes.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or somebody leaves.
    pub(crate) fn digest_unless(&self, path: &Path, left: &AtomicBool) -> Result<Option<Digest>> {
        let is_folder = path.is_dir();
        let digest = if is_folder { self.of_folder(path, left) } else { self.of_file(path, left) };
        match digest {
            Ok(digest) => Ok(Some(digest)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::new(format!("cannot read {}: {error}", path.display()))),
        }
    }

    fn of_folder(&self, folder: &Path, left: &AtomicBool) -> io::Result<Digest> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let extension = path.extension().and_then(|it| it.to_str()).unwrap_or_default();
            if OF_BASE.contains(&extension) && path.is_file() {
                files.push(path);
            }
        }
        files.sort();
        if files.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut all = Vec::new();
        for file in files {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            all.extend_from_slice(format!("{name} {}\n", self.of_file(&file, left)?).as_bytes());
        }
        Ok(Digest::of(&all))
    }

    /// Returns the digest of a file. One that has not changed is not read again, so that a rollback
    /// does not wait for gigabytes.
    fn of_file(&self, path: &Path, left: &AtomicBool) -> io::Result<Digest> {
        let metadata = fs::metadata(path)?;
        let (length, modified) = (metadata.len(), metadata.modified()?);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        if let Some(known) = known.filter(|it| it.length == length && it.modified == modified) {
            return Ok(known.digest);
        }
        let (length, digest) = hash(path, left)?;
        let known = Known { length, modified, digest: digest.clone() };
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), known);
        Ok(digest)
    }

    /// Returns the digest of a dataset: its id, or another one where it is not what its id says.
    pub(crate) fn dataset_digest(&self, id: &str) -> Result<Digest> {
        let problems = self.problems(id)?;
        match Digest::try_from(id.to_owned()) {
            Ok(digest) if problems.is_empty() => Ok(digest),
            _ => Ok(Digest::of(problems.join("\n").as_bytes())),
        }
    }

    /// Returns what stands against learning from a dataset.
    ///
    /// # Errors
    ///
    /// When there is no such dataset, or it cannot be read.
    pub(crate) fn problems(&self, id: &str) -> Result<Vec<String>> {
        let dataset = self.store.dataset(id)?;
        if let Some(reason) = dataset.stale {
            return Ok(vec![reason]);
        }
        let summary: Summary = serde_json::from_value(dataset.summary)?;
        self.datasets.problems(id, &summary.files)
    }

    /// Marks the versions that were learnt from what was taken back: they are not deployed again.
    /// Returns those that were not marked before.
    ///
    /// # Errors
    ///
    /// When the database cannot be read or written.
    pub(crate) fn taint(&self) -> Result<Vec<Version>> {
        let mut tainted = Vec::new();
        for version in self.ledger()?.versions.into_values() {
            if !version.tainted && self.is_taken_back(&version.lineage)? {
                self.perform(&Request {
                    version: version.id.clone(),
                    actor: Actor::Lodestar,
                    reason: "text that it was learnt from was taken back".to_owned(),
                    command: Command::Taint,
                })?;
                tainted.push(version);
            }
        }
        Ok(tainted)
    }

    fn is_taken_back(&self, lineage: &Lineage) -> Result<bool> {
        if lineage.is_policy() {
            let sets = self.labels().list()?;
            let is_stale = |set: &LabelSet| set.id == lineage.dataset && set.stale.is_some();
            return Ok(sets.iter().any(is_stale));
        }
        self.store.is_taken_back(&lineage.dataset)
    }

    /// Checks that a dataset may be trained on now.
    ///
    /// # Errors
    ///
    /// The first reason against it.
    pub(crate) fn check_dataset(&self, id: &str) -> Result<()> {
        let (forgotten, ended) = self.store.withdrawn(id, self.host.now().as_millisecond())?;
        let withdrawn = [(forgotten, "some of it was forgotten"), (ended, "its consent has ended")];
        let withdrawn = withdrawn.into_iter().filter(|(number, _)| *number > 0);
        let reasons = withdrawn.map(|(_, reason)| reason.to_owned()).chain(self.problems(id)?);
        match reasons.into_iter().next() {
            None => Ok(()),
            Some(reason) => {
                let short = id.get(..12).unwrap_or(id);
                let words = format!("dataset {short} must not be trained on: {reason}");
                Err(Error::of(ErrorKind::Refused, words).hint("build another one"))
            }
        }
    }

    /// Gives up measurings that a stop of the daemon cut off.
    ///
    /// # Errors
    ///
    /// When the database cannot be read or written.
    pub(crate) fn abandon_measurings(&self) -> Result<()> {
        for version in self.ledger()?.versions.into_values() {
            if version.state == State::Evaluating {
                reckoning::tidy(self, &version);
                self.perform(&Request {
                    version: version.id,
                    actor: Actor::Lodestar,
                    reason: "the daemon stopped while it was measured".to_owned(),
                    command: Command::Act(Action::Abandon),
                })?;
            }
        }
        Ok(())
    }

    /// Returns the digest of what the gates are measured with: the held-out examples, the questions
    /// that come with Lodestar, and the operator's own.
    pub(crate) fn bench_digest(&self, dataset: &str) -> Result<Digest> {
        let held_out = Digest::of(self.datasets.lines(dataset, EVAL)?.join("\n").as_bytes());
        // Questions that cannot be read are others than those that were asked.
        let others = gate::digest(self.prompts.as_deref());
        let others = others.unwrap_or_else(|_| Digest::of(b"unreadable"));
        Ok(Digest::of(format!("{held_out}\n{others}\n").as_bytes()))
    }

    /// Returns the digests of an adapter's files, and the number of those that are not what
    /// training wrote.
    ///
    /// # Errors
    ///
    /// When one cannot be read.
    pub(crate) fn adapter_files(
        &self,
        version: &Version,
    ) -> Result<(BTreeMap<String, String>, u64)> {
        let mut files = BTreeMap::new();
        for name in FILES {
            let digest = self.digest(&self.folder(&version.id).join(name))?;
            files.extend(digest.map(|digest| (name.to_owned(), String::from(digest))));
        }
        let expected = version.artifact.as_ref().map(Digest::as_str);
        let is_changed = files.get(ADAPTER).map(String::as_str) != expected;
        Ok((files, u64::from(is_changed)))
    }

    /// Returns the held-out examples of a dataset.
    pub(crate) fn held_out(&self, dataset: &str) -> Result<Vec<String>> {
        self.datasets.lines(dataset, EVAL)
    }

    /// Returns the folder of a dataset.
    pub(crate) fn dataset_folder(&self, dataset: &str) -> PathBuf {
        self.datasets.of(dataset)
    }
}

/// Returns a refusal of the registry as the error of a command.
pub(crate) fn refused(refusal: &Refusal) -> Error {
    let kind = match refusal {
        Refusal::Unknown { .. } => ErrorKind::NotFound,
        _ => ErrorKind::Refused,
    };
    let error = Error::of(kind, refusal.to_string());
    match refusal {
        Refusal::Unknown { .. } => error.hint("`lodestar learning versions` lists them"),
        _ => error,
    }
}

/// Returns the length and the digest of a file.
fn hash(path: &Path, left: &AtomicBool) -> io::Result<(u64, Digest)> {
    let (mut file, mut hasher) = (File::open(path)?, Sha256::new());
    let (mut length, mut piece) = (0, vec![0; 1 << 16]);
    loop {
        if left.load(Ordering::Relaxed) {
            return Err(io::Error::other("learning is stopping"));
        }
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok((length, Digest::from(<[u8; 32]>::from(hasher.finalize()))));
        }
        hasher.update(&piece[..read]);
        length += read as u64;
    }
}

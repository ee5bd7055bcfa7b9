//! The store behind the module: it may be out of reach for a while, and comes back by itself.

use std::path::{Path, PathBuf};

use module_sdk::{Error, Health, Result};

use crate::{
    config::Config,
    known::{Known, present},
    store::{Options, Store, StoreError, StoreErrorKind},
};

/// The store, or why there is none just now.
#[derive(Debug)]
pub(crate) struct Storage {
    config: Config,
    path: PathBuf,
    data_dir: PathBuf,
    store: Option<Store>,
    trouble: Option<(StoreErrorKind, String)>,
    /// That an older copy was taken up.
    behind: Option<String>,
}

impl Storage {
    /// Opens the store. Where that may work later (locked, full, gone), the module starts without
    /// it and the events wait in the ledger.
    ///
    /// # Errors
    ///
    /// When the configuration is not valid or the file is not ours to write: damaged, newer,
    /// another program's.
    pub(crate) fn open(config: Config, data_dir: &Path) -> Result<Self> {
        let path = config.database(data_dir);
        let data_dir = data_dir.to_owned();
        let mut storage = Self { config, path, data_dir, store: None, trouble: None, behind: None };
        let options = storage.config.options()?;
        match storage.opened(options) {
            Ok(store) => storage.store = Some(store),
            Err(error)
                if matches!(error.kind(), StoreErrorKind::Unavailable | StoreErrorKind::Gone) =>
            {
                drop(storage.note::<()>(Err(error)));
            }
            Err(error) => return Err(Error::new(error.to_string())),
        }
        Ok(storage)
    }

    /// The store; opens it where it was out of reach, and the file that is there now where another
    /// one was.
    ///
    /// # Errors
    ///
    /// When it still is.
    pub(crate) fn store(&mut self) -> Result<&mut Store> {
        if let Some(store) = self.store.take_if(|store| store.in_place().is_err()) {
            let gone = store.in_place();
            // While nothing is there the old file is kept open: it may be moved back.
            if present(&self.path).is_none() {
                self.store = Some(store);
                self.note(gone)?;
            } else {
                tracing::warn!(path = %self.path.display(), "the usage database was replaced");
                self.remember(&store);
                store.abandon();
            }
        }
        if self.store.is_none() {
            let options = self.config.options()?;
            let opened = self.opened(options);
            self.store = Some(self.note(opened)?);
        }
        self.store.as_mut().ok_or_else(|| Error::unavailable("the usage database is closed"))
    }

    /// Opens the file, if it is the one that was written last or none was.
    fn opened(&mut self, options: Options) -> Result<Store, StoreError> {
        let mut known = Known::read(&self.data_dir)?;
        known.before_opening(&self.path)?;
        let store = Store::open(&self.path, options)?;
        let behind = known.opened(&store)?;
        if behind > 0 {
            let message = format!(
                "the usage database {} is an older copy, without {} that it held before",
                self.path.display(),
                crate::commands::requests(behind)
            );
            tracing::warn!(message);
            self.behind = Some(message);
        }
        Ok(store)
    }

    /// Notes how far the database was written, for the next time that it is opened.
    fn remember(&self, store: &Store) {
        let noted = Known::read(&self.data_dir).and_then(|mut known| known.note(store));
        if let Err(error) = noted {
            tracing::warn!(%error, "cannot note how far the usage database was written");
        }
    }

    /// Remembers how the last piece of work went, for the health.
    ///
    /// # Errors
    ///
    /// Hands on that of the work.
    pub(crate) fn note<T>(&mut self, done: Result<T, StoreError>) -> Result<T> {
        match done {
            Ok(done) => {
                if self.trouble.take().is_some() {
                    tracing::info!("the usage database can be written again");
                }
                Ok(done)
            }
            Err(error) => {
                let message = error.to_string();
                if self.trouble.as_ref().is_none_or(|(_, known)| *known != message) {
                    tracing::warn!(error = message, "the usage database cannot be written");
                }
                self.trouble = Some((error.kind(), message));
                Err(error.into())
            }
        }
    }

    /// How the store is.
    pub(crate) fn health(&self) -> Health {
        match &self.trouble {
            None => self.behind.as_ref().map_or_else(|| Health::ok(""), Health::degraded),
            Some((StoreErrorKind::Unavailable, message)) => {
                Health::degraded(format!("{message}; new requests wait in the ledger until then"))
            }
            Some((StoreErrorKind::Gone, message)) => {
                Health::failed(format!("{message}; new requests wait in the ledger until then"))
            }
            Some((_, message)) => Health::failed(message.clone()),
        }
    }

    /// Closes the file, with everything in it.
    ///
    /// # Errors
    ///
    /// When the write-ahead log could not be folded in; nothing is lost.
    pub(crate) fn close(&mut self) -> Result<()> {
        match self.store.take() {
            Some(store) => {
                self.remember(&store);
                Ok(store.checkpoint()?)
            }
            None => Ok(()),
        }
    }
}

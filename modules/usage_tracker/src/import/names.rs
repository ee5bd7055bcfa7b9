//! Names of persons, sessions, files and folders, as they are stored.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use foldhash::HashMap;
use module_sdk::{Host, events::LlmRequestCompleted};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{
    clock::Arrival,
    sanitize::{Report, flag},
    store::FileKey,
    transcripts::Found,
};

/// Largest number of pseudonyms that are remembered: most requests are of the session before.
const REMEMBERED: usize = 4_096;

/// The projects that the operator has named, by their folders.
#[derive(Debug, Clone, Default)]
pub(crate) struct Projects(Vec<(PathBuf, String)>);

impl Projects {
    /// Creates the projects from the configuration.
    pub(crate) fn of(folders: &BTreeMap<String, Vec<PathBuf>>) -> Self {
        let mut projects: Vec<(PathBuf, String)> = folders
            .iter()
            .flat_map(|(name, paths)| paths.iter().map(|path| (path.clone(), name.clone())))
            .collect();
        // A folder within another one is the nearer one.
        projects.sort_by_key(|(path, _)| std::cmp::Reverse(path.components().count()));
        Self(projects)
    }

    /// Returns the project of a folder.
    pub(crate) fn name(&self, folder: &str) -> Option<&str> {
        let folder = Path::new(folder);
        self.0.iter().find(|(path, _)| folder.starts_with(path)).map(|(_, name)| name.as_str())
    }
}

/// The names of an installation.
#[derive(Debug)]
pub(crate) struct Names {
    host: Host,
    anonymise: bool,
    projects: Projects,
    known: Mutex<HashMap<(&'static str, String), String>>,
}

impl Names {
    pub(crate) fn new(host: Host, anonymise: bool, projects: Projects) -> Self {
        Self { host, anonymise, projects, known: Mutex::default() }
    }

    /// Returns the key of a file.
    pub(crate) fn file_key(&self, name: &str) -> FileKey {
        let digest: [u8; 32] = Sha256::digest(self.host.pseudonym("file", name)).into();
        let mut key = FileKey::default();
        key.copy_from_slice(&digest[..16]);
        key
    }

    /// Returns a session as it is stored.
    pub(super) fn session(&self, session: &str) -> String {
        if self.anonymise { self.pseudonym("session", session) } else { session.to_owned() }
    }

    /// Returns the report of a request that was found in a file.
    pub(super) fn report(&self, found: Found, file: &str, arrival: Arrival) -> Report {
        let Found { mut request, folder, is_side_chain, line } = found;
        request.project = folder.map(|folder| self.project(&folder));
        self.hide(&mut request);
        let file = if self.anonymise { self.pseudonym("file", file) } else { file.to_owned() };
        request.source_ref = Some(format!("{file}:{line}"));
        let mut report = Report::received(Uuid::now_v7(), request, arrival);
        if is_side_chain {
            report.flags |= flag::SIDE_CHAIN;
        }
        report
    }

    fn hide(&self, request: &mut LlmRequestCompleted) {
        if !self.anonymise {
            return;
        }
        for (kind, value) in [("session", &mut request.session_id), ("turn", &mut request.turn_id)]
        {
            if let Some(value) = value {
                *value = self.pseudonym(kind, value);
            }
        }
    }

    fn project(&self, folder: &str) -> String {
        match self.projects.name(folder) {
            Some(name) => name.to_owned(),
            None if self.anonymise => self.pseudonym("project", folder),
            None => folder.to_owned(),
        }
    }

    fn pseudonym(&self, kind: &'static str, value: &str) -> String {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = known.get(&(kind, value.to_owned())) {
            return name.clone();
        }
        let name = self.host.pseudonym(kind, value);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert((kind, value.to_owned()), name.clone());
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_folder_names_the_project() {
        let projects = Projects::of(&BTreeMap::from([
            ("work".to_owned(), vec![PathBuf::from("/home/eve/work")]),
            ("site".to_owned(), vec![PathBuf::from("/home/eve/work/site"), "/srv/site".into()]),
        ]));
        let check = |folder: &str, expected: Option<&str>| {
            assert_eq!(projects.name(folder), expected, "{folder}");
        };
        check("/home/eve/work/site/src", Some("site"));
        check("/srv/site", Some("site"));
        check("/home/eve/work/site2", Some("work"));
        check("/home/eve", None);
        check("", None);
    }
}

//! Files that a command reads: found and opened here, with the rights of who types the command, and
//! sent to the daemon.

mod body;
mod opened;
mod question;

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::mpsc::sync_channel,
    thread,
};

use module_sdk::{FilesSum, FilesWriter};
use module_transcripts::{FindError, Found, Place, Tool, existing, find};
use serde_json::{Map, Value};

use crate::{
    asked_files::{AskedFiles, Origin},
    error::{CliError, Result},
};
pub(crate) use body::FilesBody;
use body::Parts;
use opened::Opened;
pub(crate) use question::Answers;
use question::Known;

/// The path that stands for standard input.
const STDIN: &str = "-";

/// Number of files that wait open until they are sent.
const OPEN_AHEAD: usize = 16;

/// Number of places that are named where none exists.
const PLACES_NAMED: usize = 4;

/// Files that were found and are not sent yet.
#[derive(Debug)]
pub(crate) struct SentFiles {
    /// `None` for standard input.
    files: Option<Vec<SentFile>>,
    /// Number of files that are not sent.
    unchanged: u64,
}

/// A file that will be sent.
#[derive(Debug)]
struct SentFile {
    found: Found,
    /// Its path from the root on: the same file has one name, wherever the command is typed.
    name: String,
    tool: Option<Tool>,
    /// `true` for a database that is sent as rows.
    rows: bool,
    /// Part that the command has read of it; `None` where it was not asked.
    known: Option<Known>,
}

/// Home directory and environment of who types.
pub(crate) struct Person<'a> {
    pub(crate) home: Option<PathBuf>,
    pub(crate) variable: &'a dyn Fn(&str) -> Option<OsString>,
}

impl Person<'_> {
    /// Returns the person who started this process.
    pub(crate) fn here() -> Self {
        let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
        Self { home, variable: &|name| std::env::var_os(name) }
    }
}

impl SentFiles {
    /// Finds the files that are asked for: at a path, or in the places of tools.
    pub(crate) fn find(asked: &AskedFiles, person: &Person<'_>) -> Result<Self> {
        let found = match &asked.from {
            Origin::Path(path, _) if path == Path::new(STDIN) => {
                return Ok(Self { files: None, unchanged: 0 });
            }
            Origin::Path(path, tool) => at_path(path, *tool, &asked.endings)?,
            Origin::Tools(tools) => in_places(tools, person)?,
        };
        let lists =
            |ending: &str| asked.endings.is_empty() || asked.endings.iter().any(|it| it == ending);
        // Not every command can read what is packed, or rows.
        let (packed, databases) = (lists("zst"), lists("db"));
        let is_named = matches!(asked.from, Origin::Path(..));
        let takes = |found: &Found| {
            let is_packed = found.path.extension().is_some_and(|ending| ending == "zst");
            is_named || ((packed || !is_packed) && (databases || !found.is_database))
        };
        let file = |found: Found| SentFile {
            name: std::path::absolute(&found.path)
                .unwrap_or_else(|_| found.path.clone())
                .display()
                .to_string(),
            tool: found.tool,
            rows: found.is_database && asked.rows,
            known: None,
            found,
        };
        let files = found.into_iter().filter(takes).map(file).collect();
        Ok(Self { files: Some(files), unchanged: 0 })
    }

    /// Begins to read the files, and returns the body that sends them with the arguments of the
    /// command.
    pub(crate) fn send(self, args: &Map<String, Value>) -> Result<FilesBody> {
        let args = serde_json::to_vec(args)
            .map_err(|error| CliError::failed(format!("cannot write the request: {error}")))?;
        let (parts, body) = Parts::new();
        // An error means that nobody reads any more: the answer, which has come, says why.
        thread::spawn(move || self.write(parts, &args));
        Ok(body)
    }

    fn write(self, parts: Parts, args: &[u8]) -> io::Result<()> {
        let sum = self.sum();
        let mut writer = FilesWriter::begin(parts, args, sum)?;
        let Some(files) = self.files else {
            let stdin = Opened::stdin();
            writer.file(&stdin.head, stdin.content)?;
            return writer.finish().map(drop);
        };
        let (sender, opened) = sync_channel(OPEN_AHEAD);
        thread::spawn(move || {
            for file in files {
                if sender.send(Opened::of(file)).is_err() {
                    break;
                }
            }
        });
        for file in opened {
            writer.file(&file.head, file.content)?;
        }
        writer.finish().map(drop)
    }

    fn sum(&self) -> FilesSum {
        let Some(files) = &self.files else {
            return FilesSum { files: 1, bytes: 0, unchanged: 0 };
        };
        FilesSum {
            files: files.len() as u64,
            bytes: files.iter().map(SentFile::bytes).sum(),
            unchanged: self.unchanged,
        }
    }
}

impl SentFile {
    /// Returns how many bytes will probably be sent; how many rows a database has is not known.
    fn bytes(&self) -> u64 {
        let bytes = match &self.found.state {
            Ok(mark) if !self.rows => mark.bytes,
            _ => 0,
        };
        let from = self.known.as_ref().map_or(0, |known| known.from);
        if from <= bytes { bytes - from } else { bytes }
    }
}

/// Finds the files at a path that was typed.
fn at_path(path: &Path, tool: Option<Tool>, endings: &[String]) -> Result<Vec<Found>> {
    let mut found = find(path, endings).map_err(told)?;
    for file in &mut found {
        file.tool = tool;
    }
    Ok(found)
}

/// Finds the files in the places of tools.
fn in_places(tools: &[Tool], person: &Person<'_>) -> Result<Vec<Found>> {
    let home = person.home.as_deref();
    let places: Vec<Place> =
        tools.iter().flat_map(|tool| tool.places(home, person.variable)).collect();
    let there = existing(places.clone());
    if there.is_empty() {
        return Err(nowhere(tools, &places));
    }
    let mut found = Vec::new();
    for place in there {
        found.extend(place.find().map_err(told)?);
    }
    Ok(found)
}

fn nowhere(tools: &[Tool], places: &[Place]) -> CliError {
    let whose = match tools {
        [tool] => tool.name(),
        _ => "any tool",
    };
    let error = CliError::failed(format!("there are no transcripts of {whose} here"));
    let mut named: Vec<String> =
        places.iter().take(PLACES_NAMED).map(|place| place.path.display().to_string()).collect();
    match places.len() {
        0 => error.help("it keeps them where its user says: name the path"),
        count => {
            if count > PLACES_NAMED {
                named.push(format!("{} more places", count - PLACES_NAMED));
            }
            error.help(format!("looked in {}; name the path where they lie", named.join(", ")))
        }
    }
}

fn told(error: FindError) -> CliError {
    match error {
        FindError::Unreadable { path, error } => {
            let path = path.display();
            match error.kind() {
                io::ErrorKind::NotFound => CliError::failed(format!("there is no file {path}")),
                io::ErrorKind::PermissionDenied => {
                    CliError::failed(format!("you may not read {path}"))
                        .help("see its mode with `ls -l`")
                }
                _ => CliError::failed(format!("cannot read {path}: {error}")),
            }
        }
        error @ FindError::TooMany { .. } => {
            CliError::failed(error.to_string()).help("name a folder below it")
        }
    }
}

#[cfg(test)]
mod tests;

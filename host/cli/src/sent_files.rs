//! Files that a command reads: found and opened here, with the rights of who types the command, and
//! sent to the daemon.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    thread,
};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame};
use module_sdk::{FilesSum, FilesWriter};
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use crate::error::{CliError, Result};

/// The path that stands for standard input.
const STDIN: &str = "-";

/// Largest number of files of one command.
const MOST_FILES: usize = 100_000;

/// Size of the parts in which files are sent, in bytes.
const PART: usize = 64 << 10;

/// Number of parts that wait to be sent.
const PARTS_AHEAD: usize = 4;

/// Files that were found and are not sent yet.
#[derive(Debug)]
pub(crate) struct SentFiles {
    source: Source,
    sum: FilesSum,
}

#[derive(Debug)]
enum Source {
    Stdin,
    File(PathBuf, File),
    Folder(Vec<Found>),
}

/// A file in a folder, or what cannot be read there.
#[derive(Debug)]
struct Found {
    path: PathBuf,
    unreadable: Option<io::Error>,
}

impl SentFiles {
    /// Finds the files at a path: itself, or those of a folder and of the folders below it whose
    /// names have one of the endings, in order. Links within a folder are not followed.
    pub(crate) fn find(path: &Path, endings: &[String]) -> Result<Self> {
        if path == Path::new(STDIN) {
            return Ok(Self { source: Source::Stdin, sum: FilesSum { files: 1, bytes: 0 } });
        }
        let about = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
        if !about.is_dir() {
            let file = File::open(path).map_err(|error| unreadable(path, &error))?;
            let sum = FilesSum { files: 1, bytes: about.len() };
            return Ok(Self { source: Source::File(path.to_owned(), file), sum });
        }
        let mut folder = Folder { endings, files: Vec::new(), bytes: 0 };
        let top = fs::read_dir(path).map_err(|error| unreadable(path, &error))?;
        folder.search(path, top)?;
        let mut files = folder.files;
        files.sort_unstable_by(|left, right| left.path.cmp(&right.path));
        let sum = FilesSum { files: files.len() as u64, bytes: folder.bytes };
        Ok(Self { source: Source::Folder(files), sum })
    }

    /// Begins to read the files, and returns the body that sends them with the arguments of the
    /// command.
    pub(crate) fn send(self, args: &Map<String, Value>) -> Result<FilesBody> {
        let args = serde_json::to_vec(args)
            .map_err(|error| CliError::failed(format!("cannot write the request: {error}")))?;
        let (sender, receiver) = mpsc::channel(PARTS_AHEAD);
        let parts = Parts { sender, part: BytesMut::with_capacity(PART) };
        // An error means that nobody reads any more: the answer, which has come, says why.
        thread::spawn(move || self.write(parts, &args));
        Ok(FilesBody(receiver))
    }

    fn write(self, parts: Parts, args: &[u8]) -> io::Result<()> {
        let mut writer = FilesWriter::begin(parts, args, self.sum)?;
        match self.source {
            Source::Stdin => writer.file("standard input", None, Ok(io::stdin().lock()))?,
            Source::File(path, file) => {
                let about = file.metadata().ok();
                writer.file(&path.display().to_string(), about.as_ref(), Ok(file))?;
            }
            Source::Folder(files) => {
                for Found { path, unreadable } in files {
                    let file = unreadable.map_or_else(|| File::open(&path), Err);
                    let about = file.as_ref().ok().and_then(|file| file.metadata().ok());
                    writer.file(&path.display().to_string(), about.as_ref(), file)?;
                }
            }
        }
        writer.finish().map(drop)
    }
}

/// Search of a folder.
struct Folder<'a> {
    endings: &'a [String],
    files: Vec<Found>,
    bytes: u64,
}

impl Folder<'_> {
    fn search(&mut self, path: &Path, entries: fs::ReadDir) -> Result<()> {
        let mut folders = vec![(path.to_owned(), Ok(entries))];
        while let Some((path, entries)) = folders.pop() {
            let entries = match entries {
                Ok(entries) => entries,
                Err(error) => {
                    self.files.push(Found { path, unreadable: Some(error) });
                    continue;
                }
            };
            for entry in entries {
                let Ok(entry) = entry else { break };
                let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
                if kind.is_dir() {
                    let entries = fs::read_dir(&path);
                    folders.push((path, entries));
                } else if kind.is_file() && self.is_wanted(&path) {
                    self.bytes += entry.metadata().map_or(0, |about| about.len());
                    self.files.push(Found { path, unreadable: None });
                }
                if self.files.len() > MOST_FILES {
                    return Err(CliError::failed(format!(
                        "there are more than {MOST_FILES} files"
                    ))
                    .help("name a folder below it"));
                }
            }
        }
        Ok(())
    }

    fn is_wanted(&self, path: &Path) -> bool {
        let has = |ending: &String| path.extension().is_some_and(|it| it == ending.as_str());
        self.endings.is_empty() || self.endings.iter().any(has)
    }
}

fn unreadable(path: &Path, error: &io::Error) -> CliError {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => CliError::failed(format!("there is no file {path}")),
        io::ErrorKind::PermissionDenied => {
            CliError::failed(format!("you may not read {path}")).help("see its mode with `ls -l`")
        }
        _ => CliError::failed(format!("cannot read {path}: {error}")),
    }
}

/// Writer whose bytes are sent in parts.
struct Parts {
    sender: mpsc::Sender<Bytes>,
    part: BytesMut,
}

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.part.extend_from_slice(bytes);
        if self.part.len() >= PART {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let part = self.part.split().freeze();
        self.sender.blocking_send(part).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Body of a request that sends files.
#[derive(Debug)]
pub(crate) struct FilesBody(mpsc::Receiver<Bytes>);

impl Body for FilesBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|part| part.map(|part| Ok(Frame::data(part))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(sent: &SentFiles, root: &Path) -> Vec<String> {
        let Source::Folder(files) = &sent.source else { panic!("no folder") };
        let name =
            |it: &Found| it.path.strip_prefix(root).expect("it is below").display().to_string();
        files.iter().map(name).collect()
    }

    #[test]
    fn a_folder_is_searched_for_endings() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        fs::create_dir_all(root.join("b/c")).expect("a folder");
        for name in ["b/c/2.jsonl", "b/1.jsonl", "a.jsonl", "b/notes.txt"] {
            fs::write(root.join(name), "four").expect("a file");
        }
        // A circle, and a file that is not below.
        std::os::unix::fs::symlink(root, root.join("b/circle")).expect("a link");
        std::os::unix::fs::symlink("/etc/passwd", root.join("b/x.jsonl")).expect("a link");
        let sent = SentFiles::find(root, &["jsonl".to_owned()]).expect("it is read");
        assert_eq!(names(&sent, root), ["a.jsonl", "b/1.jsonl", "b/c/2.jsonl"]);
        assert_eq!(sent.sum, FilesSum { files: 3, bytes: 12 });
        let all = SentFiles::find(root, &[]).expect("it is read");
        assert_eq!(all.sum.files, 4);
    }

    #[test]
    fn a_path_is_checked_before_anything_is_sent() {
        let directory = tempfile::tempdir().expect("a directory");
        let absent = directory.path().join("absent");
        let error = SentFiles::find(&absent, &[]).expect_err("it is absent");
        let failure = error.failure().expect("a failure");
        assert_eq!(failure.message, format!("there is no file {}", absent.display()));
        let file = directory.path().join("a.txt");
        fs::write(&file, "four").expect("a file");
        // A file that is named is sent, whatever its name ends with.
        let sent = SentFiles::find(&file, &["jsonl".to_owned()]).expect("it is there");
        assert_eq!(sent.sum, FilesSum { files: 1, bytes: 4 });
        assert_eq!(SentFiles::find(Path::new("-"), &[]).expect("it is there").sum.files, 1);
    }

    #[tokio::test]
    async fn files_are_sent_with_the_arguments_before_them() {
        let directory = tempfile::tempdir().expect("a directory");
        let large = "x".repeat(3 * PART);
        fs::write(directory.path().join("a"), &large).expect("a file");
        fs::write(directory.path().join("b"), "b").expect("a file");
        let sent = SentFiles::find(directory.path(), &[]).expect("it is read");
        let FilesBody(mut parts) = sent.send(&Map::new()).expect("it is sent");
        let mut bytes = Vec::new();
        while let Some(part) = parts.recv().await {
            bytes.extend_from_slice(&part);
        }
        assert!(bytes.starts_with(b"A\0\0\0\x02{}S"), "{:?}", &bytes[..8]);
        assert!(bytes.ends_with(b"D\0\0\0\x01bE\0\0\0\0Z\0\0\0\0"));
        assert!(bytes.len() > large.len());
    }
}

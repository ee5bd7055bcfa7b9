//! `lodestar learning import`.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::UNIX_EPOCH,
};

use module_sdk::{Error, ErrorKind, Job, Output, Reply, Result, Table};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::{counted, name};
use crate::{
    Learning,
    import::{self, Format, Place, Skipped},
    store::{Kept, NewExample, Scope, Store},
};

/// Reads conversations from files: `import jsonl chats.jsonl --project shop`,
/// `import claude-code ~/.claude/projects --project shop`. Somebody has agreed for the project.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImportArgs {
    /// Form of the files.
    #[schemars(extend("x-positional" = 1))]
    format: Format,
    /// A file, or a folder with `.jsonl` files.
    #[schemars(extend("x-positional" = 2, "x-path" = true))]
    path: PathBuf,
    /// The project that they are of.
    project: String,
    /// Only show what would be kept.
    #[serde(default)]
    dry_run: bool,
}

/// Conversations that are written in one transaction.
const BATCH: usize = 100;
/// Bad lines that are listed; the others are counted.
const LISTED: usize = 1_000;
/// Bad lines that people see.
const SHOWN: usize = 10;

impl Learning {
    pub(crate) fn import(&mut self, args: ImportArgs) -> Result<Job> {
        let project = name("the project", &args.project)?.to_owned();
        if !args.path.is_absolute() {
            let error = Error::usage(format!("{} is no absolute path", args.path.display()));
            return Err(error.hint("write all of it, from / on"));
        }
        let now = self.now();
        let consent = self.store.consent(&project, Scope::Import, now)?.ok_or_else(|| {
            Error::of(
                ErrorKind::Refused,
                format!("nobody has agreed that text of {project} is kept"),
            )
            .hint(format!("`lodestar learning consent grant {project} --by NAME` does"))
        })?;
        let (store, stopping) = (self.store.clone(), self.stopping.clone());
        Ok(Job::new(move |output| {
            let import = Import {
                store,
                stopping,
                dry_run: args.dry_run,
                waiting: Vec::new(),
                seen: HashSet::new(),
                counts: Counts::default(),
                now,
            };
            import.run(&args, &project, &consent.id, output)
        }))
    }
}

struct Import {
    store: Store,
    stopping: Arc<AtomicBool>,
    dry_run: bool,
    waiting: Vec<NewExample>,
    /// Ids that a dry run has counted already.
    seen: HashSet<String>,
    counts: Counts,
    now: i64,
}

#[derive(Default)]
struct Counts {
    files: u64,
    conversations: u64,
    imported: u64,
    duplicates: u64,
    forgotten: u64,
    skipped: Vec<Skipped>,
    skipped_total: u64,
}

impl Import {
    fn run(
        mut self,
        args: &ImportArgs,
        project: &str,
        consent: &str,
        output: &mut Output,
    ) -> Result<Reply> {
        let files = import::files(&args.path).map_err(|error| {
            let path = args.path.display();
            Error::of(ErrorKind::NotFound, format!("cannot read {path}: {error}"))
                .hint("check the path, and that the daemon's user may read it")
        })?;
        let (is_one, total) = (files.len() == 1, files.len() as u64);
        for (done, file) in (0_u64..).zip(&files) {
            output.progress(done, Some(total), "files")?;
            let shown = file.display().to_string();
            let place = Place {
                project,
                consent,
                format: args.format,
                file: &shown,
                now: self.now,
                changed: changed(file).unwrap_or(self.now),
            };
            let read = import::read(args.format, file, &mut |line, found| {
                if self.stopping.load(Ordering::Relaxed) {
                    let message = "learning is stopping; import it again";
                    return Err(Error::of(ErrorKind::Cancelled, message));
                }
                match found {
                    Ok(found) => self.add(place.example(line, found)),
                    Err(error) => {
                        self.counts.skip(&shown, line, error.to_string());
                        Ok(())
                    }
                }
            });
            match read {
                Ok(()) => self.counts.files += 1,
                // Of many files one that cannot be read is told, and the others go on.
                Err(error) if !is_one && is_of_file(&error) => {
                    self.counts.skip(&shown, 0, error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        self.write()?;
        output.progress(total, Some(total), "files")?;
        self.counts.reply(self.dry_run)
    }

    fn add(&mut self, example: NewExample) -> Result<()> {
        self.counts.conversations += 1;
        self.waiting.push(example);
        if self.waiting.len() < BATCH { Ok(()) } else { self.write() }
    }

    fn write(&mut self) -> Result<()> {
        let examples = std::mem::take(&mut self.waiting);
        let kept = if self.dry_run {
            self.store.known(&examples)?
        } else {
            self.store.keep(&examples, self.now)?
        };
        for (example, kept) in examples.into_iter().zip(kept) {
            match kept {
                Kept::New if self.dry_run && !self.seen.insert(example.id) => {
                    self.counts.duplicates += 1;
                }
                Kept::New => self.counts.imported += 1,
                Kept::Known => self.counts.duplicates += 1,
                Kept::Forgotten => self.counts.forgotten += 1,
                Kept::NoConsent => {
                    let imported = counted(self.counts.imported, "conversation");
                    let message = format!(
                        "the consent was taken back meanwhile; {imported} had been kept by then"
                    );
                    return Err(Error::of(ErrorKind::Refused, message));
                }
            }
        }
        Ok(())
    }
}

/// Returns whether an error is of the file, and not of the database or the caller.
fn is_of_file(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Usage | ErrorKind::Failed)
        || error.to_string().starts_with("the daemon may not read ")
}

/// Returns when a file was changed last, in milliseconds since the Unix epoch.
fn changed(file: &Path) -> Option<i64> {
    let since = fs::metadata(file).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

impl Counts {
    fn skip(&mut self, file: &str, line: u64, reason: String) {
        self.skipped_total += 1;
        if self.skipped.len() < LISTED {
            self.skipped.push(Skipped { file: file.to_owned(), line, reason });
        }
    }

    fn reply(&self, dry_run: bool) -> Result<Reply> {
        let mut table = Table::default();
        let verb = if dry_run { "would be kept" } else { "kept" };
        table.notes.push(format!(
            "{} of {} {verb}, {} known already",
            module_sdk::human::count(self.imported),
            counted(self.conversations, "conversation"),
            module_sdk::human::count(self.duplicates),
        ));
        if self.forgotten > 0 {
            let forgotten = counted(self.forgotten, "conversation");
            table.notes.push(format!("{forgotten} stay forgotten"));
        }
        for Skipped { file, line, reason } in self.skipped.iter().take(SHOWN) {
            table.notes.push(match line {
                0 => format!("left out: {reason}"),
                line => format!("left out: {file}:{line} {reason}"),
            });
        }
        if self.skipped_total > SHOWN as u64 {
            let more = counted(self.skipped_total - SHOWN as u64, "more line");
            table.notes.push(format!("and {more}; --json lists up to {LISTED}"));
        }
        let data = json!({
            "files": self.files,
            "records": self.conversations,
            "imported": self.imported,
            "duplicates": self.duplicates,
            "forgotten": self.forgotten,
            "skipped": self.skipped,
            "skipped_total": self.skipped_total,
            "dry_run": dry_run,
        });
        Ok(Reply::json(&data)?.table(table))
    }
}

//! `lodestar learning import`.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use module_sdk::{Error, ErrorKind, Files, Job, Output, Reply, Result, Table};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::{counted, name, word};
use crate::{
    Learning,
    import::{self, Format, Place, Skipped},
    licence::own_without_model,
    store::{Kept, NewExample, Scope, Store},
};

/// Reads conversations from files: `import jsonl chats.jsonl --project shop`,
/// `import claude-code --project shop`. Somebody has agreed for the project.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImportArgs {
    /// Form of the files.
    #[schemars(extend("x-positional" = 1))]
    format: Format,
    /// A file, a folder with `.jsonl` files, or `-` for standard input; without it all that the
    /// tool keeps here.
    #[schemars(extend(
        "x-positional" = 2,
        "x-files" = {"endings": ["jsonl"], "tools": "format"}
    ))]
    #[expect(dead_code, reason = "the files come by themselves")]
    path: Option<String>,
    /// The project that they are of.
    project: String,
    /// The model that wrote the answers which name none.
    #[serde(default)]
    model: Option<String>,
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
    pub(crate) fn import(&mut self, args: ImportArgs, files: Files) -> Result<Job> {
        let project = name("the project", &args.project)?.to_owned();
        let model = args.model.as_deref().map(|it| name("--model", it)).transpose()?;
        let model = model.map(str::to_owned);
        let now = self.now();
        let consent = self.store.consent(&project, Scope::Import, now)?.ok_or_else(|| {
            Error::of(
                ErrorKind::Refused,
                format!("nobody has agreed that text of {project} is kept"),
            )
            .hint(format!("`lodestar learning consent grant {} --by NAME` does", word(&project)))
        })?;
        let (store, stopping) = (self.store.clone(), self.stopping.clone());
        Ok(Job::new(move |output| {
            let import = Import {
                store,
                stopping,
                model,
                dry_run: args.dry_run,
                waiting: Vec::new(),
                seen: HashSet::new(),
                counts: Counts::default(),
                now,
            };
            import.run((args.format, files), &project, &consent.id, output)
        }))
    }
}

struct Import {
    store: Store,
    stopping: Arc<AtomicBool>,
    /// The model of conversations that name none.
    model: Option<String>,
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
    /// Conversations that name no model, of those that were read.
    without_model: u64,
    /// Those of them that count as the project's own.
    own_without_model: u64,
    duplicates: u64,
    forgotten: u64,
    skipped: Vec<Skipped>,
    skipped_total: u64,
}

impl Import {
    fn run(
        mut self,
        (format, mut files): (Format, Files),
        project: &str,
        consent: &str,
        output: &mut Output,
    ) -> Result<Reply> {
        let total = files.sum()?.files;
        let mut done = 0;
        output.progress(done, Some(total), "files")?;
        while let Some(mut file) = files.next_file()? {
            let shown = file.name().to_owned();
            let changed = file.modified().map_or(self.now, |time| time.as_millisecond());
            let place = Place { project, consent, format, file: &shown, now: self.now, changed };
            let read = import::read(format, &mut file, &mut |line, found| {
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
                // A file that cannot be read is told, and the others go on. Where the sender is
                // gone there is no next one, which ends it.
                Err(error) if error.kind() == ErrorKind::Failed => {
                    self.counts.skip(&shown, 0, error.to_string());
                }
                Err(error) => return Err(error),
            }
            done += 1;
            output.progress(done, Some(total), "files")?;
        }
        self.write()?;
        if format.origin().is_own_without_model() {
            self.counts.own_without_model = self.counts.without_model;
        }
        let note = self.without_model(project)?;
        self.counts.reply(self.dry_run, note)
    }

    /// Returns what is told of conversations that name no model; none where there are none, or
    /// somebody answers for them.
    fn without_model(&self, project: &str) -> Result<Option<String>> {
        let number = self.counts.without_model;
        if number == 0 {
            return Ok(None);
        }
        if self.counts.own_without_model > 0 {
            return Ok(Some(format!(
                "{}; where a model wrote them, import them again with --model NAME",
                own_without_model(number, "conversation")
            )));
        }
        let attestations = self.store.attestations()?;
        let is_answered_for = attestations.iter().any(|it| it.project.as_deref() == Some(project));
        Ok((!is_answered_for).then(|| {
            format!(
                "{} without a `model`: their terms are unknown, and datasets leave them out until \
                 somebody answers for them: `lodestar learning consent attest --unattributed {} \
                 --by NAME --statement TEXT`",
                counted(number, "conversation"),
                word(project)
            )
        }))
    }

    fn add(&mut self, mut example: NewExample) -> Result<()> {
        example.model = example.model.or_else(|| self.model.clone());
        self.counts.conversations += 1;
        self.counts.without_model += u64::from(example.model.is_none());
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

impl Counts {
    fn skip(&mut self, file: &str, line: u64, reason: String) {
        self.skipped_total += 1;
        if self.skipped.len() < LISTED {
            self.skipped.push(Skipped { file: file.to_owned(), line, reason });
        }
    }

    /// Returns the answer, with a note about conversations that name no model. The exit code is 1
    /// where nothing could be read.
    fn reply(&self, dry_run: bool, without_model: Option<String>) -> Result<Reply> {
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
        table.notes.extend(without_model);
        let is_nothing = self.conversations == 0;
        if is_nothing && self.skipped_total == 0 {
            table.notes.push("there is no conversation in it".to_owned());
        }
        let data = json!({
            "files": self.files,
            "records": self.conversations,
            "imported": self.imported,
            "without_model": self.without_model,
            "own_without_model": self.own_without_model,
            "duplicates": self.duplicates,
            "forgotten": self.forgotten,
            "skipped": self.skipped,
            "skipped_total": self.skipped_total,
            "dry_run": dry_run,
        });
        Ok(Reply::json(&data)?.table(table).exit_code(u8::from(is_nothing)))
    }
}

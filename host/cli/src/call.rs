//! Runs a command of a module: sends its arguments, shows its stream, its progress, its answer.

use std::{future::Future, io, path::PathBuf, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use lodestar_api::CommandItem;
use lodestar_platform::signals;
use module_sdk::Reply;
use serde_json::{Map, Value};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::{
    asked_files::AskedFiles,
    client::{Client, Lines, escaped},
    error::{CliError, Result},
    exit_codes, human,
    out_file::OutFile,
    sent_files::{Answers, Person, SentFiles},
    terminal::Terminal,
};

/// A command with its arguments, ready to be sent.
#[derive(Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) module: String,
    /// The command as the user calls it: `usage summary`.
    pub(crate) words: String,
    pub(crate) command: String,
    pub(crate) args: Map<String, Value>,
    /// The files to send.
    pub(crate) files: Option<AskedFiles>,
    pub(crate) streams: bool,
    /// File for the stream; `None` for standard output.
    pub(crate) out: Option<PathBuf>,
    pub(crate) force: bool,
}

/// Runs a command and returns the exit code that its answer asks for.
pub(crate) async fn run(call: Call, client: &Client, terminal: &mut Terminal) -> Result<u8> {
    let mut out = call.out.as_deref().map(|path| OutFile::create(path, call.force)).transpose()?;
    let interrupted = until_signalled(out.is_some())?;
    let work = answer(&call, client, out.as_mut(), terminal);
    let (reply, before) = tokio::select! {
        answered = Box::pin(work) => {
            answered.map_err(|error| as_usage(as_too_slow(error, &call, client.timeout), &call))?
        }
        number = interrupted => {
            let file = call.out.as_deref().unwrap_or_else(|| "".as_ref()).display().to_string();
            return Err(CliError::signalled(number, format!("cancelled: {file} is not written")));
        }
    };
    if let Some(out) = out {
        out.finish()?;
    }
    match (&call.out, sentence(&reply)) {
        (Some(file), Some(sentence)) if !terminal.json => {
            terminal.line(&human::plain(&format!("{}: {sentence}", file.display())))?;
        }
        (None, _) if call.streams && (before.streamed || terminal.json || !is_table(&reply)) => {
            show_behind_stream(&reply, terminal)?;
        }
        // The end of long work is the last line, for whoever waited for it.
        (None, _) if before.progressed && terminal.json => terminal.json_line(&reply.data)?,
        _ => show(&reply, terminal)?,
    }
    Ok(reply.exit_code)
}

/// Signs of work that came before an answer.
#[derive(Debug, Default)]
struct Before {
    streamed: bool,
    progressed: bool,
}

/// Reads the stream up to the answer, and returns it with the signs of work before it.
async fn answer(
    call: &Call,
    client: &Client,
    mut out: Option<&mut OutFile>,
    terminal: &mut Terminal,
) -> Result<(Reply, Before)> {
    let path = path_of(call, &call.command);
    let mut lines: Lines = match &call.files {
        Some(asked) => {
            let mut files = SentFiles::find(asked, &Person::here())?;
            if let Some(known) = &asked.known {
                leave_out_known(&mut files, known, call, client).await?;
            }
            let body = files.send(&call.args)?;
            client.stream_body(&format!("{path}/files"), body).await?
        }
        None => client.stream(&path, &call.args).await?,
    };
    let bar = terminal.progress_bar(!call.streams || out.is_some());
    let mut before = Before::default();
    let reply = loop {
        match lines.next().await? {
            Some(CommandItem::Progress { done, total, unit }) => {
                before.progressed = true;
                advance(&bar, done, total, unit);
            }
            Some(CommandItem::Chunk(text)) => {
                before.streamed = true;
                match &mut out {
                    Some(out) => out.write(&text)?,
                    None => terminal.stream(&text)?,
                }
            }
            Some(CommandItem::Reply(reply)) => break reply,
            Some(CommandItem::Error(problem)) => return Err(CliError::from_problem(problem)),
            None => return Err(unfinished(call)),
        }
    };
    bar.finish_and_clear();
    Ok((reply, before))
}

fn path_of(call: &Call, command: &str) -> String {
    format!("/v1/modules/{}/commands/{}", escaped(&call.module), escaped(command))
}

/// Asks the module what it has read of the files, and leaves out those that did not change.
async fn leave_out_known(
    files: &mut SentFiles,
    command: &str,
    call: &Call,
    client: &Client,
) -> Result<()> {
    let path = path_of(call, command);
    let mut answers = Answers::default();
    for question in files.questions() {
        let mut lines = client.stream(&path, &question).await?;
        let reply = loop {
            match lines.next().await? {
                Some(CommandItem::Reply(reply)) => break reply,
                Some(CommandItem::Error(problem)) => return Err(CliError::from_problem(problem)),
                Some(CommandItem::Progress { .. } | CommandItem::Chunk(_)) => {}
                None => return Err(unfinished(call)),
            }
        };
        answers.add(question.indexes(), command, reply.data)?;
    }
    files.answered(answers);
    Ok(())
}

/// Returns the sentence of an answer that consists of one sentence and no table.
fn sentence(reply: &Reply) -> Option<&str> {
    let table = reply.table.as_ref()?;
    match table.notes.as_slice() {
        [note] if table.columns.is_empty() && table.title.is_empty() => Some(note),
        _ => None,
    }
}

/// Returns whether an answer is a table, and not a remark on what was streamed: a command may
/// stream in one of its forms, and only answer in another.
fn is_table(reply: &Reply) -> bool {
    reply.table.as_ref().is_some_and(|table| !table.columns.is_empty())
}

fn show(reply: &Reply, terminal: &mut Terminal) -> Result<()> {
    match (&reply.data, &reply.table, terminal.json) {
        (_, Some(table), false) => terminal.table(table),
        (Value::Null, None, false) => Ok(()),
        (Value::String(text), None, false) => terminal.line(&human::plain(text)),
        (data, _, _) => terminal.json_document(data),
    }
}

/// Shows the answer behind what was streamed to standard output: a program reads all there, the
/// answer as the last line; for a person it stands beside the stream, which may be piped on.
fn show_behind_stream(reply: &Reply, terminal: &mut Terminal) -> Result<()> {
    match (&reply.data, &reply.table, terminal.json) {
        (data, _, true) => {
            terminal.end_line()?;
            terminal.json_line(data)?;
        }
        (_, Some(table), false) => terminal.note_table(table),
        (Value::Null, None, false) => {}
        (data, None, false) => {
            terminal.note(&serde_json::to_string(data).map_err(io::Error::other)?);
        }
    }
    Ok(())
}

fn advance(bar: &ProgressBar, done: u64, total: Option<u64>, unit: String) {
    if let Some(total) = total
        && bar.length() != Some(total)
    {
        bar.set_length(total);
        bar.set_style(
            ProgressStyle::with_template("{bar:30} {human_pos} of {human_len} {msg}, {eta} left")
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
    }
    bar.set_message(human::plain(&unit).into_owned());
    bar.set_position(done);
}

/// Returns a future that ends with the number of the first signal that asks this process to end, if
/// a file has to be cleaned up then (`watch`); otherwise the signal does its default work.
fn until_signalled(watch: bool) -> Result<impl Future<Output = u8>> {
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    if watch {
        let sender = sender.clone();
        signals::for_each_signal(&[SIGINT, SIGTERM, SIGHUP], move |signal| {
            // An error means that the program is ending.
            let _ = sender.send(u8::try_from(signal).unwrap_or(0));
        })?;
    }
    Ok(async move {
        // Where nothing is watched it waits for ever.
        let _sender = sender;
        receiver.recv().await.unwrap_or(0)
    })
}

/// Turns a module's refusal of its arguments into a mistake of the command line.
fn as_usage(error: CliError, call: &Call) -> CliError {
    match error {
        CliError::Failure(mut failure) if failure.code == "invalid" => {
            failure.exit = exit_codes::USAGE;
            let help = || format!("see `lodestar {} --help`", call.words);
            failure.help.get_or_insert_with(help);
            CliError::Failure(failure)
        }
        other => other,
    }
}

/// Names the module in the error of a timeout: the daemon only passes on its answer.
fn as_too_slow(error: CliError, call: &Call, timeout: Duration) -> CliError {
    if error.failure().is_none_or(|failure| failure.exit != exit_codes::TIMED_OUT) {
        return error;
    }
    let Call { words, module, .. } = call;
    let seconds = timeout.as_secs_f64();
    CliError::timed_out(format!("{module} did not answer `lodestar {words}` within {seconds} s"))
        .help(format!(
            "see with `lodestar modules why {module}` how it is, or try again with a longer \
             --timeout"
        ))
}

fn unfinished(call: &Call) -> CliError {
    CliError::failed(format!("`{}` ended without an answer", call.words))
        .help(format!("see `lodestar modules logs {}`", call.module))
}

impl Terminal {
    /// Returns a bar on standard error where it is visible and does not mix with a stream.
    fn progress_bar(&self, stream_is_elsewhere: bool) -> ProgressBar {
        if !self.shows_progress || !(stream_is_elsewhere || self.stdout_is_elsewhere) {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(100));
        bar.set_style(
            ProgressStyle::with_template("{spinner} {human_pos} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner()),
        );
        bar
    }
}

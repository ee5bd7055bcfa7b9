//! A server for one base and its adapters, on an address of this machine: the part of
//! `llama-server`'s API that chats need, and adapters that are loaded while it runs.
//!
//! One answer is computed at a time, on a thread of its own ([`engine`]); others wait in a queue of
//! a few. The HTTP side is one thread, too.

mod adapters;
mod api;
mod chats;
mod connections;
mod engine;
mod refusal;
mod sampling;
mod text;

use std::{
    net::{SocketAddr, TcpListener},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use serde_json::json;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use self::{adapters::Adapters, api::App, connections::Limits, engine::Engine};
use crate::{
    base::Base,
    events::Events,
    failure::{Failure, Result},
};

/// Variable with the key of who decides: changes of adapters need it, and so do questions to one
/// that is neither on nor opened. Without it nobody needs one.
pub const KEY: &str = "LODESTAR_SERVING_KEY";
/// Context where the base says nothing, and the greatest one where nobody asks for more.
const CONTEXT: usize = 2_048;
const MOST_CONTEXT: usize = 4_096;
/// Time that answers under way get at the end.
const GRACE: Duration = Duration::from_secs(20);

/// A base with its adapters, and the address that it is served at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The base: a folder or a GGUF file.
    pub base: PathBuf,
    /// Address; none where the standard input is the listening socket.
    pub listen: Option<SocketAddr>,
    /// Name of the model for everybody.
    pub alias: String,
    /// Adapters that are loaded at the start: name, file, SHA-256.
    pub adapters: Vec<(String, PathBuf, String)>,
    /// Name of the adapter that answers for the alias; none for the base.
    pub on: Option<String>,
    /// Names of adapters that everybody may ask for by them.
    pub open: Vec<String>,
    /// Most tokens of a conversation.
    pub context: Option<usize>,
    /// Process with which this one ends.
    pub parent: Option<i32>,
}

impl Options {
    /// Reads the words of the command line after `serve`.
    ///
    /// # Errors
    ///
    /// When one is unknown, or lacks what follows it.
    pub fn read(words: &[&str]) -> Result<Self> {
        let mut words = words.iter();
        let base = words.next().filter(|it| !it.starts_with('-'));
        let base = base.ok_or_else(|| Failure::job("name the base: a folder or a GGUF file"))?;
        let mut options = Self {
            base: (*base).into(),
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 4_011))),
            alias: "lodestar".to_owned(),
            adapters: Vec::new(),
            on: None,
            open: Vec::new(),
            context: None,
            parent: None,
        };
        while let Some(word) = words.next() {
            let mut next = || {
                let missing =
                    || Failure::job(format!("{} lacks its value", crate::job::shown(word)));
                words.next().copied().ok_or_else(missing)
            };
            match *word {
                "--listen" => options.listen = address(next()?)?,
                "--alias" => options.alias = next()?.to_owned(),
                "--on" => options.on = Some(next()?.to_owned()),
                "--open" => options.open.push(next()?.to_owned()),
                "--adapter" => {
                    let (name, file, sha256) = (next()?, next()?, next()?);
                    options.adapters.push((name.to_owned(), file.into(), sha256.to_owned()));
                }
                "--context" => options.context = Some(number(word, next()?)?),
                "--parent" => options.parent = Some(number(word, next()?)?),
                _ => {
                    let word = crate::job::shown(word);
                    return Err(Failure::job(format!("{word} is unknown; see --help")));
                }
            }
        }
        Ok(options)
    }
}

fn number<T: std::str::FromStr>(word: &str, value: &str) -> Result<T> {
    value.parse().map_err(|_| Failure::job(format!("{word} wants a number")))
}

/// Returns an address of this machine; none for the word `stdin`.
fn address(word: &str) -> Result<Option<SocketAddr>> {
    if word == "stdin" {
        return Ok(None);
    }
    let address: Option<SocketAddr> = word.parse().ok();
    let address = address.filter(|it| it.ip().is_loopback()).ok_or_else(|| {
        Failure::job("--listen wants an address of this machine alone, such as 127.0.0.1:4011")
    })?;
    Ok(Some(address))
}

/// Serves until SIGTERM, or until the process that it was started by ends.
///
/// # Errors
///
/// When the base or an adapter cannot be loaded, or the address is taken.
pub fn run(options: &Options, events: &mut Events<'_>, stop: &AtomicBool) -> Result<()> {
    if let Some(parent) = options.parent {
        end_with(parent)?;
    }
    let listener = listener(options.listen)?;
    let place = listener.local_addr().map_err(|error| cannot("listen", &error))?;
    let base = Base::open(&options.base)?;
    let adapters = Adapters::default();
    for (name, file, sha256) in &options.adapters {
        adapters.load(&base.model.shape, name, file, sha256)?;
    }
    if let Some(name) = &options.on {
        adapters.switch_on(name)?;
    }
    adapters.open(&options.open)?;
    let context = context(&base, options.context);
    events.tell(
        "listening",
        json!({
            "address": place.to_string(), "base_sha256": base.sha256, "context": context,
            "architecture": base.model.shape.architecture.name(),
        }),
    )?;
    let shape = base.model.shape.clone();
    let (engine, ended) = Engine::start(base, context)?;
    let key = std::env::var(KEY).ok().filter(|key| !key.is_empty());
    let app = App::new(engine, adapters, shape, options.alias.clone(), key);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| cannot("start", &error))?;
    runtime.block_on(serve(listener, app, ended, stop))
}

/// Answers requests until a signal comes, then those that are there.
async fn serve(
    listener: TcpListener,
    app: App,
    ended: tokio::sync::oneshot::Receiver<()>,
    was_stopped: &AtomicBool,
) -> Result<()> {
    let failed = |error: std::io::Error| cannot("serve", &error);
    listener.set_nonblocking(true).map_err(failed)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    // A signal that came before these two were there.
    if was_stopped.load(Ordering::Relaxed) {
        return Ok(());
    }
    let (stop, stopped) = watch::channel(false);
    let mut stopping = stopped.clone();
    let server = connections::serve(listener, app.router(), Limits::default(), async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // Nobody listens any more where the server ended by itself.
        let _: Result<_, _> = stop.send(true);
    });
    let late = async {
        drop(stopping.wait_for(|it| *it).await);
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        () = server => Ok(()),
        () = late => Ok(()),
        _ = ended => match *stopped.borrow() {
            true => Ok(()),
            false => Err(Failure::other("the thread that computes answers ended")),
        },
    }
}

/// Ends this process with the one that it was started by.
fn end_with(parent: i32) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM)).map_err(|error| {
        Failure::other(format!("the end of the parent cannot be waited for: {error}"))
    })?;
    // It may have ended before that.
    let is_there = getppid().map(Pid::as_raw_pid) == Some(parent);
    is_there.then_some(()).ok_or_else(|| Failure::stopped("the process that started it is gone"))
}

fn listener(address: Option<SocketAddr>) -> Result<TcpListener> {
    match address {
        Some(address) => TcpListener::bind(address)
            .map_err(|error| Failure::other(format!("cannot listen on {address}: {error}"))),
        None => {
            let descriptor = std::io::stdin().as_fd().try_clone_to_owned();
            let listener =
                descriptor.map(TcpListener::from).map_err(|error| cannot("listen", &error))?;
            let is_local = listener.local_addr().is_ok_and(|it| it.ip().is_loopback());
            let wrong =
                || Failure::job("the standard input is no listening socket of this machine");
            let listener = is_local.then_some(listener).ok_or_else(wrong)?;
            // While the last answers are given nobody may think that this one still listens.
            let nothing =
                std::fs::File::open("/dev/null").map_err(|error| cannot("start", &error))?;
            rustix::stdio::dup2_stdin(nothing).map_err(|error| cannot("start", &error.into()))?;
            Ok(listener)
        }
    }
}

fn context(base: &Base, wanted: Option<usize>) -> usize {
    let own = base.context.filter(|it| *it > 0);
    let most = own.unwrap_or(CONTEXT);
    wanted.unwrap_or(MOST_CONTEXT).clamp(1, most)
}

fn cannot(what: &str, error: &std::io::Error) -> Failure {
    Failure::other(format!("the server cannot {what}: {error}"))
}

/// Returns a file whose digest is the one that is wanted.
fn read_exactly(file: &Path, sha256: &str) -> Result<Vec<u8>> {
    /// Largest adapter, in bytes.
    const MOST: u64 = 1 << 30;
    let failed = |error: std::io::Error| Failure::file("read", file, &error);
    let size = std::fs::metadata(file).map_err(failed)?.len();
    if size > MOST {
        return Err(Failure::job(format!("{} is too large for an adapter", file.display())));
    }
    let bytes = std::fs::read(file).map_err(failed)?;
    if !crate::base::digest_of(&bytes).eq_ignore_ascii_case(sha256) {
        let words = "is another file than the one with the digest that was given";
        return Err(Failure::job(format!("{} {words}", file.display())));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_options() {
        let options = Options::read(&["/b", "--on", "v1", "--adapter", "v1", "/a", "00"]);
        let options = options.expect("they are known");
        assert_eq!(options.adapters, [("v1".to_owned(), "/a".into(), "00".to_owned())]);
        assert_eq!((options.on.as_deref(), options.alias.as_str()), (Some("v1"), "lodestar"));
        let check = |words: &[&str], expected: &str| {
            let error = Options::read(words).expect_err("it is refused").to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(&[], "name the base");
        check(&["--listen"], "name the base");
        check(&["/b", "--listen"], "lacks its value");
        check(&["/b", "--listen", "0.0.0.0:80"], "of this machine");
        check(&["/b", "--context", "x"], "wants a number");
        check(&["/b", "--nonsense"], "is unknown");
        let options = Options::read(&["/b", "--listen", "stdin"]).expect("it is known");
        assert_eq!(options.listen, None);
    }
}

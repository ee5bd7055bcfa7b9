//! `lodestar modules dev`

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use hyper::Method;
use lodestar_api::{LogLine, ModuleInfo, Operation, OperationState, Status, TailItem};
use lodestar_library::install::open_built;
use lodestar_platform::signals;
use module_sdk::manifest::Manifest;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{dev_log::DevLog, install::send};
use crate::author::{
    cargo::{Build, Built},
    install,
    private::{self, PrivateDaemon},
    sources,
};
use crate::{
    client::{Client, Lines},
    commands::status::address,
    error::{CliError, Result},
    exit_codes, operation, reserved_names,
    terminal::Terminal,
};

/// Longest time for a reload; the daemon gives up by itself before.
const RELOAD: Duration = Duration::from_secs(40);

/// Develop a module: build, run and reload it at each save, and show what it does, until Ctrl-C
///
/// It runs in a daemon of its own, with its own state, socket and ports, which ends with this
/// command; or in the one that runs, with --running.
#[derive(Debug, clap::Args)]
pub(crate) struct Dev {
    /// The folder of the module's crate
    #[arg(value_name = "PATH", default_value = ".")]
    path: PathBuf,
    /// Build as for a release
    #[arg(long)]
    release: bool,
    /// Use the daemon that runs: each build is installed there, unsigned, and stays
    #[arg(long)]
    running: bool,
    /// A module to run beside it, such as ingest; may be given more than once
    #[arg(long, value_name = "MODULE", conflicts_with = "running")]
    with: Vec<String>,
    /// One key of the module's configuration; may be given more than once
    #[arg(long, value_name = "KEY=VALUE", value_parser = private::setting)]
    #[arg(conflicts_with = "running")]
    set: Vec<String>,
}

/// An event that wakes the loop.
enum Wake {
    /// Time of a source's save.
    Saved(Instant),
    /// Message of the compiler.
    Compiler(String),
    /// Result of a build.
    Built(Result<Built>),
    /// Line of the module's log.
    Log(LogLine),
    /// Item of the stream of events.
    Event(TailItem),
    /// End of a stream by the daemon.
    Lost,
    /// Signal that asks this program to end.
    Signal,
}

/// A module under development.
struct Loop<'a> {
    dev: Dev,
    manifest: Manifest,
    dev_log: DevLog<'a>,
    colour: bool,
    client: Client,
    private: Option<PrivateDaemon>,
    wakes: UnboundedSender<Wake>,
    /// Process id of a build that is under way.
    building: Option<u32>,
    /// Time of the first save that no build has seen.
    unseen: Option<Instant>,
    /// Time between the save that is being built and the start of the compiler.
    lead: Duration,
    /// `true` while logs and events are followed.
    following: bool,
}

impl Dev {
    pub(crate) async fn run(mut self, client: &Client, terminal: &mut Terminal) -> Result<u8> {
        let asked = self.path.clone();
        self.path = asked.canonicalize().map_err(|error| {
            CliError::failed(format!("cannot look at {}: {error}", asked.display()))
                .help("name the folder of a module; `lodestar modules new` makes one")
        })?;
        let manifest = install::manifest(&self.path)?;
        let (wakes, woken) = unbounded_channel();
        let signals = wakes.clone();
        signals::for_each_signal(&[SIGINT, SIGTERM, SIGHUP], move |_| {
            // An error means that the loop has ended.
            let _ = signals.send(Wake::Signal);
        })?;
        let saves = wakes.clone();
        let saved = move |at| drop(saves.send(Wake::Saved(at)));
        let _watch = sources::watch(&self.path, saved).map_err(|error| {
            CliError::failed(format!("cannot watch {}: {error}", self.path.display()))
                .help("raise fs.inotify.max_user_watches")
        })?;
        let colour = terminal.has_color() && !terminal.json;
        let dev_log = DevLog::new(terminal, &manifest.module.name, &manifest.bus.consumes);
        let client = client.clone();
        let mut turning = Loop {
            dev: self,
            manifest,
            dev_log,
            colour,
            client,
            private: None,
            wakes,
            building: None,
            unseen: None,
            lead: Duration::ZERO,
            following: false,
        };
        let result = Box::pin(turning.turn(woken)).await;
        turning.end_build();
        result.map(|()| exit_codes::DONE)
    }
}

impl Loop<'_> {
    async fn turn(&mut self, mut woken: UnboundedReceiver<Wake>) -> Result<()> {
        self.open().await?;
        self.build(Instant::now())?;
        while let Some(wake) = woken.recv().await {
            match wake {
                Wake::Saved(at) if self.building.is_some() => {
                    self.unseen.get_or_insert(at);
                }
                Wake::Saved(at) => self.build(at)?,
                Wake::Compiler(text) => self.dev_log.compiler(&text)?,
                Wake::Built(result) => {
                    self.building = None;
                    match result {
                        Ok(built) => self.take(built).await?,
                        Err(error) => {
                            self.dev_log.trouble("build", &error)?;
                            self.dev_log.tell("build", "waiting for the next save")?;
                        }
                    }
                    if let Some(at) = self.unseen.take() {
                        self.build(at)?;
                    }
                }
                Wake::Log(line) => self.dev_log.log(&line)?,
                Wake::Event(item) => self.dev_log.event(&item)?,
                Wake::Lost => self.lost()?,
                Wake::Signal => return self.leave(),
            }
        }
        Ok(())
    }

    /// Opens the daemon that the module is to run in.
    async fn open(&mut self) -> Result<()> {
        if self.dev.running {
            self.client.get::<Status>("/v1/status").await?;
            return self.dev_log.tell("daemon", "the one that runs");
        }
        let private = PrivateDaemon::start(&self.manifest, &self.dev.with, &self.dev.set)?;
        self.client.sockets = vec![private.socket()];
        let private = self.private.insert(private);
        private.answers(&self.client).await?;
        let socket = private.socket();
        let text = format!("a private one; talk to it with --socket {}", socket.display());
        self.dev_log.tell("daemon", &text)
    }

    /// Starts cargo; its messages come back as wakes.
    fn build(&mut self, saved: Instant) -> Result<()> {
        self.lead = saved.elapsed();
        let mut build = match Build::start(&self.dev.path, self.dev.release, self.colour) {
            Ok(build) => build,
            Err(error) => return self.dev_log.trouble("build", &error),
        };
        self.building = Some(build.id());
        let wakes = self.wakes.clone();
        std::thread::spawn(move || {
            // Errors mean that the loop has ended.
            let result = build.finish(|text| drop(wakes.send(Wake::Compiler(text.to_owned()))));
            let _ = wakes.send(Wake::Built(result));
        });
        Ok(())
    }

    fn end_build(&mut self) {
        let pid = self.building.take().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            // An error means that it has ended.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Installs and runs what was built. Errors are shown, and the loop goes on.
    async fn take(&mut self, built: Built) -> Result<()> {
        let begun = Instant::now();
        self.dev_log.tell("build", &format!("built in {:.2} s", built.took.as_secs_f64()))?;
        match Box::pin(self.install(&built)).await {
            Ok(outcome) => {
                let took = (self.lead + begun.elapsed()).as_secs_f64() * 1e3;
                let text =
                    format!("{outcome}; from save to running {took:.0} ms, beside the build");
                self.dev_log.tell("reload", &text)
            }
            Err(error) => {
                self.dev_log.trouble("reload", &error)?;
                let has_help = error.failure().is_some_and(|failure| failure.help.is_some());
                let check = format!("see `lodestar modules check {}`; ", self.dev.path.display());
                let check = if has_help { "" } else { &*check };
                self.dev_log.tell("reload", &format!("{check}waiting for the next save"))
            }
        }
    }

    async fn install(&mut self, built: &Built) -> Result<String> {
        // It may have changed since.
        self.manifest = install::manifest(&self.dev.path)?;
        reserved_names::check(&self.manifest, &[])?;
        let name = self.manifest.module.name.clone();
        if built.name != name {
            let message = format!("module.toml says {name:?}, the library is {:?}", built.name);
            return Err(CliError::refused(message).help("give both one name"));
        }
        match self.private.as_ref().map(PrivateDaemon::modules) {
            Some(modules) => self.place(&built.library, &modules).await,
            None => self.send(&built.library).await,
        }
    }

    /// Puts the library on the module path of the private daemon.
    async fn place(&mut self, library: &Path, modules: &Path) -> Result<String> {
        let name = self.manifest.module.name.clone();
        install::install(&name, library, &self.dev.path, modules)?;
        let revived = self.revive().await?;
        let known = self.client.get::<ModuleInfo>(&format!("/v1/modules/{name}")).await;
        let enabled = known.as_ref().is_ok_and(|info| info.module.desired == "enabled");
        if known.is_ok() {
            self.follow(&name).await?;
        }
        // A daemon that has just begun starts what lies there now by itself: to enable is to wait.
        let verb = if enabled && !revived { "reload" } else { "enable" };
        let outcome = self.ask(&format!("/v1/modules/{name}/{verb}")).await;
        if known.is_err() {
            self.follow(&name).await?;
        }
        if !enabled {
            self.listeners().await?;
        }
        outcome
    }

    /// Installs the library in the daemon that runs, as `lodestar modules install` does.
    async fn send(&mut self, library: &Path) -> Result<String> {
        let bundle = open_built(library, &self.dev.path).map_err(CliError::from_problem)?;
        let installed = send(bundle, &self.dev.path, false, &self.client).await?;
        self.follow(&installed.name).await?;
        let operation = operation::ended(installed.operation, &self.client).await?;
        let module = format!("/v1/modules/{}", installed.name);
        let info: ModuleInfo = self.client.get(&module).await?;
        if info.module.desired == "enabled" {
            return outcome(operation);
        }
        outcome(operation)?;
        let enabled = self.ask(&format!("{module}/enable")).await;
        self.listeners().await?;
        enabled
    }

    /// Asks for a change and waits for its outcome.
    async fn ask(&self, path: &str) -> Result<String> {
        let path = format!("{path}?wait_ms={}", RELOAD.as_millis());
        let operation: Operation = self.client.wait_for(Method::POST, &path, RELOAD).await?;
        outcome(operation)
    }

    /// Starts the private daemon again if the module has ended it, and returns whether it did.
    async fn revive(&mut self) -> Result<bool> {
        let Some(private) = &mut self.private else { return Ok(false) };
        if private.ended().is_none() {
            return Ok(false);
        }
        private.start_again()?;
        private.answers(&self.client).await?;
        self.following = false;
        Ok(true)
    }

    /// Shows what the module logs and what travels on the bus from now on.
    async fn follow(&mut self, name: &str) -> Result<()> {
        if self.following {
            return Ok(());
        }
        let logs = format!("/v1/modules/{name}/logs?lines=0&follow=true");
        let logs = self.client.follow(&logs).await?;
        let events = self.client.follow("/v1/events/tail?filter=%3E").await?;
        self.following = true;
        tokio::spawn(forward(logs, self.wakes.clone(), Wake::Log));
        tokio::spawn(forward(events, self.wakes.clone(), Wake::Event));
        Ok(())
    }

    async fn listeners(&mut self) -> Result<()> {
        let status: Status = self.client.get("/v1/status").await?;
        let is_ours = |name: &String| self.private.is_some() || *name == self.manifest.module.name;
        for module in status.modules.iter().filter(|module| is_ours(&module.name)) {
            for listener in &module.listeners {
                let text = format!("{} {} {}", module.name, listener.name, address(listener));
                self.dev_log.tell("listen", &text)?;
            }
        }
        Ok(())
    }

    /// Tells that the module stays installed in the daemon that runs.
    fn leave(&mut self) -> Result<()> {
        if self.private.is_some() || !self.following {
            return Ok(());
        }
        let name = &self.manifest.module.name;
        let text = format!("{name} stays as it is; `lodestar modules remove {name}` removes it");
        self.dev_log.tell("daemon", &text)
    }

    fn lost(&mut self) -> Result<()> {
        if !self.following {
            return Ok(());
        }
        self.following = false;
        let text = match self.private.as_mut().map(|it| (it.ended(), it.last_words())) {
            Some((ended, words)) => {
                let how = ended.map_or_else(|| "is ending".to_owned(), |it| format!("ended: {it}"));
                format!("the private lodestard {how}; it starts again with the next save ({words})")
            }
            None => "lodestard ended; it is looked for again with the next save".to_owned(),
        };
        self.dev_log.trouble("daemon", &CliError::failed(text))
    }
}

/// Returns the message of an operation, as an error unless it is done.
fn outcome(operation: Operation) -> Result<String> {
    match operation.state {
        OperationState::Done => Ok(operation.message),
        OperationState::Failed => {
            let error = CliError::refused(operation.message);
            Err(match operation.help {
                Some(help) => error.help(help),
                None => error,
            })
        }
        OperationState::Pending => {
            Err(CliError::timed_out(format!("the start hangs (operation {})", operation.id)))
        }
    }
}

async fn forward<T: serde::de::DeserializeOwned>(
    mut lines: Lines,
    wakes: UnboundedSender<Wake>,
    wake: fn(T) -> Wake,
) {
    while let Ok(Some(line)) = lines.next::<T>().await {
        if wakes.send(wake(line)).is_err() {
            return;
        }
    }
    // An error means that the loop has ended.
    let _ = wakes.send(Wake::Lost);
}

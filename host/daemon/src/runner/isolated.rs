//! A generation of a module that runs in processes of its own.

use std::{
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use lodestar_abi::{ModError, error_kind};
use lodestar_config::Limits;
use lodestar_library::Inspected;

use super::{
    channel::{ChannelError, Deadline, Reader, Writer},
    paths,
    process::{self, Started},
    remote::Remote,
    replies::Replies,
    send_queue::SendQueue,
    service_server::{BoundModule, Runner, ServiceServer},
    watch,
    wire::{HostResponse, Loaded, Setup, VERSION},
};
use crate::{
    logging::{Lines, LogRate},
    module::{Configured, Instance, ProcessImage, Refused, Services},
};

/// The most starts that are tried while somebody else ends the process.
const STARTS: usize = 5;

/// Shortest time limit for mapping a library or starting a module: a database may have to be
/// brought up to date.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// Program and limits of a process that runs a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessSpec {
    /// Path of the program that is the runner: `lodestard` itself.
    pub program: PathBuf,
    /// Limits on the resources of the process.
    pub limits: Limits,
    /// Time that a call may take before the process is ended.
    pub call_deadline: Duration,
}

impl ProcessSpec {
    /// Creates the specification of a runner that is this very program.
    #[must_use]
    pub fn own(limits: Limits, call_deadline: Duration) -> Self {
        // Also the right one when its file was replaced meanwhile.
        Self { program: "/proc/self/exe".into(), limits, call_deadline }
    }
}

/// A library that is never mapped into the daemon.
#[derive(Debug)]
pub struct Isolated {
    inspected: Inspected,
    place: ProcessSpec,
    setup: Setup,
    data_dir: PathBuf,
    /// A process that has mapped the library and given its description; the module starts in it.
    spare: Mutex<Option<Remote>>,
}

impl Isolated {
    /// Starts a first process and maps the library there.
    ///
    /// # Errors
    ///
    /// When the process cannot be started, the library cannot be mapped or does not fit, or the
    /// configuration names a path that a module of its own process must not have.
    pub fn new(
        inspected: Inspected,
        configured: &Configured,
        place: ProcessSpec,
    ) -> Result<Arc<Self>, Refused> {
        let name = inspected.manifest.module.name.clone();
        let data_dir = configured.grant.data_dir.clone();
        let paths = paths::declared(&inspected.manifest, &configured.bounds, &data_dir);
        let paths = paths.map_err(|error| Refused::Other(error.to_string()))?;
        let setup = Setup {
            version: VERSION,
            parent: std::process::id(),
            name,
            library: inspected.path.clone(),
            sha256: inspected.sha256.clone(),
            readable: paths.readable,
            writable: paths.writable,
            counted: false,
        };
        let isolated = Self { inspected, place, setup, data_dir, spare: Mutex::default() };
        let first = isolated.start()?;
        *isolated.spare() = Some(first);
        Ok(Arc::new(isolated))
    }

    /// Starts the module.
    ///
    /// # Errors
    ///
    /// Returns the module's error, or one that its process ended.
    pub fn create(
        &self,
        config: &[u8],
        restored: &[u8],
        services: &Arc<Services>,
    ) -> Result<Remote, ModError> {
        let host = services.to_abi();
        let info = host.info();
        let deadline = self.start_deadline();
        self.try_often(|runner| {
            let bound = BoundModule {
                entry: services.entry().clone(),
                services: services.clone(),
                host: services.to_abi(),
            };
            runner.create(bound, (config, restored, info.as_slice()), deadline)
        })?;
        let created = self.spare().take();
        created.ok_or_else(|| failed("its process is gone".to_owned()))
    }

    /// Runs `work` in the spare process, or in another one when that was ended by others.
    fn try_often<T>(
        &self,
        work: impl Fn(&mut Remote) -> Result<T, ModError>,
    ) -> Result<T, ModError> {
        let mut spare = self.spare();
        let mut tries = 0;
        loop {
            let runner = match &mut *spare {
                Some(runner) => runner,
                None => spare.insert(self.start().map_err(|error| failed(error.to_string()))?),
            };
            let result = work(runner);
            let exit = runner.exit();
            if result.is_err() {
                // A module that refused to start is not asked again in the same process.
                *spare = None;
            }
            tries += 1;
            let by_others = exit.is_some_and(|exit| !exit.blamed);
            if result.is_ok() || !by_others || tries >= STARTS {
                return result;
            }
        }
    }

    fn start_deadline(&self) -> Duration {
        self.place.call_deadline.max(START_DEADLINE)
    }

    fn spare(&self) -> std::sync::MutexGuard<'_, Option<Remote>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a process and maps the library there; tries again when others end it.
    fn start(&self) -> Result<Remote, Refused> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.start_once() {
                Err(Refused::EndedByOthers(_)) if tries < STARTS => {}
                other => return other,
            }
        }
    }

    fn start_once(&self) -> Result<Remote, Refused> {
        let name = &self.setup.name;
        let started = process::start(&self.place.program, name, &self.data_dir, self.place.limits);
        let cannot = |error: std::io::Error| {
            Refused::Other(format!("cannot start a process for it: {error}"))
        };
        let Started { process, child, calls, services, stderr } = started.map_err(cannot)?;
        let send_queue = SendQueue::new(services.try_clone().map_err(cannot)?).map_err(cannot)?;
        let send_queue = Arc::new(send_queue);
        let taking = send_queue.clone();
        let taken = move |number, wanted| {
            // An error means that the runner is gone, which the service server sees as well.
            let _ = taking.send(&HostResponse::FrameTaken { number, wanted });
        };
        let runner = Arc::new(Runner {
            name: name.clone(),
            process,
            replies: Replies::new(Arc::new(taken)),
            send_queue,
            calls: Arc::default(),
            met: AtomicU64::new(0),
            bound: OnceLock::new(),
            series: Mutex::default(),
        });
        watch::look_after(&runner, &self.data_dir);
        let needs = Reader::new(services);
        let (lines, is_mute, early) = (Lines::default(), false, LogRate::default());
        let (runner_too, is_busy) = (runner.clone(), false);
        let server = ServiceServer {
            runner: runner_too,
            needs,
            child,
            stderr,
            lines,
            is_mute,
            early,
            is_busy,
        };
        server.open().map_err(cannot)?;
        let (writer, reader) = halves(calls, self.start_deadline()).map_err(cannot)?;
        self.set_up(runner, writer, reader)
    }

    /// Sends the library and receives whether it is mapped.
    fn set_up(
        &self,
        runner: Arc<Runner>,
        mut writer: Writer,
        mut reader: Reader,
    ) -> Result<Remote, Refused> {
        let setup = Setup { counted: runner.process.in_force().is_counted(), ..self.setup.clone() };
        let deadline = Deadline::after(self.start_deadline());
        let sent = writer.send_with(&setup, self.inspected.descriptor(), deadline);
        let loaded = sent.and_then(|()| reader.next::<Loaded>());
        match loaded {
            Ok(Loaded::Yes { sandbox, sandboxed }) => {
                if !sandboxed {
                    tracing::warn!(module = runner.name, sandbox, "the sandbox is not whole");
                }
                let deadline = self.place.call_deadline;
                Ok(Remote::new(runner, writer, reader, sandbox, deadline))
            }
            Ok(Loaded::No { reason, incompatible: true }) => Err(Refused::Incompatible(reason)),
            Ok(Loaded::No { reason, .. }) => Err(Refused::Other(reason)),
            Err(error) => Err(lost(&runner, &error)),
        }
    }
}

impl ProcessImage for Isolated {
    fn inspected(&self) -> &Inspected {
        &self.inspected
    }

    fn describe(&self) -> Result<Vec<u8>, ModError> {
        self.try_often(|runner| runner.describe(self.start_deadline()))
    }

    fn validate(&self, config: &[u8]) -> Result<(), ModError> {
        self.try_often(|runner| runner.validate(config, self.start_deadline()))
    }

    fn create(
        &self,
        config: &[u8],
        restored: &[u8],
        services: &Arc<Services>,
    ) -> Result<Box<dyn Instance>, ModError> {
        let remote = self.create(config, restored, services)?;
        Ok(Box::new(remote))
    }
}

fn halves(calls: UnixStream, deadline: Duration) -> std::io::Result<(Writer, Reader)> {
    calls.set_read_timeout(Some(deadline))?;
    calls.set_write_timeout(Some(deadline))?;
    Ok((Writer::new(calls.try_clone()?), Reader::new(calls)))
}

fn lost(runner: &Runner, error: &ChannelError) -> Refused {
    let exit = super::remote::lost(runner, "library", error);
    let reason = format!("while its library was mapped, {}", exit.reason);
    if exit.blamed { Refused::Other(reason) } else { Refused::EndedByOthers(reason) }
}

fn failed(message: String) -> ModError {
    ModError { kind: error_kind::FAILED, message: message.into(), place: "".into() }
}

//! One running module behind the ABI.

use std::{fs::File, sync::atomic::AtomicUsize, thread::JoinHandle, time::Duration};

use lodestar_abi::{
    BatchOutcome, CreateRequest, Event as RawEvent, HostBox, ModError, ModuleBox, ModuleInstance,
    ModuleInstance_TO, ReplySinkBox,
    abi_stable::{
        erased_types::TD_Opaque,
        std_types::{RNone, RResult, RSlice, RSome, RVec},
    },
};
use schemars::schema_for;
use serde::Deserialize;

use super::{
    clear_log_host,
    guard::guard,
    heap,
    own_thread::{answering, on_own_thread},
    owned, set_own_log_host,
};
use crate::{
    Description, Error, ErrorKind, Files, Host, Job, Module, Output, Result, Snapshot, Wiring,
    daily::LastRuns, logging, schema, wiring::Answer,
};

/// Implements [`ModuleRoot::describe`](lodestar_abi::ModuleRoot).
pub fn describe<M: Module>() -> RResult<RVec<u8>, ModError> {
    into_abi(guard("describe", || {
        let wiring = wired::<M>();
        let description = Description {
            sdk_version: super::export::SDK_VERSION.to_owned(),
            subscriptions: wiring.events.into_iter().map(|event| event.subscription).collect(),
            timers: wiring.timers.into_iter().map(|timer| timer.description).collect(),
            commands: wiring.commands.into_iter().map(|command| command.description).collect(),
            config_schema: schema_for!(M::Config),
        };
        Ok(serde_json::to_vec(&description)?.into())
    }))
}

/// Implements [`ModuleRoot::validate`](lodestar_abi::ModuleRoot).
pub fn validate<M: Module>(config: RSlice<'_, u8>) -> RResult<(), ModError> {
    let read = guard("configuration", || read_config::<M>(config.as_slice()).map(drop));
    read.map_err(Error::into_abi_report).into()
}

/// Implements [`ModuleRoot::create`](lodestar_abi::ModuleRoot).
pub fn create<M: Module>(
    request: CreateRequest<'_>,
    host: HostBox,
) -> RResult<ModuleBox, ModError> {
    let created = on_own_thread(|| {
        guard("start", || {
            let config = read_config::<M>(request.config.as_slice())?;
            let host = Host::new(host)?;
            logging::install(&host);
            let started = guard("start", || {
                let mut module = M::start(config, &host)?;
                if !request.restored.is_empty() {
                    let snapshot: Snapshot = serde_json::from_slice(request.restored.as_slice())?;
                    guard("restore", || module.restore(snapshot))?;
                }
                let wiring = wired::<M>();
                let last_runs = begin_daily(&wiring, &module, &host);
                Ok((module, wiring, last_runs))
            });
            match started {
                Ok((module, wiring, last_runs)) => {
                    host.services().heap_bytes(heap::bytes());
                    let module = Some(module);
                    let instance = Instance { module, wiring, host, last_runs, jobs: Vec::new() };
                    Ok(ModuleInstance_TO::from_value(instance, TD_Opaque))
                }
                Err(error) => {
                    host.stop_runtime();
                    clear_log_host(&host);
                    Err(error)
                }
            }
        })
    });
    created.map_err(Error::into_abi_report).into()
}

fn wired<M: Module>() -> Wiring<M> {
    let mut wiring = Wiring::new();
    M::wire(&mut wiring);
    wiring
}

/// Reads which timers by the calendar ran last, for a module that has some.
fn begin_daily<M: Module>(wiring: &Wiring<M>, module: &M, host: &Host) -> Option<LastRuns> {
    let mut timers = wiring.timers.iter().filter_map(|timer| timer.daily.as_ref()).peekable();
    timers.peek()?;
    let mut last_runs = LastRuns::load(host);
    timers.for_each(|daily| last_runs.begin(daily, module, host));
    Some(last_runs)
}

fn into_abi<T>(result: Result<T>) -> RResult<T, ModError> {
    result.map_err(Error::into_abi).into()
}

/// Reads a configuration, checks the ranges of its schema, and calls the module's own check.
fn read_config<M: Module>(bytes: &[u8]) -> Result<M::Config> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let config = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let text = error.into_inner().to_string();
        // serde_json adds a position in bytes that the operator never saw.
        let message = text.split(" at line ").next().unwrap_or(&text);
        Error::config_at(if path == "." { "" } else { &path }, message)
    })?;
    let given = serde_json::from_slice(bytes)?;
    let ranges = schema::out_of_range(&schema_for!(M::Config).to_value(), &given);
    if let Some(misfit) = ranges.into_iter().next() {
        return Err(Error::config_at(misfit.path, misfit.message).hint(misfit.hint));
    }
    M::check(&config).map(|()| config).map_err(Error::into_config)
}

#[derive(Deserialize)]
struct CommandRequest {
    command: String,
    #[serde(default)]
    args: serde_json::Value,
    /// Number that the host gave the call of another module; 0 where a person asks.
    #[serde(default)]
    call: u64,
    /// Descriptor that the files of the command come from.
    #[serde(default)]
    files: Option<i32>,
}

impl CommandRequest {
    /// Takes the files of the command, where it has some.
    fn take_files(&mut self) -> Option<Files> {
        let descriptor = self.files.take().filter(|number| *number >= 0)?;
        Some(Files::new(File::from(owned(descriptor))))
    }
}

struct Instance<M: Module> {
    /// The module; `None` after a stop.
    module: Option<M>,
    wiring: Wiring<M>,
    host: Host,
    /// Days that ran last; `None` where no timer goes by the calendar.
    last_runs: Option<LastRuns>,
    jobs: Vec<JoinHandle<()>>,
}

impl<M: Module> Instance<M> {
    fn events(&mut self, events: &[RawEvent<'_>]) -> (usize, Result<()>) {
        let Some(module) = self.module.as_mut() else {
            return (0, Err(Error::unavailable("the module has stopped")));
        };
        let mut done = 0;
        while done < events.len() {
            let topic = events[done].topic.as_str();
            let run = events[done..].iter().take_while(|event| event.topic.as_str() == topic);
            let run = &events[done..done + run.count()];
            let mut handled = run.len();
            let mut failure = Ok(());
            for wired in &self.wiring.events {
                if !crate::events::fits(&wired.subscription.filter, topic) {
                    continue;
                }
                let done = AtomicUsize::new(0);
                let result = guard(wired.name, || (wired.handler)(module, run, &done));
                if result.is_err() {
                    handled = handled.min(done.into_inner());
                    failure = result;
                    break;
                }
            }
            done += handled;
            if failure.is_err() {
                return (done, failure);
            }
        }
        (done, Ok(()))
    }

    fn start_job(&mut self, name: &str, call: u64, job: Job, sink: ReplySinkBox) {
        self.jobs.retain(|thread| !thread.is_finished());
        let place = name.to_owned();
        let mut output = Output::new(sink);
        let own = self.host.downgrade();
        let spawned = std::thread::Builder::new().name(format!("job:{}", self.host.name())).spawn(
            move || {
                set_own_log_host(own);
                let result = answering(call, || guard(&place, || (job.work)(&mut output)));
                output.finish(result);
            },
        );
        match spawned {
            Ok(thread) => self.jobs.push(thread),
            // The sink went with the closure; the host sees it dropped and ends the answer.
            Err(error) => tracing::error!(%error, command = name, "cannot start a thread"),
        }
    }

    fn end(&mut self, grace: Duration) -> Result<()> {
        let Some(mut module) = self.module.take() else { return Ok(()) };
        let stopped = on_own_thread(|| guard("stop", || module.stop(grace)));
        let dropped = on_own_thread(|| {
            guard("drop", || {
                drop(module);
                Ok(())
            })
        });
        self.host.end_calls();
        self.host.stop_runtime();
        for job in self.jobs.drain(..) {
            drop(job.join());
        }
        clear_log_host(&self.host);
        stopped.and(dropped)
    }
}

impl<M: Module> ModuleInstance for Instance<M> {
    fn on_batch(&mut self, events: RSlice<'_, RawEvent<'_>>) -> BatchOutcome {
        let (handled, result) = on_own_thread(|| self.events(events.as_slice()));
        self.host.services().heap_bytes(heap::bytes());
        BatchOutcome {
            handled: u32::try_from(handled).unwrap_or(u32::MAX),
            error: match result {
                Ok(()) => RNone,
                Err(error) => RSome(error.into_abi()),
            },
        }
    }

    fn on_timer(&mut self, index: u32) -> RResult<(), ModError> {
        let timer = self.wiring.timers.get(index as usize);
        let result = match (timer, self.module.as_mut()) {
            (Some(timer), Some(module)) => on_own_thread(|| {
                guard(&timer.description.name, || match (&timer.daily, &mut self.last_runs) {
                    (Some(daily), Some(last)) => {
                        last.run(daily, module, &self.host, &timer.handler)
                    }
                    _ => (timer.handler)(module),
                })
            }),
            _ => Err(Error::of(ErrorKind::NotFound, format!("there is no timer {index}"))),
        };
        self.host.services().heap_bytes(heap::bytes());
        into_abi(result)
    }

    fn command(&mut self, request: RSlice<'_, u8>, sink: ReplySinkBox) {
        let answer = guard("command", || {
            let mut request: CommandRequest = serde_json::from_slice(request.as_slice())?;
            let files = request.take_files();
            let commands = &self.wiring.commands;
            let known = commands.iter().find(|known| known.description.name == request.command);
            let (Some(known), Some(module)) = (known, self.module.as_mut()) else {
                let message = format!("there is no command {:?}", request.command);
                return Err(Error::of(ErrorKind::NotFound, message));
            };
            let args = match request.args {
                serde_json::Value::Null => serde_json::Value::Object(serde_json::Map::new()),
                args => args,
            };
            let call = request.call;
            let handle = || guard(&request.command, || (known.handler)(module, args, files));
            let answer = on_own_thread(|| answering(call, handle))?;
            Ok((request.command, call, answer))
        });
        match answer {
            Ok((.., Answer::Now(reply))) => Output::new(sink).finish(Ok(reply)),
            Ok((name, call, Answer::Later(job))) => self.start_job(&name, call, job, sink),
            Err(error) => Output::new(sink).finish(Err(error)),
        }
        self.host.services().heap_bytes(heap::bytes());
    }

    fn health(&mut self) -> RVec<u8> {
        let health = || match self.module.as_ref() {
            Some(module) => Ok(serde_json::to_vec(&module.health())?),
            None => Err(Error::unavailable("the module has stopped")),
        };
        let health = on_own_thread(|| guard("health", health));
        health
            .unwrap_or_else(|error| {
                let health = crate::Health::failed(error.to_string());
                serde_json::to_vec(&health).unwrap_or_default()
            })
            .into()
    }

    fn log_level(&mut self, level: u32) {
        super::contained(|| logging::set_level(level));
    }

    fn snapshot(&mut self) -> RResult<RVec<u8>, ModError> {
        let snapshot = || match self.module.as_mut() {
            Some(module) => match module.snapshot()? {
                Some(snapshot) => Ok(serde_json::to_vec(&snapshot)?.into()),
                None => Ok(RVec::new()),
            },
            None => Err(Error::unavailable("the module has stopped")),
        };
        into_abi(on_own_thread(|| guard("snapshot", snapshot)))
    }

    fn stop(&mut self, grace_ms: u64) -> RResult<(), ModError> {
        into_abi(self.end(Duration::from_millis(grace_ms)))
    }
}

impl<M: Module> Drop for Instance<M> {
    fn drop(&mut self) {
        if let Err(error) = self.end(Duration::ZERO) {
            tracing::error!(%error, "a module did not end well");
        }
    }
}

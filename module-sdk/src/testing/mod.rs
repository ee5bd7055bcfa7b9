//! A bench for modules: start one without a daemon, send it events and commands, see what it did.
//!
//! The module is reached through the same ABI objects as in the daemon, so panics, error kinds and
//! encodings are those of production.
//!
//! ```
//! use module_sdk::testing::Bench;
//! # use module_sdk::{Event, Host, Module, NoArgs, Reply, Result, Wiring};
//! # use module_sdk::events::LlmRequestCompleted;
//! # struct Counter(u64);
//! # impl Module for Counter {
//! #     type Config = NoArgs;
//! #     fn start(_: NoArgs, _: &Host) -> Result<Self> { Ok(Self(0)) }
//! #     fn wire(wiring: &mut Wiring<Self>) {
//! #         wiring.on(Self::completed).command("status", Self::status);
//! #     }
//! # }
//! # impl Counter {
//! #     fn completed(&mut self, _: &Event<'_, LlmRequestCompleted>) -> Result<()> {
//! #         self.0 += 1;
//! #         Ok(())
//! #     }
//! #     fn status(&mut self, _: NoArgs) -> Result<Reply> {
//! #         Reply::json(&serde_json::json!({"requests": self.0}))
//! #     }
//! # }
//! let mut bench = Bench::<Counter>::start(serde_json::json!({})).expect("it starts");
//! bench.send(&LlmRequestCompleted::default()).expect("it is handled");
//! let reply = bench.command("status", serde_json::json!({})).expect("it answers");
//! assert_eq!(reply.data["requests"], 1);
//! ```

mod fake_host;
mod sent_file;

use std::{
    marker::PhantomData,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use lodestar_abi::{
    CreateRequest, Event as RawEvent, HostServices_TO, ModError, ModuleBox, ReplySink,
    ReplySink_TO,
    abi_stable::{
        erased_types::TD_Opaque,
        std_types::{ROption, RResult, RSlice, RSome},
    },
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{Error, EventType, Frame, Health, Module, Reply, Result, Wiring, glue};
pub use fake_host::FakeHost;
use fake_host::Services;
pub use sent_file::SentFile;

/// An event that a module emitted.
#[derive(Debug, Clone, PartialEq)]
pub struct Emitted {
    /// The topic.
    pub topic: String,
    /// The subject, empty for none.
    pub subject: String,
    /// `true` when it went to the ledger.
    pub ledger: bool,
    /// The payload.
    pub data: Value,
    /// Id and origin under which it was relayed; `None` for an event of the module's own.
    pub relayed: Option<(Uuid, String)>,
}

/// A record that a module logged.
#[derive(Debug, Clone, PartialEq)]
pub struct Logged {
    /// Level: 1 error … 5 trace.
    pub level: u32,
    /// The text.
    pub message: String,
    /// Its fields.
    pub fields: Value,
}

/// A call that a module made of another one, or of the host.
#[derive(Debug, Clone, PartialEq)]
pub struct Called {
    pub(crate) number: u64,
    /// Name of the called module, or `host`.
    pub target: String,
    /// Name of the command.
    pub command: String,
    /// Its arguments.
    pub arguments: Value,
    /// Time limit in milliseconds.
    pub deadline_ms: u64,
    /// `true` when the module gave up on it.
    pub cancelled: bool,
}

/// A running module on the bench.
pub struct Bench<M> {
    instance: Option<ModuleBox>,
    host: Arc<FakeHost>,
    /// Period and due time of each timer, in nanoseconds after the start: as in the daemon, a clock
    /// that is set does not move them.
    timers: Vec<(u64, u64)>,
    /// Time that [`advance`](Self::advance) has passed since the start, in nanoseconds.
    elapsed: u64,
    directory: PathBuf,
    keep_directory: bool,
    module: PhantomData<M>,
}

impl<M> std::fmt::Debug for Bench<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bench({})", self.directory.display())
    }
}

impl<M: Module> Bench<M> {
    /// Starts the module with a configuration, in a data directory of its own that is removed when
    /// the bench is dropped. The clock shows the real time of the start until it is moved.
    ///
    /// # Errors
    ///
    /// When the configuration is not valid or the module does not start.
    pub fn start(config: Value) -> Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("lodestar-bench-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory)?;
        Self::start_in(&directory, config).map(|mut bench| {
            bench.keep_directory = false;
            bench
        })
    }

    /// Starts the module in a data directory that stays.
    ///
    /// # Errors
    ///
    /// When the configuration is not valid or the module does not start.
    pub fn start_in(directory: &Path, config: Value) -> Result<Self> {
        Self::start_on(Arc::new(FakeHost::new(directory)), config)
    }

    /// Starts the module on a host that the test has prepared.
    ///
    /// # Errors
    ///
    /// When the configuration is not valid or the module does not start.
    pub fn start_on(host: Arc<FakeHost>, config: Value) -> Result<Self> {
        let config = serde_json::to_vec(&config)?;
        let request = CreateRequest {
            config: config.as_slice().into(),
            restored: RSlice::EMPTY,
            reserved: [0; 4],
        };
        let services = HostServices_TO::from_value(Services(host.clone()), TD_Opaque);
        let instance =
            glue::create::<M>(request, services).into_result().map_err(Error::from_abi)?;
        let mut wiring = Wiring::<M>::new();
        M::wire(&mut wiring);
        let timers = wiring
            .timers
            .iter()
            .map(|timer| timer.description.every_ms.saturating_mul(1_000_000))
            .map(|period| (period, period))
            .collect();
        let directory = host.directory.clone();
        Ok(Self {
            instance: Some(instance),
            host,
            timers,
            elapsed: 0,
            directory,
            keep_directory: true,
            module: PhantomData,
        })
    }

    /// Returns the host that the module sees.
    #[must_use]
    pub fn host(&self) -> &Arc<FakeHost> {
        &self.host
    }

    /// Returns the module's data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.directory
    }

    /// Delivers one event.
    ///
    /// # Errors
    ///
    /// Returns the handler's error.
    pub fn send<T: EventType>(&mut self, event: &T) -> Result<()> {
        self.send_all(std::slice::from_ref(event)).1
    }

    /// Delivers events in one batch; returns how many were handled before the first failure.
    pub fn send_all<T: EventType>(&mut self, events: &[T]) -> (usize, Result<()>) {
        let ids: Vec<Uuid> = events.iter().map(|_| Uuid::now_v7()).collect();
        self.send_with_ids(events, &ids)
    }

    /// Delivers events under ids that the test chose: twice the same id is a redelivery.
    pub fn send_with_ids<T: EventType>(
        &mut self,
        events: &[T],
        ids: &[Uuid],
    ) -> (usize, Result<()>) {
        let mut encoded = Vec::new();
        for event in events {
            match serde_json::to_vec(event) {
                Ok(data) => encoded.push((event.topic(), event.subject(), data)),
                Err(error) => return (0, Err(error.into())),
            }
        }
        let now = self.host.now_ns();
        let raw: Vec<RawEvent<'_>> = events
            .iter()
            .zip(ids)
            .zip(&encoded)
            .map(|((event, id), (topic, subject, data))| RawEvent {
                id: *id.as_bytes(),
                time_ns: event
                    .time()
                    .and_then(|time| u64::try_from(time.as_nanosecond()).ok())
                    .unwrap_or(now),
                sequence: self.host.sequence.fetch_add(1, Ordering::Relaxed),
                attempt: 1,
                flags: u32::from(T::CLASS == crate::Class::Ledger),
                topic: topic.as_ref().into(),
                source: "/lodestar/bench".into(),
                subject: subject.as_deref().unwrap_or_default().into(),
                traceparent: "".into(),
                data: data.as_slice().into(),
                reserved: [0; 4],
            })
            .collect();
        let outcome = self.running().on_batch(raw.as_slice().into());
        let result = match outcome.error {
            RSome(error) => Err(Error::from_abi(error)),
            ROption::RNone => Ok(()),
        };
        (outcome.handled as usize, result)
    }

    /// Runs a command and returns its reply.
    ///
    /// # Errors
    ///
    /// Returns the command's error.
    pub fn command(&mut self, name: &str, args: Value) -> Result<Reply> {
        self.stream(name, args).map(|(_, reply)| reply)
    }

    /// Runs a command and returns its output as well.
    ///
    /// # Errors
    ///
    /// Returns the command's error.
    pub fn stream(&mut self, name: &str, args: Value) -> Result<(String, Reply)> {
        self.answer(&json!({"command": name, "args": args}))
    }

    fn answer(&mut self, request: &Value) -> Result<(String, Reply)> {
        let (sender, receiver) = mpsc::channel();
        let request = serde_json::to_vec(request)?;
        let sink = ReplySink_TO::from_value(Sink(sender), TD_Opaque);
        self.running().command(request.as_slice().into(), sink);
        let (mut text, mut reply) = (String::new(), None);
        for message in receiver {
            match message {
                Message::Frame(Frame::Chunk(chunk)) => text.push_str(&chunk),
                Message::Frame(Frame::Reply(last)) => reply = Some(last),
                Message::Frame(Frame::Progress { .. }) => {}
                Message::End(result) => result?,
            }
        }
        reply.map(|reply| (text, reply)).ok_or_else(|| Error::new("the command gave no reply"))
    }

    /// Returns the module's health.
    #[must_use]
    pub fn health(&mut self) -> Health {
        let bytes = self.running().health();
        serde_json::from_slice(bytes.as_slice())
            .unwrap_or_else(|error| Health::failed(error.to_string()))
    }

    /// Moves the clock and runs the timers that become due, in order.
    ///
    /// # Errors
    ///
    /// Returns the error of the first timer that fails.
    pub fn advance(&mut self, by: Duration) -> Result<()> {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        let end = self.elapsed.saturating_add(by);
        loop {
            let next = self.timers.iter().enumerate().min_by_key(|(_, (_, due))| *due);
            let Some((index, (period, due))) = next.map(|(index, timer)| (index, *timer)) else {
                break;
            };
            if due > end {
                break;
            }
            self.pass_until(due);
            self.timers[index].1 = due + period;
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            self.running().on_timer(index).into_result().map_err(Error::from_abi)?;
        }
        self.pass_until(end);
        Ok(())
    }

    fn pass_until(&mut self, elapsed: u64) {
        let passed = elapsed - self.elapsed;
        self.elapsed = elapsed;
        self.host.set_now_ns(self.host.now_ns().saturating_add(passed));
    }

    /// Stops the module as the daemon would.
    ///
    /// # Errors
    ///
    /// Returns the error of the module's `stop` or of its destructor.
    pub fn stop(mut self) -> Result<()> {
        match self.instance.take() {
            Some(mut instance) => instance.stop(5_000).into_result().map_err(Error::from_abi),
            None => Ok(()),
        }
    }

    fn running(&mut self) -> &mut ModuleBox {
        self.instance.as_mut().expect("only `stop` takes the instance, and it takes the bench too")
    }
}

impl<M> Drop for Bench<M> {
    fn drop(&mut self) {
        drop(self.instance.take());
        if !self.keep_directory {
            drop(std::fs::remove_dir_all(&self.directory));
        }
    }
}

enum Message {
    Frame(Frame),
    End(Result<()>),
}

struct Sink(mpsc::Sender<Message>);

impl ReplySink for Sink {
    fn frame(&self, frame: RSlice<'_, u8>) -> bool {
        let frame = serde_json::from_slice(frame.as_slice());
        frame.is_ok_and(|frame| self.0.send(Message::Frame(frame)).is_ok())
    }

    fn finish(&self, result: RResult<(), ModError>) {
        drop(self.0.send(Message::End(result.into_result().map_err(Error::from_abi))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Watch {
        ticks: u64,
    }

    impl Module for Watch {
        type Config = Value;

        fn start(_: Value, _: &crate::Host) -> Result<Self> {
            Ok(Self { ticks: 0 })
        }

        fn wire(wiring: &mut Wiring<Self>) {
            wiring.every(Duration::from_secs(60), Self::tick).command("ticks", Self::ticks);
        }
    }

    impl Watch {
        fn tick(&mut self) -> Result<()> {
            self.ticks += 1;
            Ok(())
        }

        fn ticks(&mut self, _: crate::NoArgs) -> Result<crate::Reply> {
            crate::Reply::json(&self.ticks)
        }
    }

    #[cfg(feature = "tokio")]
    struct Talker(crate::Host);

    #[cfg(feature = "tokio")]
    impl Module for Talker {
        type Config = Value;

        fn start(_: Value, host: &crate::Host) -> Result<Self> {
            Ok(Self(host.clone()))
        }

        fn wire(wiring: &mut Wiring<Self>) {
            wiring.command("talk", Self::talk);
        }
    }

    #[cfg(feature = "tokio")]
    impl Talker {
        fn talk(&mut self, _: crate::NoArgs) -> Result<crate::Reply> {
            let said = self.0.spawn(async { tracing::error!("it talks") })?;
            let answer = self.0.runtime()?.block_on(said);
            crate::Reply::json(&answer.is_ok())
        }
    }

    /// Tests run side by side in one process, which has one log.
    #[cfg(feature = "tokio")]
    #[test]
    fn what_runs_on_the_runtime_of_a_module_logs_into_its_own_bench() {
        let start = || Bench::<Talker>::start(Value::Null).expect("it starts");
        let (mut first, newer) = (start(), start());
        assert_eq!(first.command("talk", Value::Null).expect("it answers").data, true);
        let said = |bench: &Bench<Talker>| {
            let logged = bench.host().logged();
            logged.iter().filter(|it| it.message == "it talks").count()
        };
        assert_eq!((said(&first), said(&newer)), (1, 0));
    }

    #[test]
    fn a_clock_that_is_set_moves_no_timer() {
        for time in ["1999-01-01T00:00:00Z", "2099-01-01T00:00:00Z"] {
            let mut bench = Bench::<Watch>::start(Value::Null).expect("it starts");
            bench.host().set_now(time.parse().expect("a time"));
            bench.advance(Duration::from_secs(59)).expect("no timer fails");
            bench.advance(Duration::from_secs(62)).expect("no timer fails");
            let ticks = bench.command("ticks", Value::Null).expect("it answers").data;
            assert_eq!(ticks, 2, "{time}");
            let now = bench.host().now_ns() / 1_000_000_000;
            let set = time.parse::<jiff::Timestamp>().expect("a time").as_second();
            assert_eq!(i64::try_from(now).ok(), Some(set + 121), "{time}");
        }
    }
}

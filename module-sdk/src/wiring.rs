//! Wiring of a module: the events, timers and commands that it handles.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use jiff::Timestamp;
use lodestar_abi::Event as RawEvent;
use schemars::{JsonSchema, schema_for};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::{
    Class, CommandDescription, Error, Event, EventType, Files, Job, Reply, Result, Subscription,
    TimerDescription, Zone,
    daily::{self, Daily},
    schema,
};

/// A function that handles events, oldest first, and counts those that are done: also when it
/// panics.
type EventHandler<M> = Box<dyn Fn(&mut M, &[RawEvent<'_>], &AtomicUsize) -> Result<()>>;
type TimerHandler<M> = Box<dyn Fn(&mut M) -> Result<()>>;
type CommandHandler<M> = Box<dyn Fn(&mut M, serde_json::Value, Option<Files>) -> Result<Answer>>;

pub(crate) enum Answer {
    Now(Reply),
    Later(Job),
}

pub(crate) struct WiredEvent<M> {
    pub(crate) subscription: Subscription,
    pub(crate) name: &'static str,
    pub(crate) handler: EventHandler<M>,
}

pub(crate) struct WiredTimer<M> {
    pub(crate) description: TimerDescription,
    /// Time of day, for a timer by the calendar.
    pub(crate) daily: Option<Daily<M>>,
    pub(crate) handler: TimerHandler<M>,
}

pub(crate) struct WiredCommand<M> {
    pub(crate) description: CommandDescription,
    pub(crate) handler: CommandHandler<M>,
}

/// Collects the events, timers and commands that a module handles.
///
/// The type of a handler's argument picks the topic and the decoder:
///
/// ```
/// use std::time::Duration;
/// use module_sdk::{Event, Host, Module, NoArgs, Reply, Result, Wiring};
/// use module_sdk::events::LlmRequestCompleted;
///
/// struct Counter {
///     requests: u64,
/// }
///
/// impl Module for Counter {
///     type Config = NoArgs;
///
///     fn start(_: NoArgs, _: &Host) -> Result<Self> {
///         Ok(Self { requests: 0 })
///     }
///
///     fn wire(wiring: &mut Wiring<Self>) {
///         wiring
///             .on(Self::request_completed)
///             .every(Duration::from_secs(60), Self::roll_over)
///             .command("status", Self::status);
///     }
/// }
///
/// impl Counter {
///     fn request_completed(&mut self, _: &Event<'_, LlmRequestCompleted>) -> Result<()> {
///         self.requests += 1;
///         Ok(())
///     }
///
///     fn roll_over(&mut self) -> Result<()> {
///         self.requests = 0;
///         Ok(())
///     }
///
///     fn status(&mut self, _: NoArgs) -> Result<Reply> {
///         Reply::json(&serde_json::json!({"requests": self.requests}))
///     }
/// }
/// ```
pub struct Wiring<M> {
    pub(crate) events: Vec<WiredEvent<M>>,
    pub(crate) timers: Vec<WiredTimer<M>>,
    pub(crate) commands: Vec<WiredCommand<M>>,
}

impl<M> std::fmt::Debug for Wiring<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wiring")
            .field("events", &self.events.len())
            .field("timers", &self.timers.len())
            .field("commands", &self.commands.len())
            .finish()
    }
}

impl<M: 'static> Wiring<M> {
    pub(crate) const fn new() -> Self {
        Self { events: Vec::new(), timers: Vec::new(), commands: Vec::new() }
    }

    /// Calls `handler` for every event of its type, one by one, oldest first.
    pub fn on<T, H>(&mut self, handler: H) -> &mut Self
    where
        T: EventType,
        H: for<'a, 'e> Fn(&mut M, &'a Event<'e, T>) -> Result<()> + 'static,
    {
        self.listen::<H>(T::TOPIC, Some(T::CLASS), move |module, events, done| {
            one_by_one(events, done, |event| handler(module, &decode(event)?))
        })
    }

    /// Calls `handler` with as many events of its type as wait, oldest first. When it fails, none
    /// of them counts as handled, and they come again one at a time.
    pub fn on_batch<T, H>(&mut self, handler: H) -> &mut Self
    where
        T: EventType,
        H: for<'e> Fn(&mut M, Vec<Event<'e, T>>) -> Result<()> + 'static,
    {
        self.listen::<H>(T::TOPIC, Some(T::CLASS), move |module, events, done| {
            let mut batch = Vec::with_capacity(events.len());
            let mut undecoded = Ok(());
            for event in events {
                match decode(event) {
                    Ok(event) => batch.push(event),
                    Err(error) => {
                        undecoded = Err(error);
                        break;
                    }
                }
            }
            let decoded = batch.len();
            if decoded > 0 {
                handler(module, batch)?;
                done.store(decoded, Ordering::Relaxed);
            }
            undecoded
        })
    }

    /// Calls `handler` for every event whose topic fits `filter` (`*` stands for one part, `>`
    /// for all the rest), as plain JSON.
    pub fn on_topic<H>(&mut self, filter: &str, handler: H) -> &mut Self
    where
        H: for<'a, 'e> Fn(&mut M, &'a Event<'e, serde_json::Value>) -> Result<()> + 'static,
    {
        self.listen::<H>(filter, None, move |module, events, done| {
            one_by_one(events, done, |event| handler(module, &decode(event)?))
        })
    }

    /// Calls `handler` for every event whose topic fits `filter`, as the bytes that were published
    /// (JSON): for a module that passes events on, or reads few of them.
    pub fn on_bytes<H>(&mut self, filter: &str, handler: H) -> &mut Self
    where
        H: for<'a, 'e> Fn(&mut M, &'a Event<'e, &'e [u8]>) -> Result<()> + 'static,
    {
        self.listen::<H>(filter, None, move |module, events, done| {
            one_by_one(events, done, |event| {
                handler(module, &with_data(event, event.data.as_slice()))
            })
        })
    }

    fn listen<H>(
        &mut self,
        filter: &str,
        class: Option<Class>,
        handler: impl Fn(&mut M, &[RawEvent<'_>], &AtomicUsize) -> Result<()> + 'static,
    ) -> &mut Self {
        self.events.push(WiredEvent {
            subscription: Subscription { filter: filter.to_owned(), class },
            name: short_name(std::any::type_name::<H>()),
            handler: Box::new(handler),
        });
        self
    }

    /// Calls `handler` every `period`, first after one period. A run that is late is not made up
    /// for by two.
    pub fn every<H>(&mut self, period: Duration, handler: H) -> &mut Self
    where
        H: Fn(&mut M) -> Result<()> + 'static,
    {
        self.timers.push(WiredTimer {
            description: TimerDescription {
                name: short_name(std::any::type_name::<H>()).to_owned(),
                every_ms: milliseconds(period),
                daily: None,
            },
            daily: None,
            handler: Box::new(handler),
        });
        self
    }

    /// Calls `handler` once a day, within ten seconds after clocks in the zone that `zone` returns
    /// show the time `at` (`00:00`).
    ///
    /// The calendar decides, not the time that has passed: where clocks change a day has 23 or 25
    /// hours, a time that it lacks comes by as much later, and of two the first counts. Days on
    /// which the module did not run are made up for by one call, soon after the start; which day
    /// ran last stands in the data directory. A clock that is set back calls nothing twice, and one
    /// that cannot be right (before 2026, after 2056) nothing at all.
    ///
    /// ```
    /// # use module_sdk::{Host, Module, NoArgs, Result, Wiring, Zone};
    /// struct Report {
    ///     zone: Zone,
    /// }
    ///
    /// impl Module for Report {
    /// #   type Config = NoArgs;
    /// #   fn start(_: NoArgs, _: &Host) -> Result<Self> {
    /// #       Ok(Self { zone: Zone::default() })
    /// #   }
    ///     fn wire(wiring: &mut Wiring<Self>) {
    ///         wiring.daily("07:30", |report| report.zone.clone(), Self::write);
    ///     }
    /// }
    ///
    /// impl Report {
    ///     fn write(&mut self) -> Result<()> {
    ///         Ok(())
    ///     }
    /// }
    /// ```
    ///
    /// # Panics
    ///
    /// When `at` is no time of day; `lodestar modules check` then says so.
    pub fn daily<H>(
        &mut self,
        at: &str,
        zone: impl Fn(&M) -> Zone + 'static,
        handler: H,
    ) -> &mut Self
    where
        H: Fn(&mut M) -> Result<()> + 'static,
    {
        let name = short_name(std::any::type_name::<H>());
        let time = daily::time_of_day(at).unwrap_or_else(|error| panic!("daily: {error}"));
        let is_like = |timer: &&WiredTimer<M>| {
            timer.description.name == name && timer.description.daily.as_deref() == Some(at)
        };
        // Two closures have one name.
        let before = self.timers.iter().filter(is_like).count();
        self.timers.push(WiredTimer {
            description: TimerDescription {
                name: name.to_owned(),
                every_ms: milliseconds(daily::PERIOD),
                daily: Some(at.to_owned()),
            },
            daily: Some(Daily {
                key: format!("{name} {at} {before}"),
                at: time,
                zone: Box::new(zone),
            }),
            handler: Box::new(handler),
        });
        self
    }

    /// Answers `lodestar <module> <name>`. The doc comment of `A` is the command's help, its
    /// fields are the options. [`NoArgs`](crate::NoArgs) has neither. A number out of the range of
    /// its field (`#[schemars(range(min = 1))]`) is refused before `handler` is called.
    pub fn command<A, H>(&mut self, name: &str, handler: H) -> &mut Self
    where
        A: DeserializeOwned + JsonSchema,
        H: Fn(&mut M, A) -> Result<Reply> + 'static,
    {
        self.answer(name, move |module, args: A, _| handler(module, args).map(Answer::Now))
    }

    /// Answers `lodestar <module> <name>` with a [`Job`] that runs beside the module and writes a
    /// stream, which the command line prints or puts into a file (`--out`).
    pub fn stream<A, H>(&mut self, name: &str, handler: H) -> &mut Self
    where
        A: DeserializeOwned + JsonSchema,
        H: Fn(&mut M, A) -> Result<Job> + 'static,
    {
        self.answer(name, move |module, args: A, _| handler(module, args).map(Answer::Later))
            .describe(|command| command.streams = true)
    }

    /// Answers `lodestar <module> <name>` with a [`Job`] that runs beside the module and tells how
    /// far it is, and writes nothing to its output.
    pub fn job<A, H>(&mut self, name: &str, handler: H) -> &mut Self
    where
        A: DeserializeOwned + JsonSchema,
        H: Fn(&mut M, A) -> Result<Job> + 'static,
    {
        self.answer(name, move |module, args: A, _| handler(module, args).map(Answer::Later))
    }

    /// Answers `lodestar <module> <name>` with a [`Job`] that reads [`Files`]. The argument that
    /// is marked with `x-files` is their path; the command line opens it, or what lies in a folder,
    /// and sends the content. A module opens no path that somebody named: the daemon may have other
    /// rights than who asks.
    ///
    /// With `"x-files" = {"endings": ["jsonl"], "tools": "tool", "known": "import-known"}` the path
    /// may be left out: the files of the tool that the argument `tool` names are sent then. Before,
    /// `import-known` is asked with `{"files": [{"name", "tool", "mark"}]}` and answers with
    /// `{"files": […]}`: for each `null` where it did not change, or `{"from", "head",
    /// "head_bytes"}`, from which byte on it is to be sent while its beginning has this hash.
    ///
    /// ```
    /// use std::io::Read as _;
    /// use module_sdk::{Files, Job, Reply, Result, Wiring};
    ///
    /// /// Counts lines: `count notes.txt`.
    /// #[derive(serde::Deserialize, schemars::JsonSchema)]
    /// struct CountArgs {
    ///     /// A file, or a folder with `.txt` files.
    ///     #[schemars(extend("x-positional" = 1, "x-files" = ["txt"]))]
    ///     path: String,
    /// }
    /// # struct Notes;
    /// # impl module_sdk::Module for Notes {
    /// #     type Config = module_sdk::NoArgs;
    /// #     fn start(_: Self::Config, _: &module_sdk::Host) -> Result<Self> { Ok(Self) }
    ///
    /// fn wire(wiring: &mut Wiring<Self>) {
    ///     wiring.job_with_files("count", Self::count);
    /// }
    /// # }
    ///
    /// # impl Notes {
    /// fn count(&mut self, _: CountArgs, mut files: Files) -> Result<Job> {
    ///     Ok(Job::new(move |_| {
    ///         let mut lines = 0;
    ///         while let Some(mut file) = files.next_file()? {
    ///             let mut text = String::new();
    ///             file.read_to_string(&mut text)?;
    ///             lines += text.lines().count();
    ///         }
    ///         Reply::json(&lines)
    ///     }))
    /// }
    /// # }
    /// ```
    pub fn job_with_files<A, H>(&mut self, name: &str, handler: H) -> &mut Self
    where
        A: DeserializeOwned + JsonSchema,
        H: Fn(&mut M, A, Files) -> Result<Job> + 'static,
    {
        let command = name.to_owned();
        self.answer(name, move |module, args: A, files| {
            let files = files.ok_or_else(|| {
                let message = format!("`{command}` reads files, which were not sent");
                Error::usage(message).hint("run it on the command line, which opens them")
            })?;
            handler(module, args, files).map(Answer::Later)
        })
        .describe(|command| command.reads_files = true)
    }

    /// Lets the command that was added last answer without waiting until the events before it are
    /// handled: for questions that must not wait behind a full inbox, and whose answer need not
    /// include the newest events. Without it an answer includes every event accepted before.
    ///
    /// ```
    /// # use module_sdk::{Host, Module, NoArgs, Reply, Result, Wiring};
    /// # struct Gate;
    /// # impl Module for Gate {
    /// #     type Config = NoArgs;
    /// #     fn start(_: NoArgs, _: &Host) -> Result<Self> { Ok(Self) }
    /// fn wire(wiring: &mut Wiring<Self>) {
    ///     wiring.command("is_open", Self::is_open).without_barrier();
    /// }
    /// # }
    /// # impl Gate {
    /// #     fn is_open(&mut self, _: NoArgs) -> Result<Reply> { Reply::json(&true) }
    /// # }
    /// ```
    pub fn without_barrier(&mut self) -> &mut Self {
        self.describe(|command| command.without_barrier = true)
    }

    /// Changes the description of the command that was added last.
    fn describe(&mut self, change: impl FnOnce(&mut CommandDescription)) -> &mut Self {
        if let Some(command) = self.commands.last_mut() {
            change(&mut command.description);
        }
        self
    }

    fn answer<A: DeserializeOwned + JsonSchema>(
        &mut self,
        name: &str,
        handler: impl Fn(&mut M, A, Option<Files>) -> Result<Answer> + 'static,
    ) -> &mut Self {
        let args = schema_for!(A);
        let schema = args.clone().to_value();
        let about = args.get("description").and_then(|text| text.as_str()).unwrap_or_default();
        self.commands.push(WiredCommand {
            description: CommandDescription {
                name: name.to_owned(),
                about: about.to_owned(),
                args,
                streams: false,
                without_barrier: false,
                reads_files: false,
            },
            handler: Box::new(move |module, given, files| {
                handler(module, arguments(&schema, given)?, files)
            }),
        });
        self
    }
}

fn milliseconds(period: Duration) -> u64 {
    u64::try_from(period.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn one_by_one<'e>(
    events: &[RawEvent<'e>],
    done: &AtomicUsize,
    mut handle: impl FnMut(&RawEvent<'e>) -> Result<()>,
) -> Result<()> {
    for (index, event) in events.iter().enumerate() {
        handle(event)?;
        done.store(index + 1, Ordering::Relaxed);
    }
    Ok(())
}

fn decode<'e, T: DeserializeOwned>(raw: &RawEvent<'e>) -> Result<Event<'e, T>> {
    let data = serde_json::from_slice(raw.data.as_slice())
        .map_err(|error| Error::new(format!("cannot read an event of {}: {error}", raw.topic)))?;
    Ok(with_data(raw, data))
}

fn with_data<'e, T>(raw: &RawEvent<'e>, data: T) -> Event<'e, T> {
    Event {
        id: Uuid::from_bytes(raw.id),
        time: timestamp(raw.time_ns),
        attempt: raw.attempt,
        topic: raw.topic.as_str(),
        source: raw.source.as_str(),
        subject: raw.subject.as_str(),
        traceparent: raw.traceparent.as_str(),
        data,
    }
}

fn timestamp(time_ns: u64) -> Timestamp {
    const SECOND: u64 = 1_000_000_000;
    // Both fit: 2^64 ns are 1.8e10 s.
    Timestamp::new((time_ns / SECOND) as i64, (time_ns % SECOND) as i32).unwrap_or_default()
}

fn arguments<A: DeserializeOwned>(
    schema: &serde_json::Value,
    args: serde_json::Value,
) -> Result<A> {
    if let Some(misfit) = schema::out_of_range(schema, &args).into_iter().next() {
        let message = format!("{} {}", misfit.path, misfit.message);
        return Err(Error::usage(message).hint(misfit.hint));
    }
    // For a type that is flattened into another serde does not tell which keys there are.
    let unknown = || schema::unknown_keys(schema, &args).into_iter().next();
    serde_path_to_error::deserialize(&args).map_err(|error| {
        let path = error.path().to_string();
        let text = error.into_inner().to_string();
        match unknown() {
            Some(misfit) if misfit.path.is_empty() && text.starts_with("unknown field") => {
                Error::usage(misfit.message)
            }
            _ if path == "." => Error::usage(text),
            _ => Error::usage(format!("{path}: {text}")),
        }
    })
}

/// Returns the last part of a path: `usage_tracker::UsageTracker::summary` → `summary`.
fn short_name(full: &'static str) -> &'static str {
    full.rsplit("::").next().unwrap_or(full)
}

#[cfg(all(test, feature = "testing"))]
mod tests;

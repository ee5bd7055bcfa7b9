//! Notifications: who is told what of alerts, when, and by which channel.
//!
//! The [`notifier`] decides, the [`outbox`] keeps what it decided until it is delivered, the
//! [`couriers`] carry it by the [`channels`](crate::channels). What the notifier knows and what
//! waits in the outbox is written to the database together with the alerts, before anything is
//! sent: so a restart tells nothing twice and forgets nothing.

pub mod couriers;
mod hiding;
pub mod maintenance;
pub mod matcher;
pub mod note;
pub mod notifier;
pub mod options;
pub mod outbox;
pub mod silence;

use std::collections::{BTreeMap, BTreeSet};

use module_sdk::{CounterFamily, Error, Host, jiff::Timestamp};
use module_sqlite::rusqlite::{self, Connection, OptionalExtension as _};

use self::{
    couriers::Couriers,
    matcher::Matcher,
    notifier::{Circumstances, Notifier},
    options::NotifyOptions,
    outbox::Outbox,
    silence::Silence,
};
use crate::{
    alert::{Alert, Transition},
    channels::{ChannelOptions, SendError},
    metric::{CHANNEL_UP, CHANNEL_WAITING},
    reading::{Component, Found, Report, Series},
    rule::RuleSet,
    store::Store,
    text::visible,
    time::Moment,
};

/// Everything that tells people of alerts.
#[derive(Debug)]
pub struct Notify {
    notifier: Notifier,
    outbox: Outbox,
    couriers: Couriers,
    /// Kinds of the channels, by name.
    kinds: BTreeMap<String, &'static str>,
    silences: Vec<Silence>,
    /// Persons who work on alerts, by the ids of the alerts.
    acknowledged: BTreeMap<String, String>,
    /// State of the notifier that is not written yet.
    unsaved: Option<String>,
    components: BTreeMap<String, Watched>,
    metrics: Metrics,
}

/// Parts of the report of a channel.
#[derive(Debug)]
struct Watched {
    component: Component,
    up: std::sync::Arc<Series>,
    waiting: std::sync::Arc<Series>,
}

#[derive(Debug)]
struct Metrics {
    notes: CounterFamily<2>,
    suppressed: CounterFamily<1>,
}

/// State that was kept over a restart.
#[derive(Debug, Default)]
struct Kept {
    state: Option<String>,
    outbox: Vec<outbox::Row>,
    silences: Vec<Silence>,
    acknowledged: BTreeMap<String, String>,
}

/// Name of the check that the channels are reported as.
pub const CHECK: &str = "channels";

impl Notify {
    /// Starts with what the database has kept, and with the alerts that fire.
    ///
    /// # Errors
    ///
    /// When a channel cannot be made.
    pub fn start(
        options: &NotifyOptions,
        host: &Host,
        store: &mut Store,
        firing: &[Alert],
        now: Moment,
    ) -> module_sdk::Result<Self> {
        let configured = options.channels();
        let make = |(name, options): (&&str, &ChannelOptions)| {
            let channel = options.channel().map_err(|error| {
                let key = format!("notify.channels.{name}.{}", error.key);
                Error::config_at(key, error.to_string())
            })?;
            Ok(((*name).to_owned(), channel))
        };
        let channels = configured.iter().map(make).collect::<module_sdk::Result<_>>()?;
        // A database that is not available now has nothing to say.
        let kept = store.database().read(|it| Kept::read(it, now.at)).unwrap_or_default();
        let mut outbox = Outbox::new(configured.keys().map(|name| (*name).to_owned()));
        let gone = outbox.load(kept.outbox, now);
        if gone > 0 {
            tracing::warn!(notes = gone, "notes of channels that are no more were given up");
        }
        let policy = options.policy()?;
        let notifier = match kept.state.as_deref() {
            Some(state) => {
                Notifier::resume(policy.clone(), state, firing, now).unwrap_or_else(|error| {
                    tracing::warn!(%error, "what was told before cannot be read; it is told again");
                    Notifier::new(policy, firing, now)
                })
            }
            None => Notifier::new(policy, firing, now),
        };
        Ok(Self {
            notifier,
            outbox,
            couriers: Couriers::new(host, channels),
            kinds: configured.iter().map(|(name, it)| ((*name).to_owned(), it.kind())).collect(),
            silences: kept.silences,
            acknowledged: kept.acknowledged,
            unsaved: None,
            // The log takes everything.
            components: configured
                .iter()
                .filter(|(_, options)| !matches!(options, ChannelOptions::Log(_)))
                .map(|(name, _)| ((*name).to_owned(), watched(name)))
                .collect(),
            metrics: Metrics::new(host),
        })
    }

    /// Takes what began and ended, and what became of the notes that were on their way.
    pub fn step(&mut self, transitions: &[Transition], rules: &RuleSet, now: Moment) {
        for (channel, outcome) in self.couriers.outcomes() {
            self.settle(&channel, outcome, now);
        }
        for transition in transitions {
            if let Transition::Resolved(alert, _) = transition {
                self.acknowledged.remove(&alert.id);
            }
        }
        self.silences.retain(|silence| silence.ends_at > now.at);
        let silences: Vec<Matcher> = self.silences.iter().map(|it| it.matcher.clone()).collect();
        let acknowledged: BTreeSet<String> = self.acknowledged.keys().cloned().collect();
        let circumstances =
            Circumstances { rules, silences: &silences, acknowledged: &acknowledged };
        let told = self.notifier.step(transitions, &circumstances, now);
        for (channel, note) in told.notes {
            self.outbox.add(&channel, note, now);
        }
        for reason in told.suppressed {
            self.metrics.suppressed.add([reason.as_str()], 1.0);
        }
        self.unsaved = self.notifier.save(now).or_else(|| self.unsaved.take());
    }

    fn settle(&mut self, channel: &str, outcome: Result<(), SendError>, now: Moment) {
        if let Some(settled) = self.outbox.settle(channel, outcome, now) {
            self.metrics.notes.add([channel, settled.as_str()], 1.0);
        }
    }

    /// Returns whether the database is behind.
    #[must_use]
    pub fn is_unwritten(&self) -> bool {
        self.unsaved.is_some() || self.outbox.is_unwritten()
    }

    /// Brings the database up to date.
    ///
    /// # Errors
    ///
    /// Those of SQLite.
    pub fn write(&self, connection: &Connection, now: Moment) -> rusqlite::Result<()> {
        if let Some(state) = &self.unsaved {
            let sql = "INSERT OR REPLACE INTO notifier (id, state) VALUES (1, ?1)";
            connection.prepare_cached(sql)?.execute([state])?;
        }
        self.outbox.write(connection, now)
    }

    /// Notes that the database is up to date.
    pub fn written(&mut self) {
        self.unsaved = None;
        self.outbox.written();
    }

    /// Sends the notes that are due.
    pub fn send(&mut self, now: Moment) {
        for (channel, envelope) in self.outbox.due(now) {
            if let Err(error) = self.couriers.send(&channel, envelope) {
                tracing::error!(channel, %error, "a note cannot be sent");
                self.settle(&channel, Err(SendError::Broken), now);
            }
        }
    }

    /// Returns whether there is nothing to tell, nothing on its way and nothing to write.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.notifier.is_quiet()
            && self.outbox.is_empty()
            && self.couriers.has_nothing()
            && !self.is_unwritten()
    }

    /// Returns how the channels do, as a check would.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut report = Report::default();
        for state in self.outbox.states() {
            let Some(watched) = self.components.get(state.channel) else { continue };
            let found = Found::present(&watched.component, &watched.waiting);
            let message = match (state.trouble, state.waiting, state.dropped) {
                (Some(trouble), waiting, _) => {
                    let notes = if waiting == 1 { "note waits" } else { "notes wait" };
                    format!("{waiting} {notes}; the last attempt: {}", visible(&trouble.message))
                }
                (None, _, 0) => String::new(),
                (None, _, dropped) => format!("{dropped} notes were given up since the start"),
            };
            report.found.push(found.saying(message));
            report.read(&watched.up, if state.trouble.is_some() { 0.0 } else { 1.0 });
            let waiting = u32::try_from(state.waiting).unwrap_or(u32::MAX);
            report.read(&watched.waiting, f64::from(waiting));
        }
        report
    }

    /// Returns the channels with their kinds.
    #[must_use]
    pub fn kinds(&self) -> &BTreeMap<String, &'static str> {
        &self.kinds
    }

    /// Returns the channels and what is on its way.
    #[must_use]
    pub fn couriers(&self) -> &Couriers {
        &self.couriers
    }

    /// Returns the silences in force.
    #[must_use]
    pub fn silences(&self) -> &[Silence] {
        &self.silences
    }

    /// Adds a silence that is written.
    pub fn silence(&mut self, silence: Silence) {
        self.silences.push(silence);
    }

    /// Ends a silence.
    pub fn end_silence(&mut self, id: i64) {
        self.silences.retain(|silence| silence.id != id);
    }

    /// Notes who works on an alert.
    pub fn acknowledge(&mut self, id: &str, by: &str) {
        self.acknowledged.insert(id.to_owned(), by.to_owned());
    }

    /// Returns who works on an alert.
    #[must_use]
    pub fn acknowledged_by(&self, id: &str) -> Option<&str> {
        self.acknowledged.get(id).map(String::as_str)
    }

    /// Gives up on what is on its way. It is sent again after the next start.
    pub fn stop(&mut self) {
        self.couriers.stop();
    }
}

impl Kept {
    fn read(connection: &Connection, now: Timestamp) -> rusqlite::Result<Self> {
        let sql = "SELECT state FROM notifier";
        let state = connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?;
        Ok(Self {
            state,
            outbox: Outbox::read(connection)?,
            silences: Silence::read(connection, now)?,
            acknowledged: silence::acknowledged(connection)?,
        })
    }
}

fn watched(name: &str) -> Watched {
    let component: Component = format!("channel.{name}").into();
    Watched {
        up: Series::new(&CHANNEL_UP, &component, [name]),
        waiting: Series::new(&CHANNEL_WAITING, &component, [name]),
        component,
    }
}

impl Metrics {
    fn new(host: &Host) -> Self {
        Self {
            notes: host.counter_family(
                "lodestar_notifications_total",
                "Attempts to deliver a note, by channel and result.",
                [("channel", 20), ("result", 3)],
            ),
            suppressed: host.counter_family(
                "lodestar_notifications_suppressed_total",
                "Alerts that a channel was not told of, by reason.",
                [("reason", 5)],
            ),
        }
    }
}

//! Notes on their way: one queue per channel, in order, kept over a restart, tried again until the
//! receiver answers.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use module_sdk::jiff::Timestamp;
use module_sqlite::rusqlite::{self, Connection, params};
use uuid::Uuid;

use super::note::Note;
use crate::{
    channels::{Envelope, SendError},
    time::Moment,
};

/// Notes that wait, by channel.
#[derive(Debug, Default)]
pub struct Outbox {
    queues: BTreeMap<String, Queue>,
    /// Ids of notes whose row in the database is not as it should be.
    unwritten: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// `true` while the first note is on its way.
    is_sending: bool,
    trouble: Option<Trouble>,
    /// Notes that were given up since the start.
    dropped: u64,
}

/// A note that waits. Times are milliseconds of the steady clock, which may lie before its start.
#[derive(Debug)]
struct Waiting {
    envelope: Arc<Envelope>,
    created_at: Timestamp,
    created_ms: i64,
    attempts: u32,
    next_ms: i64,
}

/// Trouble of a channel: the last attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Words for it.
    pub message: String,
    /// Time of the first failure since the last success, on the steady clock.
    pub since_ms: i64,
}

/// State of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelState<'a> {
    /// Name of the channel.
    pub channel: &'a str,
    /// Notes that wait.
    pub waiting: usize,
    /// Trouble, where the last attempt failed.
    pub trouble: Option<&'a Trouble>,
    /// Notes that were given up since the start.
    pub dropped: u64,
}

/// Result of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The receiver has the note.
    Delivered,
    /// It is tried again.
    Failed,
    /// It is given up.
    Dropped,
}

impl Settled {
    /// Returns the word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "sent",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}

/// A row of the table `outbox`.
#[derive(Debug)]
pub struct Row {
    id: String,
    channel: String,
    note: String,
    created_at: i64,
    attempts: u32,
    next_attempt_at: i64,
}

/// Age at which a note is given up, in milliseconds.
const OLDEST_MS: i64 = 24 * 3_600_000;
/// Pause after the first failure, and the longest one, in milliseconds.
const FIRST_PAUSE_MS: u64 = 1_000;
const LONGEST_PAUSE_MS: u64 = 300_000;
/// Attempts after which a note is given up that the receiver refuses.
const REFUSALS: u32 = 5;
/// Notes that wait for a channel, at most; then the oldest one is given up.
const WAITING: usize = 1_000;

impl Outbox {
    /// Begins with the channels that there are.
    pub fn new(channels: impl IntoIterator<Item = String>) -> Self {
        let queues = channels.into_iter().map(|name| (name, Queue::default())).collect();
        Self { queues, unwritten: BTreeSet::new() }
    }

    /// Takes the notes of the time before a restart. Those of channels that are no more are given
    /// up; returns how many these are.
    pub fn load(&mut self, rows: Vec<Row>, now: Moment) -> usize {
        let mut gone = 0;
        for row in rows {
            let queue = self.queues.get_mut(&row.channel);
            let (Some(queue), Some(waiting)) = (queue, row.waiting(now)) else {
                self.unwritten.insert(row.id);
                gone += 1;
                continue;
            };
            queue.waiting.push_back(waiting);
        }
        gone
    }

    /// Returns whether no note waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queues.values().all(|queue| queue.waiting.is_empty())
    }

    /// Adds a note for a channel.
    pub fn add(&mut self, channel: &str, note: Note, now: Moment) {
        let Some(queue) = self.queues.get_mut(channel) else { return };
        if queue.waiting.len() >= WAITING {
            // The first may be on its way.
            if let Some(oldest) = queue.waiting.remove(usize::from(queue.is_sending)) {
                self.unwritten.insert(oldest.envelope.id.clone());
                queue.give_up(channel, &oldest, "too many wait");
            }
        }
        let id = Uuid::now_v7().to_string();
        self.unwritten.insert(id.clone());
        queue.waiting.push_back(Waiting {
            envelope: Arc::new(Envelope { id, note }),
            created_at: now.at,
            created_ms: steady(now),
            attempts: 0,
            next_ms: steady(now),
        });
    }

    /// Returns the notes that are to be sent now, and notes that they are on their way. A channel
    /// has one note on its way at a time.
    pub fn due(&mut self, now: Moment) -> Vec<(String, Arc<Envelope>)> {
        let mut due = Vec::new();
        for (channel, queue) in &mut self.queues {
            if queue.is_sending {
                continue;
            }
            if let Some(first) = queue.waiting.front().filter(|it| it.next_ms <= steady(now)) {
                due.push((channel.clone(), first.envelope.clone()));
                queue.is_sending = true;
            }
        }
        due
    }

    /// Takes what became of an attempt.
    pub fn settle(
        &mut self,
        channel: &str,
        result: Result<(), SendError>,
        now: Moment,
    ) -> Option<Settled> {
        let queue = self.queues.get_mut(channel)?;
        queue.is_sending = false;
        let first = queue.waiting.front_mut()?;
        self.unwritten.insert(first.envelope.id.clone());
        let error = match result {
            Ok(()) => {
                queue.waiting.pop_front();
                if queue.trouble.take().is_some() {
                    tracing::info!(channel, "notes are delivered again");
                }
                return Some(Settled::Delivered);
            }
            Err(error) => error,
        };
        let now_ms = steady(now);
        first.attempts += 1;
        let pause = pause_ms(&first.envelope.id, first.attempts, error.retry_after());
        first.next_ms = now_ms.saturating_add(ms(pause));
        let is_refused = error.is_refusal() && first.attempts >= REFUSALS;
        let is_old = now_ms.saturating_sub(first.created_ms) >= OLDEST_MS;
        let message = error.to_string();
        let since_ms = queue.trouble.as_ref().map_or(now_ms, |trouble| trouble.since_ms);
        if queue.trouble.as_ref().is_none_or(|trouble| trouble.message != message) {
            tracing::warn!(channel, error = message, "a note could not be delivered; it waits");
        }
        queue.trouble = Some(Trouble { message: message.clone(), since_ms });
        if !(is_refused || is_old) {
            return Some(Settled::Failed);
        }
        let given_up = queue.waiting.pop_front()?;
        queue.give_up(channel, &given_up, &message);
        Some(Settled::Dropped)
    }

    /// Returns the states of the channels.
    pub fn states(&self) -> impl Iterator<Item = ChannelState<'_>> {
        self.queues.iter().map(|(channel, queue)| ChannelState {
            channel,
            waiting: queue.waiting.len(),
            trouble: queue.trouble.as_ref(),
            dropped: queue.dropped,
        })
    }

    /// Returns whether the database is behind.
    #[must_use]
    pub fn is_unwritten(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// Brings the database up to date.
    ///
    /// # Errors
    ///
    /// Those of SQLite.
    pub fn write(&self, connection: &Connection, now: Moment) -> rusqlite::Result<()> {
        let mut left: BTreeSet<&str> = self.unwritten.iter().map(String::as_str).collect();
        let insert = "INSERT OR REPLACE INTO outbox \
                      (id, channel, note, created_at, attempts, next_attempt_at) \
                      VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        for (channel, queue) in &self.queues {
            for waiting in &queue.waiting {
                if !left.remove(waiting.envelope.id.as_str()) {
                    continue;
                }
                let note = serde_json::to_string(&waiting.envelope.note).unwrap_or_default();
                let pause = waiting.next_ms.saturating_sub(steady(now)).max(0);
                connection.prepare_cached(insert)?.execute(params![
                    waiting.envelope.id,
                    channel,
                    note,
                    waiting.created_at.as_millisecond(),
                    waiting.attempts,
                    now.at.as_millisecond().saturating_add(pause),
                ])?;
            }
        }
        for id in left {
            connection.prepare_cached("DELETE FROM outbox WHERE id = ?1")?.execute([id])?;
        }
        Ok(())
    }

    /// Notes that the database is up to date.
    pub fn written(&mut self) {
        self.unwritten.clear();
    }

    /// Reads the notes that wait in the database.
    ///
    /// # Errors
    ///
    /// Those of SQLite.
    pub fn read(connection: &Connection) -> rusqlite::Result<Vec<Row>> {
        let mut all = connection.prepare_cached("SELECT * FROM outbox ORDER BY id")?;
        let rows = all.query_map([], |row| {
            Ok(Row {
                id: row.get("id")?,
                channel: row.get("channel")?,
                note: row.get("note")?,
                created_at: row.get("created_at")?,
                attempts: row.get("attempts")?,
                next_attempt_at: row.get("next_attempt_at")?,
            })
        })?;
        rows.collect()
    }
}

impl Queue {
    fn give_up(&mut self, channel: &str, waiting: &Waiting, reason: &str) {
        self.dropped += 1;
        let title = waiting.envelope.note.title();
        tracing::error!(channel, reason, "a note was given up and not delivered: {title}");
    }
}

impl Row {
    fn waiting(&self, now: Moment) -> Option<Waiting> {
        let now_ms = now.at.as_millisecond();
        // Whatever the clock did meanwhile, no note becomes younger, or waits for longer.
        let age = now_ms.saturating_sub(self.created_at).max(0);
        let pause = self.next_attempt_at.saturating_sub(now_ms).clamp(0, ms(LONGEST_PAUSE_MS));
        let note = serde_json::from_str(&self.note).ok()?;
        Some(Waiting {
            envelope: Arc::new(Envelope { id: self.id.clone(), note }),
            created_at: Timestamp::from_millisecond(self.created_at).ok()?,
            created_ms: steady(now).saturating_sub(age),
            attempts: self.attempts,
            next_ms: steady(now).saturating_add(pause),
        })
    }
}

/// Returns the pause after a failure: doubled each time, and somewhat different for each note, so
/// that a receiver that comes back is not asked by all at once.
fn pause_ms(id: &str, attempts: u32, asked: Option<Duration>) -> u64 {
    let doubled = FIRST_PAUSE_MS.saturating_mul(1 << attempts.saturating_sub(1).min(20));
    let mut hasher = DefaultHasher::new();
    (id, attempts).hash(&mut hasher);
    let jittered = doubled.min(LONGEST_PAUSE_MS) * (750 + hasher.finish() % 251) / 1_000;
    let asked = asked.map_or(0, |asked| u64::try_from(asked.as_millis()).unwrap_or(u64::MAX));
    jittered.max(asked)
}

fn steady(now: Moment) -> i64 {
    ms(now.steady_ms)
}

fn ms(time: u64) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    fn moment(ms: u64) -> Moment {
        let start: Timestamp = "2026-11-20T10:00:00Z".parse().expect("a time");
        let ms = module_sdk::jiff::Span::new().milliseconds(i64::try_from(ms).expect("short"));
        Moment { at: start + ms, steady_ms: 0 }
    }

    fn at(ms: u64) -> Moment {
        Moment { steady_ms: ms, ..moment(ms) }
    }

    fn outbox() -> Outbox {
        Outbox::new(["ops".to_owned(), "other".to_owned()])
    }

    fn down() -> Result<(), SendError> {
        Err(SendError::Status { code: 503, retry_after: None })
    }

    #[test]
    fn notes_wait_in_order_and_longer_each_time() {
        let mut outbox = outbox();
        for minute in 0..3 {
            outbox.add("ops", Note::test(at(minute * 60_000).at), at(0));
        }
        outbox.add("other", Note::test(at(0).at), at(0));
        assert_eq!(outbox.due(at(0)).len(), 2, "one per channel");
        assert!(outbox.due(at(0)).is_empty(), "they are on their way");
        assert_eq!(outbox.settle("other", Ok(()), at(10)), Some(Settled::Delivered));
        let (mut now, mut pauses) = (0, Vec::new());
        for _ in 0..12 {
            assert_eq!(outbox.settle("ops", down(), at(now)), Some(Settled::Failed));
            let begun = now;
            while outbox.due(at(now)).is_empty() {
                now += 50;
            }
            pauses.push(now - begun);
        }
        assert!((750..=1_000).contains(&pauses[0]), "{pauses:?}");
        assert!((225_000..=300_000).contains(&pauses[11]), "{pauses:?}");
        let state = outbox.states().next().expect("there is one");
        assert_eq!((state.channel, state.waiting), ("ops", 3));
        assert_eq!(state.trouble.expect("it failed").message, "the server answers 503");
        let mut order = Vec::new();
        loop {
            assert_eq!(outbox.settle("ops", Ok(()), at(now)), Some(Settled::Delivered));
            let Some((_, envelope)) = outbox.due(at(now)).pop() else { break };
            order.push(envelope.note.at);
        }
        assert_eq!(order, [at(60_000).at, at(120_000).at]);
        assert_eq!(outbox.states().next().expect("there is one").trouble, None);
    }

    #[test]
    fn a_receiver_may_ask_for_patience() {
        let mut outbox = outbox();
        outbox.add("ops", Note::test(at(0).at), at(0));
        assert_eq!(outbox.due(at(0)).len(), 1);
        let retry_after = Some(Duration::from_secs(120));
        let busy = SendError::Status { code: 429, retry_after };
        outbox.settle("ops", Err(busy), at(0));
        assert!(outbox.due(at(119_999)).is_empty());
        assert_eq!(outbox.due(at(120_000)).len(), 1);
    }

    #[test]
    fn what_cannot_be_delivered_for_a_day_or_is_refused_is_given_up() {
        let mut outbox = outbox();
        outbox.add("ops", Note::test(at(0).at), at(0));
        let mut now = 0;
        while outbox.settle("ops", down(), at(now)) != Some(Settled::Dropped) {
            now += 60_000;
        }
        assert_eq!(now, 24 * 3_600_000);
        outbox.add("ops", Note::test(at(0).at), at(now));
        let refused = || Err(SendError::Refused("it answers 400".to_owned()));
        for _ in 0..4 {
            assert_eq!(outbox.settle("ops", refused(), at(now)), Some(Settled::Failed));
        }
        assert_eq!(outbox.settle("ops", refused(), at(now)), Some(Settled::Dropped));
        assert_eq!(outbox.states().next().expect("there is one").dropped, 2);
        for _ in 0..=WAITING {
            outbox.add("ops", Note::test(at(0).at), at(now));
        }
        let state = outbox.states().next().expect("there is one");
        assert_eq!((state.waiting, state.dropped), (WAITING, 3));
    }

    #[test]
    fn what_waits_survives_a_restart_with_its_id() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut store = Store::open(Store::options(directory.path(), None)).expect("it opens");
        let mut outbox = outbox();
        outbox.add("ops", Note::test(at(0).at), at(0));
        outbox.add("ops", Note::test(at(1).at), at(0));
        outbox.add("other", Note::test(at(0).at), at(0));
        let id = outbox.due(at(0))[0].1.id.clone();
        outbox.settle("ops", down(), at(0));
        outbox.settle("other", Ok(()), at(0));
        store.database().write(|it| outbox.write(it, at(0))).expect("it is written");
        outbox.written();
        assert!(!outbox.is_unwritten());

        let rows = store.database().read(Outbox::read).expect("it is read");
        let mut again = Outbox::new(["ops".to_owned()]);
        // The steady clock begins at 0 again, 500 ms later by the clock.
        assert_eq!(again.load(rows, moment(500)), 0);
        assert!(again.due(moment(500)).is_empty(), "it goes on to wait");
        let later = Moment { steady_ms: 500, ..moment(1_000) };
        assert_eq!(again.due(later)[0].1.id, id);
        assert_eq!(again.settle("ops", Ok(()), later), Some(Settled::Delivered));
        store.database().write(|it| again.write(it, later)).expect("it is written");

        let rows = store.database().read(Outbox::read).expect("it is read");
        let mut without = Outbox::new(["new".to_owned()]);
        assert_eq!(without.load(rows, moment(0)), 1, "its channel is no more");
        store.database().write(|it| without.write(it, moment(0))).expect("it is written");
        assert!(store.database().read(Outbox::read).expect("it is read").is_empty());
    }
}

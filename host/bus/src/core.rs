//! The bus itself: publishing, subscribing, closing.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use module_sdk::Class;
use smallvec::SmallVec;
use uuid::Uuid;

use super::{
    BusConfig, Inbox, NewEvent,
    publish::{Ids, is_filter, now_ns},
    routes::{Route, Routes},
    spares::Spares,
    tail::{Tail, Tap},
};
use crate::ledger::{
    Audience, Cursors, Entry, Event, Job, Ledger, LedgerError, LedgerHealth, PublishError,
    SharedEvent, Writer,
};

/// The event bus. Dropped without [`close`](Self::close) it leaves the disk as a kill would.
#[derive(Debug)]
pub struct Bus {
    pub(super) shared: Arc<Shared>,
    pub(super) writer: Arc<Writer>,
    pub(super) maintenance: Mutex<Option<JoinHandle<()>>>,
}

/// State that the bus, its threads and its inboxes share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) config: BusConfig,
    pub(super) ledger: Arc<Ledger>,
    pub(super) cursors: Cursors,
    pub(super) dead_directory: PathBuf,
    /// Last sequence that is redelivered after the cursors were lost, 0 where they never were. A
    /// module that subscribes for the first time begins with the oldest event kept, as long as an
    /// event up to this sequence is.
    pub(super) redeliver_upto: AtomicU64,
    pub(super) routes: RwLock<Routes>,
    /// Lock held while cursors are written, segments deleted or counted, dead letters moved.
    pub(super) housekeeping: Mutex<()>,
    pub(super) ids: Ids,
    pub(super) spares: Spares,
    /// Sequence of the last ledger event that was handed to the subscribers.
    pub(super) distributed: AtomicU64,
    /// True when cursors have moved since they were last written.
    pub(super) dirty: AtomicBool,
    pub(super) stop_maintenance: Mutex<bool>,
    pub(super) wake_maintenance: Condvar,
    pub(super) closed: AtomicBool,
}

/// Callback that is called once with whether the ledger events of a call were accepted.
pub type Accepted = Box<dyn FnOnce(Result<(), PublishError>) + Send>;

/// Reason for which a module could not subscribe.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The text is not the name of a module.
    #[error("`{0}` is not the name of a module; use a-z, 0-9 and _, at most 64 of them")]
    Module(String),
    /// The text is not a topic filter.
    #[error(
        "`{0}` is not a topic filter; use dotted parts of a-z, 0-9, _ and -, with `*` for one \
         part and `>` at the end for more"
    )]
    Filter(String),
    /// The inbox of the module is open already.
    #[error("{0} has its inbox open already; stop the running generation first")]
    InUse(String),
    /// The module has no subscription.
    #[error("{0} has no subscription; `lodestar events lag` lists those there are")]
    Unknown(String),
    /// The subscription could not be written down.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Bus {
    /// Opens the bus on a directory of its own, after a stop of any kind.
    ///
    /// # Errors
    ///
    /// When the directory cannot be read or written, or is of a later version.
    pub fn open(config: BusConfig, directory: &Path) -> Result<Self, LedgerError> {
        super::recover::open(config, directory)
    }

    /// Publishes events. Ledger events are accepted all or none, later: `done` is called on the
    /// writer's thread, which it must not hold up. Live events of the same call are delivered at
    /// once. Order is kept per publisher and topic.
    ///
    /// # Errors
    ///
    /// When nothing of the call is accepted; `done` is then dropped and not called.
    pub fn publish(
        &self,
        events: Vec<NewEvent>,
        done: Option<Accepted>,
    ) -> Result<(), PublishError> {
        let shared = &*self.shared;
        if shared.closed.load(Ordering::Relaxed) {
            return Err(PublishError::Closed);
        }
        for event in &events {
            event.check()?;
        }
        let (events, live_ids) = shared.without_known(events)?;
        let routes = shared.routes();
        let forget = || live_ids.iter().for_each(|id| shared.ledger.relayed.remove(*id));
        let (live, entries) = shared.sort(events, &routes).inspect_err(|_| forget())?;
        if !entries.is_empty() {
            self.writer.submit(Job { entries, done }).inspect_err(|_| forget())?;
            routes.push_live(&live, shared.config.inbox_events);
            return Ok(());
        }
        routes.push_live(&live, shared.config.inbox_events);
        drop(routes);
        if let Some(done) = done {
            done(Ok(()));
        }
        Ok(())
    }

    /// Returns whether an event of a topic would reach a module, running or not.
    #[must_use]
    pub fn wanted(&self, topic: &str) -> bool {
        self.shared.routes().of(&topic.into()).is_ok_and(|route| !route.is_empty())
    }

    /// Opens the inbox of a module. Its first subscription begins at the end of the ledger; later
    /// ones go on where it stopped, also after a restart. Other filters than before hold for
    /// events that come from now on.
    ///
    /// # Errors
    ///
    /// When a name or filter has no right form, the inbox is open, or the subscription cannot be
    /// written down.
    pub fn subscribe(&self, module: &str, filters: &[String]) -> Result<Inbox, SubscribeError> {
        if !is_module_name(module) {
            return Err(SubscribeError::Module(module.to_owned()));
        }
        if let Some(wrong) = filters.iter().find(|filter| !is_filter(filter)) {
            return Err(SubscribeError::Filter(wrong.clone()));
        }
        let shared = &self.shared;
        let _housekeeping = shared.housekeeping();
        let (subscriber, is_new) = shared.register(module, filters)?;
        // What is known already needs no room on the disk.
        if is_new && let Err(error) = shared.persist() {
            let mut state = subscriber.lock();
            (state.attached, state.listening) = (false, false);
            return Err(error.into());
        }
        Ok(Inbox::new(subscriber, shared.clone()))
    }

    /// Replaces the filters of a module's open inbox, for events that come from now on.
    ///
    /// # Errors
    ///
    /// When a filter has no right form, there is no such subscription, or it cannot be written
    /// down.
    pub fn refilter(&self, module: &str, filters: &[String]) -> Result<(), SubscribeError> {
        if let Some(wrong) = filters.iter().find(|filter| !is_filter(filter)) {
            return Err(SubscribeError::Filter(wrong.clone()));
        }
        let shared = &self.shared;
        let _housekeeping = shared.housekeeping();
        let mut routes = shared.routes_mut();
        let subscriber = routes.find(module).cloned();
        let unknown = || SubscribeError::Unknown(module.to_owned());
        let is_new = subscriber.ok_or_else(unknown)?.lock().listen_to(filters);
        routes.changed();
        drop(routes);
        if is_new {
            shared.persist()?;
        }
        Ok(())
    }

    /// Forgets a module: its place in the ledger, its counters and its dead letters.
    ///
    /// # Errors
    ///
    /// When it has no subscription, its inbox is open, or the change cannot be written down.
    pub fn unsubscribe(&self, module: &str) -> Result<(), SubscribeError> {
        let shared = &self.shared;
        let _housekeeping = shared.housekeeping();
        let subscriber = {
            let mut routes = shared.routes_mut();
            let unknown = || SubscribeError::Unknown(module.to_owned());
            let subscriber = routes.find(module).cloned().ok_or_else(unknown)?;
            if subscriber.lock().attached {
                return Err(SubscribeError::InUse(module.to_owned()));
            }
            routes.subscribers.retain(|other| !Arc::ptr_eq(other, &subscriber));
            routes.changed();
            subscriber
        };
        shared.persist()?;
        if let Err(error) = subscriber.dead.remove() {
            tracing::warn!(%module, %error, "cannot remove the dead letters");
        }
        Ok(())
    }

    /// Shows all events from now on that fit one of the filters; all events without a filter.
    ///
    /// # Errors
    ///
    /// When a filter has no right form.
    pub fn tail(&self, filters: &[String]) -> Result<Tail, SubscribeError> {
        if let Some(wrong) = filters.iter().find(|filter| !is_filter(filter)) {
            return Err(SubscribeError::Filter(wrong.clone()));
        }
        let tap = Arc::new(Tap::new(filters));
        if self.shared.closed.load(Ordering::Relaxed) {
            tap.close();
        }
        self.shared.routes_mut().taps.push(tap.clone());
        Ok(Tail::new(tap, Arc::downgrade(&self.shared)))
    }

    /// Returns whether the cursors of the modules were lost and some events that they may have
    /// waited for are kept: a module that subscribes for the first time gets those as well.
    #[must_use]
    pub fn redelivers(&self) -> bool {
        self.shared.redeliver_from().is_some()
    }

    /// Returns the health of the ledger.
    #[must_use]
    pub fn health(&self) -> LedgerHealth {
        self.shared.ledger.health()
    }

    /// Returns the size of the ledger on disk, in bytes.
    #[must_use]
    pub fn ledger_bytes(&self) -> u64 {
        self.shared.ledger.list().iter().map(|segment| segment.bytes).sum()
    }

    /// Writes what waits for the ledger, then the cursors, and ends the bus's threads. Inboxes
    /// should be dropped before, so that the cursors say all. Later calls do nothing.
    ///
    /// # Errors
    ///
    /// When the cursors cannot be written; the events since they last were come again.
    pub fn close(&self) -> Result<(), LedgerError> {
        if self.shared.closed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let is_whole = self.writer.finish();
        self.end_maintenance();
        for tap in &self.shared.routes().taps {
            tap.close();
        }
        let _housekeeping = self.shared.housekeeping();
        self.shared.write_down(is_whole).map(drop)
    }

    fn end_maintenance(&self) {
        *self.shared.stop_maintenance.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.wake_maintenance.notify_one();
        let maintenance = self.maintenance.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(maintenance) = maintenance
            && maintenance.join().is_err()
        {
            tracing::error!("the maintenance thread of the event ledger ended by a panic");
        }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        if !self.shared.closed.swap(true, Ordering::SeqCst) {
            self.writer.abandon();
            self.end_maintenance();
            for tap in &self.shared.routes().taps {
                tap.close();
            }
        }
    }
}

/// The live events of one call, and the subscribers that each of them reaches.
#[derive(Debug)]
struct LiveGroup {
    events: Arc<[Event]>,
    /// Neighbours that reach the same subscribers.
    routes: SmallVec<[(Range<usize>, Route); 1]>,
}

impl Shared {
    /// Leaves out live events that were relayed before, and remembers the others, whose ids are
    /// returned; the writer does the same for ledger events.
    fn without_known(
        &self,
        mut events: Vec<NewEvent>,
    ) -> Result<(Vec<NewEvent>, Vec<Uuid>), PublishError> {
        let mut new = Vec::new();
        if events.iter().all(|event| event.id.is_none()) {
            return Ok((events, new));
        }
        let relayed = &self.ledger.relayed;
        let loaded = relayed.load(&self.ledger, self.distributed.load(Ordering::SeqCst));
        loaded.map_err(|error| PublishError::Io {
            what: "read the event ledger in",
            path: self.ledger.directory.display().to_string(),
            reason: error.to_string(),
            remedy: crate::ledger::remedy(&error),
        })?;
        events.retain(|event| match event.id {
            Some(id) if event.class == Class::Live => {
                let is_new = relayed.insert(id);
                new.extend(is_new.then_some(id));
                is_new
            }
            _ => true,
        });
        Ok((events, new))
    }

    /// Gives events their ids and sorts them by class.
    fn sort(
        &self,
        events: Vec<NewEvent>,
        routes: &Routes,
    ) -> Result<(LiveGroup, Vec<Entry>), PublishError> {
        let now = now_ns();
        let ledger = events.iter().filter(|event| event.class == Class::Ledger).count();
        // Most calls have one event: lists without an allocation.
        let mut live: SmallVec<[Event; 1]> = SmallVec::with_capacity(events.len() - ledger);
        let mut reached: SmallVec<[(Range<usize>, Route); 1]> = SmallVec::new();
        let mut entries = Vec::with_capacity(ledger);
        for event in events {
            if event.class == Class::Ledger {
                // Refused now if it is no topic: the writer must not meet it.
                let known =
                    entries.last().is_some_and(|before: &Entry| before.event.topic == event.topic);
                if !known {
                    routes.of(&event.topic)?;
                }
                let event = self.ids.event(event, 0, now);
                entries.push(Entry { event, audience: Audience::Subscribers });
                continue;
            }
            let at = live.len();
            match (live.last(), reached.last_mut()) {
                (Some(before), Some((range, _))) if before.topic == event.topic => {
                    range.end = at + 1;
                }
                _ => reached.push((at..at + 1, routes.of(&event.topic)?)),
            }
            live.push(self.ids.event(event, self.ids.live_sequence(), now));
        }
        let events: Arc<[Event]> = match live.into_inner() {
            Ok(alone) => self.spares.group(alone),
            Err(several) => several.into_vec().into(),
        };
        Ok((LiveGroup { events, routes: reached }, entries))
    }

    pub(super) fn routes(&self) -> RwLockReadGuard<'_, Routes> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn routes_mut(&self) -> RwLockWriteGuard<'_, Routes> {
        self.routes.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn housekeeping(&self) -> MutexGuard<'_, ()> {
        self.housekeeping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks the cursors as moved, and wakes the maintenance thread.
    pub(super) fn touch(&self) {
        if !self.dirty.swap(true, Ordering::SeqCst) {
            drop(self.stop_maintenance.lock());
            self.wake_maintenance.notify_one();
        }
    }

    /// Hands a committed group to its subscribers, on the writer's thread.
    pub(super) fn distribute(&self, entries: &[Entry<SharedEvent>]) {
        let routes = self.routes();
        let mut found: Vec<Route> = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let same = |before: usize| entries[before].event.topic == entry.event.topic;
            let route = match index.checked_sub(1) {
                Some(before) if same(before) => found[before].clone(),
                _ => routes.of(&entry.event.topic).unwrap_or_else(|_| Route::default()),
            };
            found.push(route);
        }
        for (place, subscriber) in routes.subscribers.iter().enumerate() {
            subscriber.push_ledger(entries, &found, place, self.config.inbox_events);
        }
        for tap in &routes.taps {
            entries.iter().for_each(|entry| tap.show(&entry.event));
        }
        if let Some(last) = entries.last() {
            self.distributed.store(last.event.sequence, Ordering::SeqCst);
        }
        drop(routes);
        self.touch();
    }
}

impl Routes {
    fn push_live(&self, live: &LiveGroup, room: usize) {
        for (place, subscriber) in self.subscribers.iter().enumerate() {
            let is_mine = |(_, route): &&(Range<usize>, Route)| route.contains(&place);
            let ranges = live.routes.iter().filter(is_mine).map(|(range, _)| range.clone());
            let mut ranges = ranges.peekable();
            if ranges.peek().is_some() {
                subscriber.push_live(&live.events, ranges, room);
            }
        }
        if self.taps.is_empty() {
            return;
        }
        for index in 0..live.events.len() {
            let event = SharedEvent::new(live.events.clone(), index);
            self.taps.iter().for_each(|tap| tap.show(&event));
        }
    }
}

fn is_module_name(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=64).contains(&name.len()) && name.bytes().all(known)
}

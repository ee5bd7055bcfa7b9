//! State shared by the acceptor and the connections of a server.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

use crate::{
    End, Figures, Limits,
    activity::{Activity, Order},
};

/// The state of one server.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) figures: Arc<Figures>,
    /// Notification that a connection has ended.
    pub(crate) ended: Notify,
    is_draining: AtomicBool,
    /// Open connections whose descriptors are beyond the share of this server.
    beyond: AtomicUsize,
    connections: Mutex<HashMap<u64, Arc<Activity>>>,
    last_number: AtomicU64,
}

impl Shared {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            figures: Arc::new(Figures::new(limits.connections)),
            ended: Notify::new(),
            is_draining: AtomicBool::new(false),
            beyond: AtomicUsize::new(0),
            connections: Mutex::default(),
            last_number: AtomicU64::new(0),
        }
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<u64, Arc<Activity>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn open(&self) -> usize {
        self.figures.open.load(Ordering::SeqCst)
    }

    /// Returns whether a descriptor of an open connection is beyond the share of this server.
    pub(crate) fn is_beyond(&self) -> bool {
        self.beyond.load(Ordering::SeqCst) > 0
    }

    /// Makes each response end its connection from now on.
    pub(crate) fn drain(&self) {
        self.is_draining.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::SeqCst)
    }

    /// Returns whether a connection stays open after its next response.
    pub(crate) fn keeps_alive(&self) -> bool {
        !self.is_draining() && self.staying() <= self.limits.crowded()
    }

    /// Returns the number of connections that stay open; if few are open, the ending ones count
    /// too.
    fn staying(&self) -> usize {
        let open = self.open();
        if open <= self.limits.crowded() {
            return open;
        }
        self.connections().values().filter(|activity| !activity.is_leaving()).count()
    }

    /// Counts a connection until the returned value is dropped.
    pub(crate) fn enroll(self: &Arc<Self>, descriptor: i32) -> Enrolled {
        let number = self.last_number.fetch_add(1, Ordering::Relaxed);
        let activity = Arc::new(Activity::new());
        self.connections().insert(number, activity.clone());
        self.figures.open.fetch_add(1, Ordering::SeqCst);
        self.figures.count_accepted();
        let is_beyond = self.limits.descriptors.exceeded_by(descriptor);
        self.beyond.fetch_add(usize::from(is_beyond), Ordering::SeqCst);
        Enrolled { shared: self.clone(), activity, number, is_beyond, end: End::Done }
    }

    /// Closes an idle connection if many are open.
    pub(crate) fn thin_out(&self) {
        if self.open() >= self.limits.crowded() && self.staying() >= self.limits.crowded() {
            self.close_idle();
        }
    }

    /// Asks the connection that has been idle for longest to close.
    pub(crate) fn close_idle(&self) {
        let connections = self.connections();
        let idle = connections.values().filter_map(|it| Some((it.idle_since()?, it)));
        let longest = idle.min_by_key(|(since, _)| *since);
        if let Some((_, activity)) = longest {
            activity.give(Order::Close);
        }
    }

    /// Ends the least useful connection, if any can be ended; returns whether one was found.
    pub(crate) fn displace(&self) -> bool {
        let connections = self.connections();
        let all = connections.values().filter_map(|it| Some((it.dispensable()?, it)));
        let first = all.min_by_key(|(rank, _)| *rank);
        first.map(|(_, activity)| activity.give(Order::Drop)).is_some()
    }

    /// Asks all connections to close.
    pub(crate) fn close_all(&self) {
        self.connections().values().for_each(|activity| activity.give(Order::Close));
    }
}

/// A counted connection.
#[derive(Debug)]
pub(crate) struct Enrolled {
    pub(crate) shared: Arc<Shared>,
    pub(crate) activity: Arc<Activity>,
    number: u64,
    is_beyond: bool,
    end: End,
}

impl Enrolled {
    /// Sets the reason for the end of the connection.
    pub(crate) fn finish(mut self, end: End) {
        self.end = end;
    }
}

impl Drop for Enrolled {
    fn drop(&mut self) {
        self.shared.connections().remove(&self.number);
        self.shared.figures.count_end(self.end);
        self.shared.beyond.fetch_sub(usize::from(self.is_beyond), Ordering::SeqCst);
        self.shared.figures.open.fetch_sub(1, Ordering::SeqCst);
        self.shared.ended.notify_waiters();
    }
}

//! Acceptance of events by the host: a module waits for it, or goes on.

use std::{
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use lodestar_abi::{Completion, ModError, abi_stable::std_types::RResult};

use crate::{Error, ErrorKind, Result, glue};

/// Outcome of publishing events: a future, or a thing to wait for.
#[derive(Debug)]
pub struct Acceptance {
    pub(super) shared: Arc<Shared>,
}

impl Acceptance {
    /// Waits on this thread.
    ///
    /// # Errors
    ///
    /// Returns why the events were not accepted; [`ErrorKind::Unavailable`] when `timeout` is over,
    /// after which they may be accepted or not.
    pub fn wait(self, timeout: Duration) -> Result<()> {
        let state = self.shared.lock();
        let (mut state, _) = self
            .shared
            .settled
            .wait_timeout_while(state, timeout, |state| state.result.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        state.result.take().unwrap_or_else(|| {
            Err(Error::of(ErrorKind::Unavailable, "the host has not accepted the events in time"))
        })
    }
}

impl Future for Acceptance {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.shared.lock();
        match state.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// State that the host settles and the module waits for.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    settled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    result: Option<Result<()>>,
    waker: Option<Waker>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn settle(&self, result: Result<()>) {
        let mut state = self.lock();
        state.result = Some(result);
        let waker = state.waker.take();
        drop(state);
        self.settled.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Word of the host that all events are accepted.
pub(super) struct Signal(pub(super) Arc<Shared>);

impl Completion for Signal {
    fn complete(&self, result: RResult<(), ModError>) {
        glue::contained(|| self.0.settle(result.into_result().map_err(Error::from_abi)));
    }
}

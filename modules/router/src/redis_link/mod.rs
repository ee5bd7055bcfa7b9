//! One connection to a Redis that may be gone, slow or full, and must never delay a request.
//!
//! A command has a deadline of a few milliseconds. After a broken connection, or three answers that
//! came too late, the link is down: commands fail at once, without a system call, and a task of its
//! own tries again with growing pauses until Redis answers in time.

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod url;

use std::{
    borrow::Cow,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use module_sdk::jiff::{Timestamp, tz::TimeZone};
use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisError, aio::MultiplexedConnection};
use tokio::{runtime::Handle, task::AbortHandle};

pub(crate) use url::RedisUrl;

/// Late answers one after the other that take the link down.
const LATE_ANSWERS: u32 = 3;
/// Time that a connection may take.
const CONNECT: Duration = Duration::from_secs(1);
/// Pause before the first new attempt, which doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Time without further writes after one that Redis refused: it is full or read-only.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// Answers that must come in time before a link counts as up.
const PROBES: u32 = 3;

/// Reason for which Redis did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RedisFault {
    /// The link is down; nothing was sent.
    #[error("Redis is not connected")]
    Down,
    /// The answer did not come in time. The command may have been done.
    #[error("Redis did not answer in time")]
    Late,
    /// The connection broke. The command may have been done.
    #[error("the connection to Redis broke")]
    Broken,
    /// Redis refused, with its code: `OOM` when it is full.
    #[error("Redis refused ({0})")]
    Refused(String),
    /// Redis answered something else than what it was asked for.
    #[error("Redis gave an unexpected answer")]
    Unexpected,
}

/// Kind of a command, which decides whether it is tried while Redis refuses writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// A command that only reads.
    Read,
    /// A command that writes.
    Write,
}

/// A connection to a Redis. Cheap to clone; the task that mends it ends with the last clone.
#[derive(Clone)]
pub(crate) struct RedisLink {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    shown: String,
    deadline: Duration,
    runtime: Handle,
    state: Mutex<State>,
}

/// Reason for which a link is down, in a few words without a secret.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
struct Trouble(Cow<'static, str>);

#[derive(Default)]
struct State {
    /// Connection, while the link is up.
    connection: Option<MultiplexedConnection>,
    /// Answers that came too late, one after the other.
    late: u32,
    /// Reason for which the link is down, with its beginning.
    trouble: Option<(Timestamp, Trouble)>,
    /// End of the time without writes, with the code of the refusal and its beginning.
    refused: Option<(Instant, Timestamp, String)>,
    /// Task that connects.
    mending: Option<AbortHandle>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = state.mending.take() {
            task.abort();
        }
    }
}

impl std::fmt::Debug for RedisLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RedisLink({})", self.inner.shown)
    }
}

impl RedisLink {
    /// Begins to connect, and returns at once. `deadline` is the time for one answer.
    ///
    /// # Errors
    ///
    /// When the address cannot be used.
    pub(crate) fn start(
        url: &RedisUrl,
        deadline: Duration,
        runtime: &Handle,
    ) -> Result<Self, RedisFault> {
        let client = Client::open(url.info()).map_err(|_| RedisFault::Unexpected)?;
        let inner = Arc::new(Inner {
            client,
            shown: url.to_string(),
            deadline,
            runtime: runtime.clone(),
            state: Mutex::default(),
        });
        inner.mend(&mut inner.state(), Duration::ZERO);
        Ok(Self { inner })
    }

    /// Sends a command and waits for its answer, at most until the deadline.
    pub(crate) async fn ask<T: redis::FromRedisValue>(
        &self,
        access: Access,
        command: &redis::Cmd,
    ) -> Result<T, RedisFault> {
        let mut connection = self.inner.connection(access)?;
        self.within(access, command.query_async(&mut connection)).await
    }

    /// Runs a script, which is loaded where Redis does not have it yet.
    pub(crate) async fn run<T: redis::FromRedisValue>(
        &self,
        script: &redis::ScriptInvocation<'_>,
    ) -> Result<T, RedisFault> {
        let mut connection = self.inner.connection(Access::Write)?;
        self.within(Access::Write, script.invoke_async(&mut connection)).await
    }

    async fn within<T>(
        &self,
        access: Access,
        answer: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, RedisFault> {
        let answer = tokio::time::timeout(self.inner.deadline, answer).await;
        self.inner.judge(access, answer)
    }

    /// Returns whether commands are sent.
    pub(crate) fn is_up(&self) -> bool {
        self.inner.state().connection.is_some()
    }

    /// Returns what is wrong, in words for the health of the module.
    pub(crate) fn trouble(&self) -> Option<String> {
        let shown = &self.inner.shown;
        let state = self.inner.state();
        if let Some((since, reason)) = &state.trouble {
            return Some(format!("Redis at {shown}: {reason}, since {}", clock(*since)));
        }
        let (until, since, code) = state.refused.as_ref()?;
        let what = match code.as_str() {
            "OOM" => "it is full and takes nothing more; raise maxmemory, or set a policy for it",
            "READONLY" => "it is read-only; name the primary",
            "NOPERM" => "its user may not do that; grant it",
            _ => "it refuses writes",
        };
        is_recent(*until)
            .then(|| format!("Redis at {shown} ({code}): {what}, since {}", clock(*since)))
    }
}

/// Returns a time as people read it.
fn clock(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).strftime("%H:%M:%S UTC").to_string()
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connection(&self, access: Access) -> Result<MultiplexedConnection, RedisFault> {
        let state = self.state();
        let connection = state.connection.as_ref().ok_or(RedisFault::Down)?;
        match &state.refused {
            Some((until, _, code)) if access == Access::Write && Instant::now() < *until => {
                Err(RedisFault::Refused(code.clone()))
            }
            _ => Ok(connection.clone()),
        }
    }

    fn judge<T>(
        self: &Arc<Self>,
        access: Access,
        answer: Result<Result<T, RedisError>, tokio::time::error::Elapsed>,
    ) -> Result<T, RedisFault> {
        let mut state = self.state();
        let error = match answer {
            Ok(Ok(value)) => {
                state.late = 0;
                if access == Access::Write {
                    state.refused = None;
                }
                return Ok(value);
            }
            Err(_) => {
                state.late += 1;
                if state.late >= LATE_ANSWERS {
                    let late = self.is_late();
                    self.take_down(&mut state, late);
                }
                return Err(RedisFault::Late);
            }
            Ok(Err(error)) => error,
        };
        match error.kind() {
            ErrorKind::UnexpectedReturnType => Err(RedisFault::Unexpected),
            ErrorKind::Server(_) | ErrorKind::Extension => {
                let code = error.code().unwrap_or("ERR").to_owned();
                if is_unready(&code) {
                    self.take_down(&mut state, reason(&error));
                } else {
                    refuse(&mut state, &code, &self.shown);
                }
                Err(RedisFault::Refused(code))
            }
            _ => {
                self.take_down(&mut state, reason(&error));
                Err(RedisFault::Broken)
            }
        }
    }

    fn take_down(self: &Arc<Self>, state: &mut State, reason: Trouble) {
        if state.connection.take().is_none() {
            return;
        }
        tracing::warn!(redis = %self.shown, %reason, "Redis is lost; trying again beside");
        state.late = 0;
        state.trouble = Some((Timestamp::now(), reason));
        self.mend(state, FIRST_PAUSE);
    }

    fn mend(self: &Arc<Self>, state: &mut State, pause: Duration) {
        let task = self.runtime.spawn(mend(Arc::downgrade(self), pause));
        if let Some(former) = state.mending.replace(task.abort_handle()) {
            former.abort();
        }
    }

    fn is_late(&self) -> Trouble {
        Trouble(format!("answers take longer than {:?}", self.deadline).into())
    }

    /// Connects, and returns the connection once it answers in time.
    async fn connect(&self) -> Result<MultiplexedConnection, Trouble> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(CONNECT));
        let connect = self.client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = match tokio::time::timeout(CONNECT * 2, connect).await {
            Ok(connection) => connection.map_err(|error| reason(&error))?,
            Err(_) => return Err(Trouble("it does not take connections".into())),
        };
        for _ in 0..PROBES {
            let ping = redis::cmd("PING");
            let answer = ping.query_async::<()>(&mut connection);
            match tokio::time::timeout(self.deadline, answer).await {
                Ok(answer) => answer.map_err(|error| reason(&error))?,
                Err(_) => return Err(self.is_late()),
            }
        }
        Ok(connection)
    }
}

/// Tries to connect until it works or the link is gone.
async fn mend(link: Weak<Inner>, mut pause: Duration) {
    loop {
        // A little chance, so that many daemons do not come back at one moment.
        tokio::time::sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
        let Some(inner) = link.upgrade() else { return };
        let outcome = inner.connect().await;
        let mut state = inner.state();
        match outcome {
            Ok(connection) => {
                if state.trouble.take().is_some() {
                    tracing::info!(redis = %inner.shown, "Redis answers again");
                }
                state.connection = Some(connection);
                state.late = 0;
                state.mending = None;
                return;
            }
            Err(reason) => match &mut state.trouble {
                Some((_, known)) => *known = reason,
                None => {
                    tracing::warn!(redis = %inner.shown, %reason, "Redis cannot be used");
                    state.trouble = Some((Timestamp::now(), reason));
                }
            },
        }
        pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
    }
}

fn refuse(state: &mut State, code: &str, shown: &str) {
    let now = Timestamp::now();
    let since = match state.refused.take() {
        Some((until, since, known)) if known == code && is_recent(until) => since,
        _ => {
            tracing::warn!(redis = %shown, %code, "Redis refuses writes");
            now
        }
    };
    state.refused = Some((Instant::now() + REFUSED_PAUSE, since, code.to_owned()));
}

/// Returns whether a refusal still says something: later Redis may be well, and nobody tried.
fn is_recent(until: Instant) -> bool {
    until.elapsed() < REFUSED_PAUSE * 30
}

/// Returns whether a code says that Redis is not ready for anything.
fn is_unready(code: &str) -> bool {
    matches!(code, "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "NOAUTH" | "WRONGPASS" | "MOVED")
}

/// Returns the reason of an error in a few words. The text of Redis is left out where it could
/// repeat what it was sent.
fn reason(error: &RedisError) -> Trouble {
    if error.is_connection_refusal() {
        return Trouble("nothing listens there".into());
    }
    Trouble(match error.kind() {
        ErrorKind::AuthenticationFailed => "it refuses the password".into(),
        ErrorKind::Io if error.is_timeout() => "it does not answer".into(),
        ErrorKind::Io => "the connection broke".into(),
        _ => match error.code() {
            Some("LOADING") => "it is loading its data".into(),
            Some("NOAUTH" | "WRONGPASS") => "it refuses the password".into(),
            Some(code) => format!("it answers {code}").into(),
            None => error.category().to_owned().into(),
        },
    })
}

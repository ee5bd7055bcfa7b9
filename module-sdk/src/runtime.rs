//! A module's own tokio runtime: one thread, named after the module.

use std::{
    sync::{Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

use crate::{Error, Host, Result, glue};

/// Time that blocking tasks get before the runtime shuts down without them.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// A runtime that starts when it is first needed.
#[derive(Default)]
pub(crate) struct RuntimeCell(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    Unused,
    Running(Running),
    Stopped,
}

struct Running {
    handle: Handle,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl RuntimeCell {
    pub(crate) fn handle(&self, host: &Host) -> Result<Handle> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            State::Running(running) => return Ok(running.handle.clone()),
            State::Stopped => return Err(Error::unavailable("the module's runtime has stopped")),
            State::Unused => {}
        }
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        // Linux keeps 15 bytes of a thread's name.
        let (module, own) = (host.name(), host.downgrade());
        let name = format!("rt:{}", &module[..module.len().min(12)]);
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            glue::set_own_log_host(own);
            // An error means that the sender is gone, which is a stop as well.
            let _: std::result::Result<(), _> = runtime.block_on(stopped);
            runtime.shutdown_timeout(SHUTDOWN);
        })?;
        *state = State::Running(Running { handle: handle.clone(), stop, thread });
        Ok(handle)
    }

    pub(crate) fn stop(&self) {
        let state = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *state, State::Stopped)
        };
        if let State::Running(running) = state {
            let _ = running.stop.send(());
            if running.thread.join().is_err() {
                tracing::error!("the module's runtime thread panicked");
            }
        }
    }
}

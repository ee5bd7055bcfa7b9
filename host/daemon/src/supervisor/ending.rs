//! End of the daemon: stops the modules, and handles their last events.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;

use super::{
    STOP_GRACE, Supervisor, plan::Action, supervised::Supervised, taking::the_daemon_ends,
};
use crate::wake::Wake;

/// Time that all modules together may take to stop when the daemon ends.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(15);

impl Supervisor {
    /// Stops all modules, the last one of the file first, and waits for them within the grace
    /// period. Their last events arrive in `woken`.
    pub async fn shut_down(mut self, woken: &mut UnboundedReceiver<Wake>) {
        self.fleet.stopping = true;
        self.give_up_changes();
        let until = Instant::now() + SHUTDOWN_GRACE;
        let config = self.fleet.daemon.config();
        for action in self.fleet.plan(&config) {
            let Action::Stop(module) = action else { continue };
            if !self.fleet.modules.get(&module).is_some_and(Supervised::is_alive) {
                continue;
            }
            let slot = self.fleet.daemon.slot(&module);
            self.fleet.stop(&slot);
            let grace = (STOP_GRACE + Duration::from_secs(1))
                .min(until.saturating_duration_since(Instant::now()));
            let mut state = slot.entry.watch();
            let ended = async {
                while state.borrow_and_update().state.is_alive() {
                    // An error means that it is gone.
                    tokio::select! {
                        changed = state.changed() => if changed.is_err() { return },
                        Some(wake) = woken.recv() => self.hear_at_last(wake),
                    }
                }
            };
            if tokio::time::timeout(grace, ended).await.is_err() {
                let call = slot.entry.clock().running().map(|(what, _)| what);
                tracing::error!(
                    module,
                    call,
                    "the module did not stop in time; the daemon ends without it"
                );
            }
        }
        // Generations that were replaced, and modules whose section is gone, may still drain.
        if !self.threads_end(until.min(Instant::now() + STOP_GRACE)).await {
            tracing::warn!("a thread of a module has not ended; the daemon ends without it");
        }
        while let Ok(wake) = woken.try_recv() {
            self.hear_at_last(wake);
        }
    }

    /// Handles an event of a daemon that ends: those of modules are acted on, requests are refused,
    /// all others are ignored.
    fn hear_at_last(&mut self, wake: Wake) {
        match wake {
            Wake::Module { name, event, thread } => self.fleet.heard(&name, event, thread),
            Wake::Asked(_, _, answer) => {
                // An error means that the client is gone.
                let _ = answer.send(Err(the_daemon_ends()));
            }
            _ => {}
        }
    }

    /// Waits until all threads of modules have ended. Returns false when some have not by `until`.
    async fn threads_end(&mut self, until: Instant) -> bool {
        // Looked at and not joined: a join of one that hangs would hold up the end of the process.
        while !self.fleet.modules.values().all(Supervised::is_finished) {
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        true
    }
}

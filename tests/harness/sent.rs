//! Clients that send requests and remember which of them were accepted.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use serde_json::Value;

use crate::{Sandbox, http, telemetry};

/// A body and the ids of the requests in it.
type Batch = (Vec<String>, String);

/// Requests that the clients have sent.
#[derive(Debug, Default)]
pub struct Sent {
    /// Ids of requests that were accepted, with status 200.
    accepted: Mutex<HashSet<String>>,
    /// Batches that were sent without an answer: the daemon may have accepted them or not, so they
    /// are sent again.
    unanswered: Mutex<Vec<Batch>>,
    count: AtomicU64,
}

/// Comparison of what `usage_tracker` has with what was sent.
#[derive(Debug)]
pub struct Counted {
    /// Number of requests that it has.
    pub requests: u64,
    /// Ids that were accepted and are not there.
    pub lost: Vec<String>,
    /// Ids that are there more than once.
    pub twice: Vec<String>,
    /// Ids that are there and were never sent.
    pub invented: Vec<String>,
}

impl Counted {
    /// Returns whether everything is there once.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        [&self.lost, &self.twice, &self.invented].into_iter().all(Vec::is_empty)
    }
}

impl Sent {
    /// Returns the number of requests that were accepted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Sends batches until `stop` is set; what got no answer is sent again.
    pub fn until_told(&self, address: &str, client: &str, stop: &AtomicBool) {
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            self.send_next(address, client, number);
        }
    }

    /// Sends what got no answer; returns whether all of it has one now.
    #[must_use]
    pub fn send_again(&self, address: &str) -> bool {
        while let Some(batch) = lock(&self.unanswered).pop() {
            if !self.send(address, batch) {
                return false;
            }
        }
        true
    }

    /// Compares what `usage_tracker` has with what was sent.
    ///
    /// # Panics
    ///
    /// When `usage_tracker` cannot be asked.
    #[must_use]
    pub fn counted(&self, sandbox: &Sandbox) -> Counted {
        let export = sandbox.lodestar(&["usage", "export", "--format", "jsonl"]);
        assert_eq!(export.code, 0, "{}", export.stderr);
        let mut counted = HashMap::<String, u64>::new();
        for line in export.stdout.lines() {
            let row: Value = serde_json::from_str(line).expect("a line is JSON");
            let id = row["upstream_request_id"].as_str().expect("each had one");
            *counted.entry(id.to_owned()).or_default() += 1;
        }
        let accepted = lock(&self.accepted);
        let lost = accepted.iter().filter(|id| !counted.contains_key(*id));
        let twice = counted.iter().filter(|(_, count)| **count > 1).map(|(id, _)| id);
        let invented = counted.keys().filter(|id| !accepted.contains(*id));
        Counted {
            requests: counted.len() as u64,
            lost: lost.cloned().collect(),
            twice: twice.cloned().collect(),
            invented: invented.cloned().collect(),
        }
    }

    /// Sends a batch without an answer once more, or else the next one; returns whether it was
    /// answered.
    fn send_next(&self, address: &str, client: &str, number: u64) -> bool {
        let unanswered = lock(&self.unanswered).pop();
        self.send(address, unanswered.unwrap_or_else(|| batch(client, number)))
    }

    /// Sends a batch; returns whether it was answered.
    fn send(&self, address: &str, batch: Batch) -> bool {
        match http::post(address, "/v1/logs", &[telemetry::JSON], batch.1.as_bytes()) {
            Ok(answer) if answer.status == 200 => {
                self.count.fetch_add(batch.0.len() as u64, Ordering::Relaxed);
                lock(&self.accepted).extend(batch.0);
                true
            }
            Ok(answer) => {
                assert_eq!(answer.status, 503, "{}", answer.text());
                lock(&self.unanswered).push(batch);
                true
            }
            Err(_) => {
                lock(&self.unanswered).push(batch);
                false
            }
        }
    }
}

fn batch(client: &str, number: u64) -> Batch {
    let ids: Vec<String> =
        (0..1 + number % 4).map(|index| format!("{client}-{number}-{index}")).collect();
    let names = ids.iter().map(String::as_str).collect::<Vec<_>>();
    let body = telemetry::claude_code_many(client, &names).to_string();
    (ids, body)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

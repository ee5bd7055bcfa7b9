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

/// What the clients have sent.
#[derive(Debug, Default)]
pub struct Sent {
    /// Accepted, with status 200.
    accepted: Mutex<HashSet<String>>,
    /// Sent without an answer: the daemon may have accepted it or not, so it is sent again.
    unanswered: Mutex<Vec<Batch>>,
    count: AtomicU64,
}

/// What `usage_tracker` has of what was sent.
#[derive(Debug)]
pub struct Counted {
    /// How many requests it has.
    pub requests: u64,
    /// Accepted and not there.
    pub lost: Vec<String>,
    /// There more than once.
    pub twice: Vec<String>,
    /// There and never sent.
    pub invented: Vec<String>,
}

impl Counted {
    /// Whether everything is there once.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        [&self.lost, &self.twice, &self.invented].into_iter().all(Vec::is_empty)
    }
}

impl Sent {
    /// How many requests were accepted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Sends until it is time to stop; what got no answer is sent again.
    pub fn until_told(&self, address: &str, client: &str, stop: &AtomicBool) {
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            self.send_next(address, client, number);
        }
    }

    /// Sends what got no answer; answers whether all of it has one now.
    #[must_use]
    pub fn send_again(&self, address: &str) -> bool {
        while let Some(batch) = lock(&self.unanswered).pop() {
            if !self.send(address, batch) {
                return false;
            }
        }
        true
    }

    /// What `usage_tracker` makes of it.
    ///
    /// # Panics
    ///
    /// When it cannot be asked.
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

    /// Whether it was answered.
    fn send_next(&self, address: &str, client: &str, number: u64) -> bool {
        let unanswered = lock(&self.unanswered).pop();
        self.send(address, unanswered.unwrap_or_else(|| batch(client, number)))
    }

    /// Whether it was answered.
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

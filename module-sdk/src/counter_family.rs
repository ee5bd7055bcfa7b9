//! Counters by labels whose values are not known in advance.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
};

use crate::{Counter, Host};

/// Value that stands for the values of a label beyond its limit.
const OTHER: &str = "other";

/// A family of counters with bounded labels: further values of a label are counted as `other`, so
/// that a sender of ever new names neither fills the memory nor reaches the limit of the host.
///
/// The handlers of all threads may share it. A family that the host refuses is logged once and
/// counts nothing.
///
/// ```
/// # use module_sdk::{CounterFamily, Host};
/// struct Metrics {
///     requests: CounterFamily<2>,
/// }
///
/// impl Metrics {
///     fn new(host: &Host) -> Self {
///         let labels = [("model", 100), ("outcome", 5)];
///         Self { requests: host.counter_family("requests_total", "Requests.", labels) }
///     }
///
///     fn request(&self, model: &str) {
///         self.requests.add([model, "ok"], 1.0);
///     }
/// }
/// ```
#[derive(Debug)]
pub struct CounterFamily<const N: usize> {
    host: Host,
    name: &'static str,
    help: &'static str,
    /// Each label with the number of values that it may have besides `other`.
    labels: [(&'static str, usize); N],
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The values of each label, by the label's index.
    values: BTreeSet<(usize, String)>,
    /// Counters by the values of all labels.
    counters: HashMap<String, Counter>,
    is_refused: bool,
}

impl Host {
    /// Returns a family of counters. Each of its labels may have as many values as given; further
    /// ones are counted as `other`. Names follow [`counter`](Self::counter).
    #[must_use]
    pub fn counter_family<const N: usize>(
        &self,
        name: &'static str,
        help: &'static str,
        labels: [(&'static str, usize); N],
    ) -> CounterFamily<N> {
        CounterFamily { host: self.clone(), name, help, labels, state: Mutex::default() }
    }
}

impl<const N: usize> CounterFamily<N> {
    /// Adds to the counter with these values, in the order of the labels.
    pub fn add(&self, values: [&str; N], amount: f64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut labels = [("", ""); N];
        for (at, (value, (label, most))) in values.into_iter().zip(self.labels).enumerate() {
            labels[at] = (label, if state.takes(at, value, most) { value } else { OTHER });
        }
        let series: String = labels.iter().map(|(_, value)| format!("{value}\0")).collect();
        if let Some(counter) = state.counters.get(&series) {
            return counter.add(amount);
        }
        match self.host.counter(self.name, self.help, &labels) {
            Ok(counter) => {
                counter.add(amount);
                state.counters.insert(series, counter);
            }
            Err(error) if !state.is_refused => {
                state.is_refused = true;
                tracing::warn!(metric = self.name, %error, "a metric is not available");
            }
            Err(_) => {}
        }
    }
}

impl State {
    /// Returns whether a value of a label is counted under its own name, and adds it if there is
    /// room.
    fn takes(&mut self, label: usize, value: &str, most: usize) -> bool {
        let key = (label, value.to_owned());
        if self.values.contains(&key) {
            return true;
        }
        let known = self.values.range((label, String::new())..(label + 1, String::new())).count();
        known < most && self.values.insert(key)
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use crate::testing::FakeHost;

    #[test]
    fn too_many_values_are_counted_together() {
        let fake = std::sync::Arc::new(FakeHost::new(std::path::Path::new("/nowhere")));
        let host = fake.host().expect("it tells about itself");
        let family = host.counter_family("seen_total", "Seen.", [("model", 2), ("outcome", 1)]);
        for (model, outcome) in
            [("a", "ok"), ("b", "ok"), ("c", "ok"), ("a", "bad"), ("d", "ok"), ("b", "ok")]
        {
            family.add([model, outcome], 1.0);
        }
        let found: Vec<(String, f64)> = fake.metrics().into_iter().collect();
        let series = |model: &str, outcome: &str, count: f64| {
            (format!("seen_total{{\"model\":\"{model}\",\"outcome\":\"{outcome}\"}}"), count)
        };
        let mut expected = [
            series("a", "ok", 1.0),
            series("a", "other", 1.0),
            series("b", "ok", 2.0),
            series("other", "ok", 2.0),
        ];
        expected.sort_by(|left, right| left.0.cmp(&right.0));
        assert_eq!(found, expected);
    }

    #[test]
    fn a_family_may_have_no_labels() {
        let fake = std::sync::Arc::new(FakeHost::new(std::path::Path::new("/nowhere")));
        let host = fake.host().expect("it tells about itself");
        let family = host.counter_family("all_total", "All.", []);
        family.add([], 2.0);
        family.add([], 1.5);
        assert_eq!(fake.metrics()["all_total"], 3.5);
    }
}

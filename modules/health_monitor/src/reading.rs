//! Reports of checks: components and readings.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use crate::metric::Metric;

/// Name of a part of the system that is watched: `disk./`, `memory`, `provider.ollama`.
pub type Component = Arc<str>;

/// Identity of the values of one metric of one component.
#[derive(Debug, PartialEq, Eq)]
pub struct Series {
    /// Hash of all that follows, which is looked up for every reading.
    hash: u64,
    /// Metric of the values.
    pub metric: &'static Metric,
    /// Component that they belong to.
    pub component: Component,
    /// Values of the metric's labels, in their order.
    pub labels: Box<[Arc<str>]>,
}

impl Hash for Series {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Series {
    /// Creates the identity of a series. Checks keep it, so that a sample allocates nothing.
    ///
    /// # Panics
    ///
    /// When there are not as many values as the metric has labels.
    #[must_use]
    pub fn new<const N: usize>(
        metric: &'static Metric,
        component: &Component,
        labels: [&str; N],
    ) -> Arc<Self> {
        assert_eq!(metric.labels.len(), N, "every label of {} has a value", metric.name);
        let mut hasher = DefaultHasher::new();
        (metric.name, component, labels).hash(&mut hasher);
        let labels = labels.into_iter().map(Arc::from).collect();
        Arc::new(Self { hash: hasher.finish(), metric, component: component.clone(), labels })
    }

    /// Returns the labels with their names. One whose value is empty is absent, as Prometheus has
    /// it.
    pub fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = self.metric.labels.iter().copied().zip(self.labels.iter().map(AsRef::as_ref));
        all.filter(|(_, value)| !value.is_empty())
    }
}

/// A value of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Series of the value.
    pub series: Arc<Series>,
    /// The value, in the unit of the metric. What is not known has no reading.
    pub value: f64,
}

/// Presence of a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// There, and read.
    Present,
    /// Not there, or not configured: nothing is wrong with it.
    Absent,
    /// Not known: it did not answer, or what it answered cannot be read.
    Unknown,
}

/// A component, as its check found it.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The component.
    pub component: Component,
    /// Its presence.
    pub presence: Presence,
    /// Series whose value stands for the component in a table.
    pub headline: Option<Arc<Series>>,
    /// Explanation in a sentence, empty for none: why it is absent or not known, or what is
    /// noteworthy.
    pub message: String,
    /// Details that a command of its own shows of the component besides its values, as JSON.
    pub details: Option<Arc<serde_json::Value>>,
}

impl Found {
    /// Returns a component that is there and was read.
    #[must_use]
    pub fn present(component: &Component, headline: &Arc<Series>) -> Self {
        Self {
            component: component.clone(),
            presence: Presence::Present,
            headline: Some(headline.clone()),
            message: String::new(),
            details: None,
        }
    }

    /// Returns a component that is not there.
    #[must_use]
    pub fn absent(component: &Component, message: impl Into<String>) -> Self {
        let (presence, message) = (Presence::Absent, message.into());
        Self { component: component.clone(), presence, headline: None, message, details: None }
    }

    /// Returns a component of which nothing is known.
    #[must_use]
    pub fn unknown(component: &Component, message: impl Into<String>) -> Self {
        let (presence, message) = (Presence::Unknown, message.into());
        Self { component: component.clone(), presence, headline: None, message, details: None }
    }

    /// Adds details for a command.
    #[must_use]
    pub fn with(mut self, details: &Arc<serde_json::Value>) -> Self {
        self.details = Some(details.clone());
        self
    }

    /// Adds an explanation.
    #[must_use]
    pub fn saying(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }
}

/// Result of one run of a check: every component that it has, and what it read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// The components. One that the run before had and this one has not is forgotten.
    pub found: Vec<Found>,
    /// The readings.
    pub readings: Vec<Reading>,
    /// Measurements since the run before, each once ([`Kind::Histogram`](crate::metric::Kind)).
    pub measured: Vec<Reading>,
    /// Reason why nothing is known of any component of the check, where the run did not end.
    pub hangs: Option<String>,
}

impl Report {
    /// Adds a reading.
    pub fn read(&mut self, series: &Arc<Series>, value: f64) {
        self.readings.push(Reading { series: series.clone(), value });
    }
}

//! Prometheus metrics: the host's, the bus's and every module's own, as text.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use prometheus::{
    Counter, CounterVec, Encoder as _, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec,
    Opts, Registry, TextEncoder,
    proto::{self, Bucket, LabelPair, Metric, MetricFamily, MetricType},
};

/// Most series that one family may have: an unbounded label must not fill the memory.
const MAX_SERIES: usize = 1_000;

/// Upper bounds in seconds: from a cache hit to a long answer of a model.
const BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];

/// Families that the host writes itself begin like this.
const RESERVED: [&str; 5] =
    ["lodestar_build_info", "lodestar_module_", "lodestar_bus_", "lodestar_ledger_", "process_"];

/// The kinds of metrics, with the numbers of the ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts values by size.
    Histogram,
}

impl Kind {
    /// From the number of the ABI.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Counter),
            1 => Some(Self::Gauge),
            2 => Some(Self::Histogram),
            _ => None,
        }
    }
}

/// Why a metric cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetricError {
    /// Another module has a family of that name.
    #[error("the metric {name} belongs to {owner}; choose another name")]
    Owned {
        /// The family.
        name: String,
        /// Who has it.
        owner: String,
    },
    /// It has been registered otherwise before.
    #[error("the metric {0} was registered with another kind or other labels before")]
    Changed(String),
    /// Too many series.
    #[error("the metric {0} has {MAX_SERIES} series; use a label with fewer values")]
    TooMany(String),
    /// Not a name, label or help that Prometheus takes.
    #[error("the metric {0} is not valid: {1}")]
    Invalid(String, String),
}

enum Vector {
    Counter(CounterVec),
    Gauge(GaugeVec),
    Histogram(HistogramVec),
}

enum Series {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

struct Family {
    owner: String,
    kind: Kind,
    label_names: Vec<String>,
    vector: Vector,
    handles: HashMap<Vec<String>, u64>,
}

#[derive(Default)]
struct State {
    families: HashMap<String, Family>,
    series: Vec<Series>,
}

/// All metrics of the modules. A family belongs to the module that registered it first.
pub struct Metrics {
    registry: Registry,
    state: Mutex<State>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Metrics({} families)", self.state().families.len())
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self { registry: Registry::new(), state: Mutex::default() }
    }
}

impl Metrics {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a series for a module, or finds it; answers its handle.
    ///
    /// # Errors
    ///
    /// When another module has the family, it has been registered otherwise, it has too many
    /// series, or a name is not valid.
    pub fn series(
        &self,
        owner: &str,
        kind: Kind,
        name: &str,
        help: &str,
        labels: &[(String, String)],
    ) -> Result<u64, MetricError> {
        let mut labels = labels.to_vec();
        labels.sort();
        let (names, values): (Vec<String>, Vec<String>) = labels.into_iter().unzip();
        let mut state = self.state();
        if !state.families.contains_key(name) {
            let family = self.family(owner, kind, name, help, &names)?;
            state.families.insert(name.to_owned(), family);
        }
        let State { families, series } = &mut *state;
        let family = families.get_mut(name).expect("it was inserted above");
        if family.owner != owner {
            let (name, owner) = (name.to_owned(), family.owner.clone());
            return Err(MetricError::Owned { name, owner });
        }
        if family.kind != kind || family.label_names != names {
            return Err(MetricError::Changed(name.to_owned()));
        }
        if let Some(handle) = family.handles.get(&values) {
            return Ok(*handle);
        }
        if family.handles.len() >= MAX_SERIES {
            return Err(MetricError::TooMany(name.to_owned()));
        }
        let texts: Vec<&str> = values.iter().map(String::as_str).collect();
        series.push(match &family.vector {
            Vector::Counter(vector) => Series::Counter(vector.with_label_values(&texts)),
            Vector::Gauge(vector) => Series::Gauge(vector.with_label_values(&texts)),
            Vector::Histogram(vector) => Series::Histogram(vector.with_label_values(&texts)),
        });
        let handle = series.len() as u64 - 1;
        family.handles.insert(values, handle);
        Ok(handle)
    }

    fn family(
        &self,
        owner: &str,
        kind: Kind,
        name: &str,
        help: &str,
        label_names: &[String],
    ) -> Result<Family, MetricError> {
        if RESERVED.iter().any(|prefix| name.starts_with(prefix)) {
            let (name, owner) = (name.to_owned(), "lodestard".to_owned());
            return Err(MetricError::Owned { name, owner });
        }
        let invalid =
            |error: prometheus::Error| MetricError::Invalid(name.to_owned(), error.to_string());
        if kind == Kind::Counter && !name.ends_with("_total") {
            let reason = "the name of a counter ends in _total".to_owned();
            return Err(MetricError::Invalid(name.to_owned(), reason));
        }
        let names: Vec<&str> = label_names.iter().map(String::as_str).collect();
        let vector = match kind {
            Kind::Counter => {
                let vector = CounterVec::new(Opts::new(name, help), &names).map_err(invalid)?;
                self.registry.register(Box::new(vector.clone())).map_err(invalid)?;
                Vector::Counter(vector)
            }
            Kind::Gauge => {
                let vector = GaugeVec::new(Opts::new(name, help), &names).map_err(invalid)?;
                self.registry.register(Box::new(vector.clone())).map_err(invalid)?;
                Vector::Gauge(vector)
            }
            Kind::Histogram => {
                let options = HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
                let vector = HistogramVec::new(options, &names).map_err(invalid)?;
                self.registry.register(Box::new(vector.clone())).map_err(invalid)?;
                Vector::Histogram(vector)
            }
        };
        let (owner, label_names) = (owner.to_owned(), label_names.to_vec());
        Ok(Family { owner, kind, label_names, vector, handles: HashMap::new() })
    }

    /// Adds to a counter, sets a gauge, observes into a histogram. What does not fit is ignored.
    pub fn record(&self, handle: u64, value: f64) {
        let state = self.state();
        let index = usize::try_from(handle).unwrap_or(usize::MAX);
        match state.series.get(index) {
            Some(Series::Counter(counter)) if value >= 0.0 => counter.inc_by(value),
            Some(Series::Gauge(gauge)) => gauge.set(value),
            Some(Series::Histogram(histogram)) if !value.is_nan() => histogram.observe(value),
            _ => {}
        }
    }

    /// Everything in the text format of Prometheus, version 0.0.4, with the host's own families.
    #[must_use]
    pub fn encode(&self, own: Vec<MetricFamily>) -> String {
        let mut families = self.registry.gather();
        families.extend(own);
        families.retain(|family| !family.get_metric().is_empty());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&families, &mut text) {
            tracing::error!(%error, "cannot write the metrics");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// One histogram of a family.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramRow {
    /// The values of its labels.
    pub labels: Vec<String>,
    /// Upper bounds, rising, and how many values are at most that.
    pub buckets: Vec<(f64, u64)>,
    /// How many values there are.
    pub count: u64,
    /// All of them together.
    pub sum: f64,
}

impl HistogramRow {
    fn into_metric(self, names: &[&str]) -> Metric {
        let label = |(name, value): (&&str, String)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value(value);
            pair
        };
        let bucket = |(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            bucket
        };
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(self.buckets.into_iter().map(bucket).collect());
        histogram.set_sample_count(self.count);
        histogram.set_sample_sum(self.sum);
        let mut metric = Metric::from_label(names.iter().zip(self.labels).map(label).collect());
        metric.set_histogram(histogram);
        metric
    }
}

/// Builds families whose values are looked up at each scrape.
#[derive(Debug, Default)]
pub struct Snapshot {
    families: Vec<MetricFamily>,
}

impl Snapshot {
    /// Adds a family; each row is the values of its labels and the value.
    pub fn family(
        &mut self,
        kind: Kind,
        name: &str,
        help: &str,
        labels: &[&str],
        rows: impl IntoIterator<Item = (Vec<String>, f64)>,
    ) -> &mut Self {
        use prometheus::core::Collector as _;
        let options = Opts::new(name, help);
        let result = if kind == Kind::Counter {
            CounterVec::new(options, labels).map(|vector| {
                for (values, value) in rows {
                    let texts: Vec<&str> = values.iter().map(String::as_str).collect();
                    vector.with_label_values(&texts).inc_by(value.max(0.0));
                }
                vector.collect()
            })
        } else {
            GaugeVec::new(options, labels).map(|vector| {
                for (values, value) in rows {
                    let texts: Vec<&str> = values.iter().map(String::as_str).collect();
                    vector.with_label_values(&texts).set(value);
                }
                vector.collect()
            })
        };
        match result {
            Ok(families) => self.families.extend(families),
            Err(error) => tracing::error!(name, %error, "cannot build a metric family"),
        }
        self
    }

    /// Adds a family of histograms that were counted elsewhere.
    pub fn histogram(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
        rows: impl IntoIterator<Item = HistogramRow>,
    ) -> &mut Self {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(rows.into_iter().map(|row| row.into_metric(labels)).collect());
        self.families.push(family);
        self
    }

    /// The families.
    #[must_use]
    pub fn finish(self) -> Vec<MetricFamily> {
        self.families
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(value: &str) -> Vec<(String, String)> {
        vec![("model".to_owned(), value.to_owned())]
    }

    #[test]
    fn a_family_has_one_owner_and_one_form() {
        let metrics = Metrics::default();
        let name = "lodestar_requests_total";
        let series = |owner, kind, labels: &[(String, String)]| {
            metrics.series(owner, kind, name, "Requests.", labels)
        };
        let first = series("usage_tracker", Kind::Counter, &label("a")).expect("it is free");
        assert_eq!(series("usage_tracker", Kind::Counter, &label("a")), Ok(first));
        assert_ne!(series("usage_tracker", Kind::Counter, &label("b")), Ok(first));
        let error = series("router", Kind::Counter, &label("a")).expect_err("it is taken");
        assert!(error.to_string().contains("belongs to usage_tracker"), "{error}");
        assert!(series("usage_tracker", Kind::Gauge, &label("a")).is_err());
        assert!(series("usage_tracker", Kind::Counter, &[]).is_err());
        assert!(metrics.series("m", Kind::Counter, "no_suffix", "h", &[]).is_err());
        assert!(metrics.series("m", Kind::Gauge, "no name", "h", &[]).is_err());
        let error = metrics.series("m", Kind::Gauge, "lodestar_module_state", "h", &[]);
        assert!(error.expect_err("it is the host's").to_string().contains("lodestard"));
    }

    #[test]
    fn a_label_without_bounds_is_stopped() {
        let metrics = Metrics::default();
        let add =
            |number: usize| metrics.series("m", Kind::Gauge, "g", "h", &label(&number.to_string()));
        assert!((0..MAX_SERIES).all(|number| add(number).is_ok()));
        assert_eq!(add(MAX_SERIES), Err(MetricError::TooMany("g".to_owned())));
    }

    #[test]
    fn writes_what_was_recorded() {
        let metrics = Metrics::default();
        let counter = metrics.series("m", Kind::Counter, "c_total", "C.", &label("x"));
        let counter = counter.expect("it is free");
        metrics.record(counter, 2.0);
        metrics.record(counter, -5.0);
        metrics.record(99, 1.0);
        let mut own = Snapshot::default();
        own.family(Kind::Gauge, "up", "Up.", &[], [(vec![], 1.0)]);
        let text = metrics.encode(own.finish());
        assert!(text.contains("# TYPE c_total counter\nc_total{model=\"x\"} 2\n"), "{text}");
        assert!(text.contains("# TYPE up gauge\nup 1\n"), "{text}");
    }

    #[test]
    fn writes_histograms_that_were_counted_elsewhere() {
        let row = HistogramRow {
            labels: vec!["ingest".to_owned()],
            buckets: vec![(0.1, 2), (1.0, 3)],
            count: 4,
            sum: 7.5,
        };
        let mut own = Snapshot::default();
        own.histogram("h", "H.", &["module"], [row]);
        let text = Metrics::default().encode(own.finish());
        let expected = "# HELP h H.\n# TYPE h histogram\n\
                        h_bucket{module=\"ingest\",le=\"0.1\"} 2\n\
                        h_bucket{module=\"ingest\",le=\"1\"} 3\n\
                        h_bucket{module=\"ingest\",le=\"+Inf\"} 4\n\
                        h_sum{module=\"ingest\"} 7.5\nh_count{module=\"ingest\"} 4\n";
        assert_eq!(text, expected);
    }
}

//! One family of a module, in the forms that its generations gave it.

use std::collections::{BTreeSet, HashMap};

use prometheus::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, Opts,
    core::Collector as _, proto::MetricFamily,
};

use super::{Kind, MetricError};

/// Upper bounds of the buckets in seconds: from a cache hit to a long answer of a model.
const BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];

/// A family. A generation that does not run yet may have it in another form than the one that runs;
/// what is shown is the form of the one that ran last.
pub(super) struct Family {
    pub(super) owner: String,
    forms: Vec<Form>,
}

/// A family of one kind with the same labels.
pub(super) struct Form {
    kind: Kind,
    help: String,
    label_names: Vec<String>,
    vector: Vector,
    series: HashMap<Vec<String>, Held>,
    /// Number of bytes of its texts.
    text: usize,
    /// Numbers of the living generations that asked for it.
    users: BTreeSet<u64>,
    /// Number of the last generation that ran and asked for it; 0 for none.
    settled: u64,
}

/// A series of a form.
struct Held {
    handle: u64,
    series: Series,
    /// Numbers of the living generations that asked for it.
    users: Vec<u64>,
}

/// Shape of a form that is asked for.
pub(super) struct Shape<'a> {
    pub(super) kind: Kind,
    pub(super) help: &'a str,
    pub(super) label_names: &'a [String],
}

enum Vector {
    Counter(CounterVec),
    Gauge(GaugeVec),
    Histogram(HistogramVec),
}

/// Values with the same labels.
#[derive(Clone)]
pub(super) enum Series {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

impl Family {
    pub(super) fn new(owner: &str) -> Self {
        Self { owner: owner.to_owned(), forms: Vec::new() }
    }

    pub(super) fn forms(&self) -> impl Iterator<Item = &Form> {
        self.forms.iter()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.forms.is_empty()
    }

    /// Returns whether this generation asked for the family in another form.
    pub(super) fn has_another_form(&self, number: u64, shape: &Shape<'_>) -> bool {
        self.forms.iter().any(|form| form.users.contains(&number) && !form.is(shape))
    }

    pub(super) fn form(&self, shape: &Shape<'_>) -> Option<&Form> {
        self.forms.iter().find(|form| form.is(shape))
    }

    pub(super) fn form_or_new(
        &mut self,
        name: &str,
        shape: &Shape<'_>,
    ) -> Result<&mut Form, MetricError> {
        let at = match self.forms.iter().position(|form| form.is(shape)) {
            Some(at) => at,
            None => {
                self.forms.push(Form::new(name, shape)?);
                self.forms.len() - 1
            }
        };
        Ok(&mut self.forms[at])
    }

    /// Notes that this generation runs: the form that it asked for is shown from now on.
    pub(super) fn settle(&mut self, number: u64) {
        for form in self.forms.iter_mut().filter(|form| form.users.contains(&number)) {
            form.settled = form.settled.max(number);
        }
        self.prune();
    }

    /// Notes that a generation has ended.
    pub(super) fn leave(&mut self, number: u64) {
        for form in &mut self.forms {
            form.leave(number);
        }
        self.prune();
    }

    /// Drops every form that no living generation asked for; returns whether there were any.
    pub(super) fn forget_unused(&mut self) -> bool {
        let before = self.forms.len();
        self.forms.retain(|form| !form.users.is_empty());
        self.forms.len() < before
    }

    /// Drops the gauges that are cleared; returns the handles that they had.
    pub(super) fn forget_cleared(&mut self) -> Vec<u64> {
        self.forms.iter_mut().flat_map(Form::forget_cleared).collect()
    }

    /// Drops the forms without a generation that never ran, or that another one superseded. The
    /// last one that ran stays: after a restart its counters go on.
    fn prune(&mut self) {
        let newest = self.forms.iter().map(|form| form.settled).max().unwrap_or_default();
        self.forms
            .retain(|form| !form.users.is_empty() || (form.settled > 0 && form.settled == newest));
    }

    /// Returns the family as it is shown.
    pub(super) fn collect(&self) -> Option<MetricFamily> {
        let form = self.forms.iter().max_by_key(|form| form.settled)?;
        let mut families = match &form.vector {
            Vector::Counter(vector) => vector.collect(),
            Vector::Gauge(vector) => vector.collect(),
            Vector::Histogram(vector) => vector.collect(),
        };
        let mut family = families.pop()?;
        family.set_help(form.help.clone());
        if form.kind == Kind::Gauge {
            family.mut_metric().retain(|metric| !metric.get_gauge().get_value().is_nan());
        }
        family.mut_metric().sort_by(|a, b| {
            let values = |metric: &prometheus::proto::Metric| -> Vec<String> {
                metric.get_label().iter().map(|label| label.value().to_owned()).collect()
            };
            values(a).cmp(&values(b))
        });
        Some(family)
    }
}

impl Form {
    fn new(name: &str, shape: &Shape<'_>) -> Result<Self, MetricError> {
        let Shape { kind, help, label_names } = *shape;
        let invalid =
            |error: prometheus::Error| MetricError::Invalid(name.to_owned(), error.to_string());
        let names: Vec<&str> = label_names.iter().map(String::as_str).collect();
        let options = Opts::new(name, help);
        let vector = match kind {
            Kind::Counter => CounterVec::new(options, &names).map(Vector::Counter),
            Kind::Gauge => GaugeVec::new(options, &names).map(Vector::Gauge),
            Kind::Histogram => {
                let options = HistogramOpts::from(options).buckets(BUCKETS.to_vec());
                HistogramVec::new(options, &names).map(Vector::Histogram)
            }
        };
        Ok(Self {
            kind,
            help: help.to_owned(),
            label_names: label_names.to_vec(),
            vector: vector.map_err(invalid)?,
            series: HashMap::new(),
            text: name.len() + shape.text(),
            users: BTreeSet::new(),
            settled: 0,
        })
    }

    /// Returns whether the form has this shape. Another help makes no other form: what was counted
    /// is still the same.
    fn is(&self, shape: &Shape<'_>) -> bool {
        self.kind == shape.kind && self.label_names == shape.label_names
    }

    pub(super) const fn text(&self) -> usize {
        self.text
    }

    pub(super) fn count(&self) -> usize {
        self.series.len()
    }

    /// Notes that a generation asks for the form. Its help is shown from then on.
    pub(super) fn used_by(&mut self, number: u64, help: &str) {
        if self.users.insert(number) && self.help != help {
            self.text = self.text.saturating_sub(self.help.len()) + help.len();
            help.clone_into(&mut self.help);
        }
    }

    /// Returns the number of bytes by which the help would grow if this generation asked for the
    /// form.
    pub(super) fn more_help(&self, number: u64, help: &str) -> usize {
        let known = self.users.contains(&number);
        if known { 0 } else { help.len().saturating_sub(self.help.len()) }
    }

    pub(super) fn has(&self, values: &[String]) -> bool {
        self.series.contains_key(values)
    }

    /// Returns a series that a generation asks for, and its handle: the given one where it is new.
    pub(super) fn series(&mut self, number: u64, handle: u64, values: &[String]) -> (u64, Series) {
        if !self.has(values) {
            self.add(handle, values);
        }
        let held = self.series.get_mut(values).expect("it was there, or was added above");
        if held.users.is_empty()
            && let Series::Gauge(gauge) = &held.series
        {
            // As a new one, where nobody has had it meanwhile.
            gauge.set(if gauge.get().is_nan() { 0.0 } else { gauge.get() });
        }
        if !held.users.contains(&number) {
            held.users.push(number);
        }
        (held.handle, held.series.clone())
    }

    fn add(&mut self, handle: u64, values: &[String]) {
        let series = match &self.vector {
            Vector::Counter(vector) => Series::Counter(vector.with_label_values(values)),
            Vector::Gauge(vector) => Series::Gauge(vector.with_label_values(values)),
            Vector::Histogram(vector) => Series::Histogram(vector.with_label_values(values)),
        };
        self.text += text_of(values);
        let held = Held { handle, series, users: Vec::new() };
        self.series.insert(values.to_vec(), held);
    }

    /// Notes that a generation has ended. A gauge says how something is now: where no other one
    /// has it, nobody says so any more.
    fn leave(&mut self, number: u64) {
        self.users.remove(&number);
        for held in self.series.values_mut() {
            let before = held.users.len();
            held.users.retain(|user| *user != number);
            if let (Series::Gauge(gauge), true) =
                (&held.series, before > 0 && held.users.is_empty())
            {
                gauge.set(f64::NAN);
            }
        }
    }

    fn forget_cleared(&mut self) -> Vec<u64> {
        let Vector::Gauge(vector) = &self.vector else { return Vec::new() };
        let mut handles = Vec::new();
        self.series.retain(|values, held| {
            let is_cleared = matches!(&held.series, Series::Gauge(gauge) if gauge.get().is_nan());
            if is_cleared && vector.remove_label_values(values).is_ok() {
                self.text = self.text.saturating_sub(text_of(values));
                handles.push(held.handle);
                return false;
            }
            true
        });
        handles
    }
}

/// Returns the number of bytes of a series' own texts.
pub(super) fn text_of(values: &[String]) -> usize {
    values.iter().map(String::len).sum()
}

impl Shape<'_> {
    /// Returns the number of bytes of its texts.
    pub(super) fn text(&self) -> usize {
        self.help.len() + self.label_names.iter().map(String::len).sum::<usize>()
    }
}

impl Series {
    /// Adds to a counter, sets a gauge, observes into a histogram. Negative values of a counter,
    /// and NaN of it or of a histogram, are ignored; a gauge that is NaN is shown nowhere.
    pub(super) fn record(&self, value: f64) {
        match self {
            Self::Counter(counter) if value >= 0.0 => counter.inc_by(value),
            Self::Gauge(gauge) => gauge.set(value),
            Self::Histogram(histogram) if !value.is_nan() => histogram.observe(value),
            Self::Counter(_) | Self::Histogram(_) => {}
        }
    }
}

//! The results of mapping the records of one request.

use module_sdk::{EventType as _, Host, events::TraceSpanCompleted};
use opentelemetry_proto::tonic::{
    common::v1::InstrumentationScope,
    logs::v1::LogRecord,
    metrics::v1::{Metric, metric::Data},
    resource::v1::Resource,
    trace::v1::Span,
};
use std::collections::BTreeMap;

use super::refused::Refused;
use crate::{
    app::{App, Step},
    correlate::{Correlated, Link, span_mark},
    report::Report,
    sources::{
        Attributes, Clock, Context, Mapper, Outcome, keys, map_log, map_span, mapper_of_span, name,
        trace, unnamed,
    },
    stats::{Kind, Stats, kind_of},
};

/// The results of mapping the records of one request.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The reports that were not taken yet.
    reports: Vec<Report>,
    /// The kind under which each report was counted, for those that are not correlated yet.
    report_kinds: Vec<Kind>,
    /// True when a subscriber wants the steps of traces.
    wants_steps: bool,
    /// The steps that were not taken yet.
    steps: Vec<Step>,
    /// Number of rejected records.
    pub(super) rejected: i64,
    first_rejection: Option<String>,
    kinds: BTreeMap<Kind, (Mapper, u64)>,
}

impl Batch {
    fn add(&mut self, source: &str, signal: &'static str, mapped: (Mapper, String, Outcome)) {
        let (mapper, record, outcome) = mapped;
        let kind = kind_of(source, signal, record, &outcome).among(&self.kinds);
        match outcome {
            Outcome::Request(report) => {
                self.reports.push(*report);
                self.report_kinds.push(kind.clone());
            }
            Outcome::Refused(refusal) => {
                self.rejected += 1;
                let message = || format!("{} of {source}: {refusal}", kind.record);
                self.first_rejection.get_or_insert_with(message);
            }
            _ => {}
        }
        self.kinds.entry(kind).or_insert((mapper, 0)).1 += 1;
    }

    /// Returns the number of reports or steps that wait to be taken, whichever is larger.
    pub(super) fn waiting(&self) -> usize {
        self.reports.len().max(self.steps.len())
    }

    /// Returns the reports since the last call, and the steps that lie among them.
    pub(super) fn take(&mut self) -> (Vec<Report>, Vec<Step>) {
        (std::mem::take(&mut self.reports), std::mem::take(&mut self.steps))
    }

    /// Makes steps of traces from now on, where a subscriber wants them.
    pub(super) fn wanting_steps(self, host: &Host) -> Self {
        Self { wants_steps: host.wanted(TraceSpanCompleted::TOPIC), ..self }
    }

    /// Notes how the reports that were taken last are correlated, and counts those that turned out
    /// to be sums as repeats.
    pub(super) fn note_joined(&mut self, joined: &[Correlated]) {
        let kinds = std::mem::take(&mut self.report_kinds);
        let sums = kinds.iter().zip(joined).filter(|(_, how)| **how == Correlated::Sum);
        for (kind, _) in sums {
            let Some((mapper, count)) = self.kinds.remove(kind) else { continue };
            if count > 1 {
                self.kinds.insert(kind.clone(), (mapper, count - 1));
            }
            let reason = "the spans within it report the same calls".to_owned();
            let repeats = Kind { outcome: "repeats", reason, ..kind.clone() };
            let repeats = repeats.among(&self.kinds);
            self.kinds.entry(repeats).or_insert((mapper, 0)).1 += 1;
        }
    }

    /// Creates a batch that starts with what could not be read.
    pub(super) fn after(refused: Refused, signal: &'static str) -> Self {
        let mut batch = Self { first_rejection: refused.first, ..Self::default() };
        if let Some(reason) = refused.reason.filter(|_| refused.records > 0) {
            batch.rejected = i64::try_from(refused.records).unwrap_or(i64::MAX);
            let (source, record) = (unnamed(), "(record)".to_owned());
            let reason = format!("a value {reason}");
            let kind = Kind { source, signal, record, outcome: "refused", reason };
            batch.kinds.insert(kind, (Mapper::None, refused.records));
        }
        batch
    }

    /// Returns which record was refused first and why; empty where none was.
    pub(super) fn rejection_message(&self) -> String {
        match (&self.first_rejection, self.rejected) {
            (Some(first), 0) => format!("a value was left out: {first}"),
            (Some(first), 1) => format!("one record was refused: {first}"),
            (Some(first), many) => format!("{many} records were refused, the first: {first}"),
            (None, _) => String::new(),
        }
    }

    /// Counts the records, once they are accepted.
    pub(super) fn count(&self, stats: &Stats) {
        for (kind, (mapper, count)) in &self.kinds {
            stats.records(mapper.as_str(), kind.clone(), *count);
        }
    }
}

/// Maps a log record.
pub(super) fn map_record(
    record: &LogRecord,
    around: &Around<'_>,
    scope: Option<&InstrumentationScope>,
    batch: &mut Batch,
) {
    batch.add(&around.source, "logs", map_log(record, &around.context(scope)));
}

/// Reads a span before any is mapped, and returns how it is nested in another one.
pub(super) fn look_at_span(
    span: &Span,
    around: &Around<'_>,
    scope: Option<&InstrumentationScope>,
) -> Option<Link> {
    around.app.conversations.learn(scope.map_or("", |scope| &scope.name), span);
    link(span, mapper_of_span(span, &around.context(scope)))
}

/// Maps a span.
pub(super) fn map_one_span(
    span: &Span,
    around: &Around<'_>,
    scope: Option<&InstrumentationScope>,
    batch: &mut Batch,
) {
    let context = around.context(scope);
    let mapped = map_span(span, &context);
    if batch.wants_steps
        && let Some(event) = trace::map(span, mapped.0, &mapped.2, &context)
    {
        let is_request = matches!(mapped.2, Outcome::Request(_));
        let report = is_request.then_some(batch.reports.len());
        batch.steps.push(Step { event, report });
    }
    batch.add(&around.source, "traces", mapped);
}

/// Returns how a span is nested in another one; `None` for the coding tools, which report each call
/// by one span among hundreds.
fn link(span: &Span, mapper: Mapper) -> Option<Link> {
    if matches!(mapper, Mapper::ClaudeCode | Mapper::Codex | Mapper::GeminiCli) {
        return None;
    }
    let mark = |id: &[u8]| span_mark(&span.trace_id, id);
    Some(Link { parent: mark(&span.parent_span_id)?, span: mark(&span.span_id)? })
}

/// Counts the points of a metric.
pub(super) fn map_metric(
    metric: &Metric,
    around: &Around<'_>,
    _: Option<&InstrumentationScope>,
    batch: &mut Batch,
) {
    // A sum tells how many tokens were used and not by which requests.
    let outcome = Outcome::Ignored("a metric is a sum and not a request");
    let record = name(&metric.name).unwrap_or_else(unnamed);
    let kind = kind_of(&around.source, "metrics", record, &outcome).among(&batch.kinds);
    batch.kinds.entry(kind).or_insert((Mapper::None, 0)).1 += points(metric);
}

/// Largest number of attributes of a resource that are read; exporters send some ten, and 128 at
/// most.
const RESOURCE_ATTRIBUTES: usize = 1024;

/// The context that the records of one resource share.
pub(super) struct Around<'a> {
    app: &'a App,
    project: Option<&'a str>,
    resource: Attributes<'a>,
    source: String,
}

impl<'a> Around<'a> {
    pub(super) fn new(
        app: &'a App,
        project: Option<&'a str>,
        resource: Option<&'a Resource>,
    ) -> Self {
        let all = resource.map_or(&[][..], |resource| &resource.attributes);
        // They are looked through for each record.
        let resource = Attributes::new(all.get(..RESOURCE_ATTRIBUTES).unwrap_or(all));
        let source = resource.name(&[keys::SERVICE_NAME]).unwrap_or_else(unnamed);
        Self { app, project, resource, source }
    }

    fn context<'b>(&'b self, scope: Option<&'b InstrumentationScope>) -> Context<'b> {
        let now = self.app.host.now().as_nanosecond();
        Context {
            host: &self.app.host,
            clock: Clock { now_ns: u64::try_from(now).unwrap_or(0) },
            project: self.project,
            resource: self.resource,
            scope: scope.map_or(("", ""), |scope| (&scope.name, &scope.version)),
            conversations: &self.app.conversations,
        }
    }
}

fn points(metric: &Metric) -> u64 {
    let points = match &metric.data {
        Some(Data::Gauge(data)) => data.data_points.len(),
        Some(Data::Sum(data)) => data.data_points.len(),
        Some(Data::Histogram(data)) => data.data_points.len(),
        Some(Data::ExponentialHistogram(data)) => data.data_points.len(),
        Some(Data::Summary(data)) => data.data_points.len(),
        None => 0,
    };
    points as u64
}

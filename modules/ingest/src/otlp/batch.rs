//! Walks the records of a request and gathers what became of them.

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::InstrumentationScope,
    metrics::v1::{Metric, metric::Data},
    resource::v1::Resource,
    trace::v1::Span,
};
use std::collections::BTreeMap;

use super::refused::Refused;
use crate::{
    app::App,
    join::{Joined, Link, span_mark},
    report::Report,
    sources::{
        Attributes, Clock, Context, Mapper, Outcome, keys, map_log, map_span, name, unnamed,
    },
    tally::{Kind, Tally, kind_of},
};

/// What the records of one request come to.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) reports: Vec<Report>,
    /// What each report was counted as.
    report_kinds: Vec<Kind>,
    /// Which spans enclose which.
    pub(super) links: Vec<Link>,
    /// How many records were refused.
    pub(super) rejected: i64,
    first_rejection: Option<String>,
    kinds: BTreeMap<Kind, (Mapper, u64)>,
}

impl Batch {
    fn add(&mut self, source: &str, signal: &'static str, mapped: (Mapper, String, Outcome)) {
        let (mapper, record, outcome) = mapped;
        let kind = kind_of(source, signal, record, &outcome);
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

    /// Counts reports that turned out to be sums as what they are.
    pub(super) fn note_sums(&mut self, joined: &[Joined]) {
        let sums = self.report_kinds.iter().zip(joined).filter(|(_, how)| **how == Joined::Sum);
        for (kind, _) in sums {
            let Some((mapper, count)) = self.kinds.remove(kind) else { continue };
            if count > 1 {
                self.kinds.insert(kind.clone(), (mapper, count - 1));
            }
            let reason = "the spans within it report the same calls".to_owned();
            let repeats = Kind { outcome: "repeats", reason, ..kind.clone() };
            self.kinds.entry(repeats).or_insert((mapper, 0)).1 += 1;
        }
    }

    /// Starts with what could not be read.
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

    /// Which record was refused first and why; empty where none was.
    pub(super) fn rejection_message(&self) -> String {
        match (&self.first_rejection, self.rejected) {
            (Some(first), 0) => format!("a value was left out: {first}"),
            (Some(first), 1) => format!("one record was refused: {first}"),
            (Some(first), many) => format!("{many} records were refused, the first: {first}"),
            (None, _) => String::new(),
        }
    }

    /// Counts the records, once they are accepted.
    pub(super) fn count(&self, tally: &Tally) {
        for (kind, (mapper, count)) in &self.kinds {
            tally.records(mapper.label(), kind.clone(), *count);
        }
    }
}

pub(super) fn map_logs(
    request: &ExportLogsServiceRequest,
    app: &App,
    project: Option<&str>,
    batch: &mut Batch,
) {
    for resource in &request.resource_logs {
        let around = Around::new(app, project, resource.resource.as_ref());
        for scope in &resource.scope_logs {
            let context = around.context(scope.scope.as_ref());
            for record in &scope.log_records {
                batch.add(&around.source, "logs", map_log(record, &context));
            }
        }
    }
}

pub(super) fn map_traces(
    request: &ExportTraceServiceRequest,
    app: &App,
    project: Option<&str>,
    batch: &mut Batch,
) {
    app.conversations.learn(&request.resource_spans);
    for resource in &request.resource_spans {
        let around = Around::new(app, project, resource.resource.as_ref());
        for scope in &resource.scope_spans {
            let context = around.context(scope.scope.as_ref());
            for span in &scope.spans {
                let mapped = map_span(span, &context);
                batch.links.extend(link(span, mapped.0));
                batch.add(&around.source, "traces", mapped);
            }
        }
    }
}

/// How a span lies in another one. The coding tools tell each call by one span, among hundreds.
fn link(span: &Span, mapper: Mapper) -> Option<Link> {
    if matches!(mapper, Mapper::ClaudeCode | Mapper::Codex | Mapper::GeminiCli) {
        return None;
    }
    let mark = |id: &[u8]| span_mark(&span.trace_id, id);
    Some(Link { parent: mark(&span.parent_span_id)?, span: mark(&span.span_id)? })
}

pub(super) fn map_metrics(
    request: &ExportMetricsServiceRequest,
    app: &App,
    project: Option<&str>,
    batch: &mut Batch,
) {
    for resource in &request.resource_metrics {
        let around = Around::new(app, project, resource.resource.as_ref());
        for metric in resource.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
            // A sum tells how many tokens were used and not by which requests.
            let outcome = Outcome::Ignored("a metric is a sum and not a request");
            let record = name(&metric.name).unwrap_or_else(unnamed);
            let kind = kind_of(&around.source, "metrics", record, &outcome);
            batch.kinds.entry(kind).or_insert((Mapper::None, 0)).1 += points(metric);
        }
    }
}

/// What surrounds the records of one resource.
struct Around<'a> {
    app: &'a App,
    project: Option<&'a str>,
    resource: Attributes<'a>,
    source: String,
}

impl<'a> Around<'a> {
    fn new(app: &'a App, project: Option<&'a str>, resource: Option<&'a Resource>) -> Self {
        let resource = Attributes::new(resource.map_or(&[], |resource| &resource.attributes));
        let source = resource.name(&[keys::SERVICE_NAME]).unwrap_or_else(unnamed);
        Self { app, project, resource, source }
    }

    fn context(&self, scope: Option<&'a InstrumentationScope>) -> Context<'a> {
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

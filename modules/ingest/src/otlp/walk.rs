//! Walks the records of a request some at a time, and frees each as soon as it is mapped, so that
//! a large body is never there in several forms at once.

use super::{answer::Signal, batch::Batch, refused::Refused};
use crate::{
    app::{App, Step},
    correlate::Link,
    report::Report,
};

/// Number of reports or steps that are mapped, correlated and published at once.
const AT_ONCE: usize = 512;

/// The position of a record in its request.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordIndex {
    pub(super) resource: usize,
    pub(super) scope: usize,
    pub(super) record: usize,
}

/// A record that is not mapped yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot {
    pub(super) at: RecordIndex,
    /// The nesting of the span in another one.
    pub(super) link: Option<Link>,
}

/// A request of which some records are mapped.
#[derive(Debug)]
pub(super) struct Walk<S> {
    request: S,
    project: Option<String>,
    /// The records that are still to be mapped, the last first.
    left: Vec<Spot>,
    pub(super) batch: Batch,
}

impl<S: Signal> Walk<S> {
    /// Reads all records of a request, and maps none.
    pub(super) fn new(
        (request, refused): (S, Refused),
        app: &App,
        project: Option<String>,
    ) -> Self {
        let mut left = request.look(app, project.as_deref());
        left.reverse();
        let batch = Batch::after(refused, S::NAME).wanting_steps(&app.host);
        Self { request, project, left, batch }
    }

    /// Returns the nesting of the spans.
    pub(super) fn links(&self) -> Vec<Link> {
        self.left.iter().rev().filter_map(|spot| spot.link).collect()
    }

    /// Orders the records so that those within others are mapped first. Blocks.
    pub(super) fn inner_first(mut self, app: &App) -> Self {
        let spans = self.left.iter().map(|spot| spot.link.map_or(0, |link| link.span)).collect();
        let mut left: Vec<_> = app.depths(spans).into_iter().zip(self.left).collect();
        left.sort_by_key(|(depth, _)| *depth);
        self.left = left.into_iter().map(|(_, spot)| spot).collect();
        self
    }

    /// Maps records until there are enough reports or steps, and returns them; `None` after the
    /// last record.
    pub(super) fn next(&mut self, app: &App) -> Option<(Vec<Report>, Vec<Step>)> {
        if self.left.is_empty() {
            return None;
        }
        while self.batch.waiting() < AT_ONCE
            && let Some(spot) = self.left.pop()
        {
            self.request.map(spot.at, app, self.project.as_deref(), &mut self.batch);
        }
        Some(self.batch.take())
    }
}

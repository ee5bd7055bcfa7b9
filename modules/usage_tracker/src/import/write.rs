//! The writing of what was found: on a thread of its own, so that reading and writing keep two
//! processors busy.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, mpsc::Receiver},
};

use foldhash::HashSet;
use module_sdk::Result;
use module_transcripts::Tool;

use super::{Batch, Import};
use crate::{
    prices::priced_model,
    query::differ,
    sanitize::Report,
    store::{Measures, Rehearsed, Store, Stored, Written},
    transcripts::Statement,
};

/// The store, which the module's thread and the imports share.
pub type SharedStore = Arc<Mutex<Store>>;

/// Sessions whose sums are compared with what the tool says.
const COMPARED: usize = 50_000;
/// Models without a price that are named.
const NAMED: usize = 100;

/// Result of an import.
#[derive(Debug, Default)]
pub(crate) struct Imported {
    /// Counts of each tool.
    pub(crate) tools: BTreeMap<Tool, Counts>,
    /// Number of sessions with new requests.
    pub(crate) sessions: u64,
    /// Models without a price.
    pub(crate) unpriced_models: BTreeSet<String>,
    /// Sessions of which the tool says something else.
    pub(crate) differences: Vec<Difference>,
}

/// Counts of what was found of a tool.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    /// Number of files.
    pub(crate) files: u64,
    /// Number of records.
    pub(crate) records: u64,
    /// Number of requests that are new.
    pub(crate) imported: u64,
    /// Number of records that told nothing new.
    pub(crate) duplicates: u64,
    /// Number of records that added to a known request.
    pub(crate) merged: u64,
    /// Sums that were added.
    pub(crate) added: Measures,
}

/// A session of which the tool's own sum differs from ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// The session.
    pub(crate) session: String,
    /// Sum that the tool states.
    pub(crate) stated: Statement,
    /// Sum that was counted here: input, output, and the cost where all requests have one.
    pub(crate) counted: (i64, i64, Option<i64>),
}

/// The writer.
pub(super) struct Writing<'a> {
    import: &'a Import,
    seen: Rehearsed,
    sessions: HashSet<u64>,
    hasher: RandomState,
    statements: BTreeMap<String, Statement>,
    imported: Imported,
}

impl<'a> Writing<'a> {
    pub(super) fn new(import: &'a Import) -> Self {
        Self {
            import,
            seen: Rehearsed::default(),
            sessions: HashSet::default(),
            hasher: RandomState::new(),
            statements: BTreeMap::new(),
            imported: Imported::default(),
        }
    }

    /// Writes the batches as they come.
    pub(super) fn run(mut self, batches: Receiver<Batch>) -> Result<Imported> {
        for batch in batches {
            self.batch(batch)?;
        }
        if !self.import.dry_run {
            self.compare()?;
        }
        self.imported.sessions = self.sessions.len() as u64;
        Ok(self.imported)
    }

    fn batch(&mut self, batch: Batch) -> Result<()> {
        let Import { names, arrival, dry_run, .. } = self.import;
        let (mut reports, mut read): (Vec<Report>, _) = (Vec::new(), Vec::new());
        let counts = self.imported.tools.entry(batch.tool).or_default();
        for part in batch.parts {
            counts.files += u64::from(part.is_last);
            counts.records += part.records;
            counts.duplicates += part.records.saturating_sub(part.found.len() as u64);
            let found = part.found.into_iter();
            reports.extend(found.map(|found| names.report(found, &part.name, *arrival)));
            read.extend(part.read);
            for statement in part.statements {
                if self.statements.len() < COMPARED {
                    self.statements.insert(names.session(&statement.session), statement);
                }
            }
        }
        let mut store = self.import.store();
        let written = if *dry_run {
            store.rehearse(reports, &mut self.seen)?
        } else {
            store.import(reports, &read, arrival.at_ms)?
        };
        drop(store);
        self.count(batch.tool, &written);
        Ok(())
    }

    fn count(&mut self, tool: Tool, written: &Written) {
        let counts = self.imported.tools.entry(tool).or_default();
        counts.imported += written.counted.len() as u64;
        counts.duplicates += written.duplicates as u64;
        counts.merged += written.merged as u64;
        counts.added.add_sums_of(&written.added);
        for Stored { report, unpriced, .. } in &written.counted {
            if let Some(session) = &report.request.session_id {
                self.sessions.insert(self.hasher.hash_one(session));
            }
            if *unpriced && self.imported.unpriced_models.len() < NAMED {
                let model = priced_model(&report.request).unwrap_or("(unknown)");
                if !self.imported.unpriced_models.contains(model) {
                    self.imported.unpriced_models.insert(model.to_owned());
                }
            }
        }
    }

    /// Compares the sums of sessions with what the tool says.
    fn compare(&mut self) -> Result<()> {
        if self.statements.is_empty() {
            return Ok(());
        }
        let mut reader = crate::query::Reader::from(self.import.store().reader()?);
        for (session, stated) in std::mem::take(&mut self.statements) {
            let Some(counted) = crate::query::session_sums(&mut reader, &session)? else {
                continue;
            };
            if are_different(&stated, counted) {
                self.imported.differences.push(Difference { session, stated, counted });
            }
        }
        Ok(())
    }
}

fn are_different(stated: &Statement, (input, output, cost): (i64, i64, Option<i64>)) -> bool {
    let costs = stated.cost_nano_usd.zip(cost);
    stated.input_tokens != input.cast_unsigned()
        || stated.output_tokens != output.cast_unsigned()
        || costs.is_some_and(|(stated, ours)| differ(ours, stated))
}

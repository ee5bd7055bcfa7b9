//! What of a body could not be read, and was left out.

use std::fmt::Write as _;

use super::schema::Field;

/// What was left out of a body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Refused {
    /// How many records.
    pub(super) records: u64,
    /// What was left out first, and why; never what stands there.
    pub(super) first: Option<String>,
    /// The kind of the first mistake, without its place.
    pub(super) reason: Option<&'static str>,
}

/// Why a value cannot be read, and where it stands within what is left out for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Misfit {
    reason: &'static str,
    /// Fields and indices from the inside out.
    path: Vec<Step>,
}

/// A step on the way to a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) field: &'static str,
    /// Of an element of a list.
    pub(super) index: Option<usize>,
}

impl Step {
    /// Returns the step to an element of a list.
    pub(super) fn at(field: &'static Field, index: usize) -> Self {
        Self { field: &field.json_name, index: Some(index) }
    }
}

/// Whether a value could be read.
pub(super) type Fit = Result<(), Misfit>;

impl Misfit {
    /// Of a value whose place is added by those around it.
    pub(super) const fn new(reason: &'static str) -> Self {
        Self { reason, path: Vec::new() }
    }

    /// Adds the step that leads to the value.
    pub(super) fn within(mut self, step: Step) -> Self {
        self.path.push(step);
        self
    }
}

impl Refused {
    /// Notes that something was left out at a place, with so many records.
    pub(super) fn note(&mut self, records: u64, place: &[Step], misfit: &Misfit) {
        self.records += records;
        if self.first.is_some() {
            return;
        }
        let mut told = path(place.iter());
        if misfit.path.is_empty() {
            let _ = write!(told, " {}", misfit.reason);
        } else {
            let _ = write!(told, ": {} {}", path(misfit.path.iter().rev()), misfit.reason);
        }
        self.first = Some(told);
        self.reason = Some(misfit.reason);
    }
}

fn path<'s>(steps: impl Iterator<Item = &'s Step>) -> String {
    let mut path = String::new();
    for step in steps {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(step.field);
        if let Some(index) = step.index {
            // Writing to a text does not fail.
            let _ = write!(path, "[{index}]");
        }
    }
    path
}

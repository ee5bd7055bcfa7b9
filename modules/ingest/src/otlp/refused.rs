//! The parts of a body that could not be read and were left out.

use std::fmt::Write as _;

use super::schema::Field;

/// The parts that were left out of a body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Refused {
    /// Number of records that were left out.
    pub(super) records: u64,
    /// Place and reason of the first part that was left out; never its content.
    pub(super) first: Option<String>,
    /// The kind of the first mistake, without its place.
    pub(super) reason: Option<&'static str>,
}

/// The reason why a value cannot be read, and its place within the part that is left out for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Misfit {
    reason: &'static str,
    /// The fields and indices that lead to the value, innermost first.
    path: Vec<Step>,
}

/// A step on the way to a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) field: &'static str,
    /// Index of the element, in a list.
    pub(super) index: Option<usize>,
}

impl Step {
    /// Returns the step to an element of a list.
    pub(super) fn at(field: &'static Field, index: usize) -> Self {
        Self { field: &field.json_name, index: Some(index) }
    }
}

/// The result of reading a value.
pub(super) type Fit = Result<(), Misfit>;

impl Misfit {
    /// Creates a misfit without a path, which the callers add.
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
    /// Notes that a part at `place` was left out, with so many records.
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

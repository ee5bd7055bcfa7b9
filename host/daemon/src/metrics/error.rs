//! Why a metric cannot be had.

use std::fmt;

use super::{MAX_FAMILIES, MAX_SERIES, MAX_SERIES_OF_FAMILY, MAX_TEXT};

/// Why a metric cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetricError {
    /// Another module that lives has a family of that name.
    #[error("the metric {name} belongs to {owner}; choose another name")]
    Owned {
        /// The family.
        name: String,
        /// Who has it.
        owner: String,
    },
    /// The same generation has registered it otherwise.
    #[error("the metric {0} was registered with another kind or other labels before")]
    Changed(String),
    /// The module has as much as it may have.
    #[error("the metric {name} is one too many: {bound}")]
    Full {
        /// The family.
        name: String,
        /// What it has enough of.
        bound: Bound,
    },
    /// Not a name, label or help that Prometheus takes.
    #[error("the metric {0} is not valid: {1}")]
    Invalid(String, String),
    /// The generation that asks has stopped.
    #[error("the metric {0} cannot be had: the module has stopped")]
    Ended(String),
}

/// What a module may have only so much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Families.
    Families,
    /// Series of one family.
    SeriesOfFamily,
    /// Series of all families together.
    Series,
    /// Bytes of names, help and labels.
    Text,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = "use a label with fewer values";
        match self {
            Self::Families => {
                write!(f, "a module has at most {MAX_FAMILIES} families; use a label")
            }
            Self::SeriesOfFamily => {
                write!(f, "a family has at most {MAX_SERIES_OF_FAMILY} series; {remedy}")
            }
            Self::Series => write!(f, "a module has at most {MAX_SERIES} series; {remedy}"),
            Self::Text => write!(
                f,
                "a module has at most {MAX_TEXT} bytes of names, help and labels; use shorter or \
                 fewer label values"
            ),
        }
    }
}

//! Errors of registering a metric.

use std::fmt;

use super::{MAX_FAMILIES, MAX_SERIES, MAX_SERIES_OF_FAMILY, MAX_TEXT};

/// Reason why a metric cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetricError {
    /// A family of that name that another living module has.
    #[error("the metric {name} belongs to {owner}; choose another name")]
    Owned {
        /// Name of the family.
        name: String,
        /// Module that has the family.
        owner: String,
    },
    /// A family that the same generation has registered otherwise.
    #[error("the metric {0} was registered with another kind or other labels before")]
    Changed(String),
    /// A limit that the module has reached.
    #[error("the metric {name} is one too many: {bound}")]
    Full {
        /// Name of the family.
        name: String,
        /// The limit that is reached.
        bound: Bound,
    },
    /// A name, label or help that Prometheus does not take.
    #[error("the metric {0} is not valid: {1}")]
    Invalid(String, String),
    /// A generation that has stopped.
    #[error("the metric {0} cannot be had: the module has stopped")]
    Ended(String),
}

/// Limit on what a module may register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Number of families.
    Families,
    /// Number of series of one family.
    SeriesOfFamily,
    /// Number of series of all families together.
    Series,
    /// Number of bytes of names, help and labels.
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

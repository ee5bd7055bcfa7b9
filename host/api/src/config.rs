//! Types of `/v1/config`.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigView {
    /// Path of the file.
    pub path: String,
    /// Text of the configuration in force.
    pub text: String,
    /// The effective settings of each module, with references (`${NAME}`, `file:`) unresolved.
    pub modules: BTreeMap<String, Value>,
}

/// Configuration to check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigCheck {
    /// Text of the configuration; `null` for the daemon's file on disk.
    pub text: Option<String>,
    /// `true` to ask only the modules that decide whether the daemon takes the configuration:
    /// enabled ones whose section differs from the one in force.
    pub changed: bool,
}

/// Result of checking a configuration. Also the output of `lodestard --check --json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigReport {
    /// Errors; the configuration is valid if there are none.
    pub errors: Vec<ConfigProblem>,
    /// Valid settings that are perhaps not meant: a module that does not exist, a secret that
    /// everybody can read, modules that would stop.
    #[serde(default)]
    pub warnings: Vec<ConfigProblem>,
}

/// A problem in a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigProblem {
    /// Path of the file.
    pub file: String,
    /// Line, from 1; 0 if there is none.
    pub line: u64,
    /// Column, from 1; 0 if there is none.
    pub column: u64,
    /// Dotted key; may be empty.
    pub key: String,
    /// Description of the problem.
    pub message: String,
    /// Remedy, or the nearest valid name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// A difference between two configurations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The dotted key.
    pub path: String,
    /// Value in force; `null` for none.
    pub before: Value,
    /// Value in the file; `null` for none.
    pub after: Value,
}

/// An effective setting of a module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// The key below the module's section, with dots.
    pub key: String,
    /// Value; references as written, secrets as `[redacted]`.
    pub value: Value,
    /// Origin of the value: `default`, `config.yaml of the module`, the file with its line, an
    /// environment variable or `--set`.
    pub origin: String,
}

/// `modules.yaml:7:5: modules.usage_tracker.databse: unknown key; did you mean …`
impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
            if self.column > 0 {
                write!(f, ":{}", self.column)?;
            }
        }
        let mut gap = if self.file.is_empty() { "" } else { ": " };
        for part in [&self.key, &self.message] {
            if !part.is_empty() {
                write!(f, "{gap}{part}")?;
                gap = ": ";
            }
        }
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn writes_problems_as_compilers_do() {
        let check = |problem: Value, expected: &str| {
            let problem: ConfigProblem = serde_json::from_value(problem).expect("a problem");
            assert_eq!(problem.to_string(), expected);
        };
        check(
            json!({"file": "modules.yaml", "line": 7, "column": 5, "message": "unknown key",
                   "key": "modules.usage_tracker.databse", "hint": "did you mean `database`?"}),
            "modules.yaml:7:5: modules.usage_tracker.databse: unknown key; did you mean \
             `database`?",
        );
        check(
            json!({"file": "a.yaml", "line": 16, "column": 5, "key": "", "message": "no YAML"}),
            "a.yaml:16:5: no YAML",
        );
        check(
            json!({"file": "a.yaml", "line": 0, "column": 0, "key": "", "message": "is empty"}),
            "a.yaml: is empty",
        );
    }
}

//! `/v1/config` in types.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigView {
    /// The file.
    pub path: String,
    /// Its text as it runs.
    pub text: String,
    /// The effective settings of each module, with references (`${NAME}`, `file:`) unresolved.
    pub modules: BTreeMap<String, Value>,
}

/// What to check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigCheck {
    /// The text; `null` for the daemon's file as it lies on disk.
    pub text: Option<String>,
    /// Whether to ask only the modules that decide if the daemon takes it: those that are to run,
    /// and whose section is another than the one that counts.
    pub changed: bool,
}

/// What is wrong with a configuration. Also the output of `lodestard --check --json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigReport {
    /// Nothing is wrong when it is empty.
    pub errors: Vec<ConfigProblem>,
    /// What is valid and perhaps not meant: a module that nobody has, a secret for all to read,
    /// modules that would stop.
    #[serde(default)]
    pub warnings: Vec<ConfigProblem>,
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigProblem {
    /// The file.
    pub file: String,
    /// From 1; 0 where there is no place.
    pub line: u64,
    /// From 1; 0 where there is no place.
    pub column: u64,
    /// The dotted key, may be empty.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do, or the nearest right name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// A difference between two configurations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The dotted key.
    pub path: String,
    /// What runs; `null` for nothing.
    pub before: Value,
    /// What the file says; `null` for nothing.
    pub after: Value,
}

/// One setting of a module as it counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// The key below the module's section, with dots.
    pub key: String,
    /// Its value; references as they are written, secrets as `[redacted]`.
    pub value: Value,
    /// Where it comes from: `default`, `config.yaml of the module`, the file with its line, an
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

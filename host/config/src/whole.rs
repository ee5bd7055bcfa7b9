//! Check for a configuration file that was not saved completely while the daemon runs.
//!
//! The beginning of a YAML file is valid YAML more often than not. An incomplete save, by a full
//! disk or a killed editor, must not disable modules, so two kinds of truncated files are refused.
//! A file that ends between two lines, below `modules:`, cannot be told from an intended one.

use super::{Config, ConfigError, Node, Yaml};

impl Config {
    /// Checks that the file, which replaces `before`, does not look truncated.
    ///
    /// # Errors
    ///
    /// Returns an error if `modules` is empty although it had entries before, or if the text ends
    /// within a line of the previous text.
    pub fn expect_whole(&self, before: &Self) -> Result<(), ConfigError> {
        if before.names_modules() == Some(true) && self.names_modules().is_none() {
            let message = "has nothing below `modules:`, where modules stood before: it looks cut \
                           off";
            let hint = "save it whole; to run no module, write `modules: {}`";
            return Err(ConfigError::of_file(&self.path, message, hint));
        }
        if is_cut_off(&self.text, &before.text) {
            let message = "ends within a line of the file before: it looks cut off";
            let hint = "save it whole; if nothing is missing, end it with a line break";
            return Err(ConfigError::of_file(&self.path, message, hint));
        }
        Ok(())
    }

    /// Returns whether the file itself, without the layers above it, names modules; `None` if
    /// `modules` is missing or null, unlike `{}`.
    fn names_modules(&self) -> Option<bool> {
        let file = Node::parse(&self.text, &self.path).ok()?;
        match &file.get("modules")?.node.value {
            Yaml::Null => None,
            Yaml::Map(modules) => Some(!modules.is_empty()),
            _ => Some(true),
        }
    }
}

/// Returns whether a text is the beginning of another one and ends within a line of it.
fn is_cut_off(text: &str, whole: &str) -> bool {
    let rest = whole.strip_prefix(text).unwrap_or_default();
    let is_at_an_end = text.is_empty() || text.ends_with('\n');
    !is_at_an_end && !rest.is_empty() && !rest.starts_with(['\n', '\r'])
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{super::Layers, *};

    fn read(text: &str) -> Config {
        let layers =
            Layers { settings: vec![("a.x".to_owned(), "1".to_owned())], ..Layers::default() };
        Config::parse(text, Path::new("m.yaml"), &layers).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    const WHOLE: &str = "# mine\nbus:\n  inbox_events: 4096\nmodules:\n  a:\n    retention_days: \
                         90\n  b: {}\nlog:\n  level: info\n";

    fn verdict(text: &str, before: &str) -> Result<(), String> {
        read(text).expect_whole(&read(before)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_without_its_modules_is_refused_unless_it_says_so() {
        for text in ["modules:\n", "modules:", "modules: ~\n", "bus: {}\n", "log:\n  level: info\n"]
        {
            let error = verdict(text, WHOLE).expect_err(text);
            assert!(error.starts_with("m.yaml: ") && error.contains("`modules: {}`"), "{error}");
            // Where none stood before, nothing is lost.
            for before in ["modules:\n", "{modules: {}}\n", "bus: {}\n"] {
                assert_eq!(verdict(text, before), Ok(()), "{text:?} after {before:?}");
            }
        }
        for text in ["modules: {}\n", "modules:\n  c:\n", "modules: {a: {}}", WHOLE] {
            assert_eq!(verdict(text, WHOLE), Ok(()), "{text:?}");
        }
    }

    /// Every beginning of a file is refused, is no configuration at all, or ends with a line and
    /// names modules.
    #[test]
    fn no_beginning_that_ends_within_a_line_is_taken() {
        let mut taken = Vec::new();
        for end in 0..WHOLE.len() {
            let text = &WHOLE[..end];
            let Ok(config) = Config::parse(text, Path::new("m.yaml"), &Layers::default()) else {
                continue;
            };
            if config.expect_whole(&read(WHOLE)).is_ok() {
                assert!(!config.modules.is_empty(), "{text:?}");
                taken.push(WHOLE[end..].starts_with('\n') || text.ends_with('\n'));
            }
        }
        assert!(!taken.is_empty() && taken.iter().all(|at_an_end| *at_an_end), "{taken:?}");
    }

    #[test]
    fn what_is_meant_is_taken() {
        let crlf = WHOLE.replace('\n', "\r\n");
        for (text, before) in [
            (WHOLE.trim_end(), WHOLE),
            (crlf.trim_end(), crlf.as_str()),
            (WHOLE, WHOLE),
            (&format!("{WHOLE}bus: {{}}").replace("bus:\n  inbox_events: 4096\n", ""), WHOLE),
            (WHOLE, WHOLE.trim_end()),
            ("modules:\n  a:\n", "modules:\n  a:\n  b: {}\n"),
            ("modules:\n  a: {}", "modules:\n  a: {}\n  b: {}\n"),
            ("modules:\n  a: {y: 1}", "modules:\n  a: {x: 1}\n"),
        ] {
            assert_eq!(verdict(text, before), Ok(()), "{text:?} after {before:?}");
        }
    }
}

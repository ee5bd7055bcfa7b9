//! Runbooks: a page per shipped rule, which says what it means and what to do.

/// Returns the page of a shipped rule, in Markdown.
#[must_use]
pub fn page(rule: &str) -> Option<&'static str> {
    PAGES.iter().find(|(name, _)| *name == rule).map(|(_, page)| *page)
}

macro_rules! pages {
    ($($rule:literal),+ $(,)?) => {
        /// Every page, by the name of its rule.
        pub static PAGES: &[(&str, &str)] = &[
            $(($rule, include_str!(concat!("../../../config/runbooks/", $rule, ".md")))),+
        ];
    };
}

pages![
    "all_models_down",
    "certificate_about_to_expire",
    "certificate_expires",
    "channel_down",
    "clock_set",
    "clock_skew",
    "config_invalid",
    "cost_anomaly",
    "daemon_memory_high",
    "database_large",
    "database_log_large",
    "disk_almost_full",
    "disk_full_soon",
    "disk_low",
    "disk_unknown",
    "error_budget_fast_burn",
    "error_budget_medium_burn",
    "error_budget_slow_burn",
    "events_dropped",
    "gpu_driver_mismatch",
    "gpu_driver_not_loaded",
    "gpu_hot",
    "gpu_lost",
    "gpu_memory_full",
    "gpu_thermal_throttle",
    "gpu_too_hot",
    "gpu_unknown",
    "gpu_xid_app",
    "gpu_xid_fatal",
    "gpu_xid_memory",
    "inodes_low",
    "io_pressure",
    "ledger_loss",
    "ledger_trouble",
    "memory_low",
    "memory_pressure",
    "memory_stall",
    "model_down",
    "model_errors",
    "model_slow",
    "module_crash_loop",
    "module_degraded",
    "module_down",
    "module_lagging",
    "module_stalled",
    "oom_kill",
    "provider_down",
    "provider_key_refused",
    "router_down",
    "spend_budget",
    "swap_full",
];

/// Returns the lines of a page for a terminal, whose width the page does not know: every paragraph
/// and every point of a list is one line, a command is indented by four spaces and stands as it is.
#[must_use]
pub fn flowing(page: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let (mut is_open, mut in_fence) = (false, false);
    for line in page.lines() {
        if line.starts_with(FENCE) {
            (is_open, in_fence) = (false, !in_fence);
            continue;
        }
        let stands_alone = in_fence || line.is_empty() || line.starts_with('#');
        match lines.last_mut() {
            _ if in_fence => lines.push(format!("    {line}")),
            Some(last) if is_open && !stands_alone && !line.starts_with("- ") => {
                last.push(' ');
                last.push_str(line.trim_start());
            }
            _ => lines.push(line.to_owned()),
        }
        is_open = !stands_alone;
    }
    lines
}

/// Beginning of the lines around commands.
const FENCE: &str = "```";

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;
    use crate::rule::{RuleOptions, RuleSet};

    const SECTIONS: [&str; 4] =
        ["## What it means", "## How to look", "## What to do", "## How to prevent it"];

    fn rules() -> BTreeSet<String> {
        let rules = RuleSet::new(&[].into()).expect("they are valid");
        rules.iter().map(|rule| rule.name.to_string()).collect()
    }

    #[test]
    fn every_shipped_rule_has_a_page_and_every_page_a_rule() {
        let pages: BTreeSet<String> = PAGES.iter().map(|(rule, _)| (*rule).to_owned()).collect();
        assert_eq!(pages, rules(), "the list of pages is that of rules.toml");
        assert_eq!(pages.len(), PAGES.len(), "no page is listed twice");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/runbooks");
        let files: BTreeSet<String> = fs::read_dir(folder)
            .expect("the pages lie there")
            .map(|entry| entry.expect("it is readable").file_name().into_string().expect("UTF-8"))
            .map(|name| name.strip_suffix(".md").expect("only pages lie there").to_owned())
            .collect();
        assert_eq!(files, pages, "every page is listed");
    }

    #[test]
    fn a_page_has_its_sections() {
        for (rule, page) in PAGES {
            let sections: Vec<&str> = page.lines().filter(|line| line.starts_with("## ")).collect();
            assert_eq!(sections, SECTIONS, "{rule}");
            let title = format!("# {rule}: ");
            assert!(page.starts_with(&title), "{rule}: the first line begins with {title:?}");
            assert!(page.ends_with('\n') && !page.ends_with("\n\n"), "{rule}");
            for (number, line) in (1..).zip(page.lines()) {
                assert!(line.chars().count() <= 120, "{rule}:{number} is too long");
            }
            let fences = page.lines().filter(|line| line.starts_with(FENCE));
            let (opening, closing): (Vec<_>, Vec<_>) = fences.partition(|line| *line != FENCE);
            assert_eq!(opening.len(), closing.len(), "{rule}: a fence is open");
            assert!(opening.iter().all(|line| matches!(*line, "```sh" | "```yaml")), "{rule}");
        }
    }

    #[test]
    fn a_page_speaks_of_rules_that_exist() {
        let rules = rules();
        for (rule, page) in PAGES {
            // A rule is named alone in marks, or with the command that explains it.
            let prose = flowing(page).into_iter().filter(|line| !line.starts_with("    "));
            let prose = prose.collect::<Vec<_>>().join("\n");
            for part in prose.split('`').skip(1).step_by(2) {
                let name = part.strip_prefix("lodestar health explain ").unwrap_or(part);
                let is_explained = name.len() < part.len();
                let is_like_a_rule = name.contains('_')
                    && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
                let is_a_word = WORDS.contains(&name) || crate::metric::find(name).is_ok();
                let is_known = rules.contains(name) || (is_a_word && !is_explained);
                assert!(!is_like_a_rule || is_known, "{rule}: there is no rule {name:?}");
            }
        }
    }

    /// Words of the pages in the form of a rule's name which are keys, modules or files.
    const WORDS: [&str; 7] = [
        "base_url",
        "call_deadline_ms",
        "health_monitor",
        "max_bytes",
        "retention_days",
        "retention_hours",
        "usage_tracker",
    ];

    #[test]
    fn what_a_page_sets_can_be_set() {
        for (rule, page) in PAGES {
            for line in page.split("```yaml\n").skip(1) {
                let line = line.lines().next().unwrap_or_default();
                let (name, options) = line.split_once(": ").expect("a rule and its options");
                assert_eq!(name, *rule, "a page is about its own rule");
                let written: Result<RuleOptions, _> = toml::from_str(&as_toml(options));
                let changes = written.map(|options| [(name.to_owned(), options)].into());
                let changes = changes.unwrap_or_else(|error| panic!("{rule}: {line}: {error}"));
                RuleSet::new(&changes).unwrap_or_else(|error| panic!("{rule}: {line}: {error}"));
            }
        }
    }

    /// Returns a one-line map of YAML, `{above: 95%, for: 5m}`, as TOML.
    fn as_toml(map: &str) -> String {
        let inner = map.trim_matches(['{', '}']);
        let mut text = String::new();
        for pair in inner.split(", ") {
            let (key, value) = pair.split_once(": ").expect("a key and a value");
            let is_plain = value == "true" || value == "false" || value.parse::<f64>().is_ok();
            let value = if is_plain { value.to_owned() } else { format!("{value:?}") };
            text.push_str(&format!("{key} = {value}\n"));
        }
        text
    }

    #[test]
    fn a_page_flows() {
        let page = "# Title\n\nOne\ntwo.\n- a\n  b\n- c\n\n```sh\ncmd | x\n\n- cmd\n```\nend\n";
        let lines = ["# Title", "", "One two.", "- a b", "- c", ""];
        let lines = lines.into_iter().chain(["    cmd | x", "    ", "    - cmd", "end"]);
        assert!(flowing(page).iter().map(String::as_str).eq(lines));
    }
}

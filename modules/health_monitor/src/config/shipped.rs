//! The shipped `config.yaml` shows every key, with defaults that are the defaults and examples that
//! can be used.

use serde_json::Value;

use super::*;

const SHIPPED: &str = include_str!("../../config.yaml");

/// Keys that have no default to show, so that the file has examples.
const EXAMPLES: [&str; 7] = [
    "/database",
    "/rules",
    "/slos",
    "/checks/providers/extra",
    "/checks/providers/certificates",
    "/notify/channels",
    "/notify/maintenance",
];

/// Keys that the file explains in words.
const EXPLAINED: [&str; 4] = ["interval_ms", "deadline_ms", "library", "url"];

/// Returns the file with its keys in force.
fn in_force() -> Value {
    let keys = SHIPPED.lines().filter_map(|line| {
        let key = line.strip_prefix("# ")?;
        let name = key.trim_start().trim_start_matches("- ").split(':').next()?;
        let is_key = key.contains(':') && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'_'));
        is_key.then_some(key)
    });
    let text: String = keys.map(|key| format!("{key}\n")).collect();
    // The host puts the values in the place of references before the module sees them.
    let text = text
        .replace("${SLACK_WEBHOOK}", "https://hooks.example.org/x")
        .replace("${SMTP_PASSWORD}", "secret")
        .replace("${NTFY_TOPIC}", "topic");
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

fn read(value: &Value) -> Config {
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{value:#}\n{error}"))
}

#[test]
fn the_shipped_examples_can_be_used() {
    read(&in_force()).check().expect("what is shown is valid");
    let is_set = |line: &str| !line.is_empty() && !line.starts_with('#');
    assert!(!SHIPPED.lines().any(is_set), "the shipped file sets nothing");
}

#[test]
fn the_shipped_defaults_are_the_defaults() {
    let mut value = in_force();
    for path in EXAMPLES {
        let (parent, key) = path.rsplit_once('/').expect("a path");
        let parent = value.pointer_mut(parent).and_then(Value::as_object_mut);
        let example = parent.and_then(|parent| parent.remove(key));
        assert!(example.is_some(), "the file has no example of {path}");
    }
    assert_eq!(format!("{:#?}", read(&value)), format!("{:#?}", Config::default()));
}

#[test]
fn every_key_is_shown() {
    let schema = serde_json::to_value(schemars::schema_for!(Config)).expect("it serialises");
    check_keys(&schema, &schema, &in_force(), "");
}

/// Checks that a value has every key of its schema, in sections below as well.
fn check_keys(root: &Value, schema: &Value, value: &Value, place: &str) {
    let reference = schema["$ref"].as_str().and_then(|it| it.strip_prefix('#'));
    let schema = reference.and_then(|it| root.pointer(it)).unwrap_or(schema);
    let Some(properties) = schema["properties"].as_object() else { return };
    for (key, schema) in properties {
        let place = format!("{place}/{key}");
        match value.get(key) {
            Some(value) if !EXAMPLES.contains(&&*place) => check_keys(root, schema, value, &place),
            Some(_) => {}
            None => {
                let is_explained =
                    EXPLAINED.contains(&&**key) && SHIPPED.contains(&format!("`{key}`"));
                assert!(is_explained, "config.yaml does not show {place}");
            }
        }
    }
}

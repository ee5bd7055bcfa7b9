//! Comparison of values with a JSON schema: numbers out of their range, and keys that are unknown.
//! The one place for both sides of the boundary: the SDK stops at the first, the host reports all.

use serde_json::{Map, Number, Value};

/// The most references and choices that lead to a type.
const MAX_STEPS: usize = 8;

/// Keyword with the remedy for a number out of its range.
const HINT: &str = "x-hint";

/// A value that does not fit its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// Key, with dots and indices; empty for the whole value.
    pub path: String,
    /// Description of the error.
    pub message: String,
    /// Remedy; empty where the message says it.
    pub hint: String,
}

/// Returns the numbers that are out of the ranges of their schema (`minimum`, `maximum`), each with
/// the schema's `x-hint`.
#[must_use]
pub fn out_of_range(root: &Value, value: &Value) -> Vec<Misfit> {
    let mut misfits = Vec::new();
    walk(root, root, value, "", &mut |schema, value, path| {
        if let Value::Number(number) = value
            && let Some(message) = range_message(schema, number)
        {
            let hint = schema.get(HINT).and_then(Value::as_str).unwrap_or_default().to_owned();
            misfits.push(Misfit { path: path.to_owned(), message, hint });
        }
    });
    misfits
}

/// Returns the keys that the schemas of their objects do not have.
#[must_use]
pub fn unknown_keys(root: &Value, value: &Value) -> Vec<Misfit> {
    let mut misfits = Vec::new();
    walk(root, root, value, "", &mut |schema, value, path| {
        let Value::Object(map) = value else { return };
        let known = schema.get("properties").and_then(Value::as_object);
        // A type with flattened fields has the second keyword.
        let mut rules = ["additionalProperties", "unevaluatedProperties"].into_iter();
        if !rules.any(|rule| schema.get(rule) == Some(&Value::Bool(false))) {
            return;
        }
        let names = known.into_iter().flat_map(Map::keys);
        let names = names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let is_known = |name: &String| known.is_some_and(|known| known.contains_key(name));
        for name in map.keys().filter(|name| !is_known(name)) {
            let message = format!("unknown field `{name}`, expected one of {names}");
            misfits.push(Misfit { path: path.to_owned(), message, hint: String::new() });
        }
    });
    misfits
}

/// Visits a value and all within it, each with its schema and its path.
fn walk(
    root: &Value,
    schema: &Value,
    value: &Value,
    path: &str,
    visit: &mut dyn FnMut(&Value, &Value, &str),
) {
    let schema = target(root, schema);
    visit(schema, value, path);
    match value {
        Value::Object(map) => {
            let known = schema.get("properties").and_then(Value::as_object);
            let others = schema.get("additionalProperties").filter(|others| others.is_object());
            for (name, value) in map {
                let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                if let Some(schema) = known.and_then(|known| known.get(name)).or(others) {
                    walk(root, schema, value, &below, visit);
                }
            }
        }
        Value::Array(values) => {
            let Some(items) = schema.get("items") else { return };
            for (index, value) in values.iter().enumerate() {
                walk(root, items, value, &format!("{path}[{index}]"), visit);
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Number(_) => {}
    }
}

/// Returns the schema that a reference, or a value that may be left out, stands for.
fn target<'a>(root: &'a Value, mut schema: &'a Value) -> &'a Value {
    for _ in 0..MAX_STEPS {
        let reference = schema.get("$ref").and_then(Value::as_str);
        let choice = || {
            let choices = schema.get("anyOf")?.as_array()?.iter();
            let mut some = choices.filter(|choice| choice.get("type") != Some(&"null".into()));
            some.next().filter(|_| some.next().is_none())
        };
        let next = match reference {
            Some(reference) => reference.strip_prefix('#').and_then(|path| root.pointer(path)),
            None => choice(),
        };
        match next {
            Some(next) => schema = next,
            None => break,
        }
    }
    schema
}

fn range_message(schema: &Value, number: &Number) -> Option<String> {
    let is_type = |name: &str| match schema.get("type") {
        Some(Value::Array(names)) => names.iter().any(|it| it == name),
        Some(one) => one == name,
        None => false,
    };
    let what = match (is_type("integer"), is_type("number")) {
        (true, _) => "a whole number",
        (false, true) => "a number",
        (false, false) => return None,
    };
    let bound = |name: &str| schema.get(name).and_then(Value::as_number);
    let (least, most) = (bound("minimum"), bound("maximum"));
    let shown = |bound: &Number| bound.to_string().trim_end_matches(".0").to_owned();
    let range = match (least, most) {
        (Some(least), Some(most)) => format!(" from {} to {}", shown(least), shown(most)),
        (Some(least), None) => format!(" of {} or more", shown(least)),
        (None, Some(most)) => format!(" of at most {}", shown(most)),
        (None, None) => return None,
    };
    let value = number.as_f64()?;
    let fits = least.and_then(Number::as_f64).is_none_or(|least| value >= least)
        && most.and_then(Number::as_f64).is_none_or(|most| value <= most)
        && (!is_type("integer") || number.is_i64() || number.is_u64());
    (!fits).then(|| format!("must be {what}{range}, but is {number}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use schemars::{JsonSchema, schema_for};
    use serde_json::json;

    use super::*;

    #[derive(JsonSchema)]
    #[schemars(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its schema is looked at")]
    struct Config {
        /// For how long.
        #[schemars(range(max = 36_500), extend("x-hint" = "0 is for ever"))]
        days: u32,
        #[schemars(range(min = 1, max = 10))]
        limit: Option<u32>,
        #[schemars(range(min = 0.5))]
        share: f64,
        nested: Nested,
        some: Option<Nested>,
        many: BTreeMap<String, Nested>,
        list: Vec<Nested>,
        port: std::num::NonZeroU16,
    }

    #[derive(JsonSchema)]
    #[schemars(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its schema is looked at")]
    struct Nested {
        #[schemars(range(min = 2))]
        depth: i64,
    }

    fn told(misfits: Vec<Misfit>) -> Vec<String> {
        misfits.into_iter().map(|it| format!("{}: {} ({})", it.path, it.message, it.hint)).collect()
    }

    #[test]
    fn every_number_is_looked_at_wherever_it_lies() {
        let schema = schema_for!(Config).to_value();
        let value = json!({
            "days": 99_999, "limit": 0, "share": 0.25, "nested": {"depth": 1},
            "some": {"depth": -3}, "many": {"a.b": {"depth": 0}, "c": {"depth": 2}},
            "list": [{"depth": 7}, {"depth": 1}], "port": 0,
        });
        let mut found = told(out_of_range(&schema, &value));
        found.sort();
        assert_eq!(
            found,
            [
                "days: must be a whole number from 0 to 36500, but is 99999 (0 is for ever)",
                "limit: must be a whole number from 1 to 10, but is 0 ()",
                "list[1].depth: must be a whole number of 2 or more, but is 1 ()",
                "many.a.b.depth: must be a whole number of 2 or more, but is 0 ()",
                "nested.depth: must be a whole number of 2 or more, but is 1 ()",
                "port: must be a whole number from 1 to 65535, but is 0 ()",
                "share: must be a number of 0.5 or more, but is 0.25 ()",
                "some.depth: must be a whole number of 2 or more, but is -3 ()",
            ]
        );
    }

    #[test]
    fn what_fits_and_what_is_no_number_is_left_alone() {
        let schema = schema_for!(Config).to_value();
        let value = json!({
            "days": 36_500, "limit": null, "share": 0.5, "nested": {"depth": 2}, "some": null,
            "many": {}, "list": [], "port": "text", "unknown": -1,
        });
        assert_eq!(out_of_range(&schema, &value), []);
        let unknown = told(unknown_keys(&schema, &value));
        assert_eq!(unknown.len(), 1, "{unknown:?}");
        assert!(unknown[0].contains("unknown field `unknown`, expected one of "), "{unknown:?}");
    }
}

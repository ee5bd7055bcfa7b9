//! What the JSON schema of a module's configuration says of its section: every key that its type
//! does not have and every number out of its range. The module itself stops at the first.

use serde_json::{Map, Number, Value, json};

use super::{Config, ConfigError};

/// How many references and choices lead to a type at most.
const MAX_STEPS: usize = 8;

impl Config {
    /// Everything that is wrong with settings which a module refused, `defaults` below them: what
    /// its schema says, and `told`, the module's own words, where they are about something else.
    #[must_use]
    pub fn refusals(
        &self,
        module: &str,
        schema: &Value,
        settings: &Map<String, Value>,
        defaults: Option<&str>,
        told: ConfigError,
    ) -> Vec<ConfigError> {
        let mut misfits = Misfits { root: schema, reports: Vec::new() };
        misfits.of_map(schema, settings, "");
        let reports = misfits.reports.iter();
        let mut errors: Vec<_> =
            reports.map(|it| self.explain_with(module, &it.to_string(), defaults)).collect();
        match errors.iter_mut().find(|error| error.key == told.key) {
            Some(known) if known.hint.is_empty() => known.hint = told.hint,
            Some(_) => {}
            None => errors.push(told),
        }
        errors.sort_by_key(|error| (error.line, error.column));
        errors
    }
}

/// What does not fit, as the reports that [`Config::explain`] reads.
struct Misfits<'a> {
    root: &'a Value,
    reports: Vec<Value>,
}

impl Misfits<'_> {
    fn of(&mut self, schema: &Value, value: &Value, path: &str) {
        let schema = target(self.root, schema).clone();
        match value {
            Value::Object(map) => self.of_map(&schema, map, path),
            Value::Array(values) => {
                if let Some(items) = schema.get("items") {
                    for (index, value) in values.iter().enumerate() {
                        self.of(items, value, &format!("{path}[{index}]"));
                    }
                }
            }
            Value::Number(number) => {
                if let Some(message) = out_of_range(&schema, number) {
                    self.reports.push(json!({"path": path, "message": message}));
                }
            }
            Value::Null | Value::Bool(_) | Value::String(_) => {}
        }
    }

    fn of_map(&mut self, schema: &Value, map: &Map<String, Value>, path: &str) {
        let known = schema.get("properties").and_then(Value::as_object);
        let others = schema.get("additionalProperties");
        for (name, value) in map {
            let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match (known.and_then(|known| known.get(name)), others) {
                (Some(property), _) => self.of(property, value, &below),
                (None, Some(Value::Bool(false))) => {
                    let names = known.into_iter().flat_map(Map::keys);
                    let names = names.map(|name| format!("`{name}`")).collect::<Vec<_>>();
                    let message =
                        format!("unknown field `{name}`, expected one of {}", names.join(", "));
                    self.reports.push(json!({"path": path, "message": message}));
                }
                (None, Some(schema)) => self.of(schema, value, &below),
                (None, None) => {}
            }
        }
    }
}

/// The schema that a reference, or a value that may be left out, stands for.
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

fn out_of_range(schema: &Value, number: &Number) -> Option<String> {
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
    use std::path::Path;

    use super::*;
    use crate::Layers;

    /// As schemars writes it.
    fn schema() -> Value {
        json!({
            "type": "object", "additionalProperties": false,
            "properties": {
                "days": {"type": "integer", "format": "uint32", "minimum": 0, "maximum": 36_500},
                "idle": {"type": ["integer", "null"], "minimum": 1},
                "share": {"type": "number", "maximum": 1.0},
                "prices": {"type": "object", "additionalProperties": {"$ref": "#/$defs/Price"}},
                "limit": {"anyOf": [{"$ref": "#/$defs/Price"}, {"type": "null"}]},
                "list": {"type": "array", "items": {"$ref": "#/$defs/Price"}},
                "free": {"type": "object"},
                "word": {"type": "string"},
            },
            "$defs": {"Price": {
                "type": "object", "additionalProperties": false,
                "properties": {"input": {"type": "number"}, "output": {"type": "number"}},
            }},
        })
    }

    fn check(settings: &str, told: Value, expected: &[&str]) {
        let lines: String = settings.lines().map(|line| format!("    {line}\n")).collect();
        let text = format!("modules:\n  m:\n    enabled: true\n{lines}");
        let config = Config::parse(&text, Path::new("m.yaml"), &Layers::default()).expect("valid");
        let given = config.effective("m", None).expect("it is valid");
        let told = config.explain("m", &told.to_string());
        let errors = config.refusals("m", &schema(), &given, None, told);
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{settings}");
    }

    #[test]
    fn every_unknown_key_is_named_with_the_nearest_right_one() {
        let told = json!({"path": "prices.gpt-5.1.inptu",
                          "message": "unknown field `inptu`, expected `input` or `output`"});
        check(
            "dasy: 3\nenabeld: true\nprices:\n  gpt-5.1: {inptu: 1, ouput: 2}\n  b: {input: 1}\n\
             limit: {in: 1}\nlist: [{output: 1}, {otput: 1}]\nfree: {any: 1}",
            told,
            &[
                "m.yaml:4:5: modules.m.dasy: unknown key; did you mean `days`?",
                "m.yaml:5:5: modules.m.enabeld: unknown key; did you mean `enabled`?",
                "m.yaml:7:17: modules.m.prices.gpt-5.1.inptu: unknown key; did you mean `input`?",
                "m.yaml:7:27: modules.m.prices.gpt-5.1.ouput: unknown key; did you mean `output`?",
                "m.yaml:9:13: modules.m.limit.in: unknown key; did you mean `input`?",
                "m.yaml:10:26: modules.m.list[1].otput: unknown key; did you mean `output`?",
            ],
        );
    }

    #[test]
    fn a_range_is_said_in_words() {
        let told = json!({"path": "days", "message": "invalid value: integer `-5`, expected u32",
                          "hint": "0 is for ever"});
        check(
            "days: -5\nidle: 0\nshare: 1.5\nword: 7",
            told,
            &[
                "m.yaml:4:5: modules.m.days: must be a whole number from 0 to 36500, but is -5; \
                 0 is for ever",
                "m.yaml:5:5: modules.m.idle: must be a whole number of 1 or more, but is 0",
                "m.yaml:6:5: modules.m.share: must be a number of at most 1, but is 1.5",
            ],
        );
        let told = json!({"path": "word", "message": "is no good word"});
        check(
            "days: 2.5\nidle: 1\nword: x",
            told,
            &[
                "m.yaml:4:5: modules.m.days: must be a whole number from 0 to 36500, but is 2.5",
                "m.yaml:6:5: modules.m.word: is no good word",
            ],
        );
    }
}

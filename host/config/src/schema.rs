//! Checks of a module's section against the JSON schema of its configuration: every unknown key and
//! every number out of its range. The module itself stops at the first error.

use module_sdk::schema::{out_of_range, unknown_keys};
use serde_json::{Map, Value, json};

use super::{Config, ConfigError};

impl Config {
    /// Returns all errors in settings that a module refused, with `defaults` below them: those that
    /// the schema shows, and `told`, the module's own error, if it concerns another key.
    #[must_use]
    pub fn refusals(
        &self,
        module: &str,
        schema: &Value,
        settings: &Map<String, Value>,
        defaults: Option<&str>,
        told: ConfigError,
    ) -> Vec<ConfigError> {
        let settings = Value::Object(settings.clone());
        let misfits = unknown_keys(schema, &settings).into_iter();
        let misfits = misfits.chain(out_of_range(schema, &settings)).map(|misfit| {
            let (path, message, hint) = (misfit.path, misfit.message, misfit.hint);
            let report = json!({"path": path, "message": message, "hint": hint}).to_string();
            self.explain_with(module, &report, defaults)
        });
        let mut errors: Vec<_> = misfits.collect();
        match errors.iter_mut().find(|error| error.key == told.key) {
            Some(known) if known.hint.is_empty() => known.hint = told.hint,
            Some(_) => {}
            None => errors.push(told),
        }
        errors.sort_by_key(|error| (error.line, error.column));
        errors
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Layers;

    /// Returns a schema as schemars writes it.
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

//! The effective settings of a module, each with the layer that it comes from.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    Config, ConfigErrors, HOST_KEYS, redacted,
    tree::{Node, SourceLocation, Yaml},
};

/// Maximum nesting depth of types.
const MAX_DEPTH: usize = 8;

/// Values with their origins, by dotted key.
pub type Origins = BTreeMap<String, (Value, String)>;

impl Config {
    /// Returns every setting of a module: the defaults of its type (`built_in`, the JSON schema of
    /// its configuration), below its `config.yaml` (`defaults`), below this configuration. The
    /// daemon's keys are included if they are given, `enabled` always. Secrets are left out.
    ///
    /// # Errors
    ///
    /// Returns an error if `defaults` is not a YAML map.
    pub fn origins(
        &self,
        module: &str,
        built_in: &Value,
        defaults: Option<&str>,
    ) -> Result<Origins, ConfigErrors> {
        let mut origins = Origins::from([("enabled".to_owned(), (true.into(), word("default")))]);
        lay_over(&mut origins, defaults_of(built_in, built_in, 0), |_| word("default"));
        lay_over(&mut origins, self.effective(module, defaults)?, |path| {
            match self.setting(module, path) {
                Some(node) => self.layer(node.0),
                None => format!("config.yaml of {module}"),
            }
        });
        for name in HOST_KEYS {
            if let Some((place, node)) = self.setting(module, name) {
                let given = Map::from_iter([(name.to_owned(), node.to_json())]);
                // The keys of `secrets` hold references only: anything else is refused.
                flatten("", &Value::Object(given), &mut |path, value| {
                    origins.insert(path, (value.clone(), self.layer(place)));
                });
            }
        }
        Ok(origins)
    }

    /// Returns the place and node of a key of a section that has a value.
    fn setting(&self, module: &str, path: &str) -> Option<(&SourceLocation, &Node)> {
        let mut found = None;
        let mut node = &self.section(module)?.node;
        for step in path.split('.') {
            let entry = node.get(step)?;
            node = &entry.node;
            found = Some((&entry.place, node));
        }
        found.filter(|(_, node)| !matches!(node.value, Yaml::Null))
    }

    fn layer(&self, place: &SourceLocation) -> String {
        match place {
            SourceLocation::File { line, .. } => format!("{}:{line}", self.path.display()),
            SourceLocation::Layer(layer) => layer.to_string(),
        }
    }
}

/// Returns the defaults of a type's properties: those of the schema, or the defaults of the
/// property's own type. An optional property without a default is null.
fn defaults_of(schema: &Value, root: &Value, depth: usize) -> Map<String, Value> {
    let required = schema.get("required").and_then(Value::as_array);
    let is_required = |name: &str| required.is_some_and(|names| names.iter().any(|it| it == name));
    let properties = schema.get("properties").and_then(Value::as_object);
    let default = |(name, property): (&String, &Value)| {
        if let Some(value) = property.get("default") {
            return Some((name.clone(), value.clone()));
        }
        let reference = property.get("$ref").and_then(Value::as_str);
        let target = reference.and_then(|it| root.pointer(it.strip_prefix('#')?));
        let inner = match target {
            Some(target) if depth < MAX_DEPTH => defaults_of(target, root, depth + 1),
            _ => Map::new(),
        };
        match inner.is_empty() {
            false => Some((name.clone(), Value::Object(inner))),
            true if is_required(name) => None,
            true => Some((name.clone(), Value::Null)),
        }
    };
    properties.into_iter().flatten().filter_map(default).collect()
}

fn lay_over(origins: &mut Origins, settings: Map<String, Value>, of: impl Fn(&str) -> String) {
    flatten("", &Value::Object(redacted(&settings)), &mut |path, value| {
        // A value in place of a map, or a map in place of a value.
        let below = format!("{path}.");
        origins.retain(|known, _| !known.starts_with(&below));
        let above = |known: &String| path.starts_with(&format!("{known}."));
        origins.retain(|known, _| !above(known));
        let origin = of(&path);
        origins.insert(path, (value.clone(), origin));
    });
}

/// Calls `each` for every value except maps with keys.
fn flatten(path: &str, value: &Value, each: &mut impl FnMut(String, &Value)) {
    match value {
        Value::Object(map) if !map.is_empty() || path.is_empty() => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, each);
            }
        }
        value => each(path.to_owned(), value),
    }
}

fn word(text: &str) -> String {
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::Layers;

    #[test]
    fn each_setting_names_its_layer() {
        let text = "modules:\n  m:\n    days: 7\n    rate: {burst: 3}\n    token: abc\n    \
                    isolation: process\n    gone:\n";
        let layers = Layers {
            environment: [("LODESTAR_M__LISTEN", "127.0.0.1:1")].into_iter().collect(),
            settings: vec![("m.rate.per_second".to_owned(), "9".to_owned())],
        };
        let config = Config::parse(text, Path::new("f.yaml"), &layers).expect("it is valid");
        let schema = json!({"properties": {
            "days": {"default": 90}, "rate": {"default": {"burst": 1, "per_second": 1, "max": 5}},
            "database": {"default": null}, "gone": {"default": 4}, "name": {"type": "string"},
            "limits": {"$ref": "#/$defs/Limits"}, "projects": {"type": "object"},
            "needed": {"type": "string"},
        }, "required": ["needed"], "$defs": {"Limits": {"properties": {
            "most": {"default": 200},
        }}}});
        let defaults = "days: 30\nname: a\n";
        let origins = config.origins("m", &schema, Some(defaults)).expect("they can be read");
        let lines: Vec<String> = origins
            .iter()
            .map(|(key, (value, origin))| format!("{key}: {value} # {origin}"))
            .collect();
        assert_eq!(
            lines,
            [
                "database: null # default",
                "days: 7 # f.yaml:3",
                "enabled: true # default",
                "gone: 4 # default",
                "isolation: \"process\" # f.yaml:6",
                "limits.most: 200 # default",
                "listen: \"127.0.0.1:1\" # environment variable LODESTAR_M__LISTEN",
                "name: \"a\" # config.yaml of m",
                "projects: null # default",
                "rate.burst: 3 # f.yaml:4",
                "rate.max: 5 # default",
                "rate.per_second: 9 # --set m.rate.per_second",
                "token: \"[redacted]\" # f.yaml:5",
            ]
        );
    }
}

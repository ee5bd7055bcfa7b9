//! Conversion of a module's configuration error into an error at a place of the file.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{
    Config, HOST_KEYS,
    error::{ConfigError, nearest, quoted, suggestion},
    tree::{Entry, Node, SourceLocation, Yaml},
};

/// A module's refusal: the dotted key, the message of serde or the module, and the remedy.
#[derive(Deserialize)]
struct Report {
    path: String,
    message: String,
    #[serde(default)]
    hint: String,
}

impl Config {
    /// Returns the error for a module's refusal of its settings: `report` is the JSON
    /// `{"path": …, "message": …, "hint"?: …}` of the SDK, or any sentence.
    #[must_use]
    pub fn explain(&self, module: &str, report: &str) -> ConfigError {
        self.explain_with(module, report, None)
    }

    /// Returns the same error for settings that have `defaults` below them, the text of the
    /// module's `config.yaml`: the error of a key that is given only there has its place there.
    #[must_use]
    pub fn explain_with(&self, module: &str, report: &str, defaults: Option<&str>) -> ConfigError {
        let Report { mut path, message, hint } =
            serde_json::from_str(report).unwrap_or_else(|_| Report {
                path: String::new(),
                message: report.to_owned(),
                hint: String::new(),
            });
        let mut words = Words::of(&message, path.is_empty());
        if !hint.is_empty() {
            words.hint = hint;
        }
        if let Some(name) = words.key
            && path.rsplit('.').next() != Some(name)
        {
            path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        }
        if self.place_of(module, &path).is_none()
            && let Some((file, place)) = in_defaults(module, &path, defaults)
        {
            return place.error(&file, path, words.message, words.hint);
        }
        let section = format!("modules.{module}");
        let key = if path.is_empty() { section } else { format!("{section}.{path}") };
        let nearest = ancestors(&path).find_map(|path| self.place_of(module, path));
        match nearest {
            Some(place) => place.error(&self.path, key, words.message, words.hint),
            None => {
                let mut error = ConfigError::of_file(&self.path, words.message, words.hint);
                error.key = key;
                error
            }
        }
    }

    /// Returns the place of a key of a section: of the key itself if it belongs to a map, so that
    /// an error points at the line that the operator looks for.
    pub(super) fn place_of(&self, module: &str, path: &str) -> Option<&SourceLocation> {
        let entry = self.section(module)?;
        walk(&entry.place, &entry.node, path)
    }
}

/// Returns the place of a key in a module's own `config.yaml`, with the name of that file.
fn in_defaults(
    module: &str,
    path: &str,
    defaults: Option<&str>,
) -> Option<(PathBuf, SourceLocation)> {
    let file = Path::new(module).join("config.yaml");
    let node = Node::parse(defaults?, &file).ok()?;
    let place = walk(&node.place, &node, path).filter(|_| !path.is_empty())?.clone();
    Some((file, place))
}

/// Returns the place of the key at a path.
fn walk<'a>(place: &'a SourceLocation, node: &'a Node, path: &str) -> Option<&'a SourceLocation> {
    let mut found = (place, node);
    let mut rest = path;
    while !rest.is_empty() {
        let step = Step::first(found.1, rest)?;
        found = (step.place, step.node);
        rest = step.rest;
    }
    Some(found.0)
}

/// Returns a path and its ancestors: `limits.max[2].name`, `limits.max[2]`, `limits.max`, `limits`
/// and the section itself.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| {
        (!path.is_empty()).then(|| path.rfind(['.', '[']).map_or("", |end| &path[..end]))
    })
}

/// One step down a path.
struct Step<'a, 'p> {
    place: &'a SourceLocation,
    node: &'a Node,
    rest: &'p str,
}

impl<'a, 'p> Step<'a, 'p> {
    fn first(node: &'a Node, path: &'p str) -> Option<Self> {
        if let Yaml::List(nodes) = &node.value {
            let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
            let node = nodes.get(index.parse::<usize>().ok()?)?;
            return Some(Self { place: &node.place, node, rest: rest.trim_start_matches('.') });
        }
        // A key may hold dots itself, `gpt-5.1`: the longest that fits is the one.
        let fits = |entry: &'a Entry| {
            let rest = path.strip_prefix(entry.name.as_str())?;
            let ends = rest.is_empty() || rest.starts_with(['.', '[']);
            ends.then_some(Self {
                place: &entry.place,
                node: &entry.node,
                rest: rest.trim_start_matches('.'),
            })
        };
        node.entries()?.iter().filter_map(fits).min_by_key(|step| step.rest.len())
    }
}

/// Serde's message, rewritten: without the value that was found, with the right name.
struct Words<'a> {
    key: Option<&'a str>,
    message: String,
    hint: String,
}

impl<'a> Words<'a> {
    fn of(message: &'a str, at_top: bool) -> Self {
        let (found, expected) = message.split_once(", expected ").unwrap_or((message, ""));
        let mut known: Vec<&str> = backticked(expected).collect();
        if let Some(name) = found.strip_prefix("unknown field ").and_then(unquote) {
            let hint = match nearest(name, HOST_KEYS) {
                Some(right) if at_top && nearest(name, known.iter().copied()).is_none() => {
                    format!("did you mean `{right}`?")
                }
                _ => suggestion(name, &known),
            };
            return Self { key: Some(name), message: "unknown key".to_owned(), hint };
        }
        if let Some(name) = found.strip_prefix("missing field ").and_then(unquote) {
            let message = "the key is missing".to_owned();
            return Self { key: Some(name), message, hint: "add it to the section".to_owned() };
        }
        if let Some(word) = found.strip_prefix("unknown variant ").and_then(unquote) {
            let near = nearest(word, known.iter().copied());
            let hint = near.map(|right| format!("did you mean `{right}`?")).unwrap_or_default();
            known.dedup();
            let message = format!("must be {}, but is another word", quoted(&known, "or"));
            return Self { key: None, message, hint };
        }
        Self::of_type(message)
    }

    fn of_type(message: &str) -> Self {
        let wrong = message
            .strip_prefix("invalid type: ")
            .or_else(|| message.strip_prefix("invalid value: "))
            // A text that was found may itself hold ", expected ".
            .and_then(|rest| rest.rsplit_once(", expected "));
        let Some((found, expected)) = wrong else {
            return Self { key: None, message: message.to_owned(), hint: String::new() };
        };
        let hint = match (found, plain_type(expected)) {
            ("string \"yes\"" | "string \"no\"" | "string \"on\"" | "string \"off\"", _) => {
                "only `true` and `false` are booleans in YAML 1.2"
            }
            (found, "a text") if !found.starts_with("string") => "put it in quotes",
            (found, "a whole number" | "a number") if found.starts_with("string") => {
                "write it without quotes and without a unit"
            }
            _ => "",
        };
        let message = format!("must be {}, but is {}", plain_type(expected), plain_value(found));
        Self { key: None, message, hint: hint.to_owned() }
    }
}

/// Returns the kind of the value that was found. The value of a text is left out: it may be a
/// secret.
fn plain_value(found: &str) -> &str {
    match found.split([' ', '`']).next().unwrap_or(found) {
        "string" | "character" => "a text",
        "boolean" => "a boolean",
        "null" | "unit" | "Option" => "nothing",
        "sequence" => "a list",
        "map" => "a map",
        _ => found,
    }
}

fn plain_type(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" | "i8" | "i16" | "i32" | "i64" | "isize" => {
            "a whole number"
        }
        "a nonzero u8" | "a nonzero u16" | "a nonzero u32" | "a nonzero u64"
        | "a nonzero usize" => "a whole number above 0",
        "f32" | "f64" => "a number",
        "a string" | "a borrowed string" | "str" | "path string" => "a text",
        "a sequence" => "a list",
        other if other.starts_with("struct ") => "a map of keys",
        other => other,
    }
}

fn unquote(text: &str) -> Option<&str> {
    text.strip_prefix('`')?.strip_suffix('`')
}

fn backticked(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

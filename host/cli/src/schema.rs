//! Options from the JSON schema of a command's arguments, and JSON from options.
//!
//! Supported are `type` (also with `null`), `enum`, `const`, `oneOf`, `anyOf` and `allOf` of these,
//! `$ref` into the same schema, `items`, `minimum`, `maximum`, `default`, `description`,
//! `required`, and the extensions `x-positional` (`true`, or a number for the order), `x-path`
//! (`true`: a file, which the module gets as an absolute path) and `x-files` (a file, which the
//! command line sends, or a folder, of which it sends the files with one of the listed endings; or
//! an object, with which the files of tools are found, and only those that changed are sent:
//! [`FilesRule`]). A value of any other form is given as JSON.

use std::path::PathBuf;

use clap::{
    Arg, ArgAction, ArgMatches, ValueHint, builder::PossibleValue, builder::PossibleValuesParser,
};
use serde_json::{Map, Number, Value};

use crate::{
    asked_files::{AskedFiles, FilesRule, ToolArgument},
    error::{InvalidValue, Result},
};

/// Names that are options of every command.
const RESERVED: [&str; 6] = ["json", "socket", "timeout", "color", "help", "version"];

/// Names that are options of every command that streams.
const OF_STREAMS: [&str; 2] = ["out", "force"];

/// Greatest depth of references in each other.
const MAX_DEPTH: usize = 8;

/// One argument of a command.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Field {
    /// Name of the property.
    name: String,
    kind: Kind,
    required: bool,
    /// Position among the positional arguments.
    position: Option<u64>,
    help: String,
    default: Option<Value>,
}

/// Kind of the values that an argument takes.
#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Text,
    /// A file, relative to the directory in which the command is typed.
    Path,
    /// A file, or a folder with files, whose content is sent.
    Files(FilesRule),
    Integer {
        least: Option<i128>,
        most: Option<i128>,
    },
    Number,
    /// Option without a value: `true` if it is given.
    Switch,
    /// Option that is `true`, `false`, or left to the command.
    Flag,
    Choice(Vec<(String, String)>),
    List(Box<Self>),
    Json,
}

/// Returns the arguments that a schema describes.
pub(crate) fn fields(schema: &Value) -> Vec<Field> {
    let required = schema.get("required").and_then(Value::as_array);
    let is_required = |name: &str| required.is_some_and(|names| names.iter().any(|n| n == name));
    let properties = schema.get("properties").and_then(Value::as_object);
    let mut fields: Vec<Field> = properties
        .into_iter()
        .flatten()
        .map(|(name, property)| Field {
            name: name.clone(),
            kind: kind(property, schema, 0),
            required: is_required(name),
            position: position(property),
            help: text(property, "description"),
            default: property.get("default").filter(|value| !is_nothing(value)).cloned(),
        })
        .collect();
    fields.sort_by_key(|field| field.position.unwrap_or(u64::MAX));
    fields
}

/// Returns the options and positional arguments for the command line of a command, which may
/// stream.
pub(crate) fn args(fields: &[Field], streams: bool) -> Vec<Arg> {
    fields.iter().map(|field| arg(field, streams)).collect()
}

/// Returns which files are to be sent.
pub(crate) fn files(fields: &[Field], matches: &ArgMatches) -> Result<Option<AskedFiles>> {
    let Some((field, rule)) = fields.iter().find_map(|field| Some((field, field.rule()?))) else {
        return Ok(None);
    };
    let text = |field: &Field| field_json(field, matches).as_str().map(str::to_owned);
    let tools = fields.iter().find(|field| rule.tools.as_ref() == Some(&field.name));
    let choices = tools.and_then(|field| match &field.kind {
        Kind::Choice(choices) => Some(choices.iter().map(|(name, _)| name.clone()).collect()),
        _ => None,
    });
    let tool = ToolArgument { word: tools.and_then(text), choices };
    rule.ask(text(field).map(PathBuf::from), &tool)
}

/// Returns the command that is asked which files it has read, if the schema names one.
pub(crate) fn known_command(schema: &Value) -> Option<String> {
    fields(schema).iter().find_map(|field| field.rule()?.known.clone())
}

/// Returns the given arguments as the object that the command expects; others are left to it.
pub(crate) fn json(fields: &[Field], matches: &ArgMatches) -> Map<String, Value> {
    let mut object = Map::new();
    for field in fields {
        let given =
            matches.value_source(&field.id()) == Some(clap::parser::ValueSource::CommandLine);
        if given {
            object.insert(field.name.clone(), field_json(field, matches));
        }
    }
    object
}

impl Field {
    /// Returns the parser's id for the argument, which no option of `lodestar` has.
    fn id(&self) -> String {
        format!("property {}", self.name)
    }

    /// Returns which files count, where the argument is their path.
    const fn rule(&self) -> Option<&FilesRule> {
        match &self.kind {
            Kind::Files(rule) => Some(rule),
            _ => None,
        }
    }
}

fn field_json(field: &Field, matches: &ArgMatches) -> Value {
    let values = || matches.get_many::<Value>(&field.id()).into_iter().flatten().cloned();
    match &field.kind {
        Kind::Switch => Value::Bool(matches.get_flag(&field.id())),
        Kind::List(_) => values().collect(),
        _ => values().next_back().unwrap_or_default(),
    }
}

fn arg(field: &Field, streams: bool) -> Arg {
    let arg = Arg::new(field.id())
        .required(field.required)
        .help(summary(field))
        .value_name(field.name.to_uppercase());
    let arg = match field.position {
        Some(_) => arg,
        None => arg.long(long_name(&field.name, streams)),
    };
    match &field.kind {
        Kind::List(item) => {
            let many = match field.position {
                Some(_) => arg.num_args(usize::from(field.required)..),
                None => arg,
            };
            typed(many.action(ArgAction::Append), item)
        }
        Kind::Switch => arg.action(ArgAction::SetTrue),
        Kind::Flag if field.position.is_none() => typed(
            arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
            &Kind::Flag,
        )
        .hide_possible_values(true),
        kind => typed(arg, kind),
    }
}

/// Gives an argument the parser of its values.
fn typed(arg: Arg, kind: &Kind) -> Arg {
    use clap::builder::TypedValueParser as _;
    match kind {
        Kind::Text => arg.value_parser(|text: &str| Ok::<_, InvalidValue>(Value::from(text))),
        Kind::Path => arg.value_hint(ValueHint::AnyPath).value_parser(path),
        Kind::Files(_) => arg
            .value_hint(ValueHint::AnyPath)
            .value_parser(|text: &str| Ok::<_, InvalidValue>(Value::from(text))),
        Kind::Integer { least, most } => {
            let (least, most) = (*least, *most);
            arg.allow_negative_numbers(true)
                .value_parser(move |text: &str| integer(text, least, most))
        }
        Kind::Number => arg.allow_negative_numbers(true).value_parser(number),
        Kind::Switch | Kind::Flag => arg.value_name("BOOL").value_parser(
            PossibleValuesParser::new(["true", "false"]).map(|text| Value::from(text == "true")),
        ),
        Kind::Choice(choices) => {
            let values = choices.iter().map(|(name, help)| {
                let value = PossibleValue::new(name.clone());
                if help.is_empty() { value } else { value.help(help.clone()) }
            });
            arg.value_parser(PossibleValuesParser::new(values).map(Value::from))
        }
        Kind::List(_) | Kind::Json => arg.value_name("JSON").value_parser(any_json),
    }
}

/// Returns a path from the root on: the daemon runs in a directory of its own.
fn path(text: &str) -> Result<Value, InvalidValue> {
    let path = std::path::absolute(text).map_err(|_| InvalidValue::expected("a path"))?;
    Ok(path.to_string_lossy().into())
}

fn any_json(text: &str) -> Result<Value, InvalidValue> {
    serde_json::from_str(text).map_err(InvalidValue::json)
}

fn number(text: &str) -> Result<Value, InvalidValue> {
    let number = text.parse().ok().and_then(Number::from_f64);
    number.map(Value::Number).ok_or_else(|| InvalidValue::expected("a number"))
}

fn integer(text: &str, least: Option<i128>, most: Option<i128>) -> Result<Value, InvalidValue> {
    let range = match (least, most) {
        (Some(least), Some(most)) => format!("a whole number from {least} to {most}"),
        (Some(least), None) => format!("a whole number of at least {least}"),
        (None, Some(most)) => format!("a whole number of at most {most}"),
        (None, None) => "a whole number".to_owned(),
    };
    let fits = |value: &i128| {
        least.is_none_or(|least| *value >= least) && most.is_none_or(|most| *value <= most)
    };
    let number = text.parse().ok().filter(fits).and_then(Number::from_i128);
    number.map(Value::Number).ok_or_else(|| InvalidValue::expected(range))
}

fn long_name(property: &str, streams: bool) -> String {
    let name = property.replace('_', "-").to_lowercase();
    let is_ours = RESERVED.contains(&&*name) || (streams && OF_STREAMS.contains(&&*name));
    if is_ours { format!("arg-{name}") } else { name }
}

/// Returns the help of an argument on one line, with its default.
fn summary(field: &Field) -> String {
    let help = one_line(&field.help);
    let default = match &field.default {
        None => return help,
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    format!("{help} [default: {default}]").trim().to_owned()
}

/// Returns the first paragraph of a doc comment on one line.
pub(crate) fn one_line(text: &str) -> String {
    let first = text.split("\n\n").next().unwrap_or_default();
    first.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches('.').to_owned()
}

fn position(property: &Value) -> Option<u64> {
    match property.get("x-positional")? {
        Value::Bool(true) => Some(u64::MAX - 1),
        Value::Number(number) => number.as_u64(),
        _ => None,
    }
}

fn kind(property: &Value, root: &Value, depth: usize) -> Kind {
    if depth > MAX_DEPTH {
        return Kind::Json;
    }
    if let Some(target) = property.get("$ref").and_then(Value::as_str) {
        let found = target.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
        return found.map_or(Kind::Json, |target| kind(target, root, depth + 1));
    }
    if let Some(names) = strings(property) {
        return Kind::Choice(names);
    }
    for key in ["oneOf", "anyOf", "allOf"] {
        if let Some(parts) = property.get(key).and_then(Value::as_array) {
            return joined(
                parts.iter().filter(|part| !is_null(part)).map(|part| kind(part, root, depth + 1)),
            );
        }
    }
    match type_name(property) {
        Some("string") if property.get("x-path") == Some(&Value::Bool(true)) => Kind::Path,
        Some("string") if property.get("x-files").is_some() => {
            Kind::Files(property.get("x-files").map(FilesRule::read).unwrap_or_default())
        }
        Some("string") => Kind::Text,
        Some("integer") => {
            Kind::Integer { least: limit(property, "minimum"), most: limit(property, "maximum") }
        }
        Some("number") => Kind::Number,
        Some("boolean") if is_switch(property) => Kind::Switch,
        Some("boolean") => Kind::Flag,
        Some("array") => {
            let item = property.get("items").map_or(Kind::Text, |i| kind(i, root, depth + 1));
            Kind::List(Box::new(item))
        }
        _ => Kind::Json,
    }
}

/// Returns whether leaving the property out means the same as `false`.
fn is_switch(property: &Value) -> bool {
    let is_on = property.get("default").is_some_and(|default| *default == Value::Bool(true));
    let is_named = property.get("x-positional").is_none();
    is_named && !is_on && property.get("type").is_some_and(Value::is_string)
}

/// Joins several choices to one; anything else must be alone, or is given as JSON.
fn joined(kinds: impl Iterator<Item = Kind>) -> Kind {
    kinds
        .reduce(|joined, next| match (joined, next) {
            (Kind::Choice(mut names), Kind::Choice(more)) => {
                names.extend(more);
                Kind::Choice(names)
            }
            _ => Kind::Json,
        })
        .unwrap_or(Kind::Json)
}

/// Returns the names that a `const` or an `enum` of texts allows.
fn strings(property: &Value) -> Option<Vec<(String, String)>> {
    if let Some(name) = property.get("const").and_then(Value::as_str) {
        return Some(vec![(name.to_owned(), one_line(&text(property, "description")))]);
    }
    let names = property.get("enum")?.as_array()?.iter().filter(|name| !name.is_null());
    names.map(|name| Some((name.as_str()?.to_owned(), String::new()))).collect()
}

/// Returns the one type beside `null`.
fn type_name(property: &Value) -> Option<&str> {
    match property.get("type")? {
        Value::String(name) => Some(name),
        Value::Array(names) => {
            let mut names = names.iter().filter_map(Value::as_str).filter(|name| *name != "null");
            let first = names.next()?;
            names.next().is_none().then_some(first)
        }
        _ => None,
    }
}

fn limit(property: &Value, key: &str) -> Option<i128> {
    let number = property.get(key)?;
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn is_null(part: &Value) -> bool {
    part.get("type").is_some_and(|name| name == "null")
}

/// Checks whether a default says nothing to a reader: `null`, `false` or empty.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use clap::Command;
    use module_transcripts::Tool;
    use serde_json::json;

    use super::*;
    use crate::asked_files::Origin;

    #[test]
    fn files_are_asked_for_by_a_tool_or_a_path() {
        let rule = json!({"endings": ["jsonl"], "tools": "form", "known": "import-known"});
        let schema = json!({"type": "object", "properties": {
            "form": {"enum": ["jsonl", "codex", "pi", "all"], "x-positional": 1},
            "path": {"type": ["string", "null"], "x-positional": 2, "x-files": rule},
        }});
        let fields = fields(&schema);
        let asked = |words: &[&str]| {
            let command = Command::new("import").no_binary_name(true).args(args(&fields, false));
            files(&fields, &command.try_get_matches_from(words).expect("it fits"))
        };
        let from = |words: &[&str]| asked(words).expect("it is right").expect("some").from;
        let path = |tool| Origin::Path("a".into(), tool);
        assert_eq!(from(&["codex", "a"]), path(Some(Tool::Codex)));
        assert_eq!(from(&["jsonl", "a"]), path(None));
        assert_eq!(from(&["pi"]), Origin::Tools(vec![Tool::Pi]));
        assert_eq!(from(&["all"]), Origin::Tools(vec![Tool::Codex, Tool::Pi]));
        assert_eq!(from(&[]), from(&["all"]));
        assert!(asked(&["jsonl"]).is_err());
        assert_eq!(known_command(&schema).as_deref(), Some("import-known"));
    }
}

//! JSON with comments and trailing commas.

use jsonc_parser::{
    CollectOptions, CommentCollectionStrategy, ParseOptions, ParseResult,
    ast::{Object, ObjectProp, Value as Node},
    common::Ranged as _,
    parse_to_ast,
    tokens::{Token, TokenAndRange},
};
use serde_json::{Map, Value};

use super::{EditError, Key, Result, indent_at, name, spliced};

/// Indentation of a file that has none.
const UNIT: &str = "  ";

fn parse(text: &str) -> Result<ParseResult<'_>> {
    let collect = CollectOptions { comments: CommentCollectionStrategy::AsTokens, tokens: true };
    let options = ParseOptions {
        allow_comments: true,
        allow_trailing_commas: true,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    parse_to_ast(text, &collect, &options)
        .map_err(|error| EditError::at(text, error.range().start, error.kind().to_string()))
}

/// Returns what a text means.
pub(super) fn tree(text: &str) -> Result<Value> {
    Ok(parse(text)?.value.map_or(Value::Null, Value::from))
}

/// Returns the text of a value.
pub(super) fn raw(text: &str, key: &Key) -> Option<String> {
    let parsed = parse(text).ok()?;
    let (_, property) = find(parsed.value.as_ref()?.as_object()?, key)?;
    Some(property.value.text(text).to_owned())
}

/// Sets a value.
pub(super) fn set(text: &str, key: &Key, value: &Value) -> Result<String> {
    write(text, key, &|indent, unit| pretty(value, indent, unit))
}

/// Sets a value to a text that [`raw`] gave.
pub(super) fn restored(text: &str, key: &Key, raw: &str) -> Result<String> {
    write(text, key, &|_, _| raw.to_owned())
}

/// Removes a property, with its comma and its line.
pub(super) fn removed(text: &str, key: &Key) -> Result<String> {
    let parsed = parse(text)?;
    let tokens = parsed.tokens.as_deref().unwrap_or_default();
    let root = parsed.value.as_ref().and_then(Node::as_object);
    let Some((object, property)) = root.and_then(|root| find(root, key)) else {
        return Ok(text.to_owned());
    };
    let before = text[..property.start()].trim_end_matches([' ', '\t']);
    let start = before.strip_suffix('\n').unwrap_or(before).len();
    if let Some(comma) = comma_after(tokens, property.end()) {
        let is_first = object.properties[0].start() == property.start();
        let cut = if is_first && !before.ends_with('\n') {
            let rest = &text[comma..];
            property.start()..comma + rest.len() - rest.trim_start_matches(' ').len()
        } else {
            start..comma
        };
        return Ok(without_blank_object(spliced(text, cut, ""), object.start()));
    }
    let cut = spliced(text, start..property.end(), "");
    let previous = object.properties.iter().rev().find(|other| other.end() <= property.start());
    Ok(match previous.and_then(|previous| comma_after(tokens, previous.end())) {
        Some(comma) => spliced(&cut, comma - 1..comma, ""),
        None => without_blank_object(cut, object.start()),
    })
}

/// Closes an object that has nothing but blanks left.
fn without_blank_object(text: String, start: usize) -> String {
    let inner = &text[start + 1..];
    let blank = inner.len() - inner.trim_start().len();
    match inner[blank..].starts_with('}') {
        true => spliced(&text, start + 1..start + 1 + blank, ""),
        false => text,
    }
}

/// Sets a value to what `render` makes of the indentation of its line and of one step.
fn write(text: &str, key: &Key, render: &dyn Fn(Option<&str>, &str) -> String) -> Result<String> {
    let parsed = parse(text)?;
    let tokens = parsed.tokens.as_deref().unwrap_or_default();
    let Some(root) = &parsed.value else {
        let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        return write(&format!("{text}{gap}{{}}\n"), key, render);
    };
    let root = root.as_object().ok_or_else(|| EditError::NotAMap(String::new()))?;
    let unit = unit(text, root);
    let mut object = root;
    for (depth, word) in key.iter().enumerate() {
        let rest = &key[depth + 1..];
        let Some(found) = property(object, word) else {
            let place = Place { text, tokens, object, unit };
            return Ok(place.insert(word, rest, render));
        };
        if rest.is_empty() {
            let range = found.value.range();
            let value = render(Some(indent_at(text, found.start())), unit);
            return Ok(spliced(text, range.start..range.end, &value));
        }
        object = found.value.as_object().ok_or_else(|| EditError::NotAMap(name(&key[..=depth])))?;
    }
    Ok(text.to_owned())
}

/// Returns a property of an object; of two with the same name the last one counts.
fn property<'a>(object: &'a Object<'_>, word: &str) -> Option<&'a ObjectProp<'a>> {
    object.properties.iter().rev().find(|property| property.name.as_str() == word)
}

/// Returns the object that has the last part of a key, and its property.
fn find<'a>(root: &'a Object<'_>, key: &Key) -> Option<(&'a Object<'a>, &'a ObjectProp<'a>)> {
    let (last, above) = key.split_last()?;
    let mut object: &'a Object<'a> = root;
    for word in above {
        object = property(object, word)?.value.as_object()?;
    }
    Some((object, property(object, last)?))
}

/// Returns one step of indentation, as the first property on a line of its own has it.
fn unit<'a>(text: &'a str, root: &Object<'_>) -> &'a str {
    let first = root.properties.iter().find(|property| starts_line(text, property.start()));
    let indent = first.map_or("", |first| indent_at(text, first.start()));
    if indent.is_empty() { UNIT } else { indent }
}

fn starts_line(text: &str, byte: usize) -> bool {
    text[..byte].trim_end_matches([' ', '\t']).ends_with('\n')
}

/// Returns the end of the comma that follows a byte, behind blanks and comments.
fn comma_after(tokens: &[TokenAndRange<'_>], byte: usize) -> Option<usize> {
    let is_comment =
        |token: &Token<'_>| matches!(token, Token::CommentLine(_) | Token::CommentBlock(_));
    let mut next = tokens.iter().filter(|token| token.range.start >= byte);
    let next = next.find(|token| !is_comment(&token.token))?;
    (next.token == Token::Comma).then_some(next.range.end)
}

/// Returns the end of the comments that follow a byte on its line.
fn comments_end(text: &str, tokens: &[TokenAndRange<'_>], byte: usize) -> usize {
    let mut end = byte;
    for token in tokens.iter().filter(|token| token.range.start >= byte) {
        let is_comment = matches!(token.token, Token::CommentLine(_) | Token::CommentBlock(_));
        if !is_comment || text[end..token.range.end].contains('\n') {
            break;
        }
        end = token.range.end;
    }
    end
}

/// Place of a new property: the end of an object.
struct Place<'a> {
    text: &'a str,
    tokens: &'a [TokenAndRange<'a>],
    object: &'a Object<'a>,
    unit: &'a str,
}

impl Place<'_> {
    fn insert(
        &self,
        word: &str,
        rest: &Key,
        render: &dyn Fn(Option<&str>, &str) -> String,
    ) -> String {
        let Self { text, tokens, object, unit } = *self;
        let Some(last) = object.properties.last() else {
            return self.insert_first(word, rest, render);
        };
        let own_line = starts_line(text, last.start());
        let indent = own_line.then(|| indent_at(text, last.start()));
        let property = member(word, rest, indent, unit, render);
        let gap = indent.map_or_else(|| " ".to_owned(), |indent| format!("\n{indent}"));
        let comma = comma_after(tokens, last.end());
        let from = comma.unwrap_or(last.end());
        let at = if own_line { comments_end(text, tokens, from) } else { from };
        if comma.is_some() {
            return spliced(text, at..at, &format!("{gap}{property},"));
        }
        let edited = spliced(text, at..at, &format!("{gap}{property}"));
        spliced(&edited, last.end()..last.end(), ",")
    }

    fn insert_first(
        &self,
        word: &str,
        rest: &Key,
        render: &dyn Fn(Option<&str>, &str) -> String,
    ) -> String {
        let Self { text, tokens, object, unit } = *self;
        let outer = indent_at(text, object.start());
        let inner = format!("{outer}{unit}");
        let property = member(word, rest, Some(&inner), unit, render);
        let close = object.end() - 1;
        let at = comments_end(text, tokens, object.start() + 1);
        let tail = &text[at..close];
        if tail.contains('\n') {
            return spliced(text, at..at, &format!("\n{inner}{property}"));
        }
        spliced(text, at..close, &format!("\n{inner}{property}{}\n{outer}", tail.trim_end()))
    }
}

/// Formats a property, with the objects that lead to the value.
fn member(
    word: &str,
    rest: &Key,
    indent: Option<&str>,
    unit: &str,
    render: &dyn Fn(Option<&str>, &str) -> String,
) -> String {
    let quoted = Value::from(word);
    let Some((next, rest)) = rest.split_first() else {
        return format!("{quoted}: {}", render(indent, unit));
    };
    match indent {
        Some(indent) => {
            let inner = format!("{indent}{unit}");
            let member = member(next, rest, Some(&inner), unit, render);
            format!("{quoted}: {{\n{inner}{member}\n{indent}}}")
        }
        None => format!("{quoted}: {{{}}}", member(next, rest, None, unit, render)),
    }
}

/// Formats a value over several lines that begin with `indent`, or on one.
fn pretty(value: &Value, indent: Option<&str>, unit: &str) -> String {
    let Some(indent) = indent else { return value.to_string() };
    match value {
        Value::Object(map) if !map.is_empty() => {
            let inner = format!("{indent}{unit}");
            format!("{{\n{}\n{indent}}}", members(map, &inner, unit))
        }
        _ => value.to_string(),
    }
}

fn members(map: &Map<String, Value>, indent: &str, unit: &str) -> String {
    let member = |(word, value): (&String, &Value)| {
        format!("{indent}{}: {}", Value::from(word.as_str()), pretty(value, Some(indent), unit))
    };
    map.iter().map(member).collect::<Vec<_>>().join(",\n")
}

//! TOML.

use serde_json::Value;
use toml_edit::{
    Document, DocumentMut, InlineTable, Item, Key as TomlKey, Table, TableLike, Value as Toml,
};

use super::{EditError, Key, Result, name, spliced};

/// Name under which [`raw`] keeps a value.
const KEPT: &str = "value";

fn parse(text: &str) -> Result<Document<&str>> {
    Document::parse(text).map_err(|error| {
        let place = error.span().map_or(0, |span| span.start);
        EditError::at(text, place, error.message().lines().next().unwrap_or_default())
    })
}

/// Returns what a text means.
pub(super) fn tree(text: &str) -> Result<Value> {
    Ok(table_tree(parse(text)?.as_table()))
}

fn table_tree(table: &dyn TableLike) -> Value {
    Value::Object(table.iter().map(|(key, item)| (key.to_owned(), item_tree(item))).collect())
}

fn item_tree(item: &Item) -> Value {
    match item {
        Item::None => Value::Null,
        Item::Value(value) => value_tree(value),
        Item::Table(table) => table_tree(table),
        Item::ArrayOfTables(tables) => {
            Value::Array(tables.iter().map(|table| table_tree(table)).collect())
        }
    }
}

fn value_tree(value: &Toml) -> Value {
    match value {
        Toml::String(text) => Value::from(text.value().as_str()),
        Toml::Integer(number) => Value::from(*number.value()),
        Toml::Float(number) => Value::from(*number.value()),
        Toml::Boolean(truth) => Value::from(*truth.value()),
        Toml::Datetime(time) => Value::from(time.value().to_string()),
        Toml::Array(values) => Value::Array(values.iter().map(value_tree).collect()),
        Toml::InlineTable(table) => table_tree(table),
    }
}

/// Returns a value as a document of its own.
pub(super) fn raw(text: &str, key: &Key) -> Option<String> {
    let document = parse(text).ok()?.into_mut();
    let (last, above) = key.split_last()?;
    let mut item = follow(document.as_table(), above)?.get(last)?.clone();
    if let Item::Value(value) = &mut item {
        value.decor_mut().clear();
    }
    let mut kept = DocumentMut::new();
    kept.insert(KEPT, item);
    Some(kept.to_string())
}

/// Sets a value: a new table stands at the end of the file, a new key at the end of its table.
pub(super) fn set(text: &str, key: &Key, value: &Value) -> Result<String> {
    let value = toml_value(value);
    let document = parse(text)?;
    if let [above @ .., last] = key
        && !above.is_empty()
        && follow(document.as_table(), above).is_none()
    {
        let appended = with_table(text, above, last, &value);
        if parse(&appended).is_ok() {
            return Ok(appended);
        }
    }
    placed(text, document, key, Item::Value(value))
}

/// Sets a value to what [`raw`] gave.
pub(super) fn restored(text: &str, key: &Key, raw: &str) -> Result<String> {
    let mut kept = parse(raw)?.into_mut();
    let mut item = kept.remove(KEPT).ok_or_else(|| EditError::Entangled(name(key)))?;
    forget_position(&mut item);
    placed(text, parse(text)?, key, item)
}

/// Removes a key with its line, or the header of an empty table with the empty line above it.
pub(super) fn removed(text: &str, key: &Key) -> Result<String> {
    let document = parse(text)?;
    let Some((last, above)) = key.split_last() else { return Ok(text.to_owned()) };
    let parent = follow(document.as_table(), above);
    let Some((word, item)) = parent.and_then(|parent| parent.get_key_value(last)) else {
        return Ok(text.to_owned());
    };
    let is_inline = is_inline(document.as_item(), above);
    let lines = match item {
        Item::Value(value) if !is_inline => {
            word.span().zip(value.span()).map(|(word, value)| (word.start, value.end))
        }
        Item::Table(table) => table.span().map(|header| (header.start, header.start)),
        _ => None,
    };
    let Some((start, end)) = lines else { return without(text, document, key) };
    let mut start = text[..start].rfind('\n').map_or(0, |before| before + 1);
    let end = text[end..].find('\n').map_or(text.len(), |more| end + more + 1);
    // A file whose last line does not end stays such a file.
    if !text[start..end].ends_with('\n') {
        start = start.saturating_sub(1);
    }
    let above = &text[..start];
    let is_table = matches!(item, Item::Table(_));
    if is_table && (above.ends_with("\n\n") || above == "\n" || !text[start..end].ends_with('\n')) {
        start = above.strip_suffix('\n').map_or(start, str::len);
    }
    Ok(spliced(text, start..end, ""))
}

/// Returns whether one of the tables on a path stands on one line.
fn is_inline(root: &Item, path: &Key) -> bool {
    let mut item = root;
    for word in path {
        match item.get(word.as_str()) {
            Some(next) if next.is_inline_table() => return true,
            Some(next) => item = next,
            None => return false,
        }
    }
    false
}

/// Removes a key that has no line of its own.
fn without(text: &str, document: Document<&str>, key: &Key) -> Result<String> {
    let mut document = document.into_mut();
    let Some((last, above)) = key.split_last() else { return Ok(text.to_owned()) };
    let mut table: &mut dyn TableLike = document.as_table_mut();
    for word in above {
        let next = table.get_mut(word).and_then(Item::as_table_like_mut);
        table = next.ok_or_else(|| EditError::Entangled(name(key)))?;
    }
    table.remove(last);
    Ok(as_it_ended(text, document.to_string()))
}

/// Returns the table at a path.
fn follow<'a>(root: &'a Table, path: &Key) -> Option<&'a dyn TableLike> {
    let mut table: &dyn TableLike = root;
    for word in path {
        table = table.get(word)?.as_table_like()?;
    }
    Some(table)
}

/// Appends a table with one key to a text.
fn with_table(text: &str, path: &Key, last: &str, value: &Toml) -> String {
    let path: Vec<String> = path.iter().map(|word| word_of(word)).collect();
    let ends = text.is_empty() || text.ends_with('\n');
    let gap = match (text.is_empty(), ends) {
        (true, _) => "",
        (_, true) => "\n",
        (_, false) => "\n\n",
    };
    let end = if ends { "\n" } else { "" };
    format!("{text}{gap}[{}]\n{} = {value}{end}", path.join("."), word_of(last))
}

/// Returns a key as TOML writes it.
fn word_of(word: &str) -> String {
    TomlKey::new(word).display_repr().into_owned()
}

/// Puts an item in its place and makes the tables above it.
fn placed(text: &str, document: Document<&str>, key: &Key, item: Item) -> Result<String> {
    let mut document = document.into_mut();
    let Some((last, above)) = key.split_last() else { return Ok(text.to_owned()) };
    let mut table: &mut dyn TableLike = document.as_table_mut();
    let mut is_inline = false;
    for (depth, word) in above.iter().enumerate() {
        if !table.contains_key(word) {
            let is_implicit = depth + 1 < above.len();
            table.insert(word, new_table(is_inline, is_implicit));
        }
        let next = table.get_mut(word).filter(|next| next.is_table_like());
        let next = next.ok_or_else(|| EditError::NotAMap(name(&key[..=depth])))?;
        is_inline = next.is_inline_table();
        table = next.as_table_like_mut().ok_or_else(|| EditError::NotAMap(name(above)))?;
    }
    match item {
        Item::Value(mut new) if table.get(last).is_some_and(Item::is_value) => {
            if let Some(Item::Value(old)) = table.get_mut(last) {
                *new.decor_mut() = old.decor().clone();
                *old = new;
            }
        }
        item => {
            table.insert(last, item);
            if let Some(mut word) = table.key_mut(last) {
                word.leaf_decor_mut().clear();
            }
        }
    }
    Ok(as_it_ended(text, document.to_string()))
}

fn new_table(is_inline: bool, is_implicit: bool) -> Item {
    if is_inline {
        return Item::Value(Toml::InlineTable(InlineTable::new()));
    }
    let mut table = Table::new();
    table.set_implicit(is_implicit);
    Item::Table(table)
}

/// Returns an edited text whose last line ends if that of the original does.
fn as_it_ended(original: &str, mut edited: String) -> String {
    if !original.is_empty() && !original.ends_with('\n') && edited.ends_with('\n') {
        edited.pop();
    }
    edited
}

/// Lets a table stand where its parent does: it comes from a document of its own.
fn forget_position(item: &mut Item) {
    match item {
        Item::Table(table) => {
            table.set_position(None);
            table.iter_mut().for_each(|(_, item)| forget_position(item));
        }
        Item::ArrayOfTables(tables) => {
            for table in tables.iter_mut() {
                table.set_position(None);
                table.iter_mut().for_each(|(_, item)| forget_position(item));
            }
        }
        Item::None | Item::Value(_) => {}
    }
}

fn toml_value(value: &Value) -> Toml {
    match value {
        Value::Null => Toml::from(""),
        Value::Bool(truth) => Toml::from(*truth),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Toml::from(whole),
            None => Toml::from(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => Toml::from(text.as_str()),
        Value::Array(values) => Toml::Array(values.iter().map(toml_value).collect()),
        Value::Object(map) => {
            let members = map.iter().map(|(key, value)| (key.as_str(), toml_value(value)));
            Toml::InlineTable(members.collect())
        }
    }
}

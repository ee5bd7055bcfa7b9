//! Rooms of the daemon that import each other: whoever reads one would have to read all of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context as _, Result};

use super::Problem;
use crate::workspace::Workspace;

/// The crate whose rooms are looked at: the others are small, and the compiler keeps them apart.
const CRATE: &str = "host/daemon/src/";

/// Rooms by name, each with the rooms that it imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

pub(super) fn check(
    workspace: &Workspace,
    files: &[String],
    problems: &mut Vec<Problem>,
) -> Result<()> {
    let mut imports = Imports::new();
    for file in files {
        let Some(room) = file.strip_prefix(CRATE).and_then(room_of) else { continue };
        let path = workspace.root.join(file);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        imports.entry(room.clone()).or_default().extend(imported(&text));
    }
    for circle in circles(&imports) {
        let way = circle.join(" -> ");
        problems.push(format!(
            "{CRATE}: {way} -> {}: rooms import each other; move what both need below them",
            circle[0]
        ));
    }
    Ok(())
}

/// Returns the room that a source file belongs to; `None` for the roots of the crate, which see
/// all of them.
fn room_of(file: &str) -> Option<String> {
    let first = Path::new(file).iter().next()?.to_str()?;
    let room = first.strip_suffix(".rs").unwrap_or(first);
    (!matches!(room, "main" | "lib")).then(|| room.to_owned())
}

/// Returns the rooms that follow `crate::` in the text, comments apart.
fn imported(text: &str) -> BTreeSet<String> {
    let code: Vec<&str> =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let mut rooms = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        // `$crate::` and `other_crate::` are another's.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '$')) {
            continue;
        }
        let path = code[at + "crate::".len()..].trim_start();
        match path.strip_prefix('{') {
            Some(group) => rooms.extend(heads(group)),
            None => rooms.extend(head(path)),
        }
    }
    rooms
}

/// Returns the first names of the paths of a group, up to its closing brace.
fn heads(group: &str) -> Vec<String> {
    let (mut depth, mut begin, mut names) = (0_usize, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.extend(head(&group[begin..at]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.extend(head(&group[begin..at]));
                begin = at + 1;
            }
            _ => {}
        }
    }
    names
}

fn head(path: &str) -> Option<String> {
    let path = path.trim_start();
    let end = path.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(path.len());
    (end > 0).then(|| path[..end].to_owned())
}

/// Returns a way round for each room that imports itself by way of others; each circle once, from
/// its first room by name.
fn circles(imports: &Imports) -> Vec<Vec<String>> {
    let mut found: Vec<Vec<String>> = Vec::new();
    for room in imports.keys() {
        let Some(circle) = way_back(imports, room) else { continue };
        let is_known = |known: &Vec<String>| known.iter().any(|other| circle.contains(other));
        if !found.iter().any(is_known) {
            found.push(circle);
        }
    }
    found
}

/// Returns a shortest way from a room back to itself.
fn way_back(imports: &Imports, room: &str) -> Option<Vec<String>> {
    let mut ways = vec![vec![room.to_owned()]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for next in way.last().and_then(|last| imports.get(last)).into_iter().flatten() {
                if next == room && way.len() > 1 {
                    return Some(way);
                }
                if next != room && imports.contains_key(next) && seen.insert(next.clone()) {
                    longer.push([way.clone(), vec![next.clone()]].concat());
                }
            }
        }
        ways = longer;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_belongs_to_a_room() {
        let check = |file, expected: Option<&str>| {
            assert_eq!(room_of(file).as_deref(), expected, "{file}");
        };
        check("wake.rs", Some("wake"));
        check("module/request/tests.rs", Some("module"));
        check("main.rs", None);
        check("lib.rs", None);
    }

    #[test]
    fn imports_are_found_in_each_form() {
        let check = |text: &str, expected: &[&str]| {
            let rooms: Vec<String> = imported(text).into_iter().collect();
            assert_eq!(rooms, expected, "{text}");
        };
        check("use crate::wake::Wake;", &["wake"]);
        check(
            "use crate::{\n    args::{A, B},\n    runner, wake::Wake,\n};\nuse x::y;",
            &["args", "runner", "wake"],
        );
        check("let x = crate::logging::Rate::default();", &["logging"]);
        check("// use crate::wake::Wake;\nuse other_crate::a;", &[]);
        check("pub(crate) fn f() { $crate::a!() }", &[]);
    }

    #[test]
    fn each_circle_is_told_once() {
        let check = |imports: &[(&str, &[&str])], expected: &[&[&str]]| {
            let imports = imports.iter().map(|(room, rooms)| {
                ((*room).to_owned(), rooms.iter().map(|room| (*room).to_owned()).collect())
            });
            assert_eq!(circles(&imports.collect()), expected);
        };
        check(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &["a_macro"])], &[]);
        check(&[("a", &["a", "b"]), ("b", &["b"])], &[]);
        check(&[("a", &["b"]), ("b", &["a"])], &[&["a", "b"]]);
        check(
            &[("a", &["b"]), ("b", &["c"]), ("c", &["a"]), ("d", &["e"]), ("e", &["d"])],
            &[&["a", "b", "c"], &["d", "e"]],
        );
    }
}

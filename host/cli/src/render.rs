//! Tables for people: an upper-case head, two spaces between columns, no lines.

use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, Row, Width, presets};
use lodestar_platform::visible::visible_line;
use module_sdk::Table;

use crate::human;

/// Draws a table at most `width` columns wide: long cells are wrapped, numbers stand at the right,
/// the total stands below an empty line. Ends with a line break.
pub(crate) fn table(table: &Table, width: usize, color: bool) -> String {
    let mut text = String::new();
    if !table.title.is_empty() {
        text.push_str(&format!("{}\n\n", human::plain(&table.title)));
    }
    text.push_str(&body(table, width, color));
    if !table.notes.is_empty() && !text.is_empty() {
        text.push('\n');
    }
    for note in &table.notes {
        for line in wrapped(&human::plain(note), width) {
            text.push_str(&line);
            text.push('\n');
        }
    }
    text
}

/// Wraps a text in the escape sequence (ECMA-48 SGR) of `code`.
pub(crate) fn paint(text: &str, code: &str, color: bool) -> String {
    if color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

fn body(table: &Table, width: usize, color: bool) -> String {
    if table.columns.is_empty() {
        return String::new();
    }
    let mut drawn = comfy_table::Table::new();
    drawn.load_style(presets::NOTHING);
    drawn.set_content_arrangement(ContentArrangement::Dynamic);
    drawn.set_width(u16::try_from(width).unwrap_or(u16::MAX));
    drawn.set_header(row(table, &titles(table)));
    for cells in &table.rows {
        drawn.add_row(row(table, cells));
    }
    if !table.total.is_empty() {
        drawn.add_row(row(table, &[]));
        drawn.add_row(row(table, &table.total));
    }
    let last = table.columns.len() - 1;
    let least = least_widths(table, width);
    for (index, column) in drawn.column_iter_mut().enumerate() {
        let padding = if index == last { 0 } else { 2 };
        column.set_padding((0, padding));
        if let Some(least) = least.as_ref().and_then(|least| u16::try_from(least[index]).ok()) {
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least + padding)));
        }
    }
    let mut text = String::new();
    for (index, line) in drawn.lines().enumerate() {
        let line = line.trim_end();
        if index == 0 {
            text.push_str(&paint(line, "1", color))
        } else {
            text.push_str(line)
        }
        text.push('\n');
    }
    text
}

fn titles(table: &Table) -> Vec<String> {
    table.columns.iter().map(|column| column.title.clone()).collect()
}

/// Returns the width that each column needs to keep its longest word whole; `None` where they do
/// not all fit.
fn least_widths(table: &Table, width: usize) -> Option<Vec<usize>> {
    let longest = |text: &str| {
        visible_line(text).split_whitespace().map(|word| word.chars().count()).max().unwrap_or(0)
    };
    let least: Vec<usize> = (0..table.columns.len())
        .map(|index| {
            let rows = table.rows.iter().chain([&table.total]);
            let cells = rows.filter_map(|cells| cells.get(index)).map(String::as_str);
            cells.chain([table.columns[index].title.as_str()]).map(longest).max().unwrap_or(0)
        })
        .collect();
    let gaps = 2 * (table.columns.len() - 1);
    (least.iter().sum::<usize>() + gaps <= width).then_some(least)
}

/// Builds a row with as many cells as there are columns, whatever a module sent.
fn row(table: &Table, cells: &[String]) -> Row {
    let cell = |index: usize| {
        let text = cells.get(index).map_or("", String::as_str);
        let numeric = table.columns[index].numeric;
        Cell::new(visible_line(text)).set_alignment(if numeric {
            CellAlignment::Right
        } else {
            CellAlignment::Left
        })
    };
    Row::from((0..table.columns.len()).map(cell).collect::<Vec<_>>())
}

/// Breaks a text into lines at spaces; a longer word keeps its length, and so does a line that is
/// indented by four spaces: a command, which is to be copied as it stands.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        if paragraph.starts_with("    ") {
            lines.push(paragraph.to_owned());
            continue;
        }
        let mut line = String::new();
        for word in paragraph.split(' ') {
            let longer = line.chars().count() + 1 + word.chars().count();
            if !line.is_empty() && longer > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn models() -> Table {
        let mut table = Table::new(["MODEL", "REQUESTS#", "COST#", "NOTE"]);
        table.title = "Usage by model, last 7 days".to_owned();
        table.row(["claude-sonnet-4-5", "1,204", "12.30 USD", ""].map(str::to_owned));
        table.row(["gpt-5", "7", "0.02 USD", "two are unpriced"].map(str::to_owned));
        table.total = ["TOTAL", "1,211", "12.32 USD", ""].map(str::to_owned).to_vec();
        table.notes.push("2 requests have no price.".to_owned());
        table
    }

    #[test]
    fn draws_a_table() {
        assert_eq!(
            table(&models(), 80, false),
            "\
Usage by model, last 7 days

MODEL              REQUESTS       COST  NOTE
claude-sonnet-4-5     1,204  12.30 USD
gpt-5                     7   0.02 USD  two are unpriced

TOTAL                 1,211  12.32 USD

2 requests have no price.
"
        );
    }

    #[test]
    fn fits_the_terminal() {
        let mut narrow = Table::new(["MODULE", "STATE", "NOTE"]);
        narrow.row(
            [
                "usage_tracker",
                "failed",
                "cannot open /var/lib/lodestar/usage_tracker/usage.db: it was written by version \
                 9 of the schema and this module knows 3",
            ]
            .map(str::to_owned),
        );
        let drawn = table(&narrow, 80, false);
        assert_eq!(
            drawn,
            "\
MODULE         STATE   NOTE
usage_tracker  failed  cannot open /var/lib/lodestar/usage_tracker/usage.db: it
                       was written by version 9 of the schema and this module
                       knows 3
"
        );
        assert!(drawn.lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn keeps_words_whole_where_they_fit() {
        let mut wide = Table::new(["SOURCE", "RECORD", "OUTCOME", "COUNT#", "WHY"]);
        let words = ["codex_cli_rs", "codex.websocket.request", "ignored", "12,345"];
        let why = "no request: part of one that is reported as a whole by another record";
        wide.row(words.into_iter().chain([why]).map(str::to_owned));
        let drawn = table(&wide, 80, false);
        for word in words.into_iter().chain(why.split(' ')) {
            assert!(drawn.split_whitespace().any(|part| part == word), "{word}:\n{drawn}");
        }
        assert!(drawn.lines().all(|line| line.chars().count() <= 80), "{drawn}");
    }

    #[test]
    fn takes_rows_of_any_length_and_hostile_cells() {
        let mut odd = Table::new(["A", "B"]);
        odd.row(["1"].map(str::to_owned));
        odd.row(["1", "\u{1b}]0;title\u{7}", "3"].map(str::to_owned));
        assert_eq!(table(&odd, 80, false), "A  B\n1\n1  \\u001b]0;title\\u0007\n");
        let mut forged = Table::new(["A"]);
        forged.row(["1\nTOTAL".to_owned()]);
        assert_eq!(table(&forged, 80, false), "A\n1\\nTOTAL\n");
        assert_eq!(table(&Table::default(), 80, false), "");
    }

    #[test]
    fn the_head_is_bold_in_colour() {
        let mut small = Table::new(["A"]);
        small.row(["1".to_owned()]);
        assert_eq!(table(&small, 80, true), "\u{1b}[1mA\u{1b}[0m\n1\n");
    }

    #[test]
    fn wraps_text() {
        let check = |text, width, expected: &[&str]| assert_eq!(wrapped(text, width), expected);
        check("", 10, &[""]);
        check("one two three", 7, &["one two", "three"]);
        check("averylongword no", 5, &["averylongword", "no"]);
        check("a\nb", 5, &["a", "b"]);
        check("a b\n    du -x / | sort\nc", 5, &["a b", "    du -x / | sort", "c"]);
    }
}

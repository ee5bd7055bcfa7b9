//! Line ends of a file that was edited without them.

/// Returns an edited text with the line ends of the original: untouched lines keep their own, new
/// ones get those that most lines have.
pub(super) fn kept(original: &str, edited: &str) -> String {
    if !original.contains("\r\n") {
        return edited.to_owned();
    }
    let old: Vec<&str> = original.split_inclusive('\n').collect();
    let new: Vec<&str> = edited.split_inclusive('\n').collect();
    let same = |(old, new): &(&&str, &&str)| plain(old) == plain(new);
    let begin = old.iter().zip(&new).take_while(same).count();
    let most = old.len().min(new.len()) - begin;
    let end = old.iter().rev().zip(new.iter().rev()).take(most).take_while(same).count();
    let is_most = original.matches("\r\n").count() * 2 >= old.len();
    let between = new[begin..new.len() - end].concat();
    let between = if is_most { between.replace('\n', "\r\n") } else { between };
    [old[..begin].concat(), between, old[old.len() - end..].concat()].concat()
}

/// Splits a line into its text and whether it ends.
fn plain(line: &str) -> (&str, bool) {
    match line.strip_suffix('\n') {
        Some(line) => (line.strip_suffix('\r').unwrap_or(line), true),
        None => (line, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_lines_end_as_most_do_and_old_ones_as_they_did() {
        assert_eq!(kept("a\nb\n", "a\nx\nb\n"), "a\nx\nb\n");
        assert_eq!(kept("a\r\nb\r\n", "a\nx\nb\n"), "a\r\nx\r\nb\r\n");
        assert_eq!(kept("a\r\nb\n", "a\nx\nb\n"), "a\r\nx\r\nb\n");
        assert_eq!(kept("a\nb\nc\nd\r\n", "a\nx\nb\nc\nd\n"), "a\nx\nb\nc\nd\r\n");
        assert_eq!(kept("a\r\nb", "a\nb\nx"), "a\r\nb\r\nx");
        assert_eq!(kept("a\r\na\r\n", "a\n"), "a\r\n");
        assert_eq!(kept("a\r\n", ""), "");
    }
}

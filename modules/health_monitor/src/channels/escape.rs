//! Texts for chats: nothing that a name holds mentions anybody, makes a link or changes the form.

/// Escapes what Markdown and mentions would obey, for Discord and Mattermost.
pub(super) fn markdown(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_punctuation() && !matches!(c, '.' | ',' | '/' | '\'' | '"' | '%' | ';' | '?')
        {
            // In `http\://` and `www\.` no chat sees a link.
            escaped.push('\\');
        }
        escaped.push(c);
        if c == '@' {
            // Mentions are looked for before the form: `@` and the name must not be neighbours.
            escaped.push('\u{200b}');
        }
    }
    escaped
}

/// Escapes the three characters of Slack's own form: links, mentions and `<!channel>` need them.
pub(super) fn slack(text: &str) -> String {
    markup(text)
}

/// Escapes what a markup would obey.
pub(super) fn markup(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Shortens a text to a number of characters.
pub(super) fn shortened(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((at, _)) => {
            let end = text[..at].char_indices().next_back().map_or(0, |(at, _)| at);
            // Half of an escape would escape the sign of the end.
            format!("{}…", text[..end].trim_end_matches('\\'))
        }
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_that_a_chat_would_obey() {
        let text = "@everyone <!channel> [x](http://evil) **b** `c` <@U1>";
        assert_eq!(
            slack(text),
            "@everyone &lt;!channel&gt; [x](http://evil) **b** `c` &lt;@U1&gt;"
        );
        let escaped = markdown(text);
        assert!(
            escaped.starts_with("\\@\u{200b}everyone \\<\\!channel\\> \\[x\\]\\(http\\://evil\\)")
        );
        assert!(escaped.contains("\\*\\*b\\*\\* \\`c\\` \\<\\@\u{200b}U1\\>"), "{escaped}");
        assert_eq!(markup("<b>&"), "&lt;b&gt;&amp;");
    }

    #[test]
    fn long_texts_are_shortened_between_characters() {
        assert_eq!(shortened("äöü", 3), "äöü");
        assert_eq!(shortened("äöüß", 3), "äö…");
        assert_eq!(shortened("a\\*b", 3), "a…");
    }
}

//! Tokens as text, piece by piece, up to a word that ends the answer.

use crate::{chat::Chat, failure::Result};

/// Sign that stands for bytes which are no whole character yet.
const CUT: char = '\u{FFFD}';

/// Text of an answer that grows token by token.
#[derive(Default)]
pub(super) struct Growing {
    ids: Vec<u32>,
    /// Place of the first token that is decoded, and of the first whose text is not told yet.
    from: usize,
    told: usize,
}

impl Growing {
    /// Adds a token, and returns the text that is whole by it.
    pub(super) fn push(&mut self, chat: &Chat, id: u32) -> Result<String> {
        self.ids.push(id);
        let new = self.new_text(chat)?;
        if new.is_empty() || new.ends_with(CUT) {
            return Ok(String::new());
        }
        (self.from, self.told) = (self.told, self.ids.len());
        Ok(new)
    }

    /// Returns the text that was not told, whole or not.
    pub(super) fn rest(&mut self, chat: &Chat) -> Result<String> {
        let new = self.new_text(chat)?;
        self.told = self.ids.len();
        self.from = self.told;
        Ok(new)
    }

    pub(super) fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Decodes with a few tokens before: how one is written depends on them.
    fn new_text(&self, chat: &Chat) -> Result<String> {
        let before = chat.decode(&self.ids[self.from..self.told])?;
        let all = chat.decode(&self.ids[self.from..])?;
        Ok(all.strip_prefix(&before).unwrap_or_default().to_owned())
    }
}

/// Words that end an answer. They are not part of it.
#[derive(Debug, Default)]
pub(super) struct Stops {
    words: Vec<String>,
    held: String,
}

impl Stops {
    pub(super) fn new(words: Vec<String>) -> Self {
        Self { words, held: String::new() }
    }

    /// Adds text. Returns what can be told of it, and `true` once a word has ended it.
    pub(super) fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        if let Some(at) = self.words.iter().filter_map(|word| self.held.find(word)).min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        // The end may be the beginning of a word.
        let begins = |at: &usize| self.words.iter().any(|word| word.starts_with(&self.held[*at..]));
        let places = self.held.char_indices().map(|(at, _)| at);
        let at = places.into_iter().find(begins).unwrap_or(self.held.len());
        let kept = self.held.split_off(at);
        (std::mem::replace(&mut self.held, kept), false)
    }

    /// Returns what was held back.
    pub(super) fn rest(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_ends_the_text_wherever_it_is_cut() {
        let check = |words: &[&str], pieces: &[&str], expected: (&str, bool)| {
            let mut stops = Stops::new(words.iter().map(|it| (*it).to_owned()).collect());
            let (mut text, mut is_ended) = (String::new(), false);
            for piece in pieces {
                let (told, ended) = stops.push(piece);
                text.push_str(&told);
                is_ended = ended;
                if ended {
                    break;
                }
            }
            if !is_ended {
                text.push_str(&stops.rest());
            }
            assert_eq!((text.as_str(), is_ended), expected, "{words:?} {pieces:?}");
        };
        check(&[], &["a", "b"], ("ab", false));
        check(&["END"], &["one E", "N", "D two"], ("one ", true));
        check(&["END"], &["one E", "N", "O"], ("one ENO", false));
        check(&["END"], &["one EEND"], ("one E", true));
        check(&["b", "ab"], &["xab"], ("x", true));
        check(&["\n\n"], &["é\n", "\né"], ("é", true));
        check(&["END"], &["EN"], ("EN", false));
    }
}

//! Secrets found where they stand, for who has to judge them.

use crate::{
    Redactor,
    kinds::{KINDS, Kind, is_reference, looks_random},
};

/// A secret in a text. It has no `Debug`: it would show it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Found<'t> {
    /// The secret.
    pub secret: &'t str,
    /// Index of its first byte in the text.
    pub at: usize,
    /// `true` when it is a secret by where it stands (`password=…`, `https://name:…@host`) and not
    /// by what it looks like: then it may be a word, a type or a call in source code.
    pub is_placed: bool,
}

impl Redactor {
    /// Finds what looks like a secret, one form after another. Texts that were learnt are not
    /// looked for. Each step may look through the whole text: who reads a text of strangers stops
    /// after some.
    pub fn find<'t>(&self, text: &'t str) -> impl Iterator<Item = Found<'t>> + use<'t> {
        let kinds = self.known().hits(text.as_bytes()).kinds;
        let hit = move |(index, _): &(usize, &Kind)| kinds & 1 << index != 0;
        KINDS.iter().enumerate().filter(hit).flat_map(move |(_, kind)| kind.find(text))
    }
}

impl Kind {
    fn find<'t>(&'static self, text: &'t str) -> impl Iterator<Item = Found<'t>> {
        let secrets = self.regex().captures_iter(text).filter_map(|found| found.name("s"));
        secrets.map(|it| (it.as_str(), it.start())).filter_map(move |(secret, at)| {
            let is_word = self.ambiguous && !looks_random(secret);
            (!is_word && !is_reference(secret)).then_some(Found {
                secret,
                at,
                is_placed: self.is_placed,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_stands_where_it_says() {
        let redactor = Redactor::new();
        let token = "ghp_aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xYzA1b";
        let text = format!("use {token}, password = hunter22 at https://joe:s3cret@host/");
        let found: Vec<Found<'_>> = redactor.find(&text).collect();
        for found in &found {
            assert_eq!(&text[found.at..found.at + found.secret.len()], found.secret);
        }
        let of = |placed: bool| {
            let those = found.iter().filter(move |found| found.is_placed == placed);
            those.map(|found| found.secret).collect::<Vec<_>>()
        };
        assert_eq!(of(false), [token]);
        assert_eq!(of(true), ["s3cret", "hunter22"]);
    }

    #[test]
    fn nothing_is_found_in_words_and_references() {
        let redactor = Redactor::new();
        for text in [
            "",
            "feature/pa-1234-implement-new-payment-flow",
            "api_key: ${OPENAI_API_KEY}",
            "a://b",
        ] {
            assert_eq!(redactor.find(text).count(), 0, "{text}");
        }
    }
}

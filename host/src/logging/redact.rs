//! Keeps secrets out of the log: those that the configuration names, and what looks like one.

use std::{
    borrow::Cow,
    io::{self, Write},
    sync::{Arc, PoisonError, RwLock},
};

use regex::Regex;

const REPLACEMENT: &str = "[redacted]";

/// What keys and credentials look like. Every pattern keeps its first group, where it has one.
const PATTERNS: [&str; 12] = [
    // keys of OpenAI, Anthropic, Lynex, OpenRouter, xAI, Groq, Hugging Face, GitHub, Google, Slack
    r"\bsk[-_][A-Za-z0-9_-]{16,}",
    r"\b(?:xai|gsk|hf|ghp|gho|ghs|glpat)[-_][A-Za-z0-9_-]{16,}",
    r"\bgithub_pat_[A-Za-z0-9_]{20,}",
    r"\bAIza[A-Za-z0-9_-]{30,}",
    r"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    // headers and parameters
    r"(?i)\b(bearer\s+)[A-Za-z0-9._~+/=-]{8,}",
    r"(?i)\b(basic\s+)[A-Za-z0-9+/=]{12,}",
    concat!(
        r"(?i)\b((?:x-)?(?:api[-_]?key|access[-_]?token|secret|password|passwd)",
        r#"["']?\s*[:=]\s*["']?)[^\s"',;&]{6,}"#
    ),
    // JSON web tokens, URLs with a password, private keys
    r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",
    r"\b([a-z][a-z0-9+.-]*://[^\s:/@]+:)[^\s@/]+@",
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----[A-Za-z0-9+/=\s\\n]*",
];

/// Replaces secrets in text.
#[derive(Debug)]
pub struct Redactor {
    patterns: Vec<Regex>,
    known: RwLock<Vec<String>>,
}

impl Default for Redactor {
    fn default() -> Self {
        Self::new()
    }
}

impl Redactor {
    /// One that knows the usual forms of secrets.
    #[must_use]
    pub fn new() -> Self {
        let compile = |pattern: &&str| Regex::new(pattern).expect("the patterns are tested");
        Self { patterns: PATTERNS.iter().map(compile).collect(), known: RwLock::default() }
    }

    /// Keeps this very text out from now on, also as Rust and JSON write it within quotes. Short
    /// ones would blot out ordinary words.
    pub fn learn(&self, secret: &str) {
        if secret.len() < 6 {
            return;
        }
        let quoted = [format!("{secret:?}"), serde_json::Value::from(secret).to_string()];
        let quoted = quoted.iter().map(|text| &text[1..text.len() - 1]);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for text in quoted.chain([secret]) {
            if !known.iter().any(|other| other == text) {
                known.push(text.to_owned());
            }
        }
        // Of one that begins like another nothing is left.
        known.sort_by_key(|text| std::cmp::Reverse(text.len()));
    }

    /// The text without secrets.
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for secret in &*self.known.read().unwrap_or_else(PoisonError::into_inner) {
            if text.contains(secret.as_str()) {
                text = Cow::Owned(text.replace(secret.as_str(), REPLACEMENT));
            }
        }
        for pattern in &self.patterns {
            if let Cow::Owned(replaced) =
                pattern.replace_all(&text, format!("${{1}}{REPLACEMENT}").as_str())
            {
                text = Cow::Owned(replaced);
            }
        }
        text
    }

    /// A writer that redacts what is written through it, line by line.
    pub fn writer<W: Write>(self: Arc<Self>, inner: W) -> RedactedWriter<W> {
        RedactedWriter { redactor: self, inner }
    }
}

/// See [`Redactor::writer`]. `tracing` writes one whole line per call.
#[derive(Debug)]
pub struct RedactedWriter<W> {
    redactor: Arc<Redactor>,
    inner: W,
}

impl<W: Write> Write for RedactedWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        self.inner.write_all(self.redactor.redact(&text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_secrets_out_and_leaves_the_rest() {
        let redactor = Redactor::new();
        let check = |text: &str, expected: &str| {
            assert_eq!(redactor.redact(text), expected);
        };
        check("key sk-ant-api03-abcdefghijklmnop failed", "key [redacted] failed");
        check("sk_live_ABCDEFGHIJKLMNOPQRSTUVWX", "[redacted]");
        check("Authorization: Bearer abc.def-ghi_jkl", "Authorization: Bearer [redacted]");
        check("x-api-key: 0123456789abcdef", "x-api-key: [redacted]");
        check(r#"{"password":"hunter22"}"#, r#"{"password":"[redacted]"}"#);
        check("https://joe:s3cret@host/x", "https://joe:[redacted]host/x");
        check("AKIAABCDEFGHIJKLMNOP", "[redacted]");
        check("eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.SflKxwRJSMeKKF2QT4", "[redacted]");
        check("took 19 ms for 1795218501711000000 ns", "took 19 ms for 1795218501711000000 ns");
        check("request req_d17677f0_0004 of sketch", "request req_d17677f0_0004 of sketch");
    }

    #[test]
    fn takes_out_what_it_was_told() {
        let redactor = Redactor::new();
        redactor.learn("correct horse");
        redactor.learn("short");
        assert_eq!(redactor.redact("a correct horse, a short one"), "a [redacted], a short one");
        redactor.learn("correct horse battery");
        assert_eq!(redactor.redact("a correct horse battery"), "a [redacted]");
        redactor.learn("two\n\"lines\"");
        for text in ["two\n\"lines\"", r#"two\n\"lines\""#] {
            assert_eq!(redactor.redact(text), "[redacted]");
        }
    }
}

//! Values told from words, code and samples.

/// Parts of what documentation writes in the place of a secret, in small letters.
const SAMPLES: [&str; 21] = [
    "example",
    "sample",
    "your",
    "placeholder",
    "dummy",
    "changeme",
    "change-me",
    "change_me",
    "redacted",
    "insert",
    "replace",
    "xxxx",
    "****",
    "....",
    "1234567890",
    "0123456789abcdef",
    "abcdefghij",
    "here",
    "fake",
    "notreal",
    "…",
];

/// Length up to which the parts of samples are looked for: a longer secret has some by chance.
const LONGEST_SAMPLE: usize = 100;

/// Checks whether a secret is one that documentation writes.
pub(super) fn is_sample(secret: &str) -> bool {
    if secret.contains("PRIVATE KEY") {
        let body = secret.split("-----").nth(2).unwrap_or_default();
        let letters = body.bytes().filter(u8::is_ascii_alphanumeric).count();
        return body.contains("...") || body.contains('…') || letters < 48;
    }
    if secret.len() > LONGEST_SAMPLE {
        return false;
    }
    let small = secret.to_lowercase();
    SAMPLES.iter().any(|sample| small.contains(sample)) || distinct(secret) < 5
}

/// Words that stand for a secret in code and documentation, also with digits behind.
const WORDS: [&str; 33] = [
    "password", "passwd", "pass", "pwd", "secret", "token", "key", "user", "username", "admin",
    "root", "test", "testing", "foo", "bar", "baz", "foobar", "value", "string", "str", "text",
    "sha", "md", "argon", "base", "utf", "bcrypt", "hash", "letmein", "qwerty", "guest", "abc",
    "postgres",
];

/// Parts of identifiers that name a secret and are none.
const NAMING: [&str; 10] = [
    "password",
    "passwd",
    "secret",
    "token",
    "credential",
    "apikey",
    "api_key",
    "config",
    "env.",
    "getenv",
];

/// Checks whether what stands in the place of a secret is a value, and no word, type or expression.
pub(super) fn is_value(text: &str) -> bool {
    let text = text.trim_matches(|c: char| "\"'`.,;:!?)]}>\\".contains(c));
    if text.len() < 6 || is_sample(text) || is_code(text) {
        return false;
    }
    let has = |test: fn(&u8) -> bool| text.as_bytes().iter().any(test);
    let letters = has(u8::is_ascii_alphabetic);
    if !letters || !has(u8::is_ascii_digit) && !has(is_sign) && !is_jumbled(text) {
        return false;
    }
    let small = text.to_ascii_lowercase();
    let stem = small.trim_end_matches(|c: char| c.is_ascii_digit() || "!_-".contains(c));
    !WORDS.contains(&stem) && !NAMING.iter().any(|part| small.contains(part))
}

/// Checks whether a text has small letters and more capitals than begin its words.
fn is_jumbled(text: &str) -> bool {
    let rest = text.as_bytes().iter().skip(1);
    let capitals = rest.clone().filter(|byte| byte.is_ascii_uppercase()).count();
    let small = rest.filter(|byte| byte.is_ascii_lowercase()).count();
    small > 0 && 7 * capitals > 2 * text.len()
}

/// Checks whether a byte is a sign that passwords have and names have not.
fn is_sign(byte: &u8) -> bool {
    b"!#$%&*+=?@^~|".contains(byte)
}

/// Checks whether a text is an expression, a reference or an identifier of a programming language.
fn is_code(text: &str) -> bool {
    if text.starts_with(['$', '<', '{', '[', '(', '%', '&', '*', '@', '/', '.', '-', '=']) {
        return true;
    }
    if ["::", "->", "=>", "==", "()", "${", "{{", "#{", "\\n"].iter().any(|it| text.contains(it)) {
        return true;
    }
    // `os.environ["DB"]`, `Option<String>`, `hash(password)`: a name, and then a bracket.
    let name = |c: char| c.is_ascii_alphanumeric() || "_.".contains(c);
    let name_length = text.find(|c| !name(c)).unwrap_or(text.len());
    let (name, rest) = text.split_at(name_length);
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) && rest.starts_with(['(', '[', '<', '{'])
    {
        return true;
    }
    if !rest.is_empty() {
        // `new-password-2`, `my-secret`: words, with dashes between.
        return text.split(['-', '_', '.']).all(is_word);
    }
    // `config.password`, `new_password2`, `DB_PASSWORD_1`.
    let parts: Vec<&str> = text.split(['.', '_']).collect();
    let is_part = |part: &&str| is_word(part) || part.bytes().all(|it| it.is_ascii_digit());
    parts.len() > 1 && parts.iter().all(is_part)
}

/// Checks whether a text is a word, with a digit or two behind.
fn is_word(text: &str) -> bool {
    let stem = text.trim_end_matches(|c: char| c.is_ascii_digit());
    let letters = !stem.is_empty() && stem.bytes().all(|byte| byte.is_ascii_alphabetic());
    let one_case = |test: fn(&u8) -> bool| stem.as_bytes().iter().skip(1).all(test);
    let same = one_case(u8::is_ascii_lowercase) || one_case(u8::is_ascii_uppercase);
    letters && same && text.len() - stem.len() <= 2
}

/// Counts the different characters of a text.
fn distinct(text: &str) -> usize {
    let mut seen = [false; 256];
    text.bytes().for_each(|byte| seen[usize::from(byte)] = true);
    seen.into_iter().filter(|seen| *seen).count()
}

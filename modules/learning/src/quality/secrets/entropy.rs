//! Secrets that have no form: letters, digits and signs as chance mixes them.

use module_secrets::looks_random;

/// Lengths of a secret: a longer text is data.
const LENGTHS: std::ops::RangeInclusive<usize> = 20..=120;
/// Length from which on a text may be a secret though nothing beside it says so: that of the
/// secrets of AWS, less some.
const ALONE: usize = 36;
/// Bits of entropy in a character: of a random text of 40 characters it has some 4.7, of names and
/// sentences some 4.
const BITS: f64 = 4.2;
/// Bits where a word beside it says what it is.
const BITS_NAMED: f64 = 3.6;
/// Bytes before a text in which such a word stands.
const BEFORE: usize = 48;
/// Words that say that a secret follows.
const NAMES: [&str; 9] =
    ["token", "secret", "passw", "pwd", "auth", "credential", "bearer", "api key", "access key"];
/// Openings of data that look like chance and are no secret: digests of packages, public keys.
const OPEN: [&str; 9] =
    ["sha1-", "sha256-", "sha384-", "sha512-", "h1:", "aaaa", "base64,", "hash:", "sha256:"];

/// Checks whether a text holds a secret that has no form.
pub(super) fn holds_secret(text: &str) -> bool {
    text.lines().any(|line| {
        // A line of a certificate, or of another block in base 64.
        let block = line.trim();
        if block.len() >= 60 && block.bytes().all(is_base64) {
            return false;
        }
        let mut at = 0;
        line.split_inclusive(|c: char| !c.is_ascii() || !is_of_token(c as u8)).any(|piece| {
            let begin = at;
            at += piece.len();
            let token = piece.trim_end_matches(|c: char| !c.is_ascii() || !is_of_token(c as u8));
            LENGTHS.contains(&token.len()) && is_secret(line, begin, token)
        })
    })
}

fn is_secret(line: &str, begin: usize, token: &str) -> bool {
    let mut from = begin.saturating_sub(BEFORE);
    while !line.is_char_boundary(from) {
        from += 1;
    }
    let before = line[from..begin].to_ascii_lowercase();
    let small = token.to_ascii_lowercase();
    let opens = |open: &&str| small.starts_with(*open) || before.ends_with(*open);
    // A part of an address: an id of a document, a digest.
    let word = before.rsplit(char::is_whitespace).next().unwrap_or_default();
    if OPEN.iter().any(opens) || word.contains("://") {
        return false;
    }
    if NAMES.iter().any(|name| before.contains(name)) && is_mixed(token) {
        return looks_random(token) && entropy(token) >= BITS_NAMED;
    }
    let runs = token.split(['-', '_', '=', '.']).filter(|run| run.len() >= ALONE);
    runs.into_iter().any(|run| is_mixed(run) && turns(run) && entropy(run) >= BITS)
}

fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/=_-".contains(&byte)
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/=".contains(&byte)
}

/// Checks whether a text has digits, small letters and capitals.
fn is_mixed(text: &str) -> bool {
    let has = |test: fn(&u8) -> bool| text.as_bytes().iter().any(test);
    has(u8::is_ascii_digit) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase)
}

/// Checks whether the sort of character changes as often as by chance, and more than in names: a
/// capital that begins a word is no change, nor is the end of a folder in a path.
fn turns(text: &str) -> bool {
    let sort = |byte: &u8| match byte {
        b'0'..=b'9' => 0,
        b'A'..=b'Z' => 1,
        b'a'..=b'z' => 2,
        _ => 3,
    };
    let pairs = || text.as_bytes().windows(2).map(|pair| (sort(&pair[0]), sort(&pair[1])));
    let is_turn = |pair: &(u8, u8)| match pair {
        (1, 2) | (3, _) | (_, 3) => false,
        (one, other) => one != other,
    };
    let turns = pairs().filter(is_turn).count();
    let numbers = pairs().filter(|(one, other)| *one != 0 && *other == 0).count();
    1000 * turns >= 225 * text.len() || numbers >= 4 && !text.contains('/')
}

/// Returns the entropy of a text, in bits a character.
fn entropy(text: &str) -> f64 {
    let mut counts = [0_u32; 256];
    text.bytes().for_each(|byte| counts[usize::from(byte)] += 1);
    let all = text.len() as f64;
    let share = |count: u32| f64::from(count) / all;
    counts.into_iter().filter(|count| *count > 0).map(|it| -share(it) * share(it).log2()).sum()
}

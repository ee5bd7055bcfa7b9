//! Numbers of people: telephones, cards, bank accounts.

use std::{ops::Range, sync::LazyLock};

use regex::Regex;

use super::{Kind, Span};

/// Finds the numbers of a text.
pub(super) fn find(text: &str, spans: &mut Vec<Span>) {
    ibans(text, spans);
    cards(text, spans);
    phones(text, spans);
}

/// Compiles a pattern on first use.
macro_rules! pattern {
    ($name:ident, $pattern:expr) => {
        static $name: LazyLock<Regex> =
            LazyLock::new(|| Regex::new($pattern).expect("the pattern is tested"));
    };
}

pattern!(IBAN, r"(?i)[a-z]{2}[0-9]{2}(?:[ \u{a0}-]?[a-z0-9]){11,30}");
pattern!(DIGITS, r"[0-9](?:[ \u{a0}-]?[0-9]){11,}");
pattern!(
    PHONE,
    concat!(
        // +43 (1) 234 56-78, 0043 1 2345678
        r"(?<i>(?:\+|00)[1-9](?:[ \u{a0}()./-]{0,3}[0-9]){6,14})",
        // (555) 123-4567, 555-123-4567, 555.123.4567
        r"|(?<n>\([2-9][0-9]{2}\)[ ]?[2-9][0-9]{2}[ .-]?[0-9]{4}",
        r"|[2-9][0-9]{2}[.-][2-9][0-9]{2}[.-][0-9]{4})",
        // phone: 01 2345678
        r"|(?i-u:\b)(?i:phone|telephone|tel|mobile|cell|fax|whatsapp|call me|text me|reach me",
        r"|telefon|handy|mobil|téléphone|teléfono|móvil)",
        r"(?i:[ ]?(?:number|no|nr|num|is|at|on))*[.:=]{0,2}[ \u{a0}]{0,3}",
        r"(?<c>\(?[0-9](?:[ \u{a0}()./-]{0,3}[0-9]){5,14})"
    )
);

/// Checks whether a place of a text is not within a longer word or number.
pub(super) fn stands_free(text: &str, start: usize, end: usize) -> bool {
    let mut back = text[..start].chars().rev();
    let (before, first) = (back.next(), back.next());
    let mut after = text[end..].chars();
    let (next, second) = (after.next(), after.next());
    let joins = |c: char| c.is_alphanumeric() || c == '_';
    // `1.5`: a sign that goes on with a digit belongs to the number.
    let goes_on =
        next.is_some_and(|c| ".,-:".contains(c)) && second.is_some_and(|c| c.is_ascii_digit());
    let came =
        before.is_some_and(|c| ".,".contains(c)) && first.is_some_and(|c| c.is_ascii_digit());
    !came && !before.is_some_and(joins) && !next.is_some_and(joins) && !goes_on
}

/// Number of characters of an account number by country, of the registry of IBANs.
const IBAN_LENGTHS: &[(&str, usize)] = &[
    ("AD", 24),
    ("AE", 23),
    ("AL", 28),
    ("AT", 20),
    ("AZ", 28),
    ("BA", 20),
    ("BE", 16),
    ("BG", 22),
    ("BH", 22),
    ("BR", 29),
    ("BY", 28),
    ("CH", 21),
    ("CR", 22),
    ("CY", 28),
    ("CZ", 24),
    ("DE", 22),
    ("DK", 18),
    ("DO", 28),
    ("EE", 20),
    ("EG", 29),
    ("ES", 24),
    ("FI", 18),
    ("FO", 18),
    ("FR", 27),
    ("GB", 22),
    ("GE", 22),
    ("GI", 23),
    ("GL", 18),
    ("GR", 27),
    ("GT", 28),
    ("HR", 21),
    ("HU", 28),
    ("IE", 22),
    ("IL", 23),
    ("IQ", 23),
    ("IS", 26),
    ("IT", 27),
    ("JO", 30),
    ("KW", 30),
    ("KZ", 20),
    ("LB", 28),
    ("LC", 32),
    ("LI", 21),
    ("LT", 20),
    ("LU", 20),
    ("LV", 21),
    ("LY", 25),
    ("MC", 27),
    ("MD", 24),
    ("ME", 22),
    ("MK", 19),
    ("MR", 27),
    ("MT", 31),
    ("MU", 30),
    ("NL", 18),
    ("NO", 15),
    ("PK", 24),
    ("PL", 28),
    ("PS", 29),
    ("PT", 25),
    ("QA", 29),
    ("RO", 24),
    ("RS", 22),
    ("SA", 24),
    ("SC", 31),
    ("SE", 24),
    ("SI", 19),
    ("SK", 24),
    ("SM", 27),
    ("ST", 25),
    ("SV", 28),
    ("TL", 23),
    ("TN", 24),
    ("TR", 26),
    ("UA", 29),
    ("VA", 22),
    ("VG", 24),
    ("XK", 20),
];

fn ibans(text: &str, spans: &mut Vec<Span>) {
    let mut from = 0;
    while let Some(found) = IBAN.find_at(text, from) {
        // What looks like a beginning may be a word before one.
        from = found.start() + 1;
        let country = found.as_str().get(..2).unwrap_or_default().to_ascii_uppercase();
        let Some((_, length)) = IBAN_LENGTHS.iter().find(|(code, _)| *code == country) else {
            continue;
        };
        let signs = found.as_str().char_indices().filter(|(_, c)| c.is_ascii_alphanumeric());
        let Some((last, _)) = signs.clone().nth(length - 1) else {
            continue;
        };
        let end = found.start() + last + 1;
        let signs: Vec<char> = signs.take(*length).map(|(_, c)| c).collect();
        if stands_free(text, found.start(), end) && remainder(&signs) == Some(1) {
            spans.push(Span { range: found.start()..end, kind: Kind::Iban });
            from = end;
        }
    }
}

/// Returns the remainder by 97 of an account number, its first four characters put last.
fn remainder(signs: &[char]) -> Option<u32> {
    let (head, body) = signs.split_at_checked(4)?;
    body.iter().chain(head).try_fold(0, |rest, sign| {
        let digit = sign.to_digit(36)?;
        Some((rest * if digit < 10 { 10 } else { 100 } + digit) % 97)
    })
}

/// Greatest number of digits of a card.
const LONGEST_CARD: usize = 19;

/// Finds cards among digits: other numbers may stand right beside them.
fn cards(text: &str, spans: &mut Vec<Span>) {
    for found in DIGITS.find_iter(text) {
        let groups = groups(found.as_str(), found.start());
        let mut next = 0;
        while next < groups.len() {
            let length = card(text, &groups[next..]);
            if let Some(length) = length {
                let range = groups[next].start..groups[next + length - 1].end;
                spans.push(Span { range, kind: Kind::Card });
            }
            next += length.unwrap_or(1);
        }
    }
}

/// Returns the places of digits without anything between, where this text begins at `start`.
fn groups(text: &str, start: usize) -> Vec<Range<usize>> {
    let mut at = start;
    let mut groups = Vec::new();
    for group in text.split_inclusive(|c: char| !c.is_ascii_digit()) {
        let digits = group.trim_end_matches(|c: char| !c.is_ascii_digit());
        groups.push(at..at + digits.len());
        at += group.len();
    }
    groups
}

/// Returns of how many groups the card is that begins with the first, `None` where there is none.
fn card(text: &str, groups: &[Range<usize>]) -> Option<usize> {
    let mut digits = Vec::with_capacity(LONGEST_CARD);
    let mut best = None;
    for (index, group) in groups.iter().enumerate() {
        // Groups of two are bytes.
        if digits.len() + group.len() > LONGEST_CARD || index > 0 && group.len() < 3 {
            break;
        }
        digits.extend(text[group.clone()].bytes().map(|byte| u32::from(byte - b'0')));
        let free = || stands_free(text, groups[0].start, group.end);
        let is_card = |digits: &[u32]| is_issued(digits, index > 0) && passes_luhn(digits);
        if digits.len() >= 12 && is_card(&digits) && free() {
            best = Some(index + 1);
        }
    }
    best
}

/// Checks whether somebody issues cards with such a beginning and length. Rare lengths count where
/// the digits are in groups: many a number begins so and is as long.
fn is_issued(digits: &[u32], is_grouped: bool) -> bool {
    let head =
        |count: usize| digits.iter().take(count).fold(0, |number, digit| number * 10 + digit);
    let length = digits.len();
    match (head(1), head(2), head(4)) {
        (4, ..) => length == 16 || is_grouped && [13, 19].contains(&length),
        (_, 51..=55, _) | (_, _, 2221..=2720) => length == 16,
        (_, 34 | 37, _) => length == 15,
        (_, 36 | 38 | 39, _) | (_, _, 3000..=3059) => length == 14,
        (_, _, 3528..=3589) => length == 16,
        (_, 50 | 56..=69, _) => length == 16 || is_grouped && (12..=19).contains(&length),
        _ => false,
    }
}

/// Checks the last digit, which is computed from the others.
fn passes_luhn(digits: &[u32]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, digit) {
            (0, digit) => *digit,
            (_, digit) if *digit > 4 => digit * 2 - 9,
            (_, digit) => digit * 2,
        })
        .sum();
    sum.is_multiple_of(10)
}

fn phones(text: &str, spans: &mut Vec<Span>) {
    for found in PHONE.captures_iter(text) {
        let Some(number) = found.name("i").or(found.name("n")).or(found.name("c")) else {
            continue;
        };
        let (start, end) = (number.start(), number.end());
        if !stands_free(text, start, end) {
            continue;
        }
        let digits = number.as_str().bytes().filter(u8::is_ascii_digit).count();
        let signs = number.as_str().trim_start_matches(['+', ' ']);
        let is_plain = signs.bytes().all(|byte| byte.is_ascii_digit());
        let is_phone = match (found.name("i").is_some(), is_plain) {
            // `+1234567`: a line that a patch adds; `00123456`: a number with zeros.
            (true, true) => number.as_str().starts_with('+') && (10..=15).contains(&digits),
            (true, false) => (8..=15).contains(&digits) && !is_sum(number.as_str()),
            _ => (6..=15).contains(&digits),
        };
        if is_phone {
            spans.push(Span { range: start..end, kind: Kind::Phone });
        }
    }
}

/// Checks whether signs between digits are those of arithmetic or of a date: `+1 - 2 / 3`.
fn is_sum(number: &str) -> bool {
    let grouped = number.contains([' ', '-', '/', '(']);
    let is_decimal = !grouped && number.split('.').count() == 2;
    is_decimal || [" - ", " / ", "--", "//", ".."].iter().any(|sign| number.contains(sign))
}

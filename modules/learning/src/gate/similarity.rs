//! Similarity of an answer to the one that was kept.

use std::collections::HashMap;

/// Returns the words of a text as they are compared: letters and digits, in lower case.
fn words(text: &str) -> Vec<String> {
    let split = text.split(|c: char| !c.is_alphanumeric());
    split.filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

/// Returns whether an answer has the same words in the same order.
#[must_use]
pub fn is_exact(reference: &str, answer: &str) -> bool {
    words(reference) == words(answer)
}

/// Returns the overlap of two texts from 0 to 1: the harmonic mean of the shares of their words
/// that the other one has too, as SQuAD scores answers (Rajpurkar et al. 2016, `F1`).
#[must_use]
pub fn overlap(reference: &str, answer: &str) -> f64 {
    let (reference, answer) = (words(reference), words(answer));
    if reference.is_empty() || answer.is_empty() {
        return if reference.len() == answer.len() { 1.0 } else { 0.0 };
    }
    let mut left: HashMap<&str, usize> = HashMap::new();
    for word in &reference {
        *left.entry(word).or_default() += 1;
    }
    let common = answer.iter().filter(|word| {
        let count = left.get_mut(word.as_str()).filter(|count| **count > 0);
        count.map(|count| *count -= 1).is_some()
    });
    2.0 * common.count() as f64 / (reference.len() + answer.len()) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_count_as_often_as_they_stand() {
        let check = |reference: &str, answer: &str, expected: f64| {
            let found = overlap(reference, answer);
            assert!((found - expected).abs() < 1e-9, "{reference:?} {answer:?}: {found}");
        };
        check("it costs 7 euros", "It costs 7 Euros.", 1.0);
        check("a b", "c d", 0.0);
        check("a a b", "a a a", 2.0 / 3.0);
        check("a b c d", "a b", 2.0 / 3.0);
        check("", "", 1.0);
        check("a", "", 0.0);
        check("Grüße", "grüße!", 1.0);
    }

    #[test]
    fn case_and_marks_do_not_matter_and_order_does() {
        assert!(is_exact("Call string.split().", "call `string` split"));
        assert!(!is_exact("a b", "b a"));
    }
}

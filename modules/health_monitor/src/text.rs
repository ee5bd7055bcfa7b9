//! Texts of alerts and tables.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use module_sdk::human;

use crate::{alert::Holding, metric::Unit, rule::Rule};

/// Returns the text of an alert: the rule's message and its next step, with their placeholders
/// replaced. What stands between backticks is copied into a shell, so that what is put in there is
/// one word of it.
#[must_use]
pub fn message(rule: &Rule, holding: &Holding, labels: &BTreeMap<String, String>) -> String {
    let unit = rule.unit(&holding.series);
    let mut text = rule.message.clone();
    if !rule.next_step.is_empty() {
        text.push(' ');
        text.push_str(&rule.next_step);
    }
    let shown =
        |value: Option<f64>| value.map_or_else(|| "unknown".to_owned(), |it| show(unit, it));
    replace(&text, |name| match name {
        "value" => Some(shown(holding.value)),
        "threshold" => Some(shown(holding.threshold)),
        "reason" => Some(holding.reason.clone()),
        "component" => labels.get("component").cloned(),
        _ => labels.get(name.strip_prefix("label.")?).cloned(),
    })
}

/// Replaces each `{name}` that `find` knows; what it puts in is not looked at again.
fn replace(text: &str, find: impl Fn(&str) -> Option<String>) -> String {
    let mut shown = String::with_capacity(text.len());
    let (mut rest, mut is_command) = (text, false);
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        is_command ^= before.matches('`').count() % 2 == 1;
        shown.push_str(before);
        let found = from.find('}').and_then(|end| Some((find(&from[1..end])?, end)));
        match found {
            Some((value, end)) => {
                let value = visible(&value);
                shown.push_str(&if is_command { quoted(&value) } else { value.into() });
                rest = &from[end + 1..];
            }
            None => {
                shown.push('{');
                rest = &from[1..];
            }
        }
    }
    shown + rest
}

/// Returns a text as one word of a shell: in single quotes, unless it is plain.
fn quoted(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_./-:@%+,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.into();
    }
    format!("'{}'", text.replace('\'', "'\\''")).into()
}

/// Writes out control characters, which a terminal or a chat would obey, and shortens what is
/// longer than a name is.
#[must_use]
pub fn visible(text: &str) -> String {
    const LONGEST: usize = 200;
    let is_hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
            || matches!(c, '\u{2066}'..='\u{2069}')
    };
    let mut shown = String::with_capacity(text.len());
    for (count, c) in text.chars().enumerate() {
        if count == LONGEST {
            shown.push('…');
            break;
        }
        if is_hidden(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Shows a value in its unit.
#[must_use]
pub fn show(unit: Unit, value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "never".to_owned() } else { "-∞".to_owned() };
    }
    match unit {
        Unit::Ratio => format!("{}%", trimmed(value * 100.0, 1)),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "bytes are whole and not negative; what is beyond is shown as the limit"
        )]
        Unit::Bytes => human::bytes(value.max(0.0) as u64),
        Unit::Seconds => Duration::try_from_secs_f64(value.abs()).map_or_else(
            |_| trimmed(value, 1),
            |length| format!("{}{}", if value < 0.0 { "-" } else { "" }, human::duration(length)),
        ),
        Unit::Celsius => format!("{} °C", trimmed(value, 1)),
        Unit::Watts => format!("{} W", trimmed(value, 1)),
        Unit::Hertz => format!("{} MHz", trimmed(value / 1e6, 0)),
        Unit::Usd => format!("${}", trimmed(value, 4)),
        Unit::Count => trimmed(value, 2),
        Unit::Flag => (if value == 0.0 { "down" } else { "up" }).to_owned(),
    }
}

fn trimmed(value: f64, decimals: usize) -> String {
    let shown = format!("{value:.decimals$}");
    if shown.contains('.') {
        return shown.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_in_their_unit() {
        let check = |unit, value, expected: &str| assert_eq!(show(unit, value), expected);
        check(Unit::Ratio, 0.905, "90.5%");
        check(Unit::Ratio, 0.9, "90%");
        check(Unit::Bytes, 4_300_000.0, "4.10 MiB");
        check(Unit::Seconds, 7_200.0, "2h 0m");
        check(Unit::Seconds, f64::INFINITY, "never");
        check(Unit::Celsius, 88.0, "88 °C");
        check(Unit::Flag, 0.0, "down");
        check(Unit::Count, 3.0, "3");
    }

    #[test]
    fn what_is_put_in_cannot_put_in_more() {
        let shown = replace("{a} of {b} {c}", |name| match name {
            "a" => Some("{b}".to_owned()),
            "b" => Some("x\u{1b}[31m\n".to_owned()),
            _ => None,
        });
        assert_eq!(shown, "{b} of x\\u{1b}[31m\\u{a} {c}");
        assert_eq!(visible(&"a".repeat(500)).chars().count(), 201);
    }

    #[test]
    fn what_is_put_into_a_command_is_one_word_of_it() {
        let check = |value: &str, expected: &str| {
            let shown = replace("{a}: `du {a} | sort {x}` and {a}", |name| {
                (name == "a").then(|| value.to_owned())
            });
            assert_eq!(shown, format!("{value}: `du {expected} | sort {{x}}` and {value}"));
        };
        check("/home", "/home");
        check("qwen3:8b", "qwen3:8b");
        check("/mnt/my disk", "'/mnt/my disk'");
        check("/mnt/a;reboot", "'/mnt/a;reboot'");
        check("/mnt/$(reboot)", "'/mnt/$(reboot)'");
        check("it's", r"'it'\''s'");
        check("~root", "'~root'");
        check("", "''");
    }
}

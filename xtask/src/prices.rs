//! `cargo xtask prices`: the price table, validated, and how old it is.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result, bail};

use crate::{process, workspace::Workspace};

/// Number of days after which prices have probably changed.
const OLD_DAYS: i64 = 90;

/// Prints what is wrong with the table, or what it holds.
///
/// # Errors
///
/// When it cannot be read or a price is no price.
pub(crate) fn run() -> Result<()> {
    let path = Workspace::read()?.root.join("config/prices.toml");
    let text = fs::read_to_string(&path)
        .with_context(|| format!("cannot read the price table {}", path.display()))?;
    let table: toml::Table =
        text.parse().with_context(|| format!("{} is no TOML", path.display()))?;
    let today = process::capture(std::process::Command::new("date").arg("+%F"))?;
    let found = Found::of(&table);
    for problem in &found.problems {
        eprintln!("config/prices.toml: {problem}");
    }
    for date in &found.dates {
        let age = age_days(date, today.trim()).unwrap_or(0);
        let advice = if age > OLD_DAYS { "; compare it with the price lists" } else { "" };
        println!("{date}: {age} days old{advice}");
    }
    println!("{} models, {} prices", found.models, found.prices);
    match found.problems.len() {
        0 => Ok(()),
        count => bail!("the price table has {count} errors"),
    }
}

/// Content of the table, as a walk through it finds it.
#[derive(Default)]
struct Found {
    models: usize,
    prices: usize,
    dates: BTreeSet<String>,
    problems: Vec<String>,
}

impl Found {
    fn of(table: &toml::Table) -> Self {
        let mut found = Self::default();
        found.walk("", table);
        if found.dates.is_empty() {
            found.problems.push("no date; a price table says when it was true".to_owned());
        }
        if found.models == 0 {
            found.problems.push("no model has a price".to_owned());
        }
        found
    }

    fn walk(&mut self, path: &str, table: &toml::Table) {
        let prices = table.iter().filter(|(key, value)| self.price(path, key, value)).count();
        self.prices += prices;
        // A tier is a further price of the models above it.
        let tier = ["above_input_tokens", "names"].iter().any(|key| table.contains_key(*key));
        if prices > 0 && !tier {
            self.models += table.get("models").and_then(|it| it.as_array()).map_or(1, Vec::len);
        }
        for (key, value) in table {
            let path = format!("{path}{key}");
            self.date(&path, key, value);
            match value {
                toml::Value::Table(inner) => self.walk(&format!("{path}."), inner),
                toml::Value::Array(items) => {
                    for (index, item) in items.iter().enumerate() {
                        if let Some(inner) = item.as_table() {
                            self.walk(&format!("{path}[{index}]."), inner);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// Returns whether an entry is a price; one that makes no sense is noted as a problem.
    fn price(&mut self, path: &str, key: &str, value: &toml::Value) -> bool {
        let named = ["input", "output", "cache_read", "cache_write", "reasoning", "factor"];
        if !named.iter().any(|name| key.starts_with(name)) || value.is_table() {
            return false;
        }
        let text = value.as_str().map(str::to_owned).unwrap_or_else(|| value.to_string());
        match text.parse::<f64>() {
            Ok(price) if price.is_finite() && price >= 0.0 => {}
            _ => {
                self.problems.push(format!("{path}{key}: {value} is no price; give USD, 0 or more"))
            }
        }
        true
    }

    fn date(&mut self, path: &str, key: &str, value: &toml::Value) {
        let text = match value {
            toml::Value::Datetime(date) => date.to_string(),
            toml::Value::String(text) if matches!(key, "version" | "date" | "as_of") => {
                text.clone()
            }
            _ => return,
        };
        if days(&text).is_some() {
            self.dates.insert(text);
        } else {
            self.problems.push(format!("{path}: {text:?} is no date; write YYYY-MM-DD"));
        }
    }
}

fn age_days(date: &str, today: &str) -> Option<i64> {
    Some(days(today)? - days(date)?)
}

/// Returns the days since 1970 of `YYYY-MM-DD`, by the civil calendar (H. Hinnant,
/// `days_from_civil`).
fn days(date: &str) -> Option<i64> {
    let mut parts = date.get(..10)?.splitn(3, '-').map(str::parse::<i64>);
    let (year, month, day) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted() {
        let check = |from, to, expected| assert_eq!(age_days(from, to), Some(expected));
        check("1970-01-01", "1970-01-02", 1);
        check("2026-11-20", "2026-11-21", 1);
        check("2024-02-28", "2024-03-01", 2);
        check("2025-11-21", "2026-11-21", 365);
        assert_eq!(days("soon"), None);
        assert_eq!(days("2026-13-01"), None);
    }

    #[test]
    fn a_table_is_read_in_any_depth() {
        let check = |text: &str, models, prices, problems| {
            let found = Found::of(&text.parse().expect("it is TOML"));
            assert_eq!((found.models, found.prices), (models, prices), "{text}");
            assert_eq!(found.problems.len(), problems, "{:?}", found.problems);
        };
        check("version = \"2026-11-20\"\n[a.m]\ninput = 3\noutput = \"15.5\"\n", 1, 2, 0);
        check("date = 2026-11-20\n[[model]]\ninput = 3\n[[model]]\ninput = 1\n", 2, 2, 0);
        check("date = 2026-11-20\n[m]\ninput = -3\n", 1, 1, 1);
        check("date = 2026-11-20\n[m]\ninput = \"free\"\n", 1, 1, 1);
        check("version = \"new\"\n[m]\ninput = 3\n", 1, 1, 2);
        let tiers = "[[p.tier]]\nabove_input_tokens = 9\ninput = 2\n\
                     [[p.service_tier]]\nnames = [\"fast\"]\nfactor = -2\n";
        let text = format!("date = 2026-11-20\n[[p]]\nmodels = [\"m\", \"n\"]\ninput = 1\n{tiers}");
        check(&text, 2, 3, 1);
        check("", 0, 0, 2);
    }
}

//! Signs about a request become labels, and the labels two parts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Config;
use crate::store::Weights;

/// Sign of how good an answer was, as the router tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sign {
    /// Time of it, in milliseconds since the Unix epoch.
    pub at: i64,
    /// Origin: `person`, `check`, `judge`, `comparison`.
    pub origin: String,
    /// `true` when the answer of a local model is meant.
    pub local: bool,
    /// `true` when that was right.
    pub right: bool,
}

/// A judged request, as the router tells it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Judged {
    /// Id of the request, or of the comparison.
    pub id: String,
    /// Time of it, in milliseconds since the Unix epoch.
    pub at: i64,
    /// The project.
    pub project: Option<String>,
    /// The session, a pseudonym.
    pub session: Option<String>,
    /// Signs about its answers, in their order.
    pub signs: Vec<Sign>,
    /// SHA-256 of its features.
    pub features: String,
}

/// A line of a set of labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Id of the request.
    pub id: String,
    /// Time of it, in milliseconds since the Unix epoch.
    pub at: i64,
    /// The project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The session, a pseudonym.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// SHA-256 of its features.
    pub features: String,
    /// `true` when the local model was right; none where nobody judged it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<bool>,
    /// `true` when the paid model was right; none where nobody judged it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paid: Option<bool>,
    /// Origins of the signs.
    pub sources: Vec<String>,
    /// `true` when it is held back.
    pub held_out: bool,
}

/// Returns the labels of judged requests, the oldest first, with the newest sessions held back. No
/// session lies on both sides.
#[must_use]
pub fn rows(judged: &[Judged], weights: &Weights, config: &Config) -> Vec<Row> {
    let mut rows: Vec<Row> = judged.iter().filter_map(|it| row(it, weights, config)).collect();
    rows.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
    hold_back(&mut rows, config.held_out);
    rows
}

fn row(judged: &Judged, weights: &Weights, config: &Config) -> Option<Row> {
    let side = |local: bool| label(&judged.signs, local, weights, config.least_weight);
    let (local, paid) = (side(true), side(false));
    if (local, paid) == (None, None) {
        return None;
    }
    let mut sources: Vec<String> = judged.signs.iter().map(|sign| sign.origin.clone()).collect();
    sources.sort_unstable();
    sources.dedup();
    Some(Row {
        id: judged.id.clone(),
        at: judged.at,
        project: judged.project.clone(),
        session: judged.session.clone(),
        features: judged.features.clone(),
        local,
        paid,
        sources,
        held_out: false,
    })
}

/// Returns what the signs about the answer of one side say together. The last of each origin
/// counts; signs that weigh too little, or are equally divided, say nothing.
fn label(signs: &[Sign], local: bool, weights: &Weights, least_weight: f64) -> Option<bool> {
    let mut last: BTreeMap<&str, bool> = BTreeMap::new();
    for sign in signs.iter().filter(|sign| sign.local == local) {
        last.insert(&sign.origin, sign.right);
    }
    let (mut right, mut all) = (0.0, 0.0);
    for (origin, is_right) in last {
        // A vote is what a person says.
        let weight = weights.of(if origin == "comparison" { "person" } else { origin });
        all += weight;
        right += if is_right { weight } else { 0.0 };
    }
    let is_enough = all > 0.0 && all >= least_weight;
    let share = right / all;
    (is_enough && (share - 0.5).abs() > 1e-9).then_some(share > 0.5)
}

/// Holds the newest sessions back, until they have a share of the answers of local models.
fn hold_back(rows: &mut [Row], share: f64) {
    let group = |row: &Row| row.session.clone().unwrap_or_else(|| row.id.clone());
    let mut newest: BTreeMap<String, i64> = BTreeMap::new();
    for row in rows.iter() {
        let at = newest.entry(group(row)).or_insert(row.at);
        *at = row.at.max(*at);
    }
    let mut groups: Vec<(i64, String)> = newest.into_iter().map(|(name, at)| (at, name)).collect();
    groups.sort_unstable();
    let judged = rows.iter().filter(|row| row.local.is_some()).count();
    let wanted = (judged as f64 * share).ceil() as usize;
    let mut held = 0;
    while held < wanted
        && let Some((_, name)) = groups.pop()
    {
        for row in rows.iter_mut().filter(|row| group(row) == name) {
            row.held_out = true;
            held += usize::from(row.local.is_some());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign(origin: &str, local: bool, right: bool) -> Sign {
        Sign { at: 1, origin: origin.to_owned(), local, right }
    }

    fn judged(id: u32, session: Option<&str>, signs: Vec<Sign>) -> Judged {
        Judged {
            id: format!("{id:04}"),
            at: i64::from(id),
            project: Some("shop".to_owned()),
            session: session.map(str::to_owned),
            signs,
            features: "f".to_owned(),
        }
    }

    #[test]
    fn signs_become_labels_by_their_weights() {
        let check = |signs: &[Sign], expected: (Option<bool>, Option<bool>)| {
            let it = judged(1, None, signs.to_vec());
            let row = row(&it, &Weights::default(), &Config::default());
            let found = row.map_or((None, None), |row| (row.local, row.paid));
            assert_eq!(found, expected, "{signs:?}");
        };
        check(&[], (None, None));
        check(&[sign("person", true, true)], (Some(true), None));
        check(&[sign("check", true, false)], (Some(false), None));
        check(&[sign("judge", true, true)], (Some(true), None));
        // A sign that nobody gave weighs too little alone.
        check(&[sign("implicit", true, false)], (None, None));
        // The answer of a cascade did not stand, and the paid one was good.
        check(
            &[sign("check", true, false), sign("person", false, true)],
            (Some(false), Some(true)),
        );
        // A person outweighs a check, and changes their mind.
        check(&[sign("check", true, false), sign("person", true, true)], (Some(true), None));
        check(&[sign("person", true, true), sign("person", true, false)], (Some(false), None));
        check(&[sign("comparison", true, true), sign("person", true, false)], (None, None));
    }

    #[test]
    fn the_newest_sessions_are_held_back_whole() {
        let all: Vec<Judged> = (0..100)
            .map(|id| {
                let session = format!("s{}", id / 7);
                judged(id, Some(&session), vec![sign("person", true, id % 3 == 0)])
            })
            .collect();
        let rows = rows(&all, &Weights::default(), &Config::default());
        assert_eq!(rows.len(), 100);
        let held = rows.iter().filter(|row| row.held_out).count();
        assert!((20..28).contains(&held), "{held}");
        let first_held = rows.iter().position(|row| row.held_out).expect("some are");
        assert!(rows[first_held..].iter().all(|row| row.held_out), "they are the newest");
        let sides = |session: &str| {
            let of = rows.iter().filter(|row| row.session.as_deref() == Some(session));
            of.map(|row| row.held_out).collect::<std::collections::HashSet<_>>().len()
        };
        assert!((0..15).all(|number| sides(&format!("s{number}")) <= 1));
    }
}

//! Comparisons of models, the votes on them, and the board that these make.

mod ranking;

use std::sync::{Mutex, PoisonError};

use module_sdk::{Error, ErrorKind, Host, Result};
use serde::{Deserialize, Serialize};

pub(crate) use ranking::Standing;

/// Comparisons that can still be voted on.
const KEPT: usize = 200;

/// Name of the state.
const STATE: &str = "tournament";

/// Comparisons and votes. No text of prompts or answers is kept.
#[derive(Debug)]
pub(crate) struct Tournament {
    host: Host,
    /// Lock of the state's file.
    lock: Mutex<()>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct State {
    comparisons: Vec<Comparison>,
    pairs: Vec<Pair>,
}

/// A comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Comparison {
    /// Id.
    pub id: String,
    /// Time, in milliseconds since the Unix epoch.
    pub at: i64,
    /// Models that answered, each as `provider/model`.
    pub models: Vec<String>,
    /// Winner, or `tie`, once there was a vote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub winner: Option<String>,
}

/// Votes between two models.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pair {
    /// The first, in the order of names.
    pub a: String,
    /// The second.
    pub b: String,
    /// Votes for the first.
    pub a_wins: u32,
    /// Votes for the second.
    pub b_wins: u32,
    /// Votes for neither.
    pub ties: u32,
}

impl Tournament {
    pub(crate) const fn new(host: Host) -> Self {
        Self { host, lock: Mutex::new(()) }
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let _lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state: State = self.host.load_state(STATE)?.unwrap_or_default();
        let changed = change(&mut state)?;
        self.host.save_state(STATE, &state)?;
        Ok(changed)
    }

    /// Remembers a comparison, so that it can be voted on.
    ///
    /// # Errors
    ///
    /// When it cannot be written down.
    pub(crate) fn add(&self, comparison: Comparison) -> Result<()> {
        self.change(|state| {
            state.comparisons.push(comparison);
            let surplus = state.comparisons.len().saturating_sub(KEPT);
            state.comparisons.drain(..surplus);
            Ok(())
        })
    }

    /// Counts a vote: `winner` is a model of the comparison, its number in it, or `tie`.
    ///
    /// # Errors
    ///
    /// When there is no such comparison or model, or there was a vote already.
    pub(crate) fn vote(&self, id: &str, winner: &str) -> Result<Comparison> {
        self.change(|state| {
            let comparison = state.comparison(id)?;
            if let Some(winner) = &comparison.winner {
                let message = format!("{} was voted on already: {winner}", comparison.id);
                return Err(Error::usage(message));
            }
            let winner = comparison.winner(winner)?;
            comparison.winner = Some(winner.as_deref().unwrap_or("tie").to_owned());
            let voted = comparison.clone();
            state.count(&voted.models, winner.as_deref());
            Ok(voted)
        })
    }

    /// Returns the models by their strength, the strongest first.
    ///
    /// # Errors
    ///
    /// When the votes cannot be read.
    pub(crate) fn board(&self) -> Result<Vec<Standing>> {
        let _lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let state: State = self.host.load_state(STATE)?.unwrap_or_default();
        Ok(ranking::rank(&state.pairs))
    }
}

impl State {
    fn comparison(&mut self, id: &str) -> Result<&mut Comparison> {
        let id = id.trim();
        let fits = |it: &&mut Comparison| it.id.starts_with(id) && id.len() >= 6;
        let mut found: Vec<&mut Comparison> = self.comparisons.iter_mut().filter(fits).collect();
        if found.len() > 1 {
            let message = format!("{id} is the beginning of several comparisons; write more of it");
            return Err(Error::usage(message));
        }
        found.pop().ok_or_else(|| {
            Error::of(ErrorKind::NotFound, "there is no comparison with that id")
                .hint("`lodestar router compare` ends with it")
        })
    }

    fn count(&mut self, models: &[String], winner: Option<&str>) {
        for (index, one) in models.iter().enumerate() {
            for other in &models[index + 1..] {
                let (a, b) = if one < other { (one, other) } else { (other, one) };
                let is_decided = winner.is_none_or(|it| it == *a || it == *b);
                // Between two that lost nobody has said anything.
                if a == b || !is_decided {
                    continue;
                }
                let pair = self.pair(a, b);
                match winner {
                    None => pair.ties += 1,
                    Some(winner) if winner == *a => pair.a_wins += 1,
                    Some(_) => pair.b_wins += 1,
                }
            }
        }
    }

    fn pair(&mut self, a: &str, b: &str) -> &mut Pair {
        let known = self.pairs.iter().position(|pair| pair.a == a && pair.b == b);
        let at = known.unwrap_or_else(|| {
            self.pairs.push(Pair { a: a.to_owned(), b: b.to_owned(), ..Pair::default() });
            self.pairs.len() - 1
        });
        &mut self.pairs[at]
    }
}

impl Comparison {
    /// Returns the model that a vote names; `None` for a tie.
    fn winner(&self, named: &str) -> Result<Option<String>> {
        let named = named.trim();
        if named.eq_ignore_ascii_case("tie") {
            return Ok(None);
        }
        let by_number =
            named.parse::<usize>().ok().and_then(|it| self.models.get(it.wrapping_sub(1)));
        let is_it = |model: &&String| {
            **model == named || model.split_once('/').is_some_and(|(_, model)| model == named)
        };
        let mut by_name = self.models.iter().filter(is_it);
        let found = match (by_name.next(), by_name.next()) {
            (Some(model), None) => Some(model),
            (Some(_), Some(_)) => None,
            _ => by_number,
        };
        found.map(|model| Some(model.clone())).ok_or_else(|| {
            let models = self.models.join(", ");
            Error::usage(format!("the vote names none of its models: {models}"))
                .hint("name one of them by its whole name or its number, or `tie`")
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use module_sdk::testing::FakeHost;

    use super::*;

    fn tournament() -> (Tournament, tempfile::TempDir) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let host = Arc::new(FakeHost::new(directory.path())).host().expect("a host");
        (Tournament::new(host), directory)
    }

    fn comparison(id: &str, models: &[&str]) -> Comparison {
        let models = models.iter().map(|model| (*model).to_owned()).collect();
        Comparison { id: id.to_owned(), at: 0, models, winner: None }
    }

    #[test]
    fn a_vote_counts_once_for_each_pair_that_it_decides() {
        let (tournament, _directory) = tournament();
        tournament.add(comparison("aaaaaaaa", &["x/a", "x/b", "y/c"])).expect("it is kept");
        let voted = tournament.vote("aaaaaa", "b").expect("it counts");
        assert_eq!(voted.winner.as_deref(), Some("x/b"));
        let error = tournament.vote("aaaaaaaa", "1").expect_err("it was voted on");
        assert!(error.to_string().contains("already"), "{error}");
        let board = tournament.board().expect("it is read");
        let votes: Vec<_> =
            board.iter().map(|it| (it.model.as_str(), it.wins, it.losses)).collect();
        assert_eq!(votes, [("x/b", 2, 0), ("x/a", 0, 1), ("y/c", 0, 1)]);
    }

    #[test]
    fn a_vote_names_a_model_of_the_comparison() {
        let it = comparison("a", &["x/m", "y/m", "y/n"]);
        let check = |named: &str, expected: Option<Option<&str>>| {
            let found = it.winner(named).ok();
            assert_eq!(found.as_ref().map(Option::as_deref), expected, "{named}");
        };
        check("n", Some(Some("y/n")));
        check("y/m", Some(Some("y/m")));
        check("2", Some(Some("y/m")));
        check("TIE", Some(None));
        check("m", None);
        check("0", None);
        check("4", None);
        check("z", None);
    }
}

//! `lodestar router compare` and `lodestar router vote`.

use std::{sync::mpsc, time::Duration};

use module_sdk::{Error, Job, Reply, Result, Table, Usd, human};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::shown::{money, tokens, visible};
use crate::{
    Router,
    dialect::fault::{Fault, FaultKind},
    exchange::{self, OwnAnswer},
    journal::Purpose,
    tournament::{Comparison, Standing},
};

/// Asks several models the same at once and shows their answers side by side, or shows the board
/// that the votes on such answers make.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CompareArgs {
    /// Text that they are asked.
    #[schemars(extend("x-positional" = true))]
    #[serde(default)]
    prompt: Option<String>,
    /// Models, with commas between them.
    #[serde(default)]
    models: Option<String>,
    /// Most tokens of an answer [default: 1024].
    #[serde(default)]
    #[schemars(range(min = 1, max = 100_000))]
    max_tokens: Option<u32>,
    /// Show the board: models by their strength in the votes so far.
    #[serde(default)]
    board: bool,
}

/// Votes for the best answer of a comparison.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VoteArgs {
    /// Id of the comparison, or its beginning.
    #[schemars(extend("x-positional" = 1))]
    id: String,
    /// Model whose answer is the best, its number in the comparison, or `tie`.
    #[schemars(extend("x-positional" = 2))]
    winner: String,
}

/// Models of a comparison at most.
const MOST: usize = 8;

/// Time after which an answer is waited for no longer.
const PATIENCE: Duration = Duration::from_secs(600);

impl Router {
    pub(crate) fn compare(&mut self, args: CompareArgs) -> Result<Job> {
        if args.board {
            let board = self.app.tournament.board()?;
            return Ok(Job::new(move |_| shown_board(&board)));
        }
        let Some(prompt) = args.prompt.filter(|text| !text.trim().is_empty()) else {
            return Err(Error::usage("there is no text that the models are asked")
                .hint("write `lodestar router compare \"TEXT\" --models A,B`"));
        };
        let models = models(args.models.as_deref().unwrap_or_default())?;
        let (runtime, app) = (self.app.host.runtime()?, self.app.clone());
        let limit = args.max_tokens.unwrap_or(1024);
        Ok(Job::new(move |output| {
            let (sender, receiver) = mpsc::channel();
            let mut tasks = Vec::new();
            for (index, model) in models.iter().enumerate() {
                let (app, model, sender) = (app.clone(), model.clone(), sender.clone());
                let body = json!({
                    "messages": [{"role": "user", "content": prompt}],
                    "max_tokens": limit,
                    "stream": false,
                });
                let asking = async move {
                    let asked = exchange::ask_once(&app, &model, body, Purpose::Compare);
                    let answer = tokio::time::timeout(PATIENCE, asked).await;
                    // The receiver is gone where nobody waits any more.
                    let _ = sender.send((index, answer.ok()));
                };
                tasks.push(Cancelled(runtime.spawn(asking)));
            }
            drop(sender);
            let total = Some(models.len() as u64);
            let mut answers: Vec<Answer> = models.iter().map(|model| Answer::none(model)).collect();
            output.progress(0, total, "answers")?;
            for done in 1..=models.len() as u64 {
                let Ok((index, answer)) = receiver.recv() else {
                    return Err(Error::unavailable("the router is stopping; ask again"));
                };
                answers[index].take(answer);
                output.progress(done, total, "answers")?;
            }
            drop(tasks);
            let comparison = Comparison {
                id: Uuid::now_v7().simple().to_string(),
                at: app.host.now().as_millisecond(),
                models: answers.iter().filter_map(Answer::contestant).collect(),
                winner: None,
            };
            let id = comparison.id.clone();
            let can_vote = comparison.models.len() > 1;
            if can_vote {
                if let Some(sample) = exchange::features(&prompt) {
                    app.labels.await_vote(&id, sample, comparison.at);
                }
                app.tournament.add(comparison)?;
            }
            shown(&id, can_vote, &answers)
        }))
    }

    pub(crate) fn vote(&mut self, args: VoteArgs) -> Result<Reply> {
        let voted = self.app.tournament.vote(&args.id, &args.winner)?;
        self.learn_of_vote(&voted);
        let mut table = Table::default();
        let winner = visible(voted.winner.as_deref().unwrap_or("tie"));
        table.notes.push(format!("counted: {winner}; `lodestar router compare --board` shows all"));
        Ok(Reply::json(&voted)?.table(table))
    }
}

impl Router {
    /// Learns from a vote that decided between local models and paid ones.
    fn learn_of_vote(&self, voted: &Comparison) {
        let list = self.app.targets.list();
        let is_local = |name: &str| {
            let found = list.iter().find(|target| target.name.to_string() == name);
            found.is_some_and(|target| target.is_local())
        };
        let locals = voted.models.iter().filter(|name| is_local(name.as_str())).count();
        if locals == 0 || locals == voted.models.len() {
            return;
        }
        let winner = voted.winner.as_deref().unwrap_or("tie");
        let is_right = winner == "tie" || is_local(winner);
        self.app.labels.voted(&voted.id, is_right, self.app.host.now().as_millisecond());
    }
}

/// A task that ends where nobody waits for it.
struct Cancelled(tokio::task::JoinHandle<()>);

impl Drop for Cancelled {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn models(text: &str) -> Result<Vec<String>> {
    let mut models: Vec<String> = Vec::new();
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if !models.iter().any(|known| known == name) {
            models.push(name.to_owned());
        }
    }
    match models.len() {
        0 | 1 => Err(Error::usage("a comparison needs two models or more")
            .hint("name them with commas: --models llama3.2:3b,cloud/big-model")),
        2..=MOST => Ok(models),
        _ => Err(Error::usage(format!("a comparison has {MOST} models at most"))),
    }
}

/// Answer of a model.
struct Answer {
    asked: String,
    target: Option<String>,
    text: Result<String, Fault>,
    took: Option<Duration>,
    tokens: Option<(u64, u64)>,
    cost: Option<i64>,
}

impl Answer {
    fn none(model: &str) -> Self {
        let text = Err(Fault::new(FaultKind::Unavailable, "it was not asked"));
        Self { asked: model.to_owned(), target: None, text, took: None, tokens: None, cost: None }
    }

    fn take(&mut self, answer: Option<Result<OwnAnswer, Fault>>) {
        match answer {
            None => {
                let message = format!("it did not answer within {} s", PATIENCE.as_secs());
                self.text = Err(Fault::new(FaultKind::Timeout, message));
            }
            Some(Err(fault)) => self.text = Err(fault),
            Some(Ok(answer)) => {
                self.target = Some(answer.target.to_string());
                self.took = Some(answer.took);
                if let Some(attempt) = &answer.attempt {
                    self.tokens = attempt.tokens.map(|tokens| (tokens.input, tokens.output));
                    self.cost = attempt.cost_nano_usd;
                }
                let text = answer.text();
                self.text = answer.result.and_then(|_| {
                    let message = "its answer has no text";
                    text.ok_or_else(|| Fault::new(FaultKind::Upstream, message))
                });
            }
        }
    }

    fn name(&self) -> &str {
        self.target.as_deref().unwrap_or(&self.asked)
    }

    /// Returns its name where it can win.
    fn contestant(&self) -> Option<String> {
        self.text.is_ok().then(|| self.name().to_owned())
    }
}

fn shown(id: &str, can_vote: bool, answers: &[Answer]) -> Result<Reply> {
    let mut table = Table::new(["MODEL", "TIME#", "INPUT#", "OUTPUT#", "COST#"]);
    let mut data: Vec<Value> = Vec::new();
    for answer in answers {
        let name = visible(answer.name());
        table.row([
            name.clone(),
            answer.took.map_or_else(|| "-".to_owned(), human::duration),
            tokens(answer.tokens.map(|(input, _)| input)),
            tokens(answer.tokens.map(|(_, output)| output)),
            money(answer.cost),
        ]);
        let text = match &answer.text {
            Ok(text) => visible(text.trim()),
            Err(fault) => format!("(no answer: {})", visible(&fault.message)),
        };
        table.notes.push(format!("── {name}"));
        table.notes.extend(text.lines().map(str::to_owned));
        table.notes.push(String::new());
        data.push(json!({
            "model": answer.name(),
            "answer": answer.text.as_ref().ok(),
            "error": answer.text.as_ref().err().map(|fault| &fault.message),
            "duration_ms": answer.took.map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX)),
            "input_tokens": answer.tokens.map(|(input, _)| input),
            "output_tokens": answer.tokens.map(|(_, output)| output),
            "cost_usd": answer.cost.map(Usd::from_nano),
        }));
    }
    if can_vote {
        table.notes.push(format!("`lodestar router vote {id} MODEL|tie` says which is best"));
    }
    let failed = answers.iter().all(|answer| answer.text.is_err());
    let id = can_vote.then_some(id);
    let reply = Reply::json(&json!({"id": id, "answers": data}))?;
    Ok(reply.table(table).exit_code(u8::from(failed)))
}

fn shown_board(board: &[Standing]) -> Result<Reply> {
    let mut table = Table::new(["MODEL", "RATING#", "95%#", "WON#", "LOST#", "TIED#"]);
    let mut data: Vec<Value> = Vec::new();
    for standing in board {
        let (low, high) = standing.interval;
        table.row([
            visible(&standing.model),
            format!("{:.0}", standing.rating),
            format!("{low:.0} to {high:.0}"),
            standing.wins.to_string(),
            standing.losses.to_string(),
            standing.ties.to_string(),
        ]);
        data.push(json!({
            "model": standing.model,
            "rating": standing.rating.round(),
            "low": low.round(),
            "high": high.round(),
            "won": standing.wins,
            "lost": standing.losses,
            "tied": standing.ties,
        }));
    }
    table.notes.push(if board.is_empty() {
        "there are no votes yet; `lodestar router compare` asks, `vote` counts".to_owned()
    } else {
        "models whose intervals overlap may be as good as each other".to_owned()
    });
    Ok(Reply::json(&data)?.table(table))
}

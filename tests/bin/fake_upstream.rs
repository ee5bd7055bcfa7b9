//! A fake provider of models as a program of its own.
//!
//! It prints its address, reads commands from standard input, one JSON value on a line, and ends
//! with it: `{"always": ANSWER}`, `{"next": ANSWER}`, `{"model": {"name": "m", "answer": ANSWER}}`,
//! `{"only_models": ["m"]}`, `"stop"`, `"start"`, and `"exchanges"`, which prints the record as one
//! line. Every command is answered by a line; `null` stands for done.

use std::io::{BufRead as _, Write as _};

use harness::{FakeUpstream, upstream::Answer};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Command {
    Always(Answer),
    Next(Answer),
    Model { name: String, answer: Answer },
    OnlyModels(Vec<String>),
    Stop,
    Start,
    Exchanges,
}

fn main() -> std::io::Result<()> {
    let mut upstream = FakeUpstream::start();
    let mut output = std::io::stdout();
    writeln!(output, "{}", upstream.address())?;
    for line in std::io::stdin().lock().lines() {
        let answer = match serde_json::from_str(&line?) {
            Ok(command) => obey(&mut upstream, command),
            Err(error) => json!({"error": error.to_string()}),
        };
        writeln!(output, "{answer}")?;
        output.flush()?;
    }
    Ok(())
}

fn obey(upstream: &mut FakeUpstream, command: Command) -> Value {
    match command {
        Command::Always(answer) => upstream.always(answer),
        Command::Next(answer) => upstream.next(answer),
        Command::Model { name, answer } => upstream.model(&name, answer),
        Command::OnlyModels(models) => {
            upstream.only_models(&models.iter().map(String::as_str).collect::<Vec<_>>());
        }
        Command::Stop => upstream.stop(),
        Command::Start => upstream.start_again(),
        Command::Exchanges => return json!(upstream.exchanges()),
    }
    Value::Null
}

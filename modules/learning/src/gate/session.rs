//! A measuring: all that gates look at, and the server that they ask.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use module_sdk::Result;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use super::{DataFacts, Fault, Limits, Reference, answers::Pair};
use crate::{
    deploy::{Adapter, Answered, Called, Memory, Model, NextToken, Server},
    example::Message,
};

/// A function that hears how far a measuring is, and ends it by an error.
pub(crate) type Watch<'a> = dyn FnMut(u64, Option<u64>, &str) -> Result<()> + 'a;

/// A function that has the trainer say which tokens it expects, until a time at most. It calls the
/// other one while it waits.
pub(crate) type Reckon<'a> =
    dyn FnMut(Instant, &mut dyn FnMut() -> Result<()>) -> Asked<Reference> + 'a;

/// Outcome of a question to the server.
pub(super) type Asked<T> = std::result::Result<T, Fault>;

/// A model that is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Who {
    /// The base alone.
    Base,
    /// The version.
    Version,
}

/// The server with the base and the version.
pub(crate) struct Target {
    /// The server.
    pub(crate) server: Server,
    /// The version, which is installed.
    pub(crate) adapter: Adapter,
    /// Longest answer, in tokens.
    pub(crate) most: u32,
}

impl Target {
    pub(super) fn model(&self, who: Who) -> Model<'_> {
        match who {
            Who::Base => Model::Base(&self.adapter.base),
            Who::Version => Model::Version(&self.adapter),
        }
    }
}

/// A held-out example.
#[derive(Debug, Clone)]
pub(crate) struct HeldOut {
    /// The conversation before the answer.
    pub(super) messages: Vec<Message>,
    /// The answer that was kept.
    pub(super) answer: Message,
    /// Descriptions of the tools that the model was offered.
    pub(super) tools: Option<Value>,
}

impl HeldOut {
    /// Reads a line of a dataset.
    pub(crate) fn read(line: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Line {
            messages: Vec<Message>,
            #[serde(default)]
            tools: Option<Value>,
        }
        let Line { mut messages, tools } = serde_json::from_str(line).ok()?;
        let answer = messages.pop()?;
        (!messages.is_empty()).then_some(Self { messages, answer, tools })
    }
}

/// All that gates look at.
pub(crate) struct Session<'a> {
    limits: &'a Limits,
    facts: DataFacts,
    held_out: Arc<[HeldOut]>,
    seed: u64,
    target: Option<Target>,
    runtime: Runtime,
    reckon: &'a mut Reckon<'a>,
    watch: &'a mut Watch<'a>,
    /// Answers that were asked for, by the model, the question and its bound.
    answers: HashMap<(Who, String, u32), Answered>,
    deadline: Instant,
    /// The gate that is measured, and how many questions of it were asked.
    gate: &'static str,
    asked: u64,
    total: Option<u64>,
}

impl<'a> Session<'a> {
    /// Begins a measuring.
    ///
    /// # Errors
    ///
    /// When the system gives no means to ask a server.
    pub(crate) fn new(
        limits: &'a Limits,
        facts: DataFacts,
        held_out: Vec<HeldOut>,
        seed: u64,
        target: Option<Target>,
        reckon: &'a mut Reckon<'a>,
        watch: &'a mut Watch<'a>,
    ) -> Result<Self> {
        let time = Duration::from_secs(u64::from(limits.minutes) * 60);
        Ok(Self {
            limits,
            facts,
            held_out: held_out.into(),
            seed,
            target,
            runtime: Builder::new_current_thread().enable_all().build()?,
            reckon,
            watch,
            answers: HashMap::new(),
            deadline: Instant::now() + time,
            gate: "",
            asked: 0,
            total: None,
        })
    }

    pub(super) const fn limits(&self) -> &'a Limits {
        self.limits
    }

    pub(super) const fn facts(&self) -> &DataFacts {
        &self.facts
    }

    pub(super) const fn seed(&self) -> u64 {
        self.seed
    }

    pub(super) fn held_out(&self) -> Arc<[HeldOut]> {
        Arc::clone(&self.held_out)
    }

    /// Notes which gate is measured from now on.
    pub(super) fn begin(&mut self, gate: &'static str) -> Result<()> {
        (self.gate, self.asked, self.total) = (gate, 0, None);
        (self.watch)(0, None, gate)
    }

    /// Notes how many questions the gate will ask.
    pub(super) const fn expect(&mut self, total: usize) {
        self.total = Some(total as u64);
    }

    /// Notes that a question was asked, or is about to be.
    fn step(&mut self) -> Asked<()> {
        if Instant::now() >= self.deadline {
            let minutes = self.limits.minutes;
            return Err(Fault::NotMeasured(format!(
                "the {minutes} minutes of a measuring were over (`gates.minutes`)"
            )));
        }
        (self.watch)(self.asked, self.total, &format!("questions of {}", self.gate))?;
        self.asked += 1;
        Ok(())
    }

    /// Returns the server.
    pub(super) fn target(&self) -> Asked<&Target> {
        let reason = || Fault::NotMeasured("no server is configured (`serving`)".to_owned());
        self.target.as_ref().ok_or_else(reason)
    }

    /// Returns the answer of a model to a question, which is asked once.
    pub(super) fn answer(&mut self, who: Who, messages: &[Message], most: u32) -> Asked<Answered> {
        let messages = json!(messages);
        let key = (who, messages.to_string(), most);
        if let Some(known) = self.answers.get(&key) {
            return Ok(known.clone());
        }
        let answered = self.ask(who, &messages, most)?;
        self.answers.insert(key, answered.clone());
        Ok(answered)
    }

    fn ask(&mut self, who: Who, messages: &Value, most: u32) -> Asked<Answered> {
        self.step()?;
        let target = self.target()?;
        let asked = target.server.answer(target.model(who), messages, most);
        Ok(self.runtime.block_on(asked)?)
    }

    /// Asks a question that was answered once more, and keeps the shorter time: what else the
    /// machine does makes an answer slower and never quicker.
    fn time_again(&mut self, who: Who, messages: &[Message], most: u32) -> Asked<()> {
        let messages = json!(messages);
        let elapsed = self.ask(who, &messages, most)?.elapsed;
        if let Some(known) = self.answers.get_mut(&(who, messages.to_string(), most)) {
            known.elapsed = known.elapsed.min(elapsed);
        }
        Ok(())
    }

    /// Returns the answer of a model that may call tools.
    pub(super) fn called(&mut self, who: Who, example: &HeldOut, tools: &Value) -> Asked<Called> {
        self.step()?;
        let target = self.target()?;
        let (model, messages) = (target.model(who), json!(example.messages));
        let asked = target.server.answer_with_tools(model, &messages, tools, target.most);
        Ok(self.runtime.block_on(asked)?)
    }

    /// Returns the token that a model puts after a text.
    pub(super) fn next_token(&mut self, who: Who, text: &str) -> Asked<NextToken> {
        self.step()?;
        let target = self.target()?;
        Ok(self.runtime.block_on(target.server.next_token(target.model(who), text))?)
    }

    /// Returns the number of tokens that the server makes of a conversation, where it tells.
    pub(super) fn chat_tokens(
        &mut self,
        messages: &Value,
        tools: Option<&Value>,
    ) -> Asked<Option<u64>> {
        self.step()?;
        let target = self.target()?;
        let model = target.model(Who::Version);
        Ok(self.runtime.block_on(target.server.chat_tokens(model, messages, tools))?)
    }

    /// Returns whether the server says that its base is quantised.
    pub(super) fn is_quantised(&mut self) -> Asked<bool> {
        let target = self.target()?;
        Ok(self.runtime.block_on(target.server.is_quantised(&target.adapter.base))?)
    }

    /// Returns the memory that the server takes.
    pub(super) fn memory(&mut self) -> Asked<Memory> {
        let target = self.target()?;
        Ok(self.runtime.block_on(target.server.memory(&target.adapter))?)
    }

    /// Returns the answers of both to the held-out questions. A call of a tool has no text to
    /// compare.
    pub(super) fn pairs(&mut self) -> Asked<Vec<Pair>> {
        let most = self.target()?.most;
        let held_out = self.held_out();
        let chosen = self.questions(&held_out);
        self.expect(2 * chosen.len());
        let mut pairs = Vec::with_capacity(chosen.len());
        for example in chosen {
            let base = self.answer(Who::Base, &example.messages, most)?;
            let version = self.answer(Who::Version, &example.messages, most)?;
            pairs.push(Pair {
                reference: example.answer.content.clone(),
                base: (base.text, base.elapsed),
                version: (version.text, version.elapsed),
            });
        }
        Ok(pairs)
    }

    /// Returns the same answers with the shorter of their times when all are asked once more.
    pub(super) fn pairs_again(&mut self) -> Asked<Vec<Pair>> {
        let most = self.target()?.most;
        let held_out = self.held_out();
        let chosen = self.questions(&held_out);
        self.expect(2 * chosen.len());
        for example in chosen {
            for who in [Who::Base, Who::Version] {
                self.time_again(who, &example.messages, most)?;
            }
        }
        self.pairs()
    }

    /// Returns the held-out examples whose answer is text.
    fn questions<'b>(&self, held_out: &'b [HeldOut]) -> Vec<&'b HeldOut> {
        let has_text =
            |it: &&HeldOut| !it.answer.content.trim().is_empty() && it.answer.tool_calls.is_none();
        held_out.iter().filter(has_text).take(self.limits.questions as usize).collect()
    }

    /// Returns what the trainer expects.
    pub(super) fn reference(&mut self) -> Asked<Reference> {
        let (watch, gate) = (&mut *self.watch, self.gate);
        (self.reckon)(self.deadline, &mut || watch(0, None, &format!("questions of {gate}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::Kind;

    #[test]
    fn nothing_is_asked_when_the_time_is_over() {
        let (limits, longer) = (Limits { minutes: 0, ..Limits::default() }, Limits::default());
        let (mut reckon, mut told) = (
            |_: Instant, _: &mut dyn FnMut() -> Result<()>| {
                Err(Fault::NotApplicable(String::new()))
            },
            0,
        );
        let mut watch = |_: u64, _: Option<u64>, _: &str| {
            told += 1;
            Ok(())
        };
        // Nobody listens there: who asks it would be told so.
        let server = Server::new(Kind::LlamaServer, "http://127.0.0.1:1");
        let target = Some(Target { server, adapter: Adapter::default(), most: 8 });
        let facts = DataFacts::default();
        let mut session =
            Session::new(&limits, facts, Vec::new(), 1, target, &mut reckon, &mut watch)
                .expect("it begins");
        let late = session.answer(Who::Base, &[], 8).expect_err("it is late");
        assert!(matches!(late, Fault::NotMeasured(words) if words.contains("gates.minutes")));
        session.limits = &longer;
        session.deadline += Duration::from_secs(60);
        let away = session.answer(Who::Base, &[], 8).expect_err("nobody is there");
        assert!(matches!(away, Fault::Ends(_)), "{away:?}");
        drop(session);
        assert_eq!(told, 1);
    }

    #[test]
    fn lines_are_read_as_questions_with_their_answers() {
        let check = |line: &str, expected: bool| {
            assert_eq!(HeldOut::read(line).is_some(), expected, "{line}");
        };
        let user = r#"{"role": "user", "content": "a"}"#;
        let answer = r#"{"role": "assistant", "content": "b"}"#;
        check(&format!(r#"{{"messages": [{user}, {answer}]}}"#), true);
        check(&format!(r#"{{"messages": [{answer}]}}"#), false);
        check("no JSON", false);
    }
}

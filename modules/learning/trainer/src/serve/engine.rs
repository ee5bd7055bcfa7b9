//! The thread that computes answers, one after the other.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::sync::{mpsc::UnboundedSender, oneshot};

use super::{
    refusal::Refusal,
    sampling::Sampling,
    text::{Growing, Stops},
};
use crate::{
    base::Base,
    failure::{Failure, Result},
    model::{Adapter, Past},
};

/// Most requests that wait for the one that is computed.
const QUEUE: usize = 8;
/// Tokens of a prompt that are computed at once.
const PART: usize = 512;

/// A question: a prompt in tokens, and how it is to be answered.
pub(super) struct Ask {
    pub prompt: Vec<u32>,
    pub adapter: Option<Arc<Adapter>>,
    /// Most tokens of the answer.
    pub most: usize,
    pub sampling: Sampling,
    pub stops: Vec<String>,
    /// Way to whoever asked. Once it is closed nothing more is computed.
    pub to: UnboundedSender<Piece>,
}

/// Part of an answer. It has text, and so no `Debug`.
pub(super) enum Piece {
    Text(String),
    End(Ended),
    Failed(Refusal),
}

/// End of an answer.
pub(super) struct Ended {
    /// `true` when the answer came to its end, `false` when it was cut off.
    pub is_whole: bool,
    /// Tokens of the answer.
    pub ids: Vec<u32>,
    /// Time until the first token, and from there on.
    pub prompt_time: Duration,
    pub answer_time: Duration,
}

/// The way to the thread.
#[derive(Clone)]
pub(super) struct Engine {
    asks: SyncSender<Ask>,
    shared: Arc<Shared>,
}

/// Parts of the base that others need, and what is being done.
struct Shared {
    base: Base,
    context: usize,
    waiting: AtomicUsize,
    is_answering: AtomicBool,
}

impl Engine {
    /// Starts the thread. What is returned beside it ends when the thread does.
    pub(super) fn start(base: Base, context: usize) -> Result<(Self, oneshot::Receiver<()>)> {
        let (asks, received) = sync_channel(QUEUE);
        let shared = Arc::new(Shared {
            base,
            context,
            waiting: AtomicUsize::default(),
            is_answering: AtomicBool::default(),
        });
        let (alive, ended) = oneshot::channel();
        let of_thread = shared.clone();
        std::thread::Builder::new()
            .name("answers".to_owned())
            .spawn(move || {
                let _alive = alive;
                work(&of_thread, &received);
            })
            .map_err(|error| Failure::other(format!("no thread can be started: {error}")))?;
        Ok((Self { asks, shared }, ended))
    }

    /// Returns the most tokens of a conversation.
    pub(super) fn context(&self) -> usize {
        self.shared.context
    }

    /// Returns the number of requests that wait, and whether one is answered.
    pub(super) fn load(&self) -> (usize, bool) {
        let waiting = self.shared.waiting.load(Ordering::Relaxed);
        (waiting, self.shared.is_answering.load(Ordering::Relaxed))
    }

    /// Returns a conversation as tokens, with the invitation to answer.
    pub(super) fn rendered(
        &self,
        messages: &[Value],
        tools: Option<&Value>,
    ) -> Result<Vec<u32>, Refusal> {
        let chat = &self.shared.base.chat;
        let text = chat.render(messages, tools, true).map_err(|kind| {
            let message = format!("the model's template does not take these messages: {kind}");
            Refusal::request("messages", message)
        })?;
        self.encoded(&text)
    }

    /// Returns a text as tokens.
    pub(super) fn encoded(&self, text: &str) -> Result<Vec<u32>, Refusal> {
        Ok(self.shared.base.chat.encode(text)?)
    }

    /// Puts a question into the queue.
    pub(super) fn ask(&self, ask: Ask) -> Result<(), Refusal> {
        let (tokens, context) = (ask.prompt.len(), self.shared.context);
        if tokens >= context {
            return Err(Refusal::too_long(tokens, context));
        }
        let rows = self.shared.base.model.shape.vocabulary;
        if tokens == 0 || ask.prompt.iter().any(|id| *id as usize >= rows) {
            return Err(Refusal::request("prompt", "the prompt is empty, or has unknown tokens"));
        }
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        self.asks.try_send(ask).map_err(|error| {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            match error {
                TrySendError::Full(_) => Refusal::busy(),
                TrySendError::Disconnected(_) => Refusal::failed("answers are not computed now"),
            }
        })
    }
}

fn work(shared: &Shared, asks: &Receiver<Ask>) {
    for mut ask in asks {
        shared.waiting.fetch_sub(1, Ordering::Relaxed);
        shared.is_answering.store(true, Ordering::Relaxed);
        let last = match answer(shared, &mut ask) {
            Ok(ended) => Piece::End(ended),
            // Nobody waits for it.
            Err(_) if ask.to.is_closed() => Piece::Failed(Refusal::busy()),
            Err(failure) => Piece::Failed(failure.into()),
        };
        // An error says that the client is gone.
        let _: Result<(), _> = ask.to.send(last);
        shared.is_answering.store(false, Ordering::Relaxed);
    }
}

fn answer(shared: &Shared, ask: &mut Ask) -> Result<Ended> {
    let Base { model, chat, .. } = &shared.base;
    let gone = || Failure::stopped("the client is gone");
    let begun = std::time::Instant::now();
    let (mut past, mut logits) = (Past::default(), None);
    for part in ask.prompt.chunks(PART) {
        if ask.to.is_closed() {
            return Err(gone());
        }
        logits = Some(model.next(ask.adapter.as_deref(), part, &mut past)?);
    }
    let mut logits = logits.ok_or_else(|| Failure::data("the prompt is empty"))?;
    let prompt_time = begun.elapsed();
    let most = ask.most.min(shared.context - ask.prompt.len());
    let (mut text, mut stops) = (Growing::default(), Stops::new(std::mem::take(&mut ask.stops)));
    let mut is_whole = false;
    while text.ids().len() < most {
        let chosen = ask.sampling.choose(&logits)?;
        let token = chosen.ok_or_else(|| Failure::other("the model computes no numbers"))?;
        if Some(token) == chat.end() {
            is_whole = true;
            break;
        }
        let new = text.push(chat, token)?;
        if !new.is_empty() {
            let (new, is_ended) = stops.push(&new);
            if !new.is_empty() && ask.to.send(Piece::Text(new)).is_err() {
                return Err(gone());
            }
            if is_ended {
                return Ok(ended(true, &text, prompt_time, begun.elapsed()));
            }
        }
        if ask.to.is_closed() {
            return Err(gone());
        }
        if text.ids().len() < most {
            logits = model.next(ask.adapter.as_deref(), &[token], &mut past)?;
        }
    }
    let (mut rest, is_ended) = stops.push(&text.rest(chat)?);
    if !is_ended {
        rest.push_str(&stops.rest());
    }
    if !rest.is_empty() {
        ask.to.send(Piece::Text(rest)).map_err(|_| gone())?;
    }
    Ok(ended(is_whole || is_ended, &text, prompt_time, begun.elapsed()))
}

fn ended(is_whole: bool, text: &Growing, prompt_time: Duration, all: Duration) -> Ended {
    let answer_time = all.saturating_sub(prompt_time);
    Ended { is_whole, ids: text.ids().to_vec(), prompt_time, answer_time }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    fn base() -> Base {
        let folder = tempfile::tempdir().expect("a folder");
        crate::tiny::make(folder.path(), 0, 1).expect("it is made");
        Base::open(folder.path()).expect("it is whole")
    }

    fn ask(to: UnboundedSender<Piece>, most: usize) -> Ask {
        let sampling = Sampling::new(Some(0.0), None, None).expect("it is taken");
        Ask { prompt: vec![3; 4], adapter: None, most, sampling, stops: Vec::new(), to }
    }

    #[test]
    fn more_than_a_few_that_wait_are_turned_away() {
        // Nobody works on what waits.
        let (asks, received) = sync_channel(QUEUE);
        let (waiting, is_answering) = (AtomicUsize::default(), AtomicBool::default());
        let shared = Arc::new(Shared { base: base(), context: 16, waiting, is_answering });
        let engine = Engine { asks, shared };
        let (to, _pieces) = unbounded_channel();
        for _ in 0..QUEUE {
            engine.ask(ask(to.clone(), 1)).expect("it waits");
        }
        let busy = engine.ask(ask(to.clone(), 1)).expect_err("there are too many");
        assert_eq!(busy, Refusal::busy());
        assert_eq!(engine.load(), (QUEUE, false));
        let long = Ask { prompt: vec![3; 16], ..ask(to.clone(), 1) };
        assert_eq!(engine.ask(long), Err(Refusal::too_long(16, 16)));
        let unknown = Ask { prompt: vec![u32::MAX], ..ask(to.clone(), 1) };
        engine.ask(unknown).expect_err("there is no such token");
        drop(received);
        engine.ask(ask(to, 1)).expect_err("nobody works any more");
    }

    #[test]
    fn nothing_is_computed_for_a_client_that_is_gone() {
        let (waiting, is_answering) = (AtomicUsize::default(), AtomicBool::default());
        let shared = Shared { base: base(), context: 64, waiting, is_answering };
        let (to, pieces) = unbounded_channel();
        let mut stays = ask(to, 8);
        assert!(answer(&shared, &mut stays).is_ok_and(|it| it.ids.len() <= 8));
        drop(pieces);
        let gone = answer(&shared, &mut stays).err().expect("nobody is there");
        assert_eq!(gone.class, crate::failure::Class::Stopped);
    }
}

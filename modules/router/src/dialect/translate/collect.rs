//! A whole answer, put together from the stream in which it came.

use std::borrow::Cow;

use super::{
    TranslateError,
    ir::{Answer, Arguments, Block},
    stream::{Delta, merge},
};

/// Collector of the pieces of one answer.
#[derive(Default)]
pub(super) struct Collector {
    answer: Answer<'static>,
    /// Calls by the keys of the stream, with the places of their blocks.
    calls: Vec<(u64, usize)>,
    is_whole: bool,
}

impl Collector {
    /// Adds a piece.
    pub(super) fn add(&mut self, delta: Delta<'_>) {
        match delta {
            Delta::Id(id) => self.answer.id = Some(id.into_owned().into()),
            Delta::Text(text) => match self.answer.blocks.last_mut() {
                Some(Block::Text(so_far)) => so_far.to_mut().push_str(&text),
                _ => self.push(Block::Text(owned(text))),
            },
            Delta::Refusal(text) => match self.answer.blocks.last_mut() {
                Some(Block::Refusal(so_far)) => so_far.to_mut().push_str(&text),
                _ => self.push(Block::Refusal(owned(text))),
            },
            Delta::Thinking(text) => match self.answer.blocks.last_mut() {
                Some(Block::Thinking { text: so_far, .. }) => so_far.to_mut().push_str(&text),
                _ => self.push(Block::Thinking { text: owned(text), is_sealed: false }),
            },
            Delta::Call { key, id, name } => {
                self.calls.push((key, self.answer.blocks.len()));
                let arguments = Arguments::Text(Cow::Borrowed(""));
                self.push(Block::ToolUse { id: owned(id), name: owned(name), arguments });
            }
            Delta::Arguments { key, text } => {
                let place = self.calls.iter().rev().find(|(of, _)| *of == key);
                let block = place.and_then(|(_, at)| self.answer.blocks.get_mut(*at));
                if let Some(Block::ToolUse { arguments: Arguments::Text(so_far), .. }) = block {
                    so_far.to_mut().push_str(&text);
                }
            }
            Delta::Logprobs(later) => self.answer.logprobs.go_on(later.into_owned()),
            Delta::Stop { stop, sequence } => {
                self.answer.ending.stop = stop;
                self.answer.ending.stop_sequence = sequence;
                self.is_whole = true;
            }
            Delta::Whole => self.is_whole = true,
            Delta::Usage(usage) => merge(&mut self.answer.ending.usage, &usage),
            Delta::Timings(timings) => self.answer.ending.timings = timings,
        }
    }

    fn push(&mut self, block: Block<'static>) {
        // An empty piece begins nothing.
        let is_empty = matches!(&block, Block::Text(text) | Block::Refusal(text)
            | Block::Thinking { text, .. } if text.is_empty());
        if !is_empty {
            self.answer.blocks.push(block);
        }
    }

    /// Returns the answer.
    ///
    /// # Errors
    ///
    /// When the provider never said that it is whole.
    pub(super) fn finish(self) -> Result<Answer<'static>, TranslateError> {
        if self.is_whole {
            Ok(self.answer)
        } else {
            Err(TranslateError::Malformed("the stream ended before the answer was whole"))
        }
    }
}

fn owned(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}

//! Turns: a long transcript becomes one example for each answer that ends a turn.

use module_sdk::events::ContentRole;
use serde_json::{Value, json};

use super::{Found, LineError, Lines, Take, jsonl};
use crate::example::Message;

/// Most characters of the messages before an answer; older ones are left out.
const CONTEXT_CHARS: usize = 16_000;

/// A transcript that is read message by message.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The conversation, as the file names it.
    pub conversation: Option<String>,
    /// The model that answers.
    pub model: Option<String>,
    messages: Vec<Message>,
    /// Time and reason of the end of the last answer, and the number of its line.
    last: Option<(u64, Option<i64>, Option<String>)>,
}

impl Turns {
    /// Reads a transcript: `entry` adds a line of it.
    pub(super) fn of(
        mut lines: Lines<'_>,
        take: Take<'_>,
        entry: fn(&mut Self, u64, &Value, Take<'_>) -> module_sdk::Result<()>,
    ) -> module_sdk::Result<()> {
        let mut turns = Self::default();
        while let Some((number, line)) = lines.next_line()? {
            match line.and_then(jsonl::parse) {
                Ok(value) => entry(&mut turns, number, &value, take)?,
                Err(error) => take(number, Err(error))?,
            }
        }
        turns.end_turn(take)
    }

    /// Adds what a person or the operator wrote: the turn before it has ended.
    pub(super) fn asked(
        &mut self,
        role: ContentRole,
        text: String,
        take: Take<'_>,
    ) -> module_sdk::Result<()> {
        self.end_turn(take)?;
        self.messages.push(Message { role, content: text, tool_calls: None });
        Ok(())
    }

    /// Adds what the model wrote; parts of one answer are joined.
    pub(super) fn answered(
        &mut self,
        line: u64,
        text: &str,
        at: Option<i64>,
        finish_reason: Option<String>,
    ) {
        let answer = self.answer();
        if !answer.content.is_empty() && !text.is_empty() {
            answer.content.push('\n');
        }
        answer.content.push_str(text);
        self.last = Some((line, at, finish_reason));
    }

    /// Adds a call of a tool to the answer.
    pub(super) fn called(&mut self, line: u64, id: &str, name: &str, arguments: &str) {
        let call = json!({
            "id": id, "type": "function", "function": {"name": name, "arguments": arguments},
        });
        let answer = self.answer();
        match &mut answer.tool_calls {
            Some(Value::Array(calls)) => calls.push(call),
            calls => *calls = Some(json!([call])),
        }
        self.last = Some((line, None, None));
    }

    /// Adds what a tool answered.
    pub(super) fn returned(&mut self, text: String) {
        self.messages.push(Message { role: ContentRole::Tool, content: text, tool_calls: None });
    }

    /// Ends the turn, which becomes an example where it ends with an answer in words.
    pub(super) fn end_turn(&mut self, take: Take<'_>) -> module_sdk::Result<()> {
        let Some((line, at, finish_reason)) = self.last.take() else { return Ok(()) };
        let is_answer = self.messages.last().is_some_and(|last| {
            last.role == ContentRole::Assistant
                && last.tool_calls.is_none()
                && !last.content.trim().is_empty()
        });
        if !is_answer {
            return Ok(());
        }
        let (messages, truncated) = self.context();
        if !messages.iter().any(|it| it.role == ContentRole::User) {
            return take(line, Err(LineError::NoQuestion));
        }
        let found = Found {
            conversation: self.conversation.clone(),
            id: None,
            at,
            model: self.model.clone(),
            messages,
            tools: None,
            finish_reason,
            // Older turns that are left out make the answer no worse, unless they cut into its own.
            truncated,
            feedback: None,
        };
        take(line, Ok(found))
    }

    /// Returns the answer that is written at the moment.
    fn answer(&mut self) -> &mut Message {
        let goes_on = self.last.is_some()
            && self.messages.last().is_some_and(|it| it.role == ContentRole::Assistant);
        if !goes_on {
            let (role, content) = (ContentRole::Assistant, String::new());
            self.messages.push(Message { role, content, tool_calls: None });
        }
        self.messages.last_mut().expect("a message was pushed if there was none")
    }

    /// Returns the last messages that find room, from a question on, and whether the turn of the
    /// answer itself is cut.
    fn context(&self) -> (Vec<Message>, bool) {
        let is_question = |it: &Message| it.role == ContentRole::User;
        let own = self.messages.iter().rposition(is_question).unwrap_or(0);
        let (mut room, mut from) = (CONTEXT_CHARS, self.messages.len());
        for (index, message) in self.messages.iter().enumerate().rev() {
            let chars = message.content.chars().count();
            if index + 1 < self.messages.len() && chars > room {
                break;
            }
            room = room.saturating_sub(chars);
            from = index;
        }
        let begin = (from..self.messages.len()).find(|index| is_question(&self.messages[*index]));
        let begin = begin.unwrap_or(own);
        let mut messages: Vec<Message> = self.messages[begin..].to_vec();
        if let Some(first) = self.messages.first().filter(|it| it.role == ContentRole::System)
            && begin > 0
            && first.content.chars().count() <= room
        {
            messages.insert(0, first.clone());
        }
        (messages, from > own)
    }
}

/// Returns the texts of the parts of a message, a line each.
pub(super) fn text_of(parts: &[Value]) -> String {
    let texts = parts.iter().filter_map(|part| part.get("text")?.as_str());
    texts.collect::<Vec<_>>().join("\n")
}

/// Returns all that is taken from a transcript, for the tests of its readers.
#[cfg(test)]
pub(super) fn turns_of(
    text: &str,
    read: fn(Lines<'_>, Take<'_>) -> module_sdk::Result<()>,
) -> Vec<(u64, Result<Found, LineError>)> {
    let mut all = Vec::new();
    let mut take = |line, found| {
        all.push((line, found));
        Ok(())
    };
    read(Lines::new(&mut text.as_bytes()), &mut take).expect("it is read");
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn play(story: impl FnOnce(&mut Turns, Take<'_>)) -> Vec<Found> {
        let (mut turns, mut all) = (Turns::default(), Vec::new());
        let mut take = |_: u64, found: Result<Found, LineError>| {
            all.extend(found.ok());
            Ok(())
        };
        story(&mut turns, &mut take);
        turns.end_turn(&mut take).expect("it ends");
        all
    }

    #[test]
    fn each_turn_becomes_an_example_with_those_before_it() {
        let found = play(|turns, take| {
            for (line, text) in (1..).zip(["one", "two"]) {
                turns.asked(ContentRole::User, text.to_owned(), take).expect("it is taken");
                turns.answered(line, "part", None, None);
                turns.answered(line, text, Some(7), Some("end_turn".to_owned()));
            }
        });
        assert_eq!(found.iter().map(|it| it.messages.len()).collect::<Vec<_>>(), [2, 4]);
        assert_eq!(found[0].messages[1].content, "part\none");
        assert_eq!((found[1].at, found[1].truncated), (Some(7), false));
    }

    #[test]
    fn calls_of_tools_stand_before_the_answer() {
        let found = play(|turns, take| {
            turns.asked(ContentRole::User, "q".to_owned(), take).expect("it is taken");
            turns.called(1, "1", "read", "{}");
            turns.called(2, "2", "read", "{}");
            turns.returned("text".to_owned());
            turns.answered(3, "a", None, None);
        });
        let calls = found[0].messages[1].tool_calls.as_ref().and_then(Value::as_array);
        assert_eq!((found[0].messages.len(), calls.map(Vec::len)), (4, Some(2)));
    }

    #[test]
    fn a_turn_without_an_answer_in_words_is_none() {
        let found = play(|turns, take| {
            turns.asked(ContentRole::User, "q".to_owned(), take).expect("it is taken");
            turns.called(1, "1", "read", "{}");
            turns.asked(ContentRole::User, "never mind".to_owned(), take).expect("it is taken");
        });
        assert!(found.is_empty());
    }

    #[test]
    fn old_turns_are_left_out_where_there_is_no_room() {
        let found = play(|turns, take| {
            turns.asked(ContentRole::System, "be kind".to_owned(), take).expect("it is taken");
            for text in ["x".repeat(CONTEXT_CHARS), "short".to_owned()] {
                turns.asked(ContentRole::User, text, take).expect("it is taken");
                turns.answered(1, "answer", None, None);
            }
        });
        let roles: Vec<&str> = found[1].messages.iter().map(|it| it.role.as_str()).collect();
        assert_eq!(roles, ["system", "user", "assistant"]);
        assert!(!found[1].truncated && found[0].truncated);
    }
}

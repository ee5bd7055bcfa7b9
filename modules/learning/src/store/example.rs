//! Examples: conversations that end with an answer.

use std::{collections::HashMap, fmt};

use module_sdk::Result;
use module_sqlite::rusqlite::{self, Connection, OptionalExtension as _, Row, Transaction, params};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{
    Attestation, Consent, Scope, Signal, Store, Weights,
    consent::{all_hold, attestations, of_project},
    feedback::{insert, is_followed, outcome},
};
use crate::{
    example::{Example, LicenceClass, Message, Outcome},
    licence::{Licences, spelt},
};

/// Time within which the same question again means that the answer was not good enough.
const RETRY_MS: i64 = 60_000;

/// Source of an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A request whose text was published.
    Event,
    /// A file of conversations, one a line.
    Jsonl,
    /// A transcript of Claude Code.
    ClaudeCode,
    /// A transcript of Codex.
    Codex,
}

impl Origin {
    /// Returns the word in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Jsonl => "jsonl",
            Self::ClaudeCode => "claude_code",
            Self::Codex => "codex",
        }
    }

    /// Returns the source of a word in the database.
    fn of(word: &str) -> Option<Self> {
        let all = [Self::Event, Self::Jsonl, Self::ClaudeCode, Self::Codex];
        all.into_iter().find(|it| it.as_str() == word)
    }

    /// Returns whether an answer that names no model counts as one of the project's own people: who
    /// imports a file of conversations chose its lines, and names the model where one wrote them.
    #[must_use]
    pub const fn is_own_without_model(self) -> bool {
        matches!(self, Self::Jsonl)
    }
}

/// An example to be kept. Its `Debug` shows no text.
#[derive(Clone, PartialEq)]
pub struct NewExample {
    /// Its id: the same text of the same place has the same.
    pub id: String,
    /// The project.
    pub project: String,
    /// The session or the place in a file.
    pub conversation: String,
    /// Origin of it.
    pub origin: Origin,
    /// Key of the request.
    pub dedupe_key: Option<String>,
    /// Id of the request, by which feedback names it.
    pub request_id: Option<String>,
    /// Time of the answer.
    pub at: i64,
    /// The model that answered.
    pub model: Option<String>,
    /// Id of the consent that it is kept under.
    pub consent: String,
    /// The messages, the answer last.
    pub messages: Vec<Message>,
    /// Tools that the model was offered.
    pub tools: Option<Value>,
    /// Reason for the end of the answer.
    pub finish_reason: Option<String>,
    /// `true` when some of the text is missing.
    pub truncated: bool,
    /// Feedback that came along.
    pub feedback: Option<Signal>,
}

impl fmt::Debug for NewExample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let messages = self.messages.len();
        write!(f, "NewExample({}, {}, {messages} messages)", self.id, self.origin.as_str())
    }
}

/// Result of keeping an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It was new.
    New,
    /// It was here already.
    Known,
    /// Somebody wanted it forgotten.
    Forgotten,
    /// Its consent holds no more.
    NoConsent,
}

impl Store {
    /// Keeps examples, each once, in one transaction.
    ///
    /// # Errors
    ///
    /// When the database cannot be written; none is kept then.
    pub fn keep(&self, examples: &[NewExample], now: i64) -> Result<Vec<Kept>> {
        self.write(|transaction| {
            examples.iter().map(|example| keep(transaction, example, now)).collect()
        })
    }

    /// Returns which of these examples are here, and how.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn known(&self, examples: &[NewExample]) -> Result<Vec<Kept>> {
        self.read(|connection| {
            examples.iter().map(|example| standing(connection, &example.id)).collect()
        })
    }

    /// Notes how a request ended: with its example, or until that comes.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub fn ended(
        &self,
        dedupe_key: &str,
        at: i64,
        finish_reason: Option<&str>,
        failed: bool,
    ) -> Result<()> {
        self.write(|transaction| {
            let sql = "UPDATE example SET finish_reason = ?2, failed = ?3 WHERE dedupe_key = ?1";
            let changed = transaction.prepare_cached(sql)?.execute(params![
                dedupe_key,
                finish_reason,
                failed
            ])?;
            if changed == 0 {
                let sql = "INSERT OR REPLACE INTO ending VALUES (?1, ?2, ?3, ?4)";
                transaction.prepare_cached(sql)?.execute(params![
                    dedupe_key,
                    at,
                    finish_reason,
                    failed
                ])?;
            }
            Ok(())
        })
    }
}

/// Returns the hash of a question: of all messages before the answer, however they are spaced.
#[must_use]
pub fn question(messages: &[Message]) -> Vec<u8> {
    let mut hash = Sha256::new();
    let asked = messages.split_last().map_or(&[][..], |(_, asked)| asked);
    for message in asked {
        hash.update(message.role.as_str());
        for word in message.content.split_whitespace() {
            hash.update(b" ");
            hash.update(word.to_lowercase());
        }
        hash.update(b"\n");
    }
    hash.finalize()[..16].to_vec()
}

fn standing(connection: &Connection, id: &str) -> rusqlite::Result<Kept> {
    let known = connection
        .prepare_cached(
            "SELECT forgotten_at IS NOT NULL, messages = '' FROM example WHERE id = ?1",
        )?
        .query_row([id], |row| Ok((row.get::<_, bool>(0)?, row.get::<_, bool>(1)?)))
        .optional()?;
    Ok(match known {
        // Its text went with its time, and marks alone stay for a dataset: the text is new.
        None | Some((false, true)) => Kept::New,
        Some((false, false)) => Kept::Known,
        Some((true, _)) => Kept::Forgotten,
    })
}

fn keep(transaction: &Transaction<'_>, new: &NewExample, now: i64) -> rusqlite::Result<Kept> {
    let known = standing(transaction, &new.id)?;
    if known == Kept::Known
        && let Some(model) = &new.model
    {
        // It was imported without one before.
        let sql = "UPDATE example SET model = ?2 WHERE id = ?1 AND model IS NULL";
        transaction.prepare_cached(sql)?.execute((&new.id, model))?;
    }
    if known != Kept::New {
        return Ok(known);
    }
    if !all_hold(transaction, &[&new.consent], now)? {
        return Ok(Kept::NoConsent);
    }
    let ending: Option<(Option<String>, bool)> = match &new.dedupe_key {
        Some(key) => transaction
            .prepare_cached(
                "DELETE FROM ending WHERE dedupe_key = ?1 RETURNING finish_reason, failed",
            )?
            .query_row([key], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?,
        None => None,
    };
    let (finish_reason, failed) = ending.unwrap_or_default();
    let question = question(&new.messages);
    let sql = "INSERT INTO example (id, project, conversation, origin, dedupe_key, request_id, \
               at, kept_at, model, consent, messages, tools, question, finish_reason, failed, \
               truncated) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16) \
               ON CONFLICT (id) DO UPDATE SET kept_at = excluded.kept_at, \
               model = coalesce(model, excluded.model), \
               consent = excluded.consent, messages = excluded.messages, \
               tools = excluded.tools, question = excluded.question \
               WHERE messages = '' AND forgotten_at IS NULL";
    transaction.prepare_cached(sql)?.execute(params![
        new.id,
        new.project,
        new.conversation,
        new.origin.as_str(),
        new.dedupe_key,
        new.request_id,
        new.at,
        now,
        new.model,
        new.consent,
        json(&new.messages)?,
        new.tools.as_ref().map(json).transpose()?,
        question,
        finish_reason.or_else(|| new.finish_reason.clone()),
        failed,
        new.truncated,
    ])?;
    if new.origin == Origin::Event {
        note_retry(transaction, new, &question)?;
    }
    if let Some(signal) = &new.feedback {
        insert(transaction, signal)?;
    }
    Ok(Kept::New)
}

/// Notes that the answer before was asked for again within a minute.
fn note_retry(
    transaction: &Transaction<'_>,
    new: &NewExample,
    question: &[u8],
) -> rusqlite::Result<()> {
    let sql = "SELECT id FROM example WHERE conversation = ?1 AND question = ?2 AND id <> ?3 \
               AND at >= ?4 AND at <= ?5 AND forgotten_at IS NULL ORDER BY at DESC LIMIT 1";
    let before: Option<String> = transaction
        .prepare_cached(sql)?
        .query_row(params![new.conversation, question, new.id, new.at - RETRY_MS, new.at], |row| {
            row.get(0)
        })
        .optional()?;
    let Some(before) = before else { return Ok(()) };
    insert(
        transaction,
        &Signal {
            id: format!("retry:{before}"),
            about: Some(before),
            origin: "implicit".to_owned(),
            retried: Some(true),
            at: new.at,
            ..Signal::default()
        },
    )
}

/// Returns a value as JSON for a column.
fn json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// Returns the examples of some projects with all that is known of them, the oldest first.
///
/// # Errors
///
/// When the database cannot be read.
pub fn load(
    connection: &Connection,
    projects: &[String],
    licences: &Licences,
    weights: &Weights,
    now: i64,
) -> rusqlite::Result<Vec<Example>> {
    let attested = attestations(connection)?;
    let mut examples = Vec::new();
    for project in projects {
        let consents = of_project(connection, project)?;
        let known = Known::new(project, &consents, &attested, licences, now);
        let sql = "SELECT id, conversation, dedupe_key, request_id, at, model, consent, messages, \
                   tools, finish_reason, failed, truncated, origin, number FROM example \
                   WHERE project = ?1 AND forgotten_at IS NULL AND messages <> '' \
                   ORDER BY at, number";
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query([project])?;
        while let Some(row) = rows.next()? {
            let example = known.example(connection, row, project, weights)?;
            examples.push(example);
        }
    }
    Ok(examples)
}

/// All that an example of a project is judged by.
struct Known<'a> {
    /// `true` when somebody answers for answers that name no model.
    is_answered_for: bool,
    consents: HashMap<&'a str, &'a Consent>,
    /// The newest consent that holds now: for text of requests, and for files.
    holding: [Option<&'a str>; 2],
    attested: &'a [Attestation],
    licences: &'a Licences,
    now: i64,
}

impl<'a> Known<'a> {
    fn new(
        project: &str,
        consents: &'a [Consent],
        attested: &'a [Attestation],
        licences: &'a Licences,
        now: i64,
    ) -> Self {
        let holding = [Scope::Capture, Scope::Import].map(|scope| {
            let holds = |one: &&Consent| one.holds_at(now) && one.scope.covers(scope);
            consents.iter().find(holds).map(|one| &*one.id)
        });
        let consents = consents.iter().map(|one| (&*one.id, one)).collect();
        let is_of = |one: &Attestation| one.project.as_deref() == Some(project);
        let is_answered_for = attested.iter().any(is_of);
        Self { is_answered_for, consents, holding, attested, licences, now }
    }

    /// Returns the consent by which an example may be used now. One that has run out is followed
    /// by a newer one; what was taken back stays so.
    fn consent(&self, kept_under: &str, is_file: bool) -> Option<String> {
        let consent = self.consents.get(kept_under)?;
        match consent.revoked_at {
            Some(_) => None,
            None if consent.holds_at(self.now) => Some(consent.id.clone()),
            None => self.holding[usize::from(is_file)].map(str::to_owned),
        }
    }

    fn example(
        &self,
        connection: &Connection,
        row: &Row<'_>,
        project: &str,
        weights: &Weights,
    ) -> rusqlite::Result<Example> {
        let (id, conversation): (String, String) = (row.get(0)?, row.get(1)?);
        let (key, request): (Option<String>, Option<String>) = (row.get(2)?, row.get(3)?);
        let model: Option<String> = row.get(5)?;
        let kept_under: String = row.get(6)?;
        let origin = Origin::of(&row.get::<_, String>(12)?);
        let is_file = origin != Some(Origin::Event);
        let licence = match model.as_deref() {
            Some(model) => self.licences.of(model),
            None if origin.is_some_and(Origin::is_own_without_model) => LicenceClass::Own,
            None => LicenceClass::Unknown,
        };
        let attested = match model.as_deref().map(spelt) {
            Some(name) => {
                let is_of = |one: &Attestation| one.project.is_none() && one.model == name;
                self.attested.iter().any(is_of)
            }
            None => self.is_answered_for,
        };
        let (at, number): (i64, i64) = (row.get(4)?, row.get(13)?);
        let followed = is_followed(connection, request.as_deref(), at, number)?;
        // What is said of a request is said of the answer that its client got.
        let request = request.filter(|_| !followed);
        let about = [Some(&id), key.as_ref(), request.as_ref()];
        let given = outcome(connection, &about, &conversation, weights)?;
        Ok(Example {
            project: project.to_owned(),
            at,
            attested,
            licence,
            consent: self.consent(&kept_under, is_file),
            outcome: Outcome {
                finish_reason: row.get(9)?,
                failed: row.get(10)?,
                truncated: row.get(11)?,
                retried: given.retried || followed,
                ..given
            },
            messages: read(row, 7)?.unwrap_or_default(),
            tools: read(row, 8)?,
            model,
            conversation,
            id,
        })
    }
}

/// Returns the value that a column has as JSON.
fn read<T: serde::de::DeserializeOwned>(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<Option<T>> {
    let Some(text) = row.get::<_, Option<String>>(column)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| {
        // The message of the parser shows none of the text.
        let kind = rusqlite::types::Type::Text;
        rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(error))
    })
}

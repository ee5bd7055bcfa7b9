//! Names: recurring texts, which are stored once and referred to by a number.

use foldhash::HashMap;
use rusqlite::{Connection, OptionalExtension as _};

/// The kind of a name. There is one kind per meaning, so that numbers are never mixed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Branch,
    Client,
    ClientVersion,
    ErrorType,
    FinishReason,
    Model,
    Operation,
    PriceVersion,
    Project,
    Provider,
    RouteRule,
    ServiceTier,
    Upstream,
    User,
    Variant,
    /// A value of one of the enumerations of the event.
    Word,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Branch => "branch",
            Self::Client => "client",
            Self::ClientVersion => "client_version",
            Self::ErrorType => "error_type",
            Self::FinishReason => "finish_reason",
            Self::Model => "model",
            Self::Operation => "operation",
            Self::PriceVersion => "price_version",
            Self::Project => "project",
            Self::Provider => "provider",
            Self::RouteRule => "route_rule",
            Self::ServiceTier => "service_tier",
            Self::Upstream => "upstream",
            Self::User => "user",
            Self::Variant => "variant",
            Self::Word => "word",
        }
    }
}

/// Number of kinds; the last one is [`Kind::Word`].
const KINDS: usize = Kind::Word as usize + 1;

/// Largest number of names that are held in memory; there are seldom more than some hundred.
const HELD: usize = 50_000;

/// The names that the writer knows.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// Numbers of the names by kind: a row has some fifteen names, so each look-up counts.
    ids: [HashMap<String, i64>; KINDS],
    held: usize,
}

impl Names {
    /// Returns the number of a name, which is stored if it is new.
    pub(crate) fn id(
        &mut self,
        connection: &Connection,
        kind: Kind,
        text: &str,
    ) -> rusqlite::Result<i64> {
        if let Some(id) = self.ids[kind as usize].get(text) {
            return Ok(*id);
        }
        let known = connection
            .prepare_cached("SELECT id FROM name WHERE kind = ?1 AND text = ?2")?
            .query_row((kind.as_str(), text), |row| row.get(0))
            .optional()?;
        let id = match known {
            Some(id) => id,
            None => {
                connection
                    .prepare_cached("INSERT INTO name (kind, text) VALUES (?1, ?2)")?
                    .execute((kind.as_str(), text))?;
                connection.last_insert_rowid()
            }
        };
        if self.held >= HELD {
            self.forget();
        }
        self.held += 1;
        self.ids[kind as usize].insert(text.to_owned(), id);
        Ok(id)
    }

    /// Forgets all names, since a transaction that created some of them was rolled back.
    pub(crate) fn forget(&mut self) {
        self.ids.iter_mut().for_each(HashMap::clear);
        self.held = 0;
    }
}

/// The texts that a reader knows.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    texts: HashMap<i64, String>,
}

impl Texts {
    /// Returns the text of a number; `None` for no number.
    pub(crate) fn text(
        &mut self,
        connection: &Connection,
        id: Option<i64>,
    ) -> rusqlite::Result<Option<String>> {
        let Some(id) = id.filter(|id| *id != 0) else { return Ok(None) };
        if let Some(text) = self.texts.get(&id) {
            return Ok(Some(text.clone()));
        }
        let text: Option<String> = connection
            .prepare_cached("SELECT text FROM name WHERE id = ?1")?
            .query_row([id], |row| row.get(0))
            .optional()?;
        if self.texts.len() >= HELD {
            self.texts.clear();
        }
        if let Some(text) = &text {
            self.texts.insert(id, text.clone());
        }
        Ok(text)
    }
}

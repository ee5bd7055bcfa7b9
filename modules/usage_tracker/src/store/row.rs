//! Conversion of a request to a row, and back.

use std::sync::LazyLock;

use module_prices::Tokens;
use module_sdk::events::{LlmRequestCompleted, RequestStatus};
use rusqlite::{Connection, Row as SqlRow, Statement, ToSql, types::Value as SqlValue};
use uuid::Uuid;

use super::{
    measures::Measures,
    names::{Kind, Names, Texts},
};
use crate::{
    prices::Cost,
    sanitize::{Report, bit, flag, stated},
};

/// A request with all that is stored of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// Number of the row; numbers grow with the order of arrival.
    pub id: i64,
    /// The merged reports, with the cost that is used.
    pub report: Report,
    /// Cost of the same tokens at the baseline model, in nano-USD.
    pub baseline_nano_usd: Option<i64>,
    /// `true` when the request should have a cost and none is known.
    pub unpriced: bool,
}

impl Stored {
    pub(crate) fn new(id: i64, mut report: Report, cost: Cost) -> Self {
        if cost.one_hour {
            let short = report.request.cache_write_5m_tokens.replace(0);
            report.request.cache_write_1h_tokens = short;
            report.flags |= flag::ONE_HOUR;
        }
        report.request.cost_nano_usd = cost.nano_usd;
        report.request.cost_source = Some(cost.source);
        report.request.price_version = cost.version;
        Self { id, report, baseline_nano_usd: cost.baseline_nano_usd, unpriced: cost.unpriced }
    }

    /// Returns what the request adds to the rollups.
    pub(crate) fn measures(&self) -> Measures {
        let request = &self.report.request;
        let count = |known: Option<u64>| known.map_or(0, clamped);
        let cost = request.cost_nano_usd;
        let compared = cost.zip(self.baseline_nano_usd);
        let write = Tokens {
            cache_write_5m: request.cache_write_5m_tokens.unwrap_or(0),
            cache_write_1h: request.cache_write_1h_tokens.unwrap_or(0),
            ..Tokens::default()
        };
        let mut measures = Measures {
            requests: 1,
            errors: i64::from(failed(request)),
            input: count(request.input_tokens),
            output: count(request.output_tokens),
            cache_read: count(request.cache_read_tokens),
            cache_write: clamped(write.cache_write_5m.saturating_add(write.cache_write_1h)),
            reasoning: count(request.reasoning_tokens),
            priced: i64::from(cost.is_some()),
            unpriced: i64::from(self.unpriced),
            cost: cost.unwrap_or(0),
            compared: i64::from(compared.is_some()),
            compared_cost: compared.map_or(0, |(cost, _)| cost),
            baseline: compared.map_or(0, |(_, baseline)| baseline),
            ..Measures::default()
        };
        if let Some(milliseconds) = request.duration_ms {
            measures.duration.add(milliseconds, 1);
        }
        if let Some(milliseconds) = request.ttft_ms {
            measures.ttft.add(milliseconds, 1);
        }
        measures
    }
}

/// Returns whether a request counts as an error.
#[must_use]
pub fn failed(request: &LlmRequestCompleted) -> bool {
    !matches!(request.status, None | Some(RequestStatus::Ok | RequestStatus::Cached))
}

fn clamped(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The numbers that stand for the names of a request in the rollups, 0 for unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Dimensions {
    pub(crate) provider: i64,
    /// The model that answered.
    pub(crate) model: i64,
    pub(crate) project: i64,
    pub(crate) client: i64,
    pub(crate) branch: i64,
}

/// Every column in the order in which [`write`] binds and [`read`] reads.
const COLUMNS: &[&str] = &[
    "id",
    "event_id",
    "dedupe_key",
    "ended_at",
    "elapsed_ms",
    "flags",
    "schema",
    "session",
    "project",
    "client",
    "client_version",
    "branch",
    "user",
    "provider",
    "request_model",
    "response_model",
    "routed_model",
    "upstream",
    "operation",
    "error_type",
    "finish_reason",
    "price_version",
    "route_rule",
    "variant",
    "fallback_from",
    "source",
    "status",
    "cost_source",
    "dialect",
    "usage_source",
    "cache",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost_nano_usd",
    "baseline_nano_usd",
    "unpriced",
    "duration_ms",
    "ttft_ms",
    "ttfb_ms",
    "upstream_ms",
    "queue_ms",
    "load_ms",
    "prompt_eval_ms",
    "eval_ms",
    "stream",
    "http_status",
    "attempt",
    "request_bytes",
    "response_bytes",
    "retry_of",
    "source_ref",
    "turn_id",
    "trace_id",
    "span_id",
    "response_id",
    "upstream_request_id",
    "service_tier",
    "stated_nano_usd",
    "sources",
];

/// SQL that inserts a row.
pub(crate) static INSERT: LazyLock<String> = LazyLock::new(|| insert("INSERT"));

/// SQL that replaces the row with the same number. Slower, since SQLite must be able to undo the
/// deletion.
pub(crate) static REPLACE: LazyLock<String> = LazyLock::new(|| insert("INSERT OR REPLACE"));

fn insert(verb: &str) -> String {
    let places = vec!["?"; COLUMNS.len()].join(",");
    format!("{verb} INTO request ({}) VALUES ({places})", COLUMNS.join(","))
}

/// SQL that selects what [`read`] reads, with the key of the session after it; a condition on `r`
/// follows.
pub(crate) static READ: LazyLock<String> = LazyLock::new(|| {
    let columns: Vec<String> = COLUMNS.iter().map(|column| format!("r.{column}")).collect();
    let columns = columns.join(",");
    format!("SELECT {columns}, s.key FROM request r LEFT JOIN session s ON s.id = r.session ")
});

/// Writes a request with the prepared [`INSERT`] or [`REPLACE`]; returns its names in the rollups.
pub(crate) fn write(
    connection: &Connection,
    statement: &mut Statement<'_>,
    names: &mut Names,
    stored: &Stored,
    session: Option<i64>,
) -> rusqlite::Result<Dimensions> {
    let request = &stored.report.request;
    let mut to = Binder { statement, at: 0 };
    to.put(stored.id)?;
    to.put(stored.report.event_id.as_bytes().as_slice())?;
    match derived_key(request) {
        Some(derived) => to.put(derived as i64)?,
        None => to.put(&request.dedupe_key)?,
    }
    to.put(request.ended_at)?;
    to.put(request.ended_at.saturating_sub(request.started_at))?;
    to.put(stored.report.flags)?;
    to.put(request.schema)?;
    to.put(session)?;
    let mut name = |kind, text: Option<&str>| {
        let id = text.map(|text| names.id(connection, kind, text)).transpose()?;
        to.put(id)?;
        Ok::<_, rusqlite::Error>(id)
    };
    let project = name(Kind::Project, request.project.as_deref())?;
    let client = name(Kind::Client, request.client.as_deref())?;
    name(Kind::ClientVersion, request.client_version.as_deref())?;
    let branch = name(Kind::Branch, request.branch.as_deref())?;
    name(Kind::User, request.user.as_deref())?;
    let provider = name(Kind::Provider, request.provider.as_deref())?;
    let asked = name(Kind::Model, request.request_model.as_deref())?;
    let answered = name(Kind::Model, request.response_model.as_deref())?;
    let routed = name(Kind::Model, request.routed_model.as_deref())?;
    name(Kind::Upstream, request.upstream.as_deref())?;
    name(Kind::Operation, request.operation.as_deref())?;
    name(Kind::ErrorType, request.error_type.as_deref())?;
    name(Kind::FinishReason, request.finish_reason.as_deref())?;
    name(Kind::PriceVersion, request.price_version.as_deref())?;
    name(Kind::RouteRule, request.route_rule.as_deref())?;
    name(Kind::Variant, request.variant.as_deref())?;
    name(Kind::Model, request.fallback_from.as_deref())?;
    name(Kind::Word, request.source.map(|word| word.as_str()))?;
    name(Kind::Word, request.status.map(|word| word.as_str()))?;
    name(Kind::Word, request.cost_source.map(|word| word.as_str()))?;
    name(Kind::Word, request.dialect.map(|word| word.as_str()))?;
    name(Kind::Word, request.usage_source.map(|word| word.as_str()))?;
    name(Kind::Word, request.cache.map(|word| word.as_str()))?;
    for count in [
        request.input_tokens,
        request.cache_read_tokens,
        request.cache_write_5m_tokens,
        request.cache_write_1h_tokens,
        request.output_tokens,
        request.reasoning_tokens,
    ] {
        to.put(count.map(clamped))?;
    }
    to.put(request.cost_nano_usd)?;
    to.put(stored.baseline_nano_usd)?;
    to.put(stored.unpriced)?;
    for milliseconds in [
        request.duration_ms,
        request.ttft_ms,
        request.ttfb_ms,
        request.upstream_ms,
        request.queue_ms,
        request.load_ms,
        request.prompt_eval_ms,
        request.eval_ms,
    ] {
        to.put(milliseconds)?;
    }
    to.put(request.stream)?;
    to.put(request.http_status)?;
    to.put(request.attempt)?;
    to.put(request.request_bytes.map(clamped))?;
    to.put(request.response_bytes.map(clamped))?;
    for text in [
        &request.retry_of,
        &request.source_ref,
        &request.turn_id,
        &request.trace_id,
        &request.span_id,
        &request.response_id,
        &request.upstream_request_id,
    ] {
        to.put(text)?;
    }
    let tier = request.service_tier.as_deref();
    let tier = tier.map(|tier| names.id(connection, Kind::ServiceTier, tier)).transpose()?;
    to.put(tier)?;
    to.put(stored.report.stated_nano_usd)?;
    to.put(stored.report.sources)?;
    to.statement.raw_execute()?;
    Ok(Dimensions {
        provider: provider.unwrap_or(0),
        model: answered.or(routed).or(asked).unwrap_or(0),
        project: project.unwrap_or(0),
        client: client.unwrap_or(0),
        branch: branch.unwrap_or(0),
    })
}

/// The place of a row in the rollups and sessions: its names, its session, its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) dimensions: Dimensions,
    pub(crate) session: Option<i64>,
    pub(crate) ended_at: i64,
}

/// Reads a row of [`READ`].
pub(crate) fn read(
    connection: &Connection,
    texts: &mut Texts,
    row: &SqlRow<'_>,
) -> rusqlite::Result<(Stored, Placed)> {
    let mut from = Reader { row, at: 0, connection, texts };
    let id = from.next()?;
    let event_id: [u8; 16] = from.next()?;
    let dedupe_key: SqlValue = from.next()?;
    let ended_at: i64 = from.next()?;
    let elapsed: i64 = from.next()?;
    let flags = from.next()?;
    let schema = from.next()?;
    let session: Option<i64> = from.next()?;
    let number = |at: usize| row.get::<_, Option<i64>>(at);
    let dimensions = Dimensions {
        project: number(8)?.unwrap_or(0),
        client: number(9)?.unwrap_or(0),
        branch: number(11)?.unwrap_or(0),
        provider: number(13)?.unwrap_or(0),
        model: number(15)?.or(number(16)?).or(number(14)?).unwrap_or(0),
    };
    // A struct literal evaluates its fields in the order in which they are written: the order of
    // the columns.
    let mut request = LlmRequestCompleted {
        ended_at,
        started_at: ended_at.saturating_sub(elapsed),
        schema,
        project: from.text()?,
        client: from.text()?,
        client_version: from.text()?,
        branch: from.text()?,
        user: from.text()?,
        provider: from.text()?,
        request_model: from.text()?,
        response_model: from.text()?,
        routed_model: from.text()?,
        upstream: from.text()?,
        operation: from.text()?,
        error_type: from.text()?,
        finish_reason: from.text()?,
        price_version: from.text()?,
        route_rule: from.text()?,
        variant: from.text()?,
        fallback_from: from.text()?,
        source: from.word()?,
        status: from.word()?,
        cost_source: from.word()?,
        dialect: from.word()?,
        usage_source: from.word()?,
        cache: from.word()?,
        input_tokens: from.count()?,
        cache_read_tokens: from.count()?,
        cache_write_5m_tokens: from.count()?,
        cache_write_1h_tokens: from.count()?,
        output_tokens: from.count()?,
        reasoning_tokens: from.count()?,
        cost_nano_usd: from.next()?,
        session_id: row.get(COLUMNS.len())?,
        ..LlmRequestCompleted::default()
    };
    let baseline_nano_usd = from.next()?;
    let unpriced = from.next()?;
    request.duration_ms = from.next()?;
    request.ttft_ms = from.next()?;
    request.ttfb_ms = from.next()?;
    request.upstream_ms = from.next()?;
    request.queue_ms = from.next()?;
    request.load_ms = from.next()?;
    request.prompt_eval_ms = from.next()?;
    request.eval_ms = from.next()?;
    request.stream = from.next()?;
    request.http_status = from.next()?;
    request.attempt = from.next()?;
    request.request_bytes = from.count()?;
    request.response_bytes = from.count()?;
    request.retry_of = from.next()?;
    request.source_ref = from.next()?;
    request.turn_id = from.next()?;
    request.trace_id = from.next()?;
    request.span_id = from.next()?;
    request.response_id = from.next()?;
    request.upstream_request_id = from.next()?;
    request.service_tier = from.text()?;
    // Rows of the schema before have none beside our own figure.
    let stated_nano_usd = from.next::<Option<i64>>()?.or_else(|| stated(&request));
    let sources = from.next::<Option<u8>>()?.unwrap_or_else(|| bit(request.source));
    request.dedupe_key = match dedupe_key {
        SqlValue::Text(key) => key,
        SqlValue::Integer(1) => Derived::FromRequestId.key(&request).unwrap_or_default(),
        _ => Derived::FromResponseId.key(&request).unwrap_or_default(),
    };
    let event_id = Uuid::from_bytes(event_id);
    let report = Report { event_id, request, stated_nano_usd, flags, sources };
    let stored = Stored { id, report, baseline_nano_usd, unpriced };
    Ok((stored, Placed { dimensions, session, ended_at }))
}

/// A dedupe key that can be derived from other columns: most can, and are the longest text of a
/// row.
#[derive(Clone, Copy)]
enum Derived {
    FromRequestId = 1,
    FromResponseId = 2,
}

impl Derived {
    fn key(self, request: &LlmRequestCompleted) -> Option<String> {
        let id = match self {
            Self::FromRequestId => &request.upstream_request_id,
            Self::FromResponseId => &request.response_id,
        };
        Some(format!("{}:{}", request.provider.as_ref()?, id.as_ref()?))
    }
}

fn derived_key(request: &LlmRequestCompleted) -> Option<Derived> {
    let id = request.dedupe_key.strip_prefix(request.provider.as_deref()?)?.strip_prefix(':')?;
    if request.upstream_request_id.as_deref() == Some(id) {
        Some(Derived::FromRequestId)
    } else {
        (request.response_id.as_deref() == Some(id)).then_some(Derived::FromResponseId)
    }
}

struct Binder<'a, 'c> {
    statement: &'a mut Statement<'c>,
    at: usize,
}

impl Binder<'_, '_> {
    fn put(&mut self, value: impl ToSql) -> rusqlite::Result<()> {
        self.at += 1;
        self.statement.raw_bind_parameter(self.at, value)
    }
}

struct Reader<'a, 'r> {
    row: &'a SqlRow<'r>,
    at: usize,
    connection: &'a Connection,
    texts: &'a mut Texts,
}

impl Reader<'_, '_> {
    fn next<T: rusqlite::types::FromSql>(&mut self) -> rusqlite::Result<T> {
        let value = self.row.get(self.at);
        self.at += 1;
        value
    }

    fn text(&mut self) -> rusqlite::Result<Option<String>> {
        let id = self.next()?;
        self.texts.text(self.connection, id)
    }

    /// Reads a value of an enumeration; one that this version does not know is read as absent.
    fn word<T: std::str::FromStr>(&mut self) -> rusqlite::Result<Option<T>> {
        Ok(self.text()?.and_then(|word| word.parse().ok()))
    }

    fn count(&mut self) -> rusqlite::Result<Option<u64>> {
        Ok(self.next::<Option<i64>>()?.map(|count| u64::try_from(count).unwrap_or(0)))
    }
}

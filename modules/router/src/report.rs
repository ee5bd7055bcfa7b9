//! Reports of attempts: one `llm.request.completed` each, whatever becomes of it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use module_prices::Tokens;
use module_sdk::events::{
    CacheOutcome, CostSource, LlmRequestCompleted, RequestSource, RequestStatus, SpanKind,
    SpanStatus, TraceSpanCompleted, UsageSource,
};

use crate::{
    app::App, content, dialect::observe::Observed, exchange::Tally, journal::Story,
    limits::Estimate, target::Target,
};

/// Kind of the error of an attempt that was cancelled since another one answered first.
pub(crate) const HEDGE_LOST: &str = "hedge_lost";

/// Key by which the report of an attempt is known. It changes once when the provider gave the
/// answer an id.
#[derive(Debug, Clone)]
pub(crate) struct ReportKey(Arc<Mutex<String>>);

impl ReportKey {
    /// Creates a key.
    pub(crate) fn new(key: String) -> Self {
        Self(Arc::new(Mutex::new(key)))
    }

    fn get(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, key: &str) {
        key.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Attempts of one request that run at the same time, of which one answers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Race {
    is_won: Arc<AtomicBool>,
}

impl Race {
    /// Says that an attempt answers: those that are dropped from now on were cancelled for it.
    pub(crate) fn won(&self) {
        self.is_won.store(true, Ordering::Relaxed);
    }

    fn is_won(&self) -> bool {
        self.is_won.load(Ordering::Relaxed)
    }
}

/// Part of an attempt in a race.
#[derive(Debug, Clone)]
pub(crate) struct Runner {
    /// The race.
    pub race: Race,
    /// `true` for one that began since another was slow.
    pub is_hedge: bool,
    /// Amounts that are reserved for it.
    pub reserved: Estimate,
}

/// Report of one attempt. One that is dropped before its end reports that the client went away.
#[derive(Debug)]
pub(crate) struct Recorder {
    app: Arc<App>,
    target: Option<Arc<Target>>,
    event: Box<LlmRequestCompleted>,
    begun: Instant,
    sent: Option<Instant>,
    first_byte: Option<Instant>,
    first_content: Option<Instant>,
    estimated_input: u64,
    parent_span: Option<String>,
    tally: Arc<Tally>,
    story: Option<Arc<Story>>,
    /// Request, where its text is wanted.
    content: Option<content::RequestText>,
    key: ReportKey,
    retry_of: Option<ReportKey>,
    runner: Option<Box<Runner>>,
    is_reported: bool,
}

/// Outcome of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome<'a> {
    /// Status.
    pub status: RequestStatus,
    /// Kind of the error; empty for none.
    pub error_type: &'a str,
}

impl Recorder {
    /// Begins the report of an attempt; `event` holds what is known of its request, its key among
    /// it.
    pub(crate) fn new(
        app: Arc<App>,
        target: Option<Arc<Target>>,
        event: Box<LlmRequestCompleted>,
        begun: Instant,
        estimated_input: u64,
        parent_span: Option<String>,
        tally: Arc<Tally>,
    ) -> Self {
        let key = ReportKey::new(event.dedupe_key.clone());
        Self {
            app,
            target,
            event,
            key,
            retry_of: None,
            runner: None,
            begun,
            sent: None,
            first_byte: None,
            first_content: None,
            estimated_input,
            parent_span,
            tally,
            story: None,
            content: None,
            is_reported: false,
        }
    }

    /// Makes the attempt a part of a story.
    pub(crate) fn part_of(mut self, story: Arc<Story>) -> Self {
        self.story = Some(story);
        self
    }

    /// Publishes the text of the request with that of its answer.
    pub(crate) fn with_text(mut self, asked: content::RequestText) -> Self {
        self.content = Some(asked);
        self
    }

    /// Returns whether the text of the answer is wanted.
    pub(crate) fn wants_text(&self) -> bool {
        self.content.is_some()
    }

    /// Makes the attempt one that follows another.
    pub(crate) fn after(mut self, before: Option<ReportKey>) -> Self {
        self.retry_of = before;
        self
    }

    /// Makes the attempt one of several that run at the same time.
    pub(crate) fn racing(mut self, runner: Runner) -> Self {
        self.runner = Some(Box::new(runner));
        self
    }

    /// Returns the key of the report, for the attempt that follows.
    pub(crate) fn key(&self) -> ReportKey {
        self.key.clone()
    }

    /// Notes that the request goes out now.
    pub(crate) fn sent(&mut self) {
        self.sent = Some(Instant::now());
        self.tally.sent();
    }

    /// Notes the head of the answer.
    pub(crate) fn answered(&mut self, status: u16, request_id: Option<&str>) {
        self.first_byte = Some(Instant::now());
        self.event.http_status = Some(status);
        self.event.upstream_request_id = request_id.map(str::to_owned);
    }

    /// Returns whether the head of an answer came.
    pub(crate) fn was_answered(&self) -> bool {
        self.first_byte.is_some()
    }

    /// Notes the first content.
    pub(crate) fn content(&mut self) {
        self.first_content.get_or_insert_with(Instant::now);
    }

    /// Adds to the size of the answer.
    pub(crate) fn received(&mut self, bytes: usize) {
        *self.event.response_bytes.get_or_insert(0) += bytes as u64;
    }

    /// Returns the span of this attempt, where the client is in a trace.
    pub(crate) fn span(&self) -> Option<&str> {
        self.event.span_id.as_deref()
    }

    /// Returns the time since the request came in, in milliseconds, and that to the first content.
    pub(crate) fn times_ms(&self) -> (f64, Option<f64>) {
        let from = self.sent.unwrap_or(self.begun);
        let ms = |at: Instant| at.duration_since(from).as_secs_f64() * 1000.0;
        (ms(Instant::now()), self.first_content.map(ms))
    }

    /// Reports the end of the attempt. Returns its cost in nano-USD, where that is known.
    pub(crate) fn finish(mut self, outcome: Outcome<'_>, found: &Observed) -> Option<i64> {
        self.report(outcome, found)
    }

    /// Reports an answer that cost nothing, since it was known.
    pub(crate) fn finish_cached(mut self, found: &Observed) {
        self.event.cache = Some(CacheOutcome::Hit);
        self.event.cost_nano_usd = Some(0);
        self.event.cost_source = Some(CostSource::PriceTable);
        let outcome = Outcome { status: RequestStatus::Cached, error_type: "" };
        self.report(outcome, found);
    }

    fn report(&mut self, outcome: Outcome<'_>, found: &Observed) -> Option<i64> {
        self.is_reported = true;
        let now = Instant::now();
        let begun = self.begun;
        let since = |at: Instant| u32::try_from(at.duration_since(begun).as_millis()).ok();
        let event = &mut self.event;
        event.schema = 1;
        event.source = Some(RequestSource::Gateway);
        event.status = Some(outcome.status);
        event.error_type = Some(outcome.error_type).filter(|it| !it.is_empty()).map(str::to_owned);
        event.duration_ms = since(now);
        event.ended_at = event.started_at + i64::from(event.duration_ms.unwrap_or(0));
        event.ttfb_ms = self.first_byte.and_then(since);
        event.ttft_ms = self.first_content.and_then(since);
        event.queue_ms = self.sent.and_then(since);
        event.upstream_ms =
            self.sent.and_then(|sent| u32::try_from(now.duration_since(sent).as_millis()).ok());
        event.response_model.clone_from(&found.model);
        event.response_id.clone_from(&found.response_id);
        event.finish_reason.clone_from(&found.finish_reason);
        if found.service_tier.is_some() {
            event.service_tier.clone_from(&found.service_tier);
        }
        if let Some([load, prompt, write]) = found.ollama_ms {
            event.load_ms = Some(load);
            event.prompt_eval_ms = Some(prompt);
            event.eval_ms = Some(write);
        }
        count(event, outcome.status, found, self.estimated_input);
        if let Some(key) = shared_key(event)
            && self.app.is_new_answer(&key)
        {
            self.key.set(&key);
            event.dedupe_key = key;
        }
        // The one before has ended, and its key is the last that it gets; one that still runs
        // beside this may yet get another.
        event.retry_of = self.retry_of.as_ref().map(ReportKey::get);
        if event.cost_source.is_none() {
            self.price(found);
        }
        if let (RequestStatus::Ok, Some(session), Some(target)) =
            (outcome.status, self.event.session_id.as_deref(), &self.target)
        {
            let input = self.event.input_tokens.unwrap_or(0);
            self.app.sessions.pin(session, &target.name, input);
        }
        // A provider that refuses, or was never reached, charges nothing. What became of any other
        // request that went out nobody knows.
        let has_used =
            self.sent.is_some() && !is_refusal(self.event.http_status, outcome.error_type);
        match &self.runner {
            // Nobody tells what it used: what was reserved for it stays.
            Some(runner) if outcome.error_type == HEDGE_LOST => {
                if has_used {
                    self.tally.add_reserved(runner.reserved);
                }
            }
            _ => self.tally.add(&self.event, has_used),
        }
        let cost = self.event.cost_nano_usd;
        if let Some(story) = &self.story {
            let is_local = self.target.as_ref().is_some_and(|target| target.is_local());
            let is_hedge = self.runner.as_ref().is_some_and(|runner| runner.is_hedge);
            story.attempted(&self.event, is_local, is_hedge);
        }
        let is_answered = matches!(outcome.status, RequestStatus::Ok | RequestStatus::Cached);
        if let Some(asked) = self.content.take().filter(|_| is_answered)
            && self.app.contents.publish(&self.event, &asked, found.said.as_deref())
        {
            self.event.content_ref = Some(self.event.dedupe_key.clone());
        }
        self.app.publish(&self.event);
        if self.event.trace_id.is_some() {
            let span = span(&self.event, self.parent_span.take());
            self.app.publish_span(&span);
        }
        cost
    }

    /// Adds the cost: what the provider states, else that of the table.
    fn price(&mut self, found: &Observed) {
        let event = &mut self.event;
        let price = self.target.as_ref().and_then(|target| target.price.as_ref());
        let tokens = Tokens::of(event);
        let by_table = price.zip(tokens).and_then(|(price, tokens)| {
            let cost = price.cost_at(event.service_tier.as_deref(), &tokens)?;
            Some((cost, price.version.clone()))
        });
        match (found.cost_nano_usd, by_table) {
            (Some(stated), _) => {
                event.cost_nano_usd = Some(stated);
                event.cost_source = Some(CostSource::Provider);
            }
            (None, Some((cost, version))) => {
                event.cost_nano_usd = Some(cost);
                event.cost_source = Some(CostSource::PriceTable);
                event.price_version = Some(version);
            }
            (None, None) => event.cost_source = Some(CostSource::None),
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if !self.is_reported {
            let is_beaten = self.runner.as_ref().is_some_and(|runner| runner.race.is_won());
            let error_type = if is_beaten { HEDGE_LOST } else { "client_abort" };
            let outcome = Outcome { status: RequestStatus::ClientAbort, error_type };
            self.report(outcome, &Observed::default());
        }
    }
}

/// Returns whether an attempt that failed in this way can have cost nothing.
pub(crate) fn is_refusal(http_status: Option<u16>, error_type: &str) -> bool {
    http_status.is_some_and(|status| status >= 400)
        || matches!(error_type, "connect" | "dns" | "tls" | "refused" | "url")
}

/// Adds the counts, and says how far they can be believed.
fn count(
    event: &mut LlmRequestCompleted,
    status: RequestStatus,
    found: &Observed,
    estimated_input: u64,
) {
    let usage = &found.usage;
    event.input_tokens = usage.input;
    event.cache_read_tokens = usage.cache_read;
    event.cache_write_5m_tokens = usage.cache_write_5m;
    event.cache_write_1h_tokens = usage.cache_write_1h;
    event.output_tokens = usage.output;
    event.reasoning_tokens = usage.reasoning;
    let is_whole = matches!(status, RequestStatus::Ok | RequestStatus::Cached);
    event.usage_source = Some(if !usage.is_empty() {
        if is_whole { UsageSource::Provider } else { UsageSource::Partial }
    } else {
        UsageSource::None
    });
    let is_failure = !is_whole && status != RequestStatus::ClientAbort;
    if is_failure && !found.has_content {
        // What it would have cost is another attempt's answer.
        event.input_tokens = None;
        event.output_tokens = None;
        event.usage_source = Some(UsageSource::None);
        return;
    }
    // What was written is charged, where it broke off or nobody states how much it was.
    let is_text = event.operation.as_deref() != Some("embeddings");
    let is_partial = !is_whole || event.output_tokens.is_none();
    if is_partial && found.has_content && is_text {
        let written = found.content_bytes / 4 + 1;
        if event.input_tokens.is_none() {
            event.input_tokens = Some(estimated_input);
            event.usage_source = Some(UsageSource::Estimated);
        }
        event.output_tokens = Some(event.output_tokens.unwrap_or(0).max(written));
    }
}

/// Returns the key that reports of other origin have of the same request.
fn shared_key(event: &LlmRequestCompleted) -> Option<String> {
    if !matches!(event.status, Some(RequestStatus::Ok | RequestStatus::UpstreamCut)) {
        return None;
    }
    let provider = event.provider.as_deref()?;
    let id = event.upstream_request_id.as_deref().or(event.response_id.as_deref())?;
    Some(format!("{provider}:{id}"))
}

fn span(event: &LlmRequestCompleted, parent: Option<String>) -> TraceSpanCompleted {
    let is_ok = matches!(event.status, Some(RequestStatus::Ok | RequestStatus::Cached));
    let is_embedding = event.operation.as_deref() == Some("embeddings");
    TraceSpanCompleted {
        schema: 1,
        trace_id: event.trace_id.clone().unwrap_or_default(),
        span_id: event.span_id.clone().unwrap_or_default(),
        parent_span_id: parent,
        kind: if is_embedding { SpanKind::Embedding } else { SpanKind::Llm },
        name: event.operation.clone().unwrap_or_default(),
        started_at: event.started_at,
        ended_at: event.ended_at,
        status: if is_ok { SpanStatus::Ok } else { SpanStatus::Error },
        error_type: event.error_type.clone(),
        client: event.client.clone(),
        session_id: event.session_id.clone(),
        project: event.project.clone(),
        branch: event.branch.clone(),
        tool: None,
        model: event.response_model.clone().or_else(|| event.routed_model.clone()),
        input_tokens: event.input_tokens,
        output_tokens: event.output_tokens,
        dedupe_key: Some(event.dedupe_key.clone()),
    }
}

//! The plan of a request: all that is known and decided before the first attempt.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, OnceLock},
    time::Instant,
};

use bytes::Bytes;
use http::HeaderMap;
use module_http::Share;
use module_prices::Tokens;
use module_sdk::events::LlmRequestCompleted;

use super::{Client, Inbound, Tally, admission, caching, client::Trace, shadow::Beside};
use crate::{
    app::App,
    cache::{Leader, Lookup},
    content,
    dialect::{
        Dialect,
        fault::{Fault, FaultKind},
        inspect::{AnswerFormat, Inspected, Places, inspect},
        translate::ClientTools,
    },
    journal::{Story, Told},
    keys::{Identity, KeyFault},
    limits::BudgetAction,
    report::{Recorder, ReportKey},
    routing::{
        Decision, Offer, Refusal, Request,
        check::Expected,
        learned::Sample,
        request::{Prices, Sticky},
    },
    target::{Target, TargetName, Targets},
};

/// A request that is understood and decided.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Id, `x-lodestar-request-id`.
    pub id: String,
    /// Dialect of the client.
    pub dialect: Dialect,
    /// Headers of the client.
    pub headers: HeaderMap,
    /// Query of the URL.
    pub query: Option<String>,
    /// Body as it came.
    pub body: Bytes,
    /// Places in the body that are rewritten.
    pub places: Places,
    /// Model that was asked for.
    pub model: String,
    /// `true` when the answer is streamed.
    pub is_stream: bool,
    /// `true` when the client asks for the usage of a stream itself.
    pub includes_usage: bool,
    /// Number of answers that are asked for.
    pub choices: u32,
    /// Tokens of the input, estimated.
    pub estimated_tokens: u64,
    /// Most tokens of the answer.
    pub max_tokens: Option<u32>,
    /// Form that the answer must have.
    pub answer_format: AnswerFormat,
    /// `true` when the model must call a tool.
    pub requires_tool: bool,
    /// Kind of the answer that the last words ask for.
    pub expected: Expected,
    /// `true` when embeddings are wanted in base64.
    pub wants_base64: bool,
    /// Tools that the client knows in another form than a provider of another dialect.
    pub client_tools: OnceLock<ClientTools>,
    /// Place of the answer in the cache, where it is looked for.
    pub lookup: Option<Lookup>,
    /// Duty to offer the cache the answer.
    pub leader: Mutex<Option<Leader>>,
    /// Decision.
    pub decision: Arc<Decision>,
    /// Client.
    pub client: Arc<Client>,
    /// Holder of the key that was presented.
    pub identity: Identity,
    /// Sum of what the attempts used.
    pub tally: Arc<Tally>,
    /// Story of the request.
    pub story: Arc<Story>,
    /// Request that is asked when this one is over, for an experiment.
    pub(super) shadow: Beside,
    /// Id of the request beside which this one is asked.
    pub beside: Option<String>,
    /// Moment at which it came.
    pub begun: Instant,
    /// The same, in milliseconds since the Unix epoch.
    pub started_at: i64,
    /// Memory that the body takes.
    pub share: Arc<Share>,
}

/// Mark of a request: `true` when its answer may be judged, so that something is learned from it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ToBeJudged(pub bool);

/// Prices of the targets.
struct Table<'a>(&'a Targets);

impl Prices for Table<'_> {
    fn estimate(&self, target: &TargetName, input: u64, output: u64, cached: u64) -> Option<i64> {
        let target = self.0.get(target)?;
        let cache_read = cached.min(input);
        let tokens = Tokens { input, cache_read, output, ..Tokens::default() };
        target.price.as_ref().map(|price| price.cost(&tokens))
    }
}

impl Plan {
    /// Understands a request and decides who answers it.
    pub(crate) fn make(
        app: &Arc<App>,
        inbound: Inbound,
        judged: ToBeJudged,
    ) -> Result<Self, Fault> {
        let Inbound { id, dialect, headers, query, body, share, in_path, begun, .. } = inbound;
        let identity = admission::identify(app, &headers, query.as_deref(), inbound.peer)?;
        let mut found = inspect(dialect, &body)
            .map_err(|error| Fault::new(FaultKind::InvalidRequest, error.to_string()))?;
        if let Some((model, is_stream)) = in_path {
            // Two models: which one counts depends on who reads it.
            if found.places.model.is_some() && bare(&found.model) != bare(&model) {
                found.names_models = Some("model");
            }
            found.model = model.into();
            found.stream = is_stream;
        }
        let client = client_of(app, &headers, &identity);
        let judged = Some(&*id).filter(|_| judged.0);
        let decision = decide(app, dialect, &found, &headers, (&client, &identity), judged)?;
        let mut plan = Self {
            model: found.model.clone().into_owned(),
            places: found.places.clone(),
            is_stream: found.stream,
            includes_usage: found.includes_usage,
            choices: found.choices,
            estimated_tokens: found.estimated_tokens,
            max_tokens: found.max_tokens,
            answer_format: found.answer_format,
            requires_tool: found.requires_tool,
            expected: if decision.is_checked { Expected::of(&found) } else { Expected::Open },
            wants_base64: found.wants_base64,
            id,
            dialect,
            headers,
            query,
            decision: Arc::new(decision),
            client: Arc::new(client),
            identity,
            tally: Arc::default(),
            story: Arc::default(),
            begun,
            started_at: inbound.started_at,
            client_tools: OnceLock::new(),
            lookup: None,
            leader: Mutex::default(),
            shadow: Beside::default(),
            beside: None,
            share: Arc::new(share),
            body: body.clone(),
        };
        if let Some(first) = plan.decision.order.first() {
            plan.lookup = caching::place(app, &plan, &found, first);
        }
        Ok(plan)
    }

    /// Decides who would answer a request, without asking anybody.
    pub(crate) fn decide_only(
        app: &App,
        dialect: Dialect,
        headers: &HeaderMap,
        peer: Option<IpAddr>,
        body: &[u8],
    ) -> Result<Decision, Fault> {
        let identity = admission::identify(app, headers, None, peer)?;
        let found = inspect(dialect, body)
            .map_err(|error| Fault::new(FaultKind::InvalidRequest, error.to_string()))?;
        let client = client_of(app, headers, &identity);
        decide(app, dialect, &found, headers, (&client, &identity), None)
    }

    /// Begins the story of a request that is to be answered.
    pub(super) fn tell(&mut self, app: &App) {
        let told = Told {
            id: self.id.clone(),
            at: self.started_at,
            dialect: self.dialect,
            model: self.model.clone(),
            is_stream: self.is_stream,
            client: self.client.clone(),
            key: self.identity.key().map(|key| key.name.to_string()),
            decision: self.decision.clone(),
            beside: self.beside.clone(),
        };
        self.story = Story::begin(&app.journal, told);
    }

    /// Begins the report of an attempt.
    pub(super) fn recorder(
        &self,
        app: &Arc<App>,
        target: &Arc<Target>,
        number: u16,
        previous: Option<Previous>,
    ) -> Recorder {
        let key = if number == 1 {
            format!("gateway:{}", self.id)
        } else {
            format!("gateway:{}:{number}", self.id)
        };
        let client = &self.client;
        let failed = previous.as_ref().and_then(|previous| previous.failed.clone());
        let event = LlmRequestCompleted {
            dedupe_key: key,
            source_ref: Some(self.beside.as_ref().unwrap_or(&self.id).clone()),
            started_at: self.started_at,
            client: client.tool.clone(),
            client_version: client.version.clone(),
            session_id: client.session.clone(),
            user: client.user.clone(),
            project: client.project.clone(),
            branch: client.branch.clone(),
            trace_id: client.trace.as_ref().map(|trace| trace.id.clone()),
            span_id: client.trace.as_ref().map(|_| new_span()),
            provider: Some(target.provider.maker().to_owned()),
            upstream: Some(target.name.provider.to_string()),
            dialect: Some(self.dialect.format()),
            operation: Some(self.dialect.operation().to_owned()),
            request_model: Some(self.model.clone()).filter(|model| !model.is_empty()),
            routed_model: Some(target.name.model.to_string()),
            stream: Some(self.is_stream),
            attempt: Some(number),
            fallback_from: failed.filter(|before| *before != target.name.to_string()),
            route_rule: Some(self.decision.rule.clone()),
            variant: self.decision.variant.clone(),
            request_bytes: Some(self.body.len() as u64),
            ..LlmRequestCompleted::default()
        };
        let parent = client.trace.as_ref().map(|trace: &Trace| trace.parent.clone());
        let recorder = Recorder::new(
            app.clone(),
            Some(target.clone()),
            Box::new(event),
            self.begun,
            self.estimated_tokens,
            parent,
            self.tally.clone(),
        );
        let mut recorder =
            recorder.part_of(self.story.clone()).after(previous.map(|previous| previous.key));
        // Vectors are no text.
        let is_text = self.dialect.operation() != "embeddings";
        let may_be_learnt = !self.client.forbids_learning;
        if is_text && may_be_learnt && app.contents.is_wanted(self.client.project.as_deref()) {
            let asked = content::RequestText {
                id: self.id.clone(),
                dialect: self.dialect,
                body: self.body.clone(),
            };
            recorder = recorder.with_text(asked);
        }
        recorder
    }
}

/// Returns the features of a prompt, as a request with it has them.
pub(crate) fn features(prompt: &str) -> Option<Sample> {
    let body = serde_json::json!({"messages": [{"role": "user", "content": prompt}]}).to_string();
    inspect(Dialect::Chat, body.as_bytes()).ok().map(|found| Sample::of_text(&found))
}

/// Returns the client of a request. What its key says of the project counts for more than a header.
fn client_of(app: &App, headers: &HeaderMap, identity: &Identity) -> Client {
    let client = Client::of(headers, &app.host);
    let project = identity.project().map(str::to_owned).or(client.project);
    // A key is known by its id, which stays when its secret or its name changes.
    let user = identity.key().map(|key| app.host.pseudonym("user", &key.id));
    Client { project, user, ..client }
}

/// Returns a model's name as it stands in a path of Gemini's API.
fn bare(model: &str) -> &str {
    model.strip_prefix("models/").unwrap_or(model)
}

/// Attempt before another one.
#[derive(Debug)]
pub(super) struct Previous {
    /// Key of its report.
    pub key: ReportKey,
    /// Target that failed; `None` where it is still asked.
    pub failed: Option<String>,
}

fn decide(
    app: &App,
    dialect: Dialect,
    found: &Inspected<'_>,
    headers: &HeaderMap,
    (client, identity): (&Client, &Identity),
    id: Option<&str>,
) -> Result<Decision, Fault> {
    let key = identity.key();
    if let (Some(key), Some(field)) = (key.filter(|key| !key.models.is_empty()), found.names_models)
    {
        let refused = KeyFault::NamesModels { name: key.name.to_string(), field };
        return Err(admission::fault_of_key(&refused));
    }
    let views = app.targets.views();
    let providers = app.targets.provider_views();
    let pinned = client.session.as_deref().and_then(|session| app.sessions.get(session));
    let sticky =
        pinned.as_deref().map(|it| Sticky { target: &it.target, cached_tokens: it.cached_tokens });
    let request = Request {
        inspected: found,
        dialect,
        headers,
        key: key.map(|key| &*key.name),
        project: client.project.as_deref(),
        client: client.tool.as_deref(),
        session: client.session.as_deref(),
        user: client.user.as_deref(),
        is_sub_agent: client.is_sub_agent,
        sticky,
        budget_left_nano_usd: app.limits.budget_left(identity, client.project.as_deref()),
        keeps_budget: app.limits.budget_action() == BudgetAction::Reroute,
        allowed_models: key.map_or(&[], |key| &key.models),
        prices: &Table(&app.targets),
    };
    let offer = Offer { targets: &views, providers: &providers };
    let now = app.host.now();
    let decided = app.policy.decide(&request, &offer, now).or_else(|refusal| match refusal {
        // Whose budget it is, and until when, is told where it is reserved.
        Refusal::Unfit { .. } if request.keeps_budget => {
            app.policy.decide(&Request { keeps_budget: false, ..request }, &offer, now)
        }
        refusal => Err(refusal),
    });
    let decision = decided.map_err(|refusal| match &refusal {
        Refusal::NotAllowed { model } => {
            let known = views.iter().map(|view| &view.name);
            admission::fault_of_key(&identity.refusal(model, known))
        }
        _ => fault_of(&refusal),
    })?;
    let id = id.filter(|_| !client.forbids_learning);
    if let (Some(id), Some(first)) = (id, decision.order.first()) {
        let is_local = views.iter().any(|view| view.name == *first && view.is_local);
        app.labels.await_judgement(id, &request, is_local, now.as_millisecond());
    }
    Ok(decision)
}

fn new_span() -> String {
    format!("{:016x}", fastrand::u64(1..))
}

fn fault_of(refusal: &Refusal) -> Fault {
    let kind = match refusal {
        Refusal::UnknownModel { .. } => FaultKind::NotFound,
        Refusal::NothingOffered => FaultKind::Unavailable,
        Refusal::NotAllowed { .. } => FaultKind::Permission,
        Refusal::Unfit { .. } => FaultKind::ContextLength,
    };
    Fault::new(kind, refusal.to_string())
}

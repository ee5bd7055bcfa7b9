//! Asks providers which models they have, and what these can do.

use std::{
    sync::{PoisonError, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use module_http_client::{ClientError, Pool};
use module_sdk::ProviderApi;
use serde::{Deserialize, de::DeserializeOwned};

use super::{Model, ProviderState, Targets, endpoint};

/// Time within which a provider has to say what it has.
const DEADLINE: Duration = Duration::from_secs(10);

/// Largest list that is read.
const LARGEST: usize = 8 * 1024 * 1024;

/// Models of which an Ollama is asked for details, at most.
const DETAILS: usize = 64;

/// Reason why a provider's models are not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiscoveryError {
    /// No answer.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// An answer with another status.
    #[error("the provider answered {0} when asked for its models{hint}", hint = key_hint(*.0))]
    Status(u16),
    /// An answer of another form.
    #[error("the provider's list of models has another form than its API says")]
    Form,
    /// No answer in time.
    #[error("the provider did not list its models within 10 s")]
    Timeout,
}

fn key_hint(status: u16) -> &'static str {
    if matches!(status, 401 | 403) { "; check its key" } else { "" }
}

#[derive(Deserialize)]
struct Listed {
    #[serde(alias = "models", default)]
    data: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(alias = "name")]
    id: String,
    #[serde(alias = "context_window", alias = "max_context_length", alias = "max_model_len")]
    #[serde(alias = "max_input_tokens", alias = "inputTokenLimit", default)]
    context_length: Option<u64>,
    #[serde(default)]
    active: Option<bool>,
}

#[derive(Deserialize)]
struct Tags {
    models: Vec<Tag>,
}

#[derive(Deserialize)]
struct Tag {
    name: String,
    #[serde(default)]
    context_length: Option<u64>,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default)]
    capabilities: Option<Vec<String>>,
    #[serde(default)]
    model_info: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    parameters: Option<String>,
}

impl Targets {
    /// Asks a provider for its models and takes them over. Returns whether they changed.
    ///
    /// # Errors
    ///
    /// When it does not say; the models that were known stay.
    pub(crate) async fn discover(
        &self,
        pool: &Pool,
        provider: &std::sync::Arc<ProviderState>,
    ) -> Result<bool, DiscoveryError> {
        let found = tokio::time::timeout(DEADLINE, list(pool, provider)).await;
        let found = found.unwrap_or(Err(DiscoveryError::Timeout));
        let trouble = found.as_ref().err().map(ToString::to_string);
        *provider.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        let mut models = found?;
        let named = &provider.provider.models;
        if !named.is_empty() {
            // What the operator names is what there is; the provider tells the details.
            models.retain(|model| named.contains(&model.name));
            let missing = named.iter().filter(|name| models.iter().all(|it| it.name != **name));
            let missing: Vec<_> =
                missing.map(|name| Model { name: name.clone(), ..Model::default() }).collect();
            models.extend(missing);
        }
        models.sort_by(|a, b| a.name.cmp(&b.name));
        let before = self.list();
        let of_it = before.iter().filter(|target| target.provider.id == provider.id);
        let names: Vec<&str> = of_it.map(|target| &*target.name.model).collect();
        let changed = !names.iter().copied().eq(models.iter().map(|model| model.name.as_str()));
        self.replace(provider, &models);
        provider.is_listed.store(true, Ordering::Relaxed);
        Ok(changed)
    }
}

async fn list(pool: &Pool, provider: &ProviderState) -> Result<Vec<Model>, DiscoveryError> {
    if provider.provider.api == ProviderApi::Ollama {
        return ollama(pool, provider).await;
    }
    let url = module_http_client::endpoint::models(&provider.provider);
    let listed: Listed = ask(pool, provider, Method::GET, &url, Bytes::new()).await?;
    let active = listed.data.into_iter().filter(|entry| entry.active != Some(false));
    Ok(active
        .map(|entry| Model {
            name: entry.id.strip_prefix("models/").map_or(entry.id.clone(), str::to_owned),
            context_tokens: entry.context_length,
            ..Model::default()
        })
        .collect())
}

async fn ollama(pool: &Pool, provider: &ProviderState) -> Result<Vec<Model>, DiscoveryError> {
    let base = module_http_client::endpoint::base(&provider.provider);
    let url = |path| format!("{base}/api/{path}");
    let tags: Tags = ask(pool, provider, Method::GET, &url("tags"), Bytes::new()).await?;
    // An older one has no `ps`: it is then not known what is loaded.
    let loaded: Option<Tags> =
        ask(pool, provider, Method::GET, &url("ps"), Bytes::new()).await.ok();
    let mut models = Vec::with_capacity(tags.models.len());
    for tag in tags.models {
        let mut model = Model { name: tag.name, ..Model::default() };
        if models.len() < DETAILS {
            let body = serde_json::json!({"model": model.name}).to_string();
            let details: Result<Details, _> =
                ask(pool, provider, Method::POST, &url("show"), body.into()).await;
            if let Ok(details) = details {
                details.describe(&mut model);
            }
        }
        if let Some(loaded) = &loaded {
            let running = loaded.models.iter().find(|it| it.name == model.name);
            model.is_loaded = Some(running.is_some());
            let context = running.and_then(|it| it.context_length).filter(|tokens| *tokens > 0);
            // The router asks for as much as a request needs, up to what the model can.
            model.context_tokens = model.context_tokens.or(context);
        }
        models.push(model);
    }
    Ok(models)
}

impl Details {
    fn describe(self, model: &mut Model) {
        if let Some(capabilities) = &self.capabilities {
            let can = |what: &str| Some(capabilities.iter().any(|it| it == what));
            (model.tools, model.images) = (can("tools"), can("vision"));
        }
        let parameters = self.parameters.as_deref().unwrap_or_default();
        let set = parameters.lines().find_map(|line| line.trim().strip_prefix("num_ctx"));
        let set = set.and_then(|value| value.trim().parse().ok());
        let trained = self.model_info.iter().find(|(key, _)| key.ends_with(".context_length"));
        let trained = trained.and_then(|(_, value)| value.as_u64());
        model.context_tokens = set.or(trained);
    }
}

async fn ask<T: DeserializeOwned>(
    pool: &Pool,
    provider: &ProviderState,
    method: Method,
    url: &str,
    body: Bytes,
) -> Result<T, DiscoveryError> {
    let mut headers = HeaderMap::new();
    endpoint::authorize(&provider.provider, provider.provider.key.as_ref(), &mut headers);
    if !body.is_empty() {
        let json = http::HeaderValue::from_static("application/json");
        headers.insert(http::header::CONTENT_TYPE, json);
    }
    let mut request = Request::builder()
        .method(method)
        .uri(url)
        .body(Full::new(body))
        .map_err(ClientError::of_http)?;
    *request.headers_mut() = headers;
    let answer = pool.send(request).await?;
    if !answer.status().is_success() {
        return Err(DiscoveryError::Status(answer.status().as_u16()));
    }
    let body = Limited::new(answer.into_body(), LARGEST).collect().await;
    let body = body.map_err(|_| DiscoveryError::Form)?.to_bytes();
    serde_json::from_slice(&body).map_err(|_| DiscoveryError::Form)
}

//! Servers of models: an adapter is installed beside the others, tried with one question, and made
//! the one that new requests reach; and the one before is made it again.
//!
//! Nothing here decides that an adapter may be deployed: the registry does, and hands over the
//! digest of the file that was approved. A file with another digest is refused before a byte of it
//! is sent.

mod embedded;
mod llama_server;
mod memory;
mod next_token;
mod ollama;
mod tools;
mod upload;
mod vllm;

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use module_http_client::{Answer, Client, ClientError, Header, Policy, Request, StatusCode};
use module_sdk::{Secret, human};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use memory::{Memory, machine_memory};
pub use next_token::NextToken;
pub use tools::{Call, Called};

use crate::registry::Digest;

/// Time within which a server has to answer a question about itself.
const QUESTION: Duration = Duration::from_secs(10);
/// Time within which a server has to take a file, or to load a model and answer.
const WORK: Duration = Duration::from_secs(300);
/// Largest adapter that is sent, in bytes.
const MAX_ADAPTER_BYTES: u64 = 1 << 30;

/// A kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Ollama: each adapter is a model of its own, and a name that points to one of them.
    Ollama,
    /// llama.cpp's `llama-server`, started with the adapters by `--lora`: one of them is on.
    LlamaServer,
    /// The server that comes with Lodestar, which is started when it is needed.
    Embedded,
    /// vLLM, started with `--enable-lora` and `VLLM_ALLOW_RUNTIME_LORA_UPDATING=True`: each adapter
    /// is a model of its own. Whoever reaches such a server can load adapters into it.
    Vllm,
}

/// A server of models.
#[derive(Debug, Clone)]
pub struct Server {
    kind: Kind,
    /// Base URL, without a slash at the end.
    base_url: String,
    client: Client,
    /// Key that the server asks for: before it changes anything, and before it answers with what
    /// nobody approved.
    key: Option<Secret>,
}

/// An adapter as it is to be served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Adapter {
    /// The adapter in llama.cpp's format.
    pub file: PathBuf,
    /// SHA-256 of the file that was approved, in hexadecimal digits.
    pub sha256: String,
    /// The base as the server names it.
    pub base: String,
    /// Name that requests are sent to, which leads to one version at a time.
    pub alias: String,
    /// Id of the version.
    pub version: String,
    /// Digests of the other files of the adapter by their names, as they were when the gates were
    /// measured; for servers that read those.
    pub files: BTreeMap<String, String>,
}

impl Adapter {
    /// Returns the name of this version alone.
    #[must_use]
    pub fn model(&self) -> String {
        format!("{}:{}", self.alias, self.version)
    }

    /// Returns the folder of the adapter's files.
    fn folder(&self) -> &Path {
        self.file.parent().unwrap_or_else(|| Path::new("/"))
    }

    /// Reads the file and compares its digest with that which was approved.
    fn read(&self) -> Result<Vec<u8>, DeployError> {
        let unreadable = |source| DeployError::Read { file: self.file.clone(), source };
        let size = fs::metadata(&self.file).map_err(unreadable)?.len();
        if size > MAX_ADAPTER_BYTES {
            return Err(DeployError::TooLarge { file: self.file.clone(), size });
        }
        let bytes = fs::read(&self.file).map_err(unreadable)?;
        if Digest::of(&bytes).as_str() != self.sha256 {
            return Err(DeployError::Changed { file: self.file.clone() });
        }
        Ok(bytes)
    }
}

/// A model that is asked.
#[derive(Debug, Clone, Copy)]
pub enum Model<'a> {
    /// The base alone, as the server names it.
    Base(&'a str),
    /// A version.
    Version(&'a Adapter),
}

/// An answer of a model. Its `Debug` shows no text.
#[derive(Clone, PartialEq, Eq)]
pub struct Answered {
    /// The text.
    pub text: String,
    /// Time to the whole answer.
    pub elapsed: Duration,
}

impl fmt::Debug for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Answered({} bytes, {:?})", self.text.len(), self.elapsed)
    }
}

/// Outcome of the question that a version is tried with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SmokeTest {
    /// Number of characters of the answer.
    pub characters: usize,
    /// Time to the whole answer, in milliseconds.
    pub elapsed_ms: u64,
}

impl Server {
    /// Creates a server of this kind at a URL, which may be of this machine or its network.
    #[must_use]
    pub fn new(kind: Kind, base_url: &str) -> Self {
        let client = Client::new(Policy { local: true, ..Policy::default() });
        Self { kind, base_url: base_url.trim_end_matches('/').to_owned(), client, key: None }
    }

    /// Adds the key that the server asks for.
    #[must_use]
    pub fn with_key(self, key: Secret) -> Self {
        Self { key: Some(key), ..self }
    }

    /// Makes a version known to the server, which answers nobody yet with it. To install it once
    /// more changes nothing. Returns the name under which this version alone is asked.
    ///
    /// # Errors
    ///
    /// When the file is not the one that was approved, or the server does not take it.
    pub async fn install(&self, adapter: &Adapter) -> Result<String, DeployError> {
        let bytes = adapter.read()?;
        match self.kind {
            Kind::Ollama => ollama::install(self, adapter, bytes).await,
            Kind::LlamaServer => llama_server::install(self, adapter).await,
            Kind::Embedded => embedded::install(self, adapter).await,
            Kind::Vllm => vllm::install(self, adapter).await,
        }
    }

    /// Makes a base of the files that a version was trained on known to Ollama under a name, where
    /// that is not known yet.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, or the server does not take it.
    pub async fn make_base(&self, name: &str, base: &Path) -> Result<(), DeployError> {
        ollama::make_base(self, name, base).await
    }

    /// Asks a version one question.
    ///
    /// # Errors
    ///
    /// When there is no answer, or an empty one.
    pub async fn smoke_test(&self, adapter: &Adapter) -> Result<SmokeTest, DeployError> {
        let question = json!([{"role": "user", "content": "Say hello."}]);
        let answered = self.answer(Model::Version(adapter), &question, 16).await?;
        let characters = answered.text.trim().chars().count();
        if characters == 0 {
            return Err(DeployError::Empty);
        }
        let elapsed_ms = u64::try_from(answered.elapsed.as_millis()).unwrap_or(u64::MAX);
        Ok(SmokeTest { characters, elapsed_ms })
    }

    /// Asks a model, which answers the same question always with the same text, as far as the
    /// server can: with temperature 0. `messages` are in the form of OpenAI's chat.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub async fn answer(
        &self,
        model: Model<'_>,
        messages: &Value,
        max_tokens: u32,
    ) -> Result<Answered, DeployError> {
        match self.kind {
            Kind::Ollama => ollama::answer(self, model, messages, max_tokens).await,
            Kind::LlamaServer | Kind::Embedded => {
                llama_server::answer(self, model, messages, max_tokens).await
            }
            Kind::Vllm => vllm::answer(self, model, messages, max_tokens).await,
        }
    }

    /// Leads new requests for the alias to this version, which was installed before. Requests that
    /// are being answered are not touched.
    ///
    /// # Errors
    ///
    /// When the server does not know the version, or does not answer.
    pub async fn activate(&self, adapter: &Adapter) -> Result<(), DeployError> {
        match self.kind {
            Kind::Ollama => ollama::point(self, &adapter.model(), &adapter.alias).await,
            Kind::LlamaServer | Kind::Embedded => {
                llama_server::switch_on(self, Some(adapter)).await
            }
            Kind::Vllm => vllm::point(self, adapter).await,
        }
    }

    /// Leads new requests for the alias to the base, where no version was there before.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub async fn deactivate(&self, base: &str, alias: &str) -> Result<(), DeployError> {
        match self.kind {
            Kind::Ollama => ollama::point(self, base, alias).await,
            Kind::LlamaServer | Kind::Embedded => llama_server::switch_on(self, None).await,
            Kind::Vllm => vllm::unload(self, alias).await,
        }
    }

    /// Returns whether the server answers within a time.
    pub async fn is_up(&self, within: Duration) -> bool {
        let mut request = Request::get(self.url("/health"));
        request.deadline = within;
        self.send(request).await.is_ok()
    }

    /// Lets everybody ask a server that comes with Lodestar for these versions by their names, and
    /// for no others but the one that the alias leads to.
    ///
    /// # Errors
    ///
    /// When it does not answer, or has no such version.
    pub async fn open(&self, versions: &[String], within: Duration) -> Result<(), DeployError> {
        embedded::open(self, versions, within).await
    }

    /// Returns for how long nobody has asked a server that comes with Lodestar.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn idle(&self, within: Duration) -> Result<Duration, DeployError> {
        let mut request = Request::get(self.url("/health"));
        request.deadline = within;
        let health = read(&self.send(request).await?)?;
        let is_busy = health["waiting"].as_u64() != Some(0);
        let idle = health["idle_s"].as_u64().filter(|_| !is_busy).unwrap_or_default();
        Ok(Duration::from_secs(idle))
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base_url)
    }

    /// Sends a request and returns its answer, if the server says that it is well.
    async fn send(&self, mut request: Request) -> Result<Answer, DeployError> {
        request.headers.extend(self.key.as_ref().map(Header::bearer));
        let answer = self.client.send(request).await.map_err(DeployError::Unreachable)?;
        match answer.status {
            status if status.is_success() => Ok(answer),
            status => Err(DeployError::Refused { status, words: words(&answer.body) }),
        }
    }

    async fn post(
        &self,
        path: &str,
        body: &Value,
        deadline: Duration,
    ) -> Result<Answer, DeployError> {
        let mut request = Request::post(self.url(path), "application/json", body.to_string());
        request.deadline = deadline;
        self.send(request).await
    }
}

/// Reason why a version is not deployed.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// An adapter that cannot be read.
    #[error("cannot read the adapter {}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Reason of the system.
        source: io::Error,
    },
    /// An adapter that is larger than any that is trained here.
    #[error("the adapter {} has {}, more than {} are not sent", file.display(),
        human::bytes(*size), human::bytes(MAX_ADAPTER_BYTES))]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// An adapter whose bytes are not those that were approved.
    #[error("the adapter {} is not the one that was approved: train the version again",
        file.display())]
    Changed {
        /// The file.
        file: PathBuf,
    },
    /// A server that gives no answer.
    #[error("the server of the model: {0}; start it, then deploy again")]
    Unreachable(#[source] ClientError),
    /// A server that says no.
    #[error("the server of the model answers {status}: {words}")]
    Refused {
        /// Its status.
        status: StatusCode,
        /// Its words, without characters that a terminal would follow.
        words: String,
    },
    /// A server whose answer cannot be read.
    #[error("the server of the model answers what this kind of server does not: {0}")]
    Unreadable(Unreadable),
    /// An adapter that `llama-server` was not started with.
    #[error("llama-server does not have {}: start it with `--lora-scaled {} 0`, so that nobody \
        is answered with it before it is approved", file.display(), file.display())]
    NotLoaded {
        /// The file.
        file: PathBuf,
    },
    /// A file of a base that is not sent.
    #[error("cannot send {} to the server: {reason}; make the base there by `ollama create`, and \
        name it as `serving.base`", file.display())]
    Upload {
        /// The file.
        file: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A vLLM that was started without something it needs.
    #[error("vLLM does not take the adapter: {words}; start it with {flag}")]
    Flag {
        /// Its words, without characters that a terminal would follow.
        words: String,
        /// The setting.
        flag: &'static str,
    },
    /// A file of an adapter whose digest was not kept when the gates were measured.
    #[error("{} was not measured: measure the gates of the version again", file.display())]
    Unmeasured {
        /// The file.
        file: PathBuf,
    },
    /// A version that answers nothing.
    #[error("the version answers the question of the smoke test with nothing")]
    Empty,
}

/// Returns whether an error tells that the server itself is not well, whatever it was asked.
pub(crate) fn is_for_all(error: &DeployError) -> bool {
    match error {
        DeployError::Unreachable(_) => true,
        DeployError::Refused { status, .. } => {
            status.is_server_error() && *status != StatusCode::NOT_IMPLEMENTED
        }
        _ => false,
    }
}

/// Part of an answer that is missing or wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable(&'static str);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Returns the error that a body holds, short and safe to show.
fn words(body: &[u8]) -> String {
    const MOST: usize = 200;
    let text = String::from_utf8_lossy(body);
    let error = serde_json::from_str::<Value>(&text).ok().and_then(|body| {
        let error = &body["error"];
        error.as_str().or_else(|| error["message"].as_str()).map(str::to_owned)
    });
    let text = error.unwrap_or_else(|| text.into_owned());
    let shown: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    if shown.is_empty() { "nothing more".to_owned() } else { shown }
}

/// Returns the JSON of an answer.
fn read(answer: &Answer) -> Result<Value, DeployError> {
    serde_json::from_slice(&answer.body).map_err(|_| DeployError::Unreadable(Unreadable("no JSON")))
}

/// Returns `true` when both are the same file, however they are written.
fn is_same_file(left: &Path, right: &Path) -> bool {
    match (left.canonicalize(), right.canonicalize()) {
        (Ok(left), Ok(right)) => left == right,
        _ => left == right,
    }
}

#[cfg(test)]
mod tests;

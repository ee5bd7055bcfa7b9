//! vLLM: adapters in PEFT's form that are loaded and unloaded while it serves, each a model of its
//! own, the alias among them (`/v1/load_lora_adapter`).
//!
//! vLLM reads the files itself, by their path: it runs on this machine, or sees the same folder. It
//! warns of loading at run time, since whoever reaches the server can load what they like: it is to
//! be reached by nobody else.

use std::fs;

use serde_json::{Value, json};

use super::{Adapter, Answered, DeployError, Kind, Model, Server, Unreadable, WORK, read};
use crate::registry::Digest;

/// Files that vLLM reads.
const FILES: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];
/// Settings without which it does not load adapters.
const LOADING: &str = "`--enable-lora` and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, where nobody \
                       else reaches it";

impl Kind {
    /// Returns what somebody who serves by this kind of server has to know.
    #[must_use]
    pub fn risk(self) -> Option<&'static str> {
        let risk = "a vLLM that loads adapters while it serves takes them from whoever reaches it: \
                    let nobody but Lodestar and its clients reach it, and never the internet";
        (self == Self::Vllm).then_some(risk)
    }
}

/// Loads a version under a name of its own.
pub(super) async fn install(server: &Server, adapter: &Adapter) -> Result<String, DeployError> {
    check(adapter)?;
    let model = adapter.model();
    match load(server, adapter, &model, false).await {
        // It was loaded before, by this name, which no other version has.
        Err(DeployError::Refused { words, .. }) if is_there(&words) => Ok(model),
        loaded => loaded.map(|()| model),
    }
}

/// Asks a model.
pub(super) async fn answer(
    server: &Server,
    model: Model<'_>,
    messages: &Value,
    max_tokens: u32,
) -> Result<Answered, DeployError> {
    let body = json!({
        "model": server.named(model), "messages": messages, "max_tokens": max_tokens,
        "temperature": 0, "seed": 0,
    });
    let answer = server.post("/v1/chat/completions", &body, WORK).await?;
    let text = read(&answer)?["choices"][0]["message"]["content"].as_str().map(str::to_owned);
    let text = text.ok_or(DeployError::Unreadable(Unreadable("an answer without a message")))?;
    Ok(Answered { text, elapsed: answer.elapsed })
}

/// Loads a version under the alias, in the place of the one that has it. A vLLM that cannot do so
/// in one step is without the alias for the moment between two.
pub(super) async fn point(server: &Server, adapter: &Adapter) -> Result<(), DeployError> {
    check(adapter)?;
    match load(server, adapter, &adapter.alias, true).await {
        Err(DeployError::Refused { words, .. }) if is_there(&words) => {
            unload(server, &adapter.alias).await?;
            load(server, adapter, &adapter.alias, false).await
        }
        loaded => loaded,
    }
}

/// Takes the alias away: vLLM has no name for the base beside those it was started with.
pub(super) async fn unload(server: &Server, name: &str) -> Result<(), DeployError> {
    match server.post("/v1/unload_lora_adapter", &json!({"lora_name": name}), WORK).await {
        Ok(_) => Ok(()),
        // There is none by this name.
        Err(DeployError::Refused { words, .. }) if words.contains("cannot be found") => Ok(()),
        Err(error) => Err(with_flag(error)),
    }
}

async fn load(
    server: &Server,
    adapter: &Adapter,
    name: &str,
    is_in_place: bool,
) -> Result<(), DeployError> {
    let mut body = json!({"lora_name": name, "lora_path": adapter.folder()});
    if is_in_place {
        body["load_inplace"] = true.into();
    }
    server.post("/v1/load_lora_adapter", &body, WORK).await.map(drop).map_err(with_flag)
}

fn is_there(words: &str) -> bool {
    words.contains("already been loaded")
}

/// Names the setting that vLLM has to be started with, where its words tell that it was not.
fn with_flag(error: DeployError) -> DeployError {
    match error {
        DeployError::Refused { status, words } => {
            let lower = words.to_lowercase();
            let is_off = lower.contains("not enabled") || lower.contains("enable_lora");
            let flag = if lower.contains("max_lora_rank") {
                "`--max-lora-rank` with the rank of the adapter"
            } else if lower.contains("max_loras") || lower.contains("max_cpu_loras") {
                "`--max-loras` and `--max-cpu-loras` with the number of versions and one more"
            } else if (is_off || status.as_u16() == 404) && !lower.contains("no adapter found") {
                LOADING
            } else if lower.contains("no adapter found") || lower.contains("allowed") {
                "a folder of versions that it can read"
            } else {
                return DeployError::Refused { status, words };
            };
            DeployError::Flag { words, flag }
        }
        error => error,
    }
}

/// Compares the files that vLLM will read with those that were measured.
fn check(adapter: &Adapter) -> Result<(), DeployError> {
    for name in FILES {
        let file = adapter.folder().join(name);
        let Some(expected) = adapter.files.get(name) else {
            return Err(DeployError::Unmeasured { file });
        };
        let unreadable = |source| DeployError::Read { file: file.clone(), source };
        let bytes = fs::read(&file).map_err(unreadable)?;
        if Digest::of(&bytes).as_str() != expected {
            return Err(DeployError::Changed { file });
        }
    }
    Ok(())
}

//! Codex: `[otel]` and a provider in its `config.toml`.

use serde_json::json;

use super::{FileSettings, Format, Part, Setting, Tool, Wish};
use crate::{commands::connect::environment::Environment, error::Result};

/// Codex.
pub(super) struct Codex;

impl Tool for Codex {
    fn id(&self) -> &'static str {
        "codex"
    }

    fn name(&self) -> &'static str {
        "Codex"
    }

    fn program(&self) -> &'static str {
        "codex"
    }

    fn settings(&self, environment: &Environment, wish: &Wish) -> Result<Vec<FileSettings>> {
        let endpoint = format!("{}/v1/logs", wish.ingest);
        let mut exporter = json!({"endpoint": endpoint, "protocol": "binary"});
        if let Some(project) = &wish.project {
            exporter["headers"] = json!({"x-lodestar-project": project});
        }
        let exporter = json!({"otlp-http": exporter});
        let mut settings = vec![Setting::new(Part::Telemetry, "otel/exporter", exporter)];
        if let Some(router) = &wish.router {
            let provider = |key: &str, value: serde_json::Value| {
                Setting::new(Part::Router, &format!("model_providers/lodestar/{key}"), value)
            };
            if wish.is_default {
                settings.insert(0, Setting::new(Part::Router, "model_provider", "lodestar"));
            }
            settings.push(provider("name", json!("Lodestar")));
            settings.push(provider("base_url", json!(format!("{router}/v1"))));
            settings.push(provider("wire_api", json!("responses")));
            if let Some(project) = &wish.project {
                let headers = json!({"x-lodestar-project": project});
                settings.push(provider("http_headers", headers));
            }
        }
        let path = environment.directory("CODEX_HOME", ".codex")?.join("config.toml");
        Ok(vec![FileSettings { path, format: Format::Toml, settings }])
    }

    fn notes(&self, _: &Environment, wish: &Wish) -> Vec<String> {
        let mut notes = Vec::new();
        if wish.router.is_some() {
            if wish.is_default {
                notes.push(
                    "Codex sends the provider `lodestar` no login: a subscription of ChatGPT is \
                     not used. The router needs a provider with a key of its own, or a local one."
                        .to_owned(),
                );
            } else {
                notes.push(
                    "Codex goes on with its own provider, so that a subscription of ChatGPT stays \
                     in use: `codex -c model_provider=lodestar` asks the router; --router makes \
                     it the default."
                        .to_owned(),
                );
            }
            notes.push(
                "Where the router asks for a virtual key, add `env_key = \"LODESTAR_KEY\"` to \
                 [model_providers.lodestar], and set that variable."
                    .to_owned(),
            );
        }
        notes
    }
}

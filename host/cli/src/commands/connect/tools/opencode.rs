//! opencode: `experimental.openTelemetry` and a provider in its `opencode.json`.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{FileSettings, Format, Part, Setting, Tool, Wish};
use crate::{commands::connect::environment::Environment, error::Result};

/// opencode.
pub(super) struct Opencode;

impl Tool for Opencode {
    fn id(&self) -> &'static str {
        "opencode"
    }

    fn name(&self) -> &'static str {
        "opencode"
    }

    fn program(&self) -> &'static str {
        "opencode"
    }

    fn settings(&self, environment: &Environment, wish: &Wish) -> Result<Vec<FileSettings>> {
        let mut settings = vec![Setting::new(Part::Telemetry, "experimental/openTelemetry", true)];
        if let Some(router) = &wish.router {
            let provider = |part: Part, key: &str, value: Value| {
                Setting::new(part, &format!("provider/lodestar/{key}"), value)
            };
            let limit = json!({"context": 128_000, "output": 8_000});
            let model = json!({"name": "auto", "tool_call": true, "limit": limit});
            settings.extend([
                provider(Part::Router, "npm", json!("@ai-sdk/openai-compatible")),
                provider(Part::Router, "name", json!("Lodestar")),
                provider(Part::Router, "options/baseURL", json!(format!("{router}/v1"))),
                provider(Part::Router, "models/auto", model),
            ]);
            if let Some(project) = &wish.project {
                let header = "options/headers/x-lodestar-project";
                settings.push(provider(Part::Project, header, json!(project)));
            }
        }
        Ok(vec![FileSettings { path: path(environment)?, format: Format::Json, settings }])
    }

    fn notes(&self, _: &Environment, wish: &Wish) -> Vec<String> {
        let mut note = format!(
            "opencode takes the address of its reports from the shell alone, so add to its \
             profile: `export OTEL_EXPORTER_OTLP_ENDPOINT={}`",
            wish.ingest
        );
        if let Some(project) = &wish.project {
            note += " and `export OTEL_EXPORTER_OTLP_HEADERS=x-lodestar-project=";
            note.extend([project.as_str(), "`"]);
        }
        let mut notes = vec![note];
        if wish.router.is_some() {
            notes.push(
                "`opencode -m lodestar/auto` asks the router; add models beside `auto` by their \
                 names. Where the router asks for a virtual key, add it as `apiKey` beside \
                 `baseURL`."
                    .to_owned(),
            );
        }
        notes
    }
}

/// Returns the settings file: the one that is named, the one that there is, or a new one.
fn path(environment: &Environment) -> Result<PathBuf> {
    if let Some(path) = environment.path("OPENCODE_CONFIG") {
        return Ok(path);
    }
    let folder = match environment.path("OPENCODE_CONFIG_DIR") {
        Some(folder) => folder,
        None => environment.directory("XDG_CONFIG_HOME", ".config")?.join("opencode"),
    };
    // What both say, the one with comments decides.
    let with_comments = folder.join("opencode.jsonc");
    let is_there = with_comments.symlink_metadata().is_ok();
    Ok(if is_there { with_comments } else { folder.join("opencode.json") })
}

//! Gemini CLI: `telemetry` in its `settings.json`, and the router's address in its `.env`.

use std::path::PathBuf;

use super::{FileSettings, Format, Part, Setting, Tool, Wish};
use crate::{commands::connect::environment::Environment, error::Result};

/// Gemini CLI.
pub(super) struct Gemini;

impl Tool for Gemini {
    fn id(&self) -> &'static str {
        "gemini"
    }

    fn name(&self) -> &'static str {
        "Gemini CLI"
    }

    fn program(&self) -> &'static str {
        "gemini"
    }

    fn settings(&self, environment: &Environment, wish: &Wish) -> Result<Vec<FileSettings>> {
        let telemetry = |name: &str, value: serde_json::Value| {
            Setting::new(Part::Telemetry, &format!("telemetry/{name}"), value)
        };
        let settings = vec![
            telemetry("enabled", true.into()),
            telemetry("target", "local".into()),
            telemetry("otlpProtocol", "http".into()),
            telemetry("otlpEndpoint", wish.ingest.as_str().into()),
            telemetry("logPrompts", false.into()),
        ];
        let folder = home(environment)?.join(".gemini");
        let path = folder.join("settings.json");
        let mut files = vec![FileSettings { path, format: Format::Json, settings }];
        if let Some(router) = &wish.router {
            let address = router.as_str();
            let mut settings = vec![Setting::new(Part::Router, "GOOGLE_GEMINI_BASE_URL", address)];
            if let Some(project) = &wish.project {
                let header = format!("X-Lodestar-Project:{project}");
                settings.push(Setting::listing("GEMINI_CLI_CUSTOM_HEADERS", header, ':', ','));
            }
            files.push(FileSettings { path: folder.join(".env"), format: Format::Env, settings });
        }
        Ok(files)
    }

    fn notes(&self, environment: &Environment, wish: &Wish) -> Vec<String> {
        let mut notes = Vec::new();
        if wish.router.is_some() {
            notes.push(
                "Gemini CLI asks the router where it runs with an API key (GEMINI_API_KEY); with a \
                 login of Google it goes on to ask Google."
                    .to_owned(),
            );
            let home = home(environment).ok();
            let hidden = home
                .filter(|home| home.join(".env").is_file() && !home.join(".gemini/.env").exists());
            notes.extend(hidden.map(|home| {
                format!(
                    "Gemini CLI reads one .env only: {} is not read any more once \
                     .gemini/.env is there; copy what it needs.",
                    home.join(".env").display()
                )
            }));
        }
        if wish.project.is_some() {
            notes.push("The telemetry of Gemini CLI names no project.".to_owned());
        }
        notes
    }
}

/// Returns the directory that has the folder `.gemini`.
fn home(environment: &Environment) -> Result<PathBuf> {
    match environment.path("GEMINI_CLI_HOME") {
        Some(home) => Ok(home),
        None => environment.home(),
    }
}

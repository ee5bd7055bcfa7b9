//! aider: its analytics log, which can be imported, and the router's address, in `.aider.conf.yml`.

use super::{FileSettings, Format, Part, Setting, Tool, Wish};
use crate::{commands::connect::environment::Environment, error::Result};

/// Name of the log in the home directory.
const LOG: &str = ".aider.analytics.jsonl";

/// aider.
pub(super) struct Aider;

impl Tool for Aider {
    fn id(&self) -> &'static str {
        "aider"
    }

    fn name(&self) -> &'static str {
        "aider"
    }

    fn program(&self) -> &'static str {
        "aider"
    }

    fn settings(&self, environment: &Environment, wish: &Wish) -> Result<Vec<FileSettings>> {
        let home = environment.home()?;
        // aider expands no `~` here.
        let log = home.join(LOG).display().to_string();
        let mut settings = vec![Setting::new(Part::Telemetry, "analytics-log", log)];
        if let Some(router) = &wish.router {
            let address = format!("{router}/v1");
            settings.push(Setting::new(Part::Router, "openai-api-base", address));
        }
        let path = home.join(".aider.conf.yml");
        Ok(vec![FileSettings { path, format: Format::Yaml, settings }])
    }

    fn notes(&self, _: &Environment, wish: &Wish) -> Vec<String> {
        let mut notes = vec![format!(
            "aider has no telemetry that it could send: it writes ~/{LOG}, and \
             `lodestar usage import aider` reads it. The numbers are its own estimates."
        )];
        if wish.router.is_some() {
            notes.push(
                "`aider --model openai/auto` asks the router. aider insists on a key for OpenAI's \
                 API: where OPENAI_API_KEY is not set, set it to a virtual key of `lodestar \
                 router keys`, or to any word where the router asks for none."
                    .to_owned(),
            );
        }
        if wish.project.is_some() {
            notes.push(
                "aider names no project: give each project a virtual key of its own.".to_owned(),
            );
        }
        notes
    }
}

//! Claude Code: the section `env` of its `settings.json`.

use super::{FileSettings, Format, Part, Setting, Tool, Wish};
use crate::{commands::connect::environment::Environment, error::Result};

/// Claude Code.
pub(super) struct ClaudeCode;

impl Tool for ClaudeCode {
    fn id(&self) -> &'static str {
        "claude-code"
    }

    fn name(&self) -> &'static str {
        "Claude Code"
    }

    fn program(&self) -> &'static str {
        "claude"
    }

    fn settings(&self, environment: &Environment, wish: &Wish) -> Result<Vec<FileSettings>> {
        let telemetry =
            |name: &str, value: &str| Setting::new(Part::Telemetry, &format!("env/{name}"), value);
        let mut settings = vec![
            telemetry("CLAUDE_CODE_ENABLE_TELEMETRY", "1"),
            telemetry("OTEL_LOGS_EXPORTER", "otlp"),
            telemetry("OTEL_METRICS_EXPORTER", "otlp"),
            telemetry("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            telemetry("OTEL_EXPORTER_OTLP_ENDPOINT", &wish.ingest),
        ];
        // No token: it would take the place of the login that people have, a subscription's too.
        if let Some(router) = &wish.router {
            let address = router.as_str();
            settings.push(Setting::new(Part::Router, "env/ANTHROPIC_BASE_URL", address));
        }
        if let Some(project) = &wish.project {
            let attribute = format!("lodestar.project={project}");
            settings.push(Setting::listing("env/OTEL_RESOURCE_ATTRIBUTES", attribute, '=', ','));
            if wish.router.is_some() {
                let header = format!("X-Lodestar-Project: {project}");
                settings.push(Setting::listing("env/ANTHROPIC_CUSTOM_HEADERS", header, ':', '\n'));
            }
        }
        let directory = environment.directory("CLAUDE_CONFIG_DIR", ".claude")?;
        let path = directory.join("settings.json");
        Ok(vec![FileSettings { path, format: Format::Json, settings }])
    }

    fn notes(&self, _: &Environment, wish: &Wish) -> Vec<String> {
        let login = "Claude Code goes on with the login that it has: an API key or a subscription. \
                     The router passes it on where its provider of Anthropic's API has no key of \
                     its own. Without a login, set ANTHROPIC_AUTH_TOKEN to a virtual key of \
                     `lodestar router keys`, or to any word where the router asks for none. \
                     With a base URL Claude Code searches tools of MCP no more, unless \
                     ENABLE_TOOL_SEARCH is true.";
        wish.router.iter().map(|_| login.to_owned()).collect()
    }
}

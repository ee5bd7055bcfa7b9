//! `lodestar router targets`.

use module_sdk::{Reply, Result, Table};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Router;

/// Lists the models of all providers with their state.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TargetsArgs {
    /// Show only those of this provider.
    #[serde(default)]
    provider: Option<String>,
}

impl Router {
    pub(crate) fn targets(&mut self, args: TargetsArgs) -> Result<Reply> {
        let list = self.app.targets.list();
        let wanted = |provider: &str| args.provider.as_deref().is_none_or(|it| it == provider);
        let columns =
            ["MODEL", "PROVIDER", "STATE", "BREAKER", "P50#", "P95#", "IN FLIGHT#", "CONTEXT#"];
        let mut table = Table::new(columns);
        let mut shown: Vec<Value> = Vec::new();
        for target in list.iter().filter(|target| wanted(&target.name.provider)) {
            let (state, breaker, p50, p95) = target.shown();
            let view = target.view();
            let ms = |time: Option<f64>| time.map_or("-".to_owned(), |ms| format!("{ms:.0} ms"));
            table.row([
                target.name.model.to_string(),
                target.name.provider.to_string(),
                state.clone(),
                breaker.to_owned(),
                ms(p50),
                ms(p95),
                target.in_flight().to_string(),
                view.context_tokens.map_or("-".to_owned(), |tokens| tokens.to_string()),
            ]);
            shown.push(json!({
                "model": &*target.name.model,
                "provider": &*target.name.provider,
                "state": state,
                "breaker": breaker,
                "latency_ms": {"p50": p50, "p95": p95},
                "in_flight": target.in_flight(),
                "local": target.is_local(),
                "context_tokens": view.context_tokens,
            }));
        }
        Ok(Reply::json(&shown)?.table(table))
    }
}

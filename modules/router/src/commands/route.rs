//! `lodestar router route`.

use module_sdk::{Error, Reply, Result, Table};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    Router,
    dialect::Dialect,
    exchange::Plan,
    routing::{Decision, hedge::Quantile},
};

/// Decides which model would answer a text, without asking it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RouteArgs {
    /// Text of the request.
    #[schemars(extend("x-positional" = true))]
    text: String,
    /// Model that is asked for [default: auto].
    #[serde(default)]
    model: Option<String>,
}

impl Router {
    pub(crate) fn route(&mut self, args: RouteArgs) -> Result<Reply> {
        let model = args.model.as_deref().unwrap_or("auto");
        let body = serde_json::json!({
            "model": model,
            "messages": [{"role": "user", "content": args.text}],
        });
        let headers = http::HeaderMap::new();
        let decision = Plan::decide_only(
            &self.app,
            Dialect::Chat,
            &headers,
            None,
            body.to_string().as_bytes(),
        )
        .map_err(|fault| Error::new(fault.message))?;
        let mut table = Table::new(["MODEL", "ALLOWED", "COST#", "REASON"]);
        for candidate in &decision.candidates {
            let cost = candidate.estimated_cost_nano_usd.map(module_sdk::Usd::from_nano);
            table.row([
                candidate.target.to_string(),
                if candidate.is_allowed { "yes" } else { "no" }.to_owned(),
                cost.map_or("-".to_owned(), |usd| format!("{usd}")),
                candidate.reason.clone().into_owned(),
            ]);
        }
        if let Some(first) = decision.order.first() {
            table.title = format!("{first} by {} ({})", decision.rule, decision.strategy);
        }
        for reason in &decision.reasons {
            table.notes.push(format!("{} = {} ({:+.2})", reason.name, reason.value, reason.weight));
        }
        table.notes.extend(hedging(&decision));
        Ok(Reply::json(&decision)?.table(table))
    }
}

/// Returns which models are asked too, and when.
fn hedging(decision: &Decision) -> Option<String> {
    let hedges = decision.hedges();
    let names: Vec<String> = hedges.iter().map(ToString::to_string).collect();
    let after = match (decision.hedge.after, decision.hedge.after_ms) {
        (Some(Quantile::P50), None) => "after its usual time (p50)".to_owned(),
        (Some(Quantile::P95), None) => "after its usual time (p95)".to_owned(),
        (Some(Quantile::P50), Some(ms)) => format!("after its usual time (p50, at first {ms} ms)"),
        (Some(Quantile::P95), Some(ms)) => format!("after its usual time (p95, at first {ms} ms)"),
        (None, Some(ms)) => format!("after {ms} ms"),
        (None, None) => return None,
    };
    let names = Some(names.join(", ")).filter(|names| !names.is_empty())?;
    Some(format!("where it has not begun {after}, asked too: {names}"))
}

//! Costs from the time before the start that count for budgets, as `usage_tracker` has them.

use std::{sync::Arc, time::Duration};

use module_sdk::{ErrorKind, Usd};
use serde::Deserialize;
use serde_json::json;

use crate::{
    app::App,
    limits::{OpenBudget, Scope},
};

/// Times that `usage_tracker` is asked while it does not run yet.
const TRIES: u32 = 7;

/// Costs since a moment, as `usage_tracker` sums them.
#[derive(Debug, Deserialize)]
struct Summary {
    rows: Vec<Row>,
    total: Sum,
}

#[derive(Debug, Deserialize)]
struct Row {
    key: Option<String>,
    #[serde(flatten)]
    sum: Sum,
}

#[derive(Debug, Deserialize)]
struct Sum {
    cost_usd: Option<Usd>,
}

/// Asks what was spent of the budgets that are known from before: requests that did not pass here
/// count as well. It happens once, at the start; requests never wait for it.
pub(crate) fn ask(app: &Arc<App>) {
    let budgets = app.limits.budgets_to_ask();
    if budgets.is_empty() {
        return;
    }
    let shared = app.clone();
    let asking = async move {
        for budget in budgets {
            ask_one(&shared, &budget).await;
        }
    };
    if let Err(error) = app.host.spawn(asking) {
        tracing::warn!(%error, "what was spent of budgets is not asked");
    }
}

async fn ask_one(app: &App, budget: &OpenBudget) {
    let args = json!({"since": budget.since.to_string(), "by": "project"});
    for attempt in 0..TRIES {
        match app.host.call::<_, Summary>("usage_tracker", "summary", &args).await {
            Ok(summary) => {
                if let Some(spent) = spent(&summary, &budget.scope) {
                    app.limits.budget_told(budget, spent.nano());
                }
                return;
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                tokio::time::sleep(Duration::from_secs(1 << attempt)).await;
            }
            Err(error) => {
                tracing::debug!(%error, "usage_tracker does not say what was spent");
                return;
            }
        }
    }
}

/// Returns the sum of those whose budget it is; `None` where it is not known.
fn spent(summary: &Summary, scope: &Scope) -> Option<Usd> {
    match scope {
        Scope::All => summary.total.cost_usd,
        Scope::Project(name) => {
            let is_it = |row: &&Row| row.key.as_deref() == Some(&**name);
            match summary.rows.iter().find(is_it) {
                Some(row) => row.sum.cost_usd,
                // It has asked nothing in this time.
                None => Some(Usd::default()),
            }
        }
        Scope::Key(_) => None,
    }
}

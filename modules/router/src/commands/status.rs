//! `lodestar router status`.

use module_sdk::{Reply, Result, Table};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::{Router, limits::Scope, server};

/// Shows where the router listens, whom it can ask, and what it has answered.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StatusArgs {}

impl Router {
    pub(crate) fn status(&mut self, _: StatusArgs) -> Result<Reply> {
        let list = self.app.targets.list();
        let mut table = Table::new(["PROVIDER", "API", "LOCAL", "MODELS#", "IN FLIGHT#", "STATE"]);
        let mut shown = Vec::new();
        for (id, state) in &self.app.targets.providers {
            let of_it = list.iter().filter(|target| target.provider.id == *id);
            let (models, in_flight) = of_it
                .fold((0_u32, 0), |(models, sum), target| (models + 1, sum + target.in_flight()));
            let trouble = server::trouble(state);
            let api = state.provider.api.as_str();
            table.row([
                id.to_string(),
                api.to_owned(),
                if state.provider.local { "yes" } else { "" }.to_owned(),
                models.to_string(),
                in_flight.to_string(),
                trouble.clone().unwrap_or_else(|| "ok".to_owned()),
            ]);
            shown.push(json!({
                "id": &**id,
                "api": api,
                "local": state.provider.local,
                "models": models,
                "in_flight": in_flight,
                "trouble": trouble,
            }));
        }
        let used: Vec<_> = self
            .app
            .limits
            .used(&Scope::All)
            .into_iter()
            .map(|(quantity, period, used)| {
                json!({"quantity": quantity.name(), "period": period.name(), "used": used})
            })
            .collect();
        table.notes.push("`lodestar router targets` lists the models.".to_owned());
        let (lost, trouble) = (self.app.journal.lost(), self.app.journal.trouble());
        if lost > 0 {
            table.notes.push(format!("{lost} lines of the journal were lost since the start"));
        }
        table.notes.extend(trouble.clone());
        let journal = json!({"lost": lost, "trouble": trouble});
        let shadows: serde_json::Map<_, _> = self
            .app
            .shadows
            .counts()
            .map(|(outcome, count)| (outcome.to_owned(), count.into()))
            .collect();
        let data =
            json!({"providers": shown, "journal": journal, "used": used, "shadows": shadows});
        Ok(Reply::json(&data)?.table(table))
    }
}

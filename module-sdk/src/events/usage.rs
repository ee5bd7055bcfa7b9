//! `usage.budget.*`: budgets that are nearly used up, and those that are.

use std::borrow::Cow;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Class, EventType};

/// A budget, and what is used of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct BudgetUse {
    /// The version of this type, 1.
    pub schema: u16,
    /// Name of the budget.
    pub budget: String,
    /// Those whose requests it counts: `all`, `project:NAME`, or `key:ID` for a virtual key of the
    /// router.
    pub scope: String,
    /// Amount of the budget, in 1e-9 USD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_nano_usd: Option<i64>,
    /// Amount that is used, in 1e-9 USD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spent_nano_usd: Option<i64>,
    /// Beginning of its period, in milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
    /// End of its period, in milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// Time of the event, in milliseconds since the Unix epoch.
    pub at: i64,
}

/// Warning that a budget is nearly used up, or that one that was exceeded has room again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct UsageBudgetWarned(pub BudgetUse);

/// Notice that a budget is exceeded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct UsageBudgetExceeded(pub BudgetUse);

impl BudgetUse {
    fn subject(&self) -> Option<Cow<'_, str>> {
        (!self.budget.is_empty()).then_some(Cow::Borrowed(&*self.budget))
    }
}

impl EventType for UsageBudgetWarned {
    const TOPIC: &'static str = "usage.budget.warned";
    const CLASS: Class = Class::Ledger;

    fn subject(&self) -> Option<Cow<'_, str>> {
        self.0.subject()
    }

    fn time(&self) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.0.at).ok()
    }
}

impl EventType for UsageBudgetExceeded {
    const TOPIC: &'static str = "usage.budget.exceeded";
    const CLASS: Class = Class::Ledger;

    fn subject(&self) -> Option<Cow<'_, str>> {
        self.0.subject()
    }

    fn time(&self) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.0.at).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_of_a_budget_is_absent() {
        let event: UsageBudgetExceeded =
            serde_json::from_str(r#"{"budget": "month", "scope": "all"}"#).expect("it is read");
        assert_eq!((event.0.spent_nano_usd, event.0.until), (None, None));
        let json = serde_json::to_value(&event).expect("it is written");
        let expected = serde_json::json!({"schema": 0, "budget": "month", "scope": "all", "at": 0});
        assert_eq!(json, expected);
    }
}

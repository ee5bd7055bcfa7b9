//! The shared vocabulary: the types of the events that Lodestar's own modules exchange.
//!
//! Names follow OpenTelemetry's GenAI conventions. Money is an integer number of nano-USD; what is
//! unknown is absent and never zero; times are milliseconds since the Unix epoch, UTC; durations
//! carry their unit in their name. No type here has a place for prompt or answer text but
//! [`LlmRequestContent`], which the host publishes only where the operator asked for it twice.

mod content;
mod health;
mod host;
mod learning;
mod llm;
mod lynex;
mod model_name;
mod router;
mod trace;
mod usage;

pub use content::{ContentMessage, ContentRole, LlmRequestContent};
pub use health::{
    AlertSeverity, CheckStatus, HealthAlertRaised, HealthAlertResolved, HealthCheckCompleted,
    HealthComponentChanged,
};
pub use host::{ConfigChanged, ModuleStateChanged};
pub use learning::{LearningDatasetBuilt, LearningRunProgressed, LearningVersionChanged};
pub use llm::{
    ApiFormat, CacheOutcome, CostSource, LlmModelSwitched, LlmRequestCompleted,
    LlmRequestWithdrawn, LlmSessionEnded, LlmSessionStarted, RequestSource, RequestStatus,
    UsageSource,
};
pub use lynex::{LynexEvent, LynexType};
pub use model_name::ModelName;
pub use router::{LlmFeedbackGiven, RouterTargetChanged};
pub use trace::{SpanKind, SpanStatus, TraceSpanCompleted};
pub use usage::{BudgetUse, UsageBudgetExceeded, UsageBudgetWarned};

/// Returns whether a topic fits a filter: `*` stands for one part, `>` for one or more at the end.
///
/// ```
/// use module_sdk::events::fits;
///
/// assert!(fits("llm.request.completed", "llm.request.completed"));
/// assert!(fits("lynex.*", "lynex.log"));
/// assert!(fits("llm.>", "llm.request.completed"));
/// assert!(!fits("llm.*", "llm.request.completed"));
/// assert!(!fits("llm.>", "llm"));
/// ```
#[must_use]
pub fn fits(filter: &str, topic: &str) -> bool {
    let mut filter = filter.split('.');
    let mut topic = topic.split('.');
    loop {
        match (filter.next(), topic.next()) {
            (Some(">"), Some(_)) => return true,
            (Some("*"), Some(_)) => {}
            (Some(part), Some(other)) if part == other => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

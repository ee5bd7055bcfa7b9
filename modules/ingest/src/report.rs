//! One source's report of one request, on its way to the bus.

use module_sdk::events::LlmRequestCompleted;

/// What a mapper makes of a record: the event without its key, and what joining needs to know.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Report {
    /// The event; [`Correlator`](crate::join::Joiner) gives it its `dedupe_key`.
    pub(crate) event: LlmRequestCompleted,
    /// Who reports: signal and instrumentation. Two records of one reporter are two requests.
    pub(crate) reporter: String,
    /// The span that encloses the reported one.
    pub(crate) parent_span_id: Option<String>,
    /// When the sender says it ended, in nanoseconds, as it is: a resent record says the same,
    /// while a corrected time may differ.
    pub(crate) stated_time_ns: u64,
    /// Whether the stated time could not be and another one stands in the event.
    pub(crate) clock_corrected: bool,
    /// What pairs two records of one request where the source has such a thing (a Lynex trace).
    pub(crate) pair: Option<String>,
    /// The id that the sender gave the record itself (a Lynex event id with its project).
    pub(crate) record_id: Option<String>,
}

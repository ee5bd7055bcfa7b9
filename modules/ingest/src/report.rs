//! One source's report of one request, on its way to the bus.

use module_sdk::events::LlmRequestCompleted;

/// The result of mapping a record: the event without its key, and what correlation needs to know.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Report {
    /// The event; [`Correlator`](crate::correlate::Correlator) sets its `dedupe_key`.
    pub(crate) event: LlmRequestCompleted,
    /// Signal and instrumentation that report. Two records of one reporter are two requests.
    pub(crate) reporter: String,
    /// The span that encloses the reported one.
    pub(crate) parent_span_id: Option<String>,
    /// End of the request as the sender states it, in nanoseconds, uncorrected: a resent record
    /// states the same, while a corrected time may differ.
    pub(crate) stated_time_ns: u64,
    /// True when the stated time was impossible and the event has another one.
    pub(crate) clock_corrected: bool,
    /// Value that pairs two records of one request, where the source has one (a Lynex trace).
    pub(crate) pair: Option<String>,
    /// The id that the sender gave the record itself (a Lynex event id with its project).
    pub(crate) record_id: Option<String>,
}

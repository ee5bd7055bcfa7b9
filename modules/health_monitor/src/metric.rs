//! The metrics that checks measure and rules judge, by the names under which Prometheus has them.
//!
//! Names follow OpenTelemetry's semantic conventions 1.44 where these have one.

use module_sdk::nearest;

/// Description of a metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// Name, as Prometheus has it.
    pub name: &'static str,
    /// Unit of its values.
    pub unit: Unit,
    /// Kind of its values.
    pub kind: Kind,
    /// Description in a sentence.
    pub help: &'static str,
    /// Names of its labels, besides that of the component.
    pub labels: &'static [&'static str],
    /// `true` where Prometheus gets it from here; otherwise only rules read it.
    pub exported: bool,
    /// Place in [`ALL`]; [`UNLISTED`] where it is not there.
    pub slot: usize,
}

/// Slot of a metric of which no values are kept.
pub const UNLISTED: usize = usize::MAX;

/// Unit of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    /// A part of a whole, from 0 to 1.
    Ratio,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// Degrees Celsius.
    Celsius,
    /// Watts.
    Watts,
    /// Hertz.
    Hertz,
    /// US dollars.
    Usd,
    /// A number of things.
    Count,
    /// 1 for yes, 0 for no.
    Flag,
}

impl Unit {
    /// Returns the name of the unit in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ratio => "ratio",
            Self::Bytes => "bytes",
            Self::Seconds => "seconds",
            Self::Celsius => "celsius",
            Self::Watts => "watts",
            Self::Hertz => "hertz",
            Self::Usd => "usd",
            Self::Count => "count",
            Self::Flag => "flag",
        }
    }
}

/// Kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A value that goes up and down.
    Gauge,
    /// A value that only grows, and begins anew at 0 when its source does.
    Counter,
    /// A measurement of each of many: Prometheus gets every one, in buckets; rules judge the last.
    Histogram,
    /// Values of single requests, of which a rule asks for a function over a time (`p95`, `sum`).
    /// They are kept in [`crate::requests`].
    Requests,
}

macro_rules! metrics {
    ($($constant:ident = $name:literal, $unit:ident, $kind:ident, $exported:literal,
       [$($label:literal),*], $help:literal;)+) => {
        $(#[doc = $help]
        pub static $constant: Metric = Metric {
            name: $name,
            unit: Unit::$unit,
            kind: Kind::$kind,
            help: $help,
            labels: &[$($label),*],
            exported: $exported,
            slot: Slot::$constant as usize,
        };)+

        /// Metrics in the order of [`ALL`].
        #[expect(
            non_camel_case_types,
            clippy::upper_case_acronyms,
            reason = "they are called what their statics are called"
        )]
        enum Slot {
            $($constant),+
        }

        /// Every metric.
        pub static ALL: &[&Metric] = &[$(&$constant),+];
    };
}

metrics! {
    COMPONENT_UP = "lodestar_component_up", Flag, Gauge, true, ["component"],
        "0 while the last probe of a component and two of the three before it failed, else 1.";
    PROBE_DURATION = "lodestar_probe_duration_seconds", Seconds, Histogram, true, ["component"],
        "Duration of probes that were answered.";
    PROBE_FAILURES = "lodestar_probe_failures_total", Count, Counter, true,
        ["component", "reason"], "Failed probes by reason.";
    KEY_REFUSED = "lodestar_provider_key_refused", Flag, Gauge, true, ["gen_ai_provider_name"],
        "1 if a provider refuses its key, else 0.";
    CERTIFICATE_EXPIRY = "lodestar_certificate_expiry_seconds", Seconds, Gauge, true,
        ["component"], "Time until the certificate of a server is not valid any more.";
    MODEL_UP = "lodestar_model_up", Flag, Gauge, true,
        ["gen_ai_provider_name", "gen_ai_request_model"],
        "1 if the provider of a model is up and lists it, else 0.";
    MODEL_VRAM = "lodestar_model_vram_bytes", Bytes, Gauge, true,
        ["gen_ai_provider_name", "gen_ai_request_model"],
        "Memory of the GPU that a loaded model takes.";
    MODELS_UP = "lodestar_models_up", Count, Gauge, true, [],
        "Models that can be asked.";
    CLOCK_SKEW = "lodestar_clock_skew_seconds", Seconds, Gauge, true, [],
        "Time by which the clock is ahead of those of the providers, by the median of them.";
    CLOCK_JUMPS = "lodestar_clock_jumps_total", Count, Counter, true, [],
        "Times that the clock was set by more than a minute.";
    MODULE_STATE = "lodestar_module_state", Flag, Gauge, false, ["module", "state"],
        "1 for the state of a module.";
    MODULE_RESTARTS = "lodestar_module_restarts_total", Count, Counter, false, ["module"],
        "Restarts of a module after failures.";
    MODULE_LAG = "lodestar_module_lag_seconds", Seconds, Gauge, false, ["module"],
        "Age of the oldest event that waits for a module.";
    MODULE_DROPPED = "lodestar_module_dropped_total", Count, Counter, false,
        ["module", "reason"], "Events of a module that were dropped.";
    DAEMON_MEMORY = "process_memory_usage_bytes", Bytes, Gauge, false, [],
        "Resident memory of lodestard.";
    LEDGER_TROUBLE = "lodestar_ledger_trouble", Flag, Gauge, false, [],
        "1 if no ledger event is accepted, else 0.";
    LEDGER_LOSSES = "lodestar_ledger_recent_losses", Count, Gauge, false, [],
        "Losses of the ledger that were found within the last hour.";
    CONFIG_INVALID = "lodestar_config_invalid", Flag, Gauge, false, [],
        "1 if the configuration file has an error and is not in force, else 0.";
    STORAGE_SIZE = "lodestar_database_size_bytes", Bytes, Gauge, true, ["module", "file"],
        "Size of a module's databases (db) and of their write-ahead logs (wal).";
    CHANNEL_UP = "lodestar_channel_up", Flag, Gauge, true, ["channel"],
        "1 if the last note was delivered or none was sent yet, else 0.";
    CHANNEL_WAITING = "lodestar_channel_waiting_notes", Count, Gauge, true, ["channel"],
        "Notes that wait to be delivered.";
    DISK_UTILIZATION = "system_filesystem_utilization_ratio", Ratio, Gauge, true,
        ["system_filesystem_mountpoint"], "Fraction of the bytes of a file system in use.";
    DISK_FREE = "lodestar_filesystem_free_bytes", Bytes, Gauge, false,
        ["system_filesystem_mountpoint"], "Bytes of a file system that are free for users.";
    DISK_USAGE = "system_filesystem_usage_bytes", Bytes, Gauge, true,
        ["system_filesystem_mountpoint", "system_filesystem_state"],
        "Bytes of a file system by state.";
    DISK_INODES = "lodestar_filesystem_inode_utilization_ratio", Ratio, Gauge, true,
        ["system_filesystem_mountpoint"], "Fraction of the inodes of a file system in use.";
    DISK_FULL_ETA = "lodestar_filesystem_full_eta_seconds", Seconds, Gauge, true,
        ["system_filesystem_mountpoint"],
        "Predicted seconds until a file system is full, +Inf if it is not filling.";
    GPU_UP = "lodestar_gpu_up", Flag, Gauge, true, ["hw_id"],
        "1 if the GPU answers, 0 if it is lost.";
    GPU_DRIVER_UP = "lodestar_gpu_driver_up", Flag, Gauge, true, ["reason"],
        "0 while the driver of the GPUs does not answer, by reason; none while it does.";
    GPU_SUPPORTED = "lodestar_gpu_supported", Flag, Gauge, true, ["hw_id", "metric"],
        "1 if the GPU tells this, 0 if it does not have it.";
    GPU_LEASED = "lodestar_gpu_leased", Flag, Gauge, true, ["hw_id"],
        "1 while a training run has the GPU, whose memory it fills on purpose.";
    GPU_UTILIZATION = "hw_gpu_utilization_ratio", Ratio, Gauge, true, ["hw_id", "hw_gpu_task"],
        "Fraction of time for which the GPU was busy.";
    GPU_MEMORY_USAGE = "hw_gpu_memory_usage_bytes", Bytes, Gauge, true, ["hw_id"],
        "Memory of the GPU in use.";
    GPU_MEMORY_LIMIT = "hw_gpu_memory_limit_bytes", Bytes, Gauge, true, ["hw_id"],
        "Size of the GPU's memory.";
    GPU_MEMORY_UTILIZATION = "hw_gpu_memory_utilization_ratio", Ratio, Gauge, true, ["hw_id"],
        "Fraction of the GPU's usable memory that is in use.";
    GPU_HEADROOM = "lodestar_gpu_temperature_headroom_celsius", Celsius, Gauge, true, ["hw_id"],
        "Degrees below the temperature at which the GPU slows itself down.";
    GPU_POWER_LIMIT = "lodestar_gpu_power_limit_watts", Watts, Gauge, true, ["hw_id"],
        "Power that the GPU may draw.";
    GPU_CLOCK = "lodestar_gpu_clock_hertz", Hertz, Gauge, true, ["hw_id", "clock"],
        "Clocks of the GPU.";
    GPU_PERFORMANCE_STATE = "lodestar_gpu_performance_state", Count, Gauge, true, ["hw_id"],
        "Performance state of the GPU, from 0 for the highest performance to 15.";
    GPU_THROTTLE = "lodestar_gpu_throttle_seconds_total", Seconds, Counter, true,
        ["hw_id", "reason"], "Time for which the clocks of the GPU were lowered, by reason.";
    HARDWARE_TEMPERATURE = "hw_temperature_celsius", Celsius, Gauge, true, ["hw_id", "hw_type"],
        "Temperature of a part of the machine.";
    HARDWARE_TEMPERATURE_LIMIT = "hw_temperature_limit_celsius", Celsius, Gauge, true,
        ["hw_id", "hw_type", "hw_limit_type"],
        "Temperatures at which a part slows down (high.degraded) or shuts down (high.critical).";
    HARDWARE_POWER = "hw_power_watts", Watts, Gauge, true, ["hw_id", "hw_type"],
        "Power that a part of the machine draws.";
    HARDWARE_FAN = "hw_fan_speed_ratio", Ratio, Gauge, true, ["hw_id"],
        "Speed of a fan as a fraction of its highest.";
    HARDWARE_ERRORS = "hw_errors_total", Count, Counter, true,
        ["hw_id", "hw_type", "error_type"], "Errors of the hardware; of GPUs the Xids.";
    MEMORY_UTILIZATION = "system_memory_utilization_ratio", Ratio, Gauge, true, [],
        "Fraction of memory that is not available.";
    MEMORY_AVAILABLE = "system_memory_linux_available_bytes", Bytes, Gauge, true, [],
        "Memory available without swapping.";
    SWAP_UTILIZATION = "system_paging_utilization_ratio", Ratio, Gauge, true, [],
        "Fraction of swap in use.";
    PRESSURE_STALLED = "lodestar_pressure_stall_seconds_total", Seconds, Counter, true,
        ["resource", "kind"],
        "Seconds in which some or all (kind) of the work waited for a resource.";
    PRESSURE_RATIO = "lodestar_pressure_stall_ratio", Ratio, Gauge, false, ["resource", "kind"],
        "Fraction of the last ten seconds in which work waited for a resource.";
    OOM_KILLS = "lodestar_oom_kills_total", Count, Counter, true, [],
        "Processes that the kernel killed for lack of memory.";
    REQUESTS = "lodestar_requests", Count, Requests, false,
        ["scope", "gen_ai_request_model", "gen_ai_provider_name", "lodestar_project"],
        "Requests that were answered or failed, within a time.";
    REQUEST_ERRORS = "lodestar_request_errors", Count, Requests, false,
        ["scope", "gen_ai_request_model", "gen_ai_provider_name", "lodestar_project"],
        "Requests that failed, within a time.";
    REQUEST_ERROR_RATIO = "lodestar_request_error_ratio", Ratio, Requests, false,
        ["scope", "gen_ai_request_model", "gen_ai_provider_name", "lodestar_project"],
        "Fraction of the requests that failed, within a time.";
    OPERATION_DURATION = "gen_ai_client_operation_duration_seconds", Seconds, Requests, false,
        ["scope", "gen_ai_request_model", "gen_ai_provider_name", "lodestar_project"],
        "Time to the end of a good answer.";
    FIRST_TOKEN = "gen_ai_server_time_to_first_token_seconds", Seconds, Requests, false,
        ["scope", "gen_ai_request_model", "gen_ai_provider_name", "lodestar_project"],
        "Time to the first content of a good answer.";
    REQUEST_TOKENS = "lodestar_request_tokens", Count, Requests, false,
        ["scope", "gen_ai_request_model", "gen_ai_provider_name", "lodestar_project"],
        "Tokens of input and output.";
    REQUEST_COST = "lodestar_request_cost_usd", Usd, Requests, false,
        ["scope", "gen_ai_request_model", "gen_ai_provider_name", "lodestar_project"],
        "Cost that reports of requests state; lodestar_spend_usd has what usage_tracker priced.";
    SPEND = "lodestar_spend_usd", Usd, Gauge, false,
        ["scope", "gen_ai_request_model", "gen_ai_provider_name", "lodestar_project", "window"],
        "Cost of the requests of the last hour and day, as usage_tracker prices them.";
    COST_ANOMALY = "lodestar_cost_anomaly_score", Count, Gauge, true, [],
        "Distance of the cost of the last hour from the same hour of past weeks, in deviations.";
    SLO_BURN_RATE = "lodestar_slo_burn_rate", Count, Gauge, true, ["slo", "window"],
        "Speed at which the error budget is used up: 1 uses it up in the window of the objective.";
    SLO_REQUESTS = "lodestar_slo_requests", Count, Gauge, true, ["slo", "window"],
        "Requests within a window that count for an objective.";
    SLO_ERRORS = "lodestar_slo_errors", Count, Gauge, true, ["slo", "window"],
        "Requests within a window that count for an objective and were not good.";
    SLO_BUDGET = "lodestar_slo_budget_remaining_ratio", Ratio, Gauge, true, ["slo"],
        "Fraction of the error budget that is left; negative once more than all of it is used.";
}

/// Returns the metric of a name.
///
/// # Errors
///
/// When there is none.
pub fn find(name: &str) -> Result<&'static Metric, UnknownMetric> {
    ALL.iter().copied().find(|metric| metric.name == name).ok_or_else(|| UnknownMetric {
        name: name.to_owned(),
        near: nearest(name, ALL.iter().map(|metric| metric.name)).map(str::to_owned),
    })
}

/// A name that no metric has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no metric {name:?}{}", meant(near.as_deref()))]
pub struct UnknownMetric {
    /// The name.
    name: String,
    /// The nearest one that exists.
    near: Option<String>,
}

fn meant(near: Option<&str>) -> String {
    near.map_or(String::new(), |near| format!("; is {near} meant?"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_say_their_unit() {
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
        for (place, metric) in ALL.iter().enumerate() {
            assert_eq!(metric.slot, place, "{}", metric.name);
            let suffix = match (metric.kind, metric.unit) {
                (Kind::Counter, _) => "_total",
                (_, Unit::Ratio) => "_ratio",
                (_, Unit::Bytes) => "_bytes",
                (_, Unit::Seconds) => "_seconds",
                (_, Unit::Celsius) => "_celsius",
                (_, Unit::Watts) => "_watts",
                _ => "",
            };
            assert!(metric.name.ends_with(suffix), "{}", metric.name);
        }
    }

    #[test]
    fn an_unknown_name_leads_to_the_nearest() {
        assert_eq!(find("system_memory_utilization_ratio").expect("it is known").unit, Unit::Ratio);
        let error = find("system_memory_utilisation_ratio").expect_err("it is not").to_string();
        assert!(error.ends_with("is system_memory_utilization_ratio meant?"), "{error}");
    }
}

//! The section `notify:` of the configuration.

use std::collections::BTreeMap;

use module_sdk::{Error, Result, events::AlertSeverity, manifest::valid_name};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    maintenance::{Window, WindowOptions},
    matcher::Matcher,
    notifier::{Policy, Route},
};
use crate::{channels::ChannelOptions, quantity::Span};

/// Settings of notifications.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NotifyOptions {
    /// The channels by name. There is always one called `log`, unless one of that name says
    /// otherwise: `log: {kind: log, enabled: false}`.
    pub channels: BTreeMap<String, ChannelOptions>,
    /// Notes within an hour to a channel, at most. What is beyond is held back and told in one
    /// digest. The log has no limit.
    #[schemars(range(min = 1, max = 1_000))]
    pub cap_per_hour: u32,
    /// Time for which a critical alert waits for others that are told with it.
    pub critical_group_wait: Span,
    /// Time for which other news wait.
    pub group_wait: Span,
    /// Least time between two notes about one alert.
    pub group_interval: Span,
    /// Reminders of alerts that nobody acknowledged.
    pub reminders: Reminders,
    /// Times in which nobody is told.
    pub maintenance: Vec<WindowOptions>,
}

/// Times between reminders.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Reminders {
    /// Time between two reminders of a critical alert; `0s` for none.
    pub critical: Span,
    /// Time between two reminders of a warning; `0s` for none.
    pub warning: Span,
}

/// Settings that every channel has.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RouteOptions {
    /// `false` switches the channel off.
    pub enabled: bool,
    /// Severity from which on it is told. Default: `warning`, for the log `info`.
    pub min_severity: Option<AlertSeverity>,
    /// Alerts that it is told of, with patterns for their `name`, `component`, `severity` and
    /// labels: `{component: "disk.*"}`. Default: all.
    #[serde(rename = "match")]
    pub matching: BTreeMap<String, String>,
    /// `false` leaves out the ends of alerts.
    pub send_resolved: bool,
    /// Notes within an hour, at most, where that differs from `cap_per_hour` above.
    pub cap_per_hour: Option<u32>,
}

/// Name of the channel that is there without being configured.
const LOG: &str = "log";
/// Channels at most: each has metrics and a component of its own.
const CHANNELS: usize = 20;
/// Times of the section at most.
const LONGEST_MS: u64 = 7 * 86_400_000;

impl Default for NotifyOptions {
    fn default() -> Self {
        Self {
            channels: BTreeMap::new(),
            cap_per_hour: 6,
            critical_group_wait: Span::of_seconds(5),
            group_wait: Span::of_seconds(30),
            group_interval: Span::of_seconds(300),
            reminders: Reminders::default(),
            maintenance: Vec::new(),
        }
    }
}

impl Default for Reminders {
    fn default() -> Self {
        Self { critical: Span::of_seconds(3_600), warning: Span::of_seconds(4 * 3_600) }
    }
}

impl Default for RouteOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            min_severity: None,
            matching: BTreeMap::new(),
            send_resolved: true,
            cap_per_hour: None,
        }
    }
}

impl NotifyOptions {
    /// Returns the channels that are switched on, by name.
    #[must_use]
    pub fn channels(&self) -> BTreeMap<&str, ChannelOptions> {
        let mut channels = BTreeMap::from([(LOG, ChannelOptions::Log(Default::default()))]);
        channels
            .extend(self.channels.iter().map(|(name, options)| (name.as_str(), options.clone())));
        channels.retain(|_, options| options.route().enabled);
        channels
    }

    /// Returns what is told to whom.
    ///
    /// # Errors
    ///
    /// The first key that cannot be used.
    pub fn policy(&self) -> Result<Policy> {
        self.check_channels()?;
        let times = [
            ("critical_group_wait", self.critical_group_wait),
            ("group_wait", self.group_wait),
            ("group_interval", self.group_interval),
            ("reminders.critical", self.reminders.critical),
            ("reminders.warning", self.reminders.warning),
        ];
        for (key, span) in times {
            if span.ms() > LONGEST_MS {
                return Err(at(key, "must be at most 7d"));
            }
            if key.starts_with("reminders") && (1..60_000).contains(&span.ms()) {
                return Err(at(key, "must be at least 1m, or 0s for no reminders"));
            }
        }
        if self.cap_per_hour == 0 {
            return Err(at("cap_per_hour", "must be at least 1"));
        }
        let mut windows = Vec::new();
        for (index, options) in self.maintenance.iter().enumerate() {
            let window = Window::new(options).map_err(|error| {
                at(format!("maintenance[{index}].{}", error.key), error.to_string())
            })?;
            windows.push(window);
        }
        let every = |span: Span| (span.ms() > 0).then(|| span.ms());
        Ok(Policy {
            critical_wait_ms: self.critical_group_wait.ms(),
            wait_ms: self.group_wait.ms(),
            interval_ms: self.group_interval.ms(),
            critical_reminder_ms: every(self.reminders.critical),
            warning_reminder_ms: every(self.reminders.warning),
            windows,
            routes: self.routes(),
        })
    }

    fn routes(&self) -> Vec<Route> {
        let route = |(name, options): (&str, ChannelOptions)| {
            let is_log = matches!(options, ChannelOptions::Log(_));
            let route = options.route();
            let usual = if is_log { AlertSeverity::Info } else { AlertSeverity::Warning };
            let usual_cap = (!is_log).then_some(self.cap_per_hour);
            Route {
                channel: name.to_owned(),
                min_severity: route.min_severity.unwrap_or(usual),
                matcher: Matcher::of(&route.matching),
                send_resolved: route.send_resolved,
                cap_per_hour: route.cap_per_hour.or(usual_cap),
            }
        };
        self.channels().into_iter().map(route).collect()
    }

    fn check_channels(&self) -> Result<()> {
        if self.channels.len() > CHANNELS {
            return Err(at("channels", format!("there may be {CHANNELS} channels at most")));
        }
        for (name, options) in &self.channels {
            let key = format!("channels.{name}");
            if !valid_name(name) {
                let message = "is no name of a channel: 1 to 32 of a-z, 0-9 and _, beginning with \
                               a letter";
                return Err(at(key, message));
            }
            if options.route().cap_per_hour == Some(0) {
                return Err(at(format!("{key}.cap_per_hour"), "must be at least 1"));
            }
            options
                .check()
                .map_err(|error| at(format!("{key}.{}", error.key), error.to_string()))?;
        }
        Ok(())
    }
}

fn at(key: impl std::fmt::Display, message: impl Into<String>) -> Error {
    Error::config_at(format!("notify.{key}"), message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(json: serde_json::Value) -> NotifyOptions {
        serde_json::from_value(json).expect("it has the form")
    }

    #[test]
    fn the_log_is_told_of_everything_without_being_configured() {
        let policy = NotifyOptions::default().policy().expect("the defaults are valid");
        assert_eq!(policy.routes.len(), 1);
        assert_eq!(policy.routes[0].channel, "log");
        assert_eq!(policy.routes[0].min_severity, AlertSeverity::Info);
        assert_eq!(policy.routes[0].cap_per_hour, None);
        let off =
            options(serde_json::json!({"channels": {"log": {"kind": "log", "enabled": false}}}));
        assert!(off.policy().expect("it is valid").routes.is_empty());
    }

    #[test]
    fn what_cannot_be_used_is_named_by_its_key() {
        let check = |json: serde_json::Value, expected: &str| {
            let error = options(json).policy().expect_err(expected).to_string();
            assert!(error.starts_with(expected), "{error}");
        };
        let channel = |json: serde_json::Value| serde_json::json!({"channels": {"ops": json}});
        check(serde_json::json!({"group_wait": "8d"}), "notify.group_wait: must be at most 7d");
        check(serde_json::json!({"reminders": {"critical": "5s"}}), "notify.reminders.critical: ");
        check(
            serde_json::json!({"maintenance": [{"from": "02:00", "to": "26:00"}]}),
            "notify.maintenance[0].to: is no time of day",
        );
        check(
            serde_json::json!({"channels": {"Ops!": {"kind": "log"}}}),
            "notify.channels.Ops!: is no name",
        );
        check(channel(serde_json::json!({"kind": "webhook"})), "notify.channels.ops.url: ");
        check(
            channel(serde_json::json!({"kind": "log", "cap_per_hour": 0})),
            "notify.channels.ops.cap_per_hour: ",
        );
    }
}

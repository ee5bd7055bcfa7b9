//! Standing of an objective: the rest of its budget, and how long that lasts.

use std::time::Duration;

use module_sdk::human;

use super::{HOUR_MS, Objective, Share, Slo, SloKind, WINDOWS, count};
use crate::{metric::Unit, quantity::Span, text, time::Moment};

/// Standing of an objective.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The objective.
    pub slo: Slo,
    /// Requests that count, within the window of the objective.
    pub requests: i64,
    /// Those of them that were not good.
    pub errors: i64,
    /// Fraction of the error budget that is left; negative once more than all of it is used.
    pub budget_remaining: f64,
    /// Burn rates, the shortest window first.
    pub windows: Vec<Burn>,
    /// Time until the budget is used up at this rate, in milliseconds; `None` where it lasts.
    pub used_up_in_ms: Option<i64>,
}

/// Burn rate over a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Burn {
    /// Name of the window: `5m`.
    pub window: &'static str,
    /// Requests that count within it.
    pub requests: i64,
    /// Those of them that were not good.
    pub errors: i64,
    /// Speed at which the budget is used up, where there were requests: 1 uses it up in the window
    /// of the objective.
    pub burn_rate: Option<f64>,
}

/// Requests that a window has to have for its burn rate to foretell something.
const TELLING: i64 = 20;

impl Objective {
    pub(super) fn standing(&self, now: Moment) -> Standing {
        let all = self.share(self.slo.window_ms, now);
        let windows: Vec<Burn> = WINDOWS
            .iter()
            .map(|(window, ms)| {
                let share = self.share(*ms, now);
                let burn_rate = (share.total > 0).then(|| self.burn_rate(share));
                Burn { window, requests: share.total, errors: share.bad(), burn_rate }
            })
            .collect();
        let budget_remaining = if all.total == 0 { 1.0 } else { 1.0 - self.burn_rate(all) };
        Standing {
            requests: all.total,
            errors: all.bad(),
            budget_remaining,
            used_up_in_ms: used_up_in_ms(budget_remaining, self.slo.window_ms, &windows),
            windows,
            slo: self.slo.clone(),
        }
    }

    fn burn_rate(&self, share: Share) -> f64 {
        count(share.bad()) / count(share.total) / (1.0 - self.slo.objective)
    }
}

/// Returns when a budget is used up at the rate of the shortest window, from an hour on, that has
/// requests enough. At a rate of 1 or less what is used is given back as fast.
#[expect(clippy::cast_precision_loss, reason = "90 days in ms are far below 2^53")]
#[expect(clippy::cast_possible_truncation, reason = "the time is at most that of the window")]
fn used_up_in_ms(remaining: f64, window_ms: i64, windows: &[Burn]) -> Option<i64> {
    if remaining <= 0.0 {
        return Some(0);
    }
    let from_an_hour = WINDOWS.iter().position(|(_, ms)| *ms >= HOUR_MS).unwrap_or(0);
    let mut telling = windows[from_an_hour..].iter().filter(|burn| burn.requests >= TELLING);
    let rate = telling.next()?.burn_rate.filter(|rate| *rate > 1.0)?;
    Some((remaining * window_ms as f64 / rate) as i64)
}

impl Standing {
    /// Returns the objective for a table: `99% within 5s of model claude-*`.
    #[must_use]
    pub fn objective_text(&self) -> String {
        let Slo { objective, kind, threshold_ms, scope, .. } = &self.slo;
        let good = text::show(Unit::Ratio, *objective);
        let within = match (kind, threshold_ms) {
            (SloKind::Latency, Some(ms)) => {
                format!(" within {}", Span(Duration::from_millis((*ms).into())))
            }
            _ => String::new(),
        };
        text::visible(&format!("{good}{within} of {scope}"))
    }

    /// Returns when the budget is used up, in words.
    #[must_use]
    pub fn used_up_text(&self) -> String {
        match self.used_up_in_ms {
            Some(0) => "the budget is used up".to_owned(),
            Some(ms) => {
                let time = Duration::from_millis(u64::try_from(ms).unwrap_or(0) / 60_000 * 60_000);
                format!("used up in {} at this rate", human::duration(time))
            }
            None => "the budget lasts".to_owned(),
        }
    }
}

//! Windows on their way to the next generation of the module.

use module_sdk::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Windows, key,
    sample::Counts,
    scope::{Kind, Scope},
    steady,
};
use crate::{text, time::Moment};

/// Windows as they are kept: times are ages, so that the next generation may count its own time.
#[derive(Debug, Serialize, Deserialize)]
pub struct Kept {
    /// Time at which they were written down, in milliseconds since the Unix epoch.
    at_ms: i64,
    scopes: Vec<KeptScope>,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptScope {
    kind: Kind,
    name: String,
    last_ms: i64,
    /// Age, sums, and the two distributions of response times.
    minutes: Vec<(i64, Counts, Vec<u8>, Vec<u8>)>,
    fives: Vec<(i64, Counts)>,
    hours: Vec<(i64, Counts)>,
}

impl Windows {
    /// Writes the windows down.
    #[must_use]
    pub fn keep(&self, now: Moment) -> Kept {
        let now_ms = steady(now);
        let age = |at_ms: i64| now_ms - at_ms;
        let sums = |(at_ms, counts): (i64, &Counts)| (age(at_ms), *counts);
        let scopes = self.scopes().filter(|scope| !scope.is_empty()).map(|scope| KeptScope {
            kind: scope.kind,
            name: scope.name().to_owned(),
            last_ms: age(scope.last_ms()),
            minutes: scope
                .minutes
                .iter()
                .map(|(at_ms, minute)| {
                    let (duration, ttft) = (minute.duration.packed(), minute.ttft.packed());
                    (age(at_ms), minute.counts, duration, ttft)
                })
                .collect(),
            fives: scope.fives.iter().map(sums).collect(),
            hours: scope.hours.iter().map(sums).collect(),
        });
        Kept { at_ms: now.at.as_millisecond(), scopes: scopes.collect() }
    }

    /// Takes over windows that were written down.
    pub fn take_over(&mut self, kept: Kept, now: Moment) {
        let now_ms = steady(now);
        let passed =
            now.at.duration_since(Timestamp::from_millisecond(kept.at_ms).unwrap_or(now.at));
        let passed_ms = i64::try_from(passed.as_millis()).unwrap_or(0).max(0);
        let at = |age_ms: i64| now_ms.saturating_sub(age_ms.saturating_add(passed_ms));
        for kept in kept.scopes {
            let Some(scope) = self.scope(kept.kind, &kept.name) else { continue };
            scope.seen(at(kept.last_ms));
            for (age_ms, counts, duration, ttft) in kept.minutes {
                if let Some(minute) = scope.minutes.at(at(age_ms), now_ms) {
                    minute.counts += &counts;
                    minute.duration.merge(&duration);
                    minute.ttft.merge(&ttft);
                }
            }
            for (ring, kept) in [(&mut scope.fives, kept.fives), (&mut scope.hours, kept.hours)] {
                for (age_ms, counts) in kept {
                    if let Some(sum) = ring.at(at(age_ms), now_ms) {
                        *sum += &counts;
                    }
                }
            }
        }
        self.version += 1;
    }

    /// Returns the scope that a kept one belongs to; `None` where there is no room for it.
    fn scope(&mut self, kind: Kind, name: &str) -> Option<&mut Scope> {
        let group = match kind {
            Kind::All => return Some(&mut self.all),
            Kind::Model => &mut self.models,
            Kind::Provider => &mut self.providers,
            Kind::Project => &mut self.projects,
        };
        if group.scopes.len() >= group.most {
            return None;
        }
        let scope = || Scope::new(kind, &text::visible(name));
        Some(group.scopes.entry(key(kind, name)).or_insert_with(scope))
    }
}

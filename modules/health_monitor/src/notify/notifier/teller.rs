//! Notes to one channel at a moment: the differences between what it was told and how things are.

use std::collections::{BTreeMap, BTreeSet};

use module_sdk::events::AlertSeverity;

use super::{
    Circumstances, Entry, HOUR_MS, Known, Last, Policy, RECURRING_MS, Route, Suppressed, Trouble,
    ms, steady,
};
use crate::{
    notify::{
        hiding::hidden,
        note::{Item, Kind, News, Note},
    },
    time::Moment,
};

/// Telling of one channel at one moment.
pub(super) struct Teller<'a> {
    pub(super) policy: &'a Policy,
    pub(super) route: &'a Route,
    pub(super) troubles: &'a BTreeMap<String, Trouble>,
    pub(super) circumstances: &'a Circumstances<'a>,
    pub(super) now: Moment,
    pub(super) suppressed: &'a mut Vec<Suppressed>,
    pub(super) is_changed: &'a mut bool,
}

impl<'a> Teller<'a> {
    /// Returns the note that is due, where one is.
    pub(super) fn tell(&mut self, known: &mut Known) -> Option<Note> {
        let at = steady(self.now);
        known.sent_ms.retain(|time| at.saturating_sub(*time) < HOUR_MS);
        let hidden = self.hidden();
        let mut pending = Vec::new();
        for (key, trouble) in self.troubles {
            if !self.route.takes(&trouble.alert) {
                *self.is_changed |= known.entries.remove(key).is_some();
                continue;
            }
            let before = known.entries.get(key).cloned().unwrap_or_default();
            let mut entry = before.clone();
            pending.extend(self.judge(key, trouble, &mut entry, hidden.contains(key.as_str())));
            if before != entry {
                *self.is_changed = true;
                known.entries.insert(key.clone(), entry);
            }
        }
        // Reminders that are not due go along with those of their severity, and with nothing else.
        let reminded: Vec<AlertSeverity> = pending
            .iter()
            .filter(|pending| pending.is_due && pending.news == News::Reminder)
            .map(|pending| pending.severity)
            .collect();
        pending.retain(|pending| {
            pending.news != News::Reminder || reminded.contains(&pending.severity)
        });
        if pending.iter().any(|pending| pending.is_due) { self.write(pending, known) } else { None }
    }

    /// Returns the keys of the troubles that others hide from the channel: of what it is not told
    /// itself, nothing is hidden.
    fn hidden(&self) -> BTreeSet<&'a str> {
        let lasting = self.troubles.iter().filter(|(_, trouble)| {
            (trouble.ended_at.is_none() || trouble.is_flapping) && self.route.takes(&trouble.alert)
        });
        let alerts = lasting.map(|(key, trouble)| (key.as_str(), &trouble.alert)).collect();
        hidden(&alerts, self.circumstances.rules)
    }

    /// Says what is to be told of a trouble, where something is.
    fn judge(
        &mut self,
        key: &str,
        trouble: &Trouble,
        entry: &mut Entry,
        is_hidden: bool,
    ) -> Option<Pending> {
        let at = steady(self.now);
        let reason = self.reason(trouble, entry, is_hidden);
        let was_hidden = entry.suppressed == Some(Suppressed::Hidden);
        if reason != entry.suppressed {
            self.suppressed.extend(reason);
            entry.suppressed = reason;
        }
        let news = match reason {
            None | Some(Suppressed::Capped) => self.news(trouble, entry),
            Some(_) => None,
        };
        let Some(news) = news else {
            entry.waiting_ms = None;
            return None;
        };
        let severity = trouble.alert.severity;
        if news == News::Reminder {
            entry.waiting_ms = None;
            let is_due = self.is_to_be_reminded(trouble, entry, 1);
            return Some(Pending { key: key.to_owned(), news, severity, is_due, may_join: true });
        }
        let since = *entry.waiting_ms.get_or_insert_with(|| {
            // What was hidden may be over as soon as its cause is, and only not have ended yet.
            let rule = self.circumstances.rules.get(&trouble.alert.name);
            let keep = rule.filter(|_| was_hidden).map_or(0, |rule| rule.keep_ms);
            at.saturating_add(ms(keep))
        });
        let is_recurring = news == News::Resolved && trouble.begun_ms.len() > 1;
        let since = if is_recurring && !entry.is_held {
            since.max(trouble.changed_ms.saturating_add(RECURRING_MS))
        } else {
            since
        };
        let is_critical = severity == AlertSeverity::Critical;
        let wait = if is_critical { self.policy.critical_wait_ms } else { self.policy.wait_ms };
        let mut due = since.saturating_add(ms(wait));
        match (news, entry.told_ms) {
            (News::Firing, _) if is_critical => {}
            (_, Some(told)) => due = due.max(told.saturating_add(ms(self.policy.interval_ms))),
            (_, None) => {}
        }
        Some(Pending {
            key: key.to_owned(),
            news,
            severity,
            is_due: at >= due,
            may_join: at >= since,
        })
    }

    /// Returns why nothing is told of a trouble at the moment.
    fn reason(&self, trouble: &Trouble, entry: &Entry, is_hidden: bool) -> Option<Suppressed> {
        let alert = &trouble.alert;
        let is_over = trouble.ended_at.is_some() && !trouble.is_flapping;
        if is_over && entry.told == Last::Nothing && !entry.is_held {
            return None;
        }
        if self.circumstances.silences.iter().any(|silence| silence.fits(alert)) {
            return Some(Suppressed::Silenced);
        }
        if self.policy.windows.iter().any(|window| window.covers(alert, self.now.at)) {
            return Some(Suppressed::Maintenance);
        }
        // The end of what was told is told in any case.
        if is_hidden && !is_over {
            return Some(Suppressed::Hidden);
        }
        if trouble.is_flapping && entry.told == Last::Flapping {
            return Some(Suppressed::Flapping);
        }
        entry.is_held.then_some(Suppressed::Capped)
    }

    /// Returns what differs between what was told and how things are.
    fn news(&self, trouble: &Trouble, entry: &mut Entry) -> Option<News> {
        if trouble.is_flapping {
            return (entry.told != Last::Flapping).then_some(News::Flapping);
        }
        let was_told = entry.told != Last::Nothing;
        match (entry.told, trouble.ended_at.is_some()) {
            (Last::Nothing | Last::Flapping, false) => Some(News::Firing),
            (Last::Firing, false) => {
                self.is_to_be_reminded(trouble, entry, 2).then_some(News::Reminder)
            }
            // What was held back is told, though it is over.
            (_, true) if entry.is_held || (was_told && self.route.send_resolved) => {
                Some(News::Resolved)
            }
            (_, true) => {
                entry.told = Last::Nothing;
                None
            }
        }
    }

    /// Returns whether the time between two reminders, or a part of it, is over.
    fn is_to_be_reminded(&self, trouble: &Trouble, entry: &Entry, part: i64) -> bool {
        let every = match trouble.alert.severity {
            AlertSeverity::Critical => self.policy.critical_reminder_ms,
            AlertSeverity::Warning => self.policy.warning_reminder_ms,
            AlertSeverity::Info => None,
        };
        let (Some(every), Some(told)) = (every, entry.told_ms) else { return false };
        steady(self.now).saturating_sub(told) >= ms(every) / part
            && !self.circumstances.acknowledged.contains(&trouble.alert.id)
    }

    /// Writes the note, or holds it back where the channel has told as much as it may.
    fn write(&mut self, pending: Vec<Pending>, known: &mut Known) -> Option<Note> {
        let at = steady(self.now);
        if !self.has_room(&pending, known.sent_ms.len()) {
            *self.is_changed |= known.hold(&pending);
            return None;
        }
        *self.is_changed = true;
        let mut items = Vec::new();
        for Pending { key, news, .. } in pending.into_iter().filter(Pending::goes_along) {
            let (Some(trouble), Some(entry)) =
                (self.troubles.get(&key), known.entries.get_mut(&key))
            else {
                continue;
            };
            entry.told = match news {
                News::Firing | News::Reminder => Last::Firing,
                News::Flapping => Last::Flapping,
                News::Resolved | News::Test => Last::Nothing,
            };
            (entry.told_ms, entry.waiting_ms, entry.is_held) = (Some(at), None, false);
            let ended_at = trouble.ended_at.filter(|_| news == News::Resolved);
            items.push(Item { news, alert: trouble.alert.clone(), ended_at });
        }
        known.sent_ms.push(at);
        let kind = if std::mem::take(&mut known.holds) { Kind::Digest } else { Kind::Alerts };
        Some(Note::new(kind, self.now.at, items))
    }

    /// Returns whether the channel may tell something more within the hour. The last note of an
    /// hour is kept for something critical.
    fn has_room(&self, pending: &[Pending], sent: usize) -> bool {
        let Some(cap) = self.route.cap_per_hour else { return true };
        let is_urgent = pending.iter().any(|pending| pending.is_due && pending.is_urgent());
        let kept = u32::from(cap > 1 && !is_urgent);
        u32::try_from(sent).is_ok_and(|sent| sent < cap - kept)
    }
}

impl Known {
    /// Notes what is due and has to wait for a digest; returns whether that is new. A reminder only
    /// comes later.
    fn hold(&mut self, pending: &[Pending]) -> bool {
        let mut is_new = false;
        for Pending { key, news, .. } in pending.iter().filter(|pending| pending.is_due) {
            let Some(entry) = self.entries.get_mut(key) else { continue };
            let is_held = entry.is_held || matches!(news, News::Firing | News::Flapping);
            let holds = self.holds || *news != News::Reminder;
            is_new |= (is_held, holds) != (entry.is_held, self.holds);
            (entry.is_held, self.holds) = (is_held, holds);
        }
        is_new
    }
}

impl Pending {
    /// Returns whether it is a critical alert that begins.
    fn is_urgent(&self) -> bool {
        self.severity == AlertSeverity::Critical && self.news == News::Firing
    }

    fn goes_along(&self) -> bool {
        self.is_due || self.may_join
    }
}

/// Something to tell.
struct Pending {
    key: String,
    news: News,
    severity: AlertSeverity,
    is_due: bool,
    /// `true` where it may go with a note that goes out anyway.
    may_join: bool,
}

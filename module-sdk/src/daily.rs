//! Timers by the calendar: once a day, when a clock on the wall of some zone shows a time.
//!
//! The host knows timers with a period only, so that one of ten seconds checks the calendar. The
//! day that ran last is stored in the data directory: the day decides, not the time that has
//! passed. So a day of 23 or 25 hours has one run, a night that the daemon was off is made up for
//! once, and a clock that is set back runs nothing twice.

use std::{collections::BTreeMap, time::Duration};

use jiff::{
    Timestamp, Zoned,
    civil::{Date, Time},
};

use crate::{Error, Host, Result, Zone, clock};

/// Period at which the calendar is checked.
pub(crate) const PERIOD: Duration = Duration::from_secs(10);

/// Name of the file with the days that ran last.
const STATE: &str = "lodestar_daily";

/// A time of day in a zone that the module knows when it runs.
pub(crate) struct Daily<M> {
    /// Name that tells it from the module's other timers, also in the file.
    pub(crate) key: String,
    pub(crate) at: Time,
    pub(crate) zone: Box<dyn Fn(&M) -> Zone>,
}

/// The days that ran last.
pub(crate) struct LastRuns {
    dates: BTreeMap<String, Date>,
}

/// Action of a timer now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Start of counting with this day; nothing runs.
    Begin(Date),
    Run(Date),
    Wait,
}

impl LastRuns {
    /// Reads the days from the data directory. An error is logged, and all timers begin today.
    pub(crate) fn load(host: &Host) -> Self {
        let dates = host.load_state(STATE).unwrap_or_else(|error| {
            tracing::warn!(%error, "which daily timers ran is unknown: they begin today");
            None
        });
        Self { dates: dates.unwrap_or_default() }
    }

    /// Begins a timer that has never run, so that the next day to come is its first.
    pub(crate) fn begin<M>(&mut self, daily: &Daily<M>, module: &M, host: &Host) {
        if let Step::Begin(date) = self.step(daily, module, host) {
            self.note(daily, date, host);
        }
    }

    /// Runs `handler` where its day has come. A run that a crash interrupted is repeated; one that
    /// failed is not.
    pub(crate) fn run<M>(
        &mut self,
        daily: &Daily<M>,
        module: &mut M,
        host: &Host,
        handler: impl FnOnce(&mut M) -> Result<()>,
    ) -> Result<()> {
        match self.step(daily, module, host) {
            Step::Wait => Ok(()),
            Step::Begin(date) => {
                self.note(daily, date, host);
                Ok(())
            }
            Step::Run(date) => {
                let result = handler(module);
                self.note(daily, date, host);
                result
            }
        }
    }

    fn step<M>(&self, daily: &Daily<M>, module: &M, host: &Host) -> Step {
        let now = host.now();
        if !clock::is_plausible(now) {
            return Step::Wait;
        }
        let now = now.to_zoned((daily.zone)(module).time_zone().clone());
        step(self.dates.get(&daily.key).copied(), &now, daily.at)
    }

    fn note<M>(&mut self, daily: &Daily<M>, date: Date, host: &Host) {
        self.dates.insert(daily.key.clone(), date);
        if let Err(error) = host.save_state(STATE, &self.dates) {
            tracing::warn!(%error, "after a restart a daily timer may run once more today");
        }
    }
}

/// Reads a time of day.
pub(crate) fn time_of_day(text: &str) -> Result<Time> {
    let is_clock = text.len() >= 5 && text.as_bytes()[2] == b':';
    text.parse().ok().filter(|_| is_clock).ok_or_else(|| {
        Error::new(format!("{text:?} is no time of day")).hint("write it as `00:00` or `23:59:59`")
    })
}

fn step(last: Option<Date>, now: &Zoned, at: Time) -> Step {
    let date = latest(now, at);
    match last {
        None => Step::Begin(date),
        Some(last) if date > last => Step::Run(date),
        // Set back over a midnight, the clock may come to it again; further off, it was wrong
        // before.
        Some(last) if date.tomorrow().is_ok_and(|tomorrow| last > tomorrow) => Step::Begin(date),
        Some(_) => Step::Wait,
    }
}

/// Returns the latest day whose moment has come. A time that the day lacks, because clocks are put
/// forward, comes by as much later; of two the first counts.
fn latest(now: &Zoned, at: Time) -> Date {
    let today = now.date();
    let moment = today.to_datetime(at).to_zoned(now.time_zone().clone());
    let has_come = moment.is_ok_and(|moment| moment.timestamp() <= Timestamp::from(now));
    if has_come { today } else { today.yesterday().unwrap_or(today) }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, tz::TimeZone};

    use super::*;

    fn zoned(time: &str, zone: &str) -> Zoned {
        let zone = TimeZone::get(zone).expect("the zones are built in");
        time.parse::<Timestamp>().expect("a time").to_zoned(zone)
    }

    #[test]
    fn a_day_decides_once() {
        let check = |last: Option<&str>, now: &str, at: &str, expected: Step| {
            let last = last.map(|date| date.parse().expect("a date"));
            let at = time_of_day(at).expect("a time of day");
            let found = step(last, &zoned(now, "Europe/Vienna"), at);
            assert_eq!(found, expected, "{last:?} {now} {at}");
        };
        let date = |text: &str| text.parse::<Date>().expect("a date");
        check(None, "2026-11-21T12:00:00Z", "00:00", Step::Begin(date("2026-11-21")));
        check(None, "2026-11-21T12:00:00Z", "18:00", Step::Begin(date("2026-11-20")));
        let last = Some("2026-11-20");
        check(last, "2026-11-20T22:59:59Z", "00:00", Step::Wait);
        check(last, "2026-11-20T23:00:00Z", "00:00", Step::Run(date("2026-11-21")));
        // Off for days: one run.
        check(last, "2026-11-25T12:00:00Z", "00:00", Step::Run(date("2026-11-25")));
        // Set back over midnight: none. Set back from far ahead: counted from here.
        check(last, "2026-11-19T22:00:00Z", "00:00", Step::Wait);
        check(Some("2031-01-01"), "2026-11-20T12:00:00Z", "00:00", Step::Begin(date("2026-11-20")));
    }

    /// Walks through a year in steps of ten minutes and returns when it ran.
    fn runs(zone: &str, at: &str) -> Vec<Zoned> {
        let at = time_of_day(at).expect("a time of day");
        let (mut now, end) = (zoned("2026-01-01T12:00:00Z", zone), 365 * 24 * 6);
        let mut last = Some(latest(&now, at));
        let mut runs = Vec::new();
        for _ in 0..end {
            now = &now + SignedDuration::from_mins(10);
            if let Step::Run(date) = step(last, &now, at) {
                last = Some(date);
                runs.push(now.clone());
            }
        }
        runs
    }

    #[test]
    fn every_day_of_a_year_has_one_run_at_its_time() {
        // Clocks change at 02:00, at midnight, by half an hour, and not at all.
        for zone in ["Europe/Vienna", "Asia/Beirut", "Africa/Cairo", "Australia/Lord_Howe", "UTC"] {
            for at in ["00:00", "02:30", "23:50"] {
                let runs = runs(zone, at);
                assert_eq!(runs.len(), 365, "{zone} {at}");
                let dates: Vec<Date> = runs.iter().map(Zoned::date).collect();
                let mut once = dates.clone();
                once.dedup();
                assert_eq!(once, dates, "{zone} {at}: no day twice");
                let time = time_of_day(at).expect("a time of day");
                let late = runs.iter().filter(|run| run.time() != time).count();
                // Only where the day has no such time.
                assert!(late <= 1, "{zone} {at}: {late}");
            }
        }
    }

    #[test]
    fn a_time_that_is_none_is_refused() {
        for text in ["", "24:00", "8:00", "noon", "00", "00:60", "0000", "2026-01-01T00:00"] {
            let error = time_of_day(text).expect_err("it is none").to_string();
            assert!(error.ends_with("write it as `00:00` or `23:59:59`"), "{text}: {error}");
        }
    }
}

#[cfg(all(test, feature = "testing"))]
mod bench_tests;

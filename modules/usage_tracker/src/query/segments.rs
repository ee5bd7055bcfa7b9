//! The choice of tables for a range of time: whole days and hours are read from the rollups, the
//! rest at the edges from the requests themselves.

use crate::store::{DAY_HOURS, HOUR_MS};

/// A part of a range, and the table to read it from. The second number is exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Segment {
    /// Single requests, in milliseconds since the Unix epoch.
    Requests(i64, i64),
    /// Whole hours since the Unix epoch.
    Hours(i64, i64),
    /// Whole days since the Unix epoch.
    Days(i64, i64),
}

/// The parts of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) segments: Vec<Segment>,
    /// `true` when an edge of the range lies where the requests have been deleted. An hour then
    /// counts as a whole where the range contains its beginning.
    pub(super) rounded: bool,
}

/// Divides a range of milliseconds. `kept_from` is the time before which requests have been
/// deleted; `by_day` allows whole days.
pub(super) fn plan(from: i64, to: i64, kept_from: i64, by_day: bool) -> Plan {
    let mut plan = Plan { segments: Vec::new(), rounded: false };
    if from >= to {
        return plan;
    }
    let (mut first, mut last) = (ceil(from, HOUR_MS), to.div_euclid(HOUR_MS));
    let kept = |ms: i64| ms.div_euclid(HOUR_MS) * HOUR_MS >= kept_from;
    if first > last {
        // Both edges lie in one hour.
        if kept(from) {
            plan.segments.push(Segment::Requests(from, to));
        } else {
            plan.rounded = true;
        }
        return plan;
    }
    if first * HOUR_MS != from {
        if kept(from) {
            plan.segments.push(Segment::Requests(from, first * HOUR_MS));
        } else {
            plan.rounded = true;
        }
    }
    let mut tail = None;
    if last * HOUR_MS != to {
        if kept(to) {
            tail = Some(Segment::Requests(last * HOUR_MS, to));
        } else {
            plan.rounded = true;
            last += 1;
        }
    }
    let (day_first, day_last) = (ceil(first, DAY_HOURS), last.div_euclid(DAY_HOURS));
    if by_day && day_first < day_last {
        plan.hours(first, day_first * DAY_HOURS);
        plan.segments.push(Segment::Days(day_first, day_last));
        first = day_last * DAY_HOURS;
    }
    plan.hours(first, last);
    plan.segments.extend(tail);
    plan
}

impl Plan {
    fn hours(&mut self, first: i64, last: i64) {
        if first < last {
            self.segments.push(Segment::Hours(first, last));
        }
    }
}

const fn ceil(number: i64, step: i64) -> i64 {
    number.div_euclid(step) + (number.rem_euclid(step) != 0) as i64
}

#[cfg(test)]
mod tests {
    use super::{Segment::*, *};

    #[test]
    fn days_then_hours_then_requests() {
        let hour = HOUR_MS;
        let check = |from, to, expected: &[Segment]| {
            assert_eq!(plan(from, to, 0, true).segments, expected, "{from} {to}");
        };
        check(0, 48 * hour, &[Days(0, 2)]);
        check(hour, 3 * hour, &[Hours(1, 3)]);
        check(23 * hour, 49 * hour, &[Hours(23, 24), Days(1, 2), Hours(48, 49)]);
        check(5, 7, &[Requests(5, 7)]);
        check(5, hour, &[Requests(5, hour)]);
        check(0, hour + 1, &[Hours(0, 1), Requests(hour, hour + 1)]);
        check(hour - 1, hour + 1, &[Requests(hour - 1, hour), Requests(hour, hour + 1)]);
        check(7, 7, &[]);
        assert_eq!(plan(0, 48 * hour, 0, false).segments, [Hours(0, 48)]);
    }

    #[test]
    fn where_requests_are_gone_an_hour_counts_where_it_begins() {
        let hour = HOUR_MS;
        let check = |from, to, expected: &[Segment]| {
            let plan = plan(from, to, 100 * hour, true);
            assert_eq!((plan.segments.as_slice(), plan.rounded), (expected, true));
        };
        check(5, 7, &[]);
        check(5, hour + 5, &[Hours(1, 2)]);
        check(0, hour + 5, &[Hours(0, 2)]);
        check(
            99 * hour + 1,
            101 * hour + 1,
            &[Hours(100, 101), Requests(101 * hour, 101 * hour + 1)],
        );
    }
}

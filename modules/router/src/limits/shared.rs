//! Counts that several instances share over a Redis.

use std::{sync::LazyLock, time::Duration};

use redis::{Script, ScriptInvocation};

use super::{
    hit::Scope,
    ledger::Entry,
    window::{Calendar, Period},
};
use crate::redis_link::{RedisFault, RedisLink};

/// Time for which the counts of somebody who does not ask are kept: longer than any month.
const KEPT: Duration = Duration::from_secs(35 * 86_400);

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("window.lua")));

/// Answer of Redis to a reservation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// All limits fit; each count, and the beginning of its window.
    Counted(Vec<(u64, i64)>),
    /// One does not.
    Full {
        /// Position of the entry.
        entry: usize,
        /// Count of it.
        used: u64,
        /// Time to wait, `None` where it never fits.
        wait: Option<Duration>,
    },
}

/// Counts a request under all its limits, or under none.
pub(super) async fn reserve(
    link: &RedisLink,
    scopes: &[Scope],
    entries: &[Entry],
    calendar: &Calendar,
) -> Result<Told, RedisFault> {
    let mut call = begin(scopes, "reserve");
    for entry in entries {
        let amount = i64::try_from(entry.amount).unwrap_or(i64::MAX);
        argue(&mut call, entry, amount, entry.unsent, calendar);
    }
    read(entries.len(), &link.run::<Vec<i64>>(&call).await?)
}

/// Changes counts by the difference between what was reserved and what was used.
pub(super) async fn settle(
    link: &RedisLink,
    scopes: &[Scope],
    changes: &[(Entry, i64)],
    calendar: &Calendar,
) -> Result<(), RedisFault> {
    let mut call = begin(scopes, "settle");
    for (entry, change) in changes {
        argue(&mut call, entry, *change, 0, calendar);
    }
    link.run::<Vec<i64>>(&call).await.map(drop)
}

fn begin(scopes: &[Scope], mode: &str) -> ScriptInvocation<'static> {
    let mut call = SCRIPT.prepare_invoke();
    for scope in scopes {
        // Braces: all that belongs to a party lies on one node.
        call.key(format!("lodestar:limits:{{{scope}}}"));
    }
    call.arg(mode).arg(KEPT.as_millis().to_string());
    call
}

fn argue(
    call: &mut ScriptInvocation<'_>,
    entry: &Entry,
    amount: i64,
    extra: i64,
    calendar: &Calendar,
) {
    let limit = entry.limit;
    let (begin, end) = calendar.window(limit.period);
    // Only to be told from this one where clocks differ: its length need not be right.
    let before = match limit.period {
        Period::Month => begin - 28 * 86_400_000,
        _ => begin - 86_400_000,
    };
    // What is settled belongs to the window in which it was reserved.
    let begin = if entry.window > 0 { entry.window } else { begin };
    call.arg(entry.party + 1)
        .arg(limit.key())
        .arg(limit.period.bucket_ms().unwrap_or(0))
        .arg(limit.most)
        .arg(amount)
        .arg(extra)
        .arg(before)
        .arg(begin)
        .arg(end);
}

fn read(entries: usize, answer: &[i64]) -> Result<Told, RedisFault> {
    let count = |number: i64| u64::try_from(number).unwrap_or(0);
    match answer {
        [0, entry, used, wait] => {
            let entry = usize::try_from(*entry - 1).map_err(|_| RedisFault::Unexpected)?;
            if entry >= entries {
                return Err(RedisFault::Unexpected);
            }
            let wait = u64::try_from(*wait).ok().map(Duration::from_millis);
            Ok(Told::Full { entry, used: count(*used), wait })
        }
        [1, counts @ ..] if counts.len() == entries * 2 => {
            let pairs = counts.chunks_exact(2);
            Ok(Told::Counted(pairs.map(|pair| (count(pair[0]), pair[1])).collect()))
        }
        _ => Err(RedisFault::Unexpected),
    }
}

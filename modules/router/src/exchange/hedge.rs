//! Hedging: where one target is slow to begin, the next one is asked too. The first that answers
//! wins, and what the others do ends at once.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until};

use super::{Answered, Asking, Attempts, Plan, admission, failure::Failed, head};
use crate::{
    app::App,
    report::Race,
    target::{Target, TargetName},
};

/// End of the asking of one target.
struct Turn {
    target: Arc<Target>,
    is_hedge: bool,
    outcome: Outcome,
}

enum Outcome {
    /// It answered, or the request is at fault.
    Decided(Box<Result<Answered, Failed>>),
    /// It failed.
    Failed,
    /// The limits leave no room for a second one.
    NoRoom,
}

/// Tries targets in their order. Another one is asked too where none has begun its answer within
/// the delay. Returns `None` where none answered.
pub(super) async fn race(
    app: &Arc<App>,
    plan: &Arc<Plan>,
    attempts: &Attempts,
    names: &[TargetName],
) -> Option<Result<Answered, Failed>> {
    let race = Race::default();
    let mut waiting: VecDeque<Arc<Target>> =
        names.iter().filter_map(|name| app.targets.get_or_add(name)).collect();
    let mut running = FuturesUnordered::new();
    let mut asked: Vec<String> = Vec::new();
    let mut most = usize::from(plan.decision.hedge.most);
    let mut due = None;
    loop {
        if running.is_empty() {
            let target = waiting.pop_front()?;
            due = delay(plan, &target).map(|delay| Instant::now() + delay);
            asked.push(target.name.to_string());
            let is_last = waiting.is_empty();
            running.push(turn(app, plan, attempts, &race, target, is_last, false));
        }
        let is_open = running.len() <= most && !waiting.is_empty();
        let at = due.filter(|_| is_open);
        let ended = tokio::select! {
            biased;
            Some(ended) = running.next() => ended,
            () = sleep_until(at.unwrap_or_else(Instant::now)), if at.is_some() => {
                due = None;
                // Two models that are loaded at one time push each other out of the memory.
                if let Some(next) = waiting.iter().position(|target| !target.is_cold())
                    && let Some(target) = waiting.remove(next)
                {
                    due = delay(plan, &target).map(|delay| Instant::now() + delay);
                    asked.push(target.name.to_string());
                    running.push(turn(app, plan, attempts, &race, target, false, true));
                }
                continue;
            }
        };
        asked.retain(|name| *name != ended.target.name.to_string());
        match ended.outcome {
            Outcome::Decided(decided) => match *decided {
                // Only this one finds fault with it, as yet.
                Err(failed) if ended.is_hedge && !running.is_empty() => attempts.remember(failed),
                Err(failed) => {
                    race.won();
                    return Some(Err(failed));
                }
                Ok(mut answered) => {
                    race.won();
                    if !asked.is_empty() {
                        head::hedged(answered.headers_mut(), &asked);
                    }
                    return Some(Ok(answered));
                }
            },
            Outcome::Failed => {}
            Outcome::NoRoom => {
                most = 0;
                waiting.push_front(ended.target);
            }
        }
    }
}

/// Asks one target.
async fn turn(
    app: &Arc<App>,
    plan: &Arc<Plan>,
    attempts: &Attempts,
    race: &Race,
    target: Arc<Target>,
    is_last: bool,
    is_hedge: bool,
) -> Turn {
    if is_hedge && admission::reserve_beside(app, plan, &target).await.is_err() {
        return Turn { target, is_hedge, outcome: Outcome::NoRoom };
    }
    let asking = Asking { is_last, is_stream: plan.is_stream, race: Some(race.clone()), is_hedge };
    let decided = attempts.at_target(app, plan, &target, asking).await;
    let outcome = decided.map_or(Outcome::Failed, |decided| Outcome::Decided(Box::new(decided)));
    Turn { target, is_hedge, outcome }
}

/// Returns the time after which another target is asked beside this one.
fn delay(plan: &Plan, target: &Target) -> Option<Duration> {
    let hedge = plan.decision.hedge;
    let usual = hedge.after.and_then(|quantile| target.usual(quantile, plan.is_stream));
    usual.or(hedge.after_ms.map(|ms| Duration::from_millis(u64::from(ms))))
}

//! One instance, without a Redis.

use module_sdk::{events::BudgetUse, jiff::Timestamp};
use proptest::prelude::*;
use serde_json::json;

use super::{SECOND, Site, actual, anonymous, read};
use crate::{
    keys::Identity,
    limits::{Estimate, LimitOptions, Period, Quantity, Scope},
};

fn used(site: &Site, quantity: Quantity, period: Period) -> u64 {
    let all = site.limits.used(&Scope::Key("anonymous".into()));
    all.into_iter().find(|it| (it.0, it.1) == (quantity, period)).map_or(0, |it| it.2)
}

#[tokio::test]
async fn requests_are_limited_per_minute() {
    let site = Site::new(anonymous(json!({"requests_per_minute": 2})));
    for _ in 0..2 {
        site.spend(0, 0).await.expect("it fits");
    }
    let hit = site.spend(0, 0).await.expect_err("it is one too many");
    assert_eq!(
        hit.to_string(),
        "clients without a key: 2 requests of 2 requests per minute are used; try again in 30s"
    );
    assert_eq!(
        (hit.status(), hit.code(), hit.is_about_money()),
        (429, "rate_limit_exceeded", false)
    );
    site.later(30 * SECOND);
    site.spend(0, 0).await.expect("one has leaked");
    site.spend(0, 0).await.expect_err("only one");
}

#[tokio::test]
async fn what_was_reserved_is_settled_once() {
    let limits = json!({"tokens_per_day": 1_000, "usd_per_day": "0.000001", "requests_per_day": 9});
    let site = Site::new(anonymous(limits));
    let mut reservation = site.ask(600, 600).await.expect("it fits");
    let hit = site.ask(500, 100).await.expect_err("600 are reserved");
    assert_eq!(hit.code(), "token_limit_exceeded");
    reservation.sent();
    reservation.settle(actual(250, 300));
    reservation.settle(actual(0, 0));
    reservation.release();
    drop(reservation);
    let day = |quantity| used(&site, quantity, Period::Day);
    assert_eq!(
        (day(Quantity::Requests), day(Quantity::Tokens), day(Quantity::NanoUsd)),
        (1, 250, 300)
    );
    let mut larger = site.ask(10, 10).await.expect("it fits");
    larger.settle(actual(2_000, 2_000));
    assert_eq!(day(Quantity::Tokens), 2_250, "what was used counts, also beyond the limit");
    let hit = site.ask(0, 1).await.expect_err("the budget is overdrawn");
    assert_eq!((hit.code(), hit.is_about_money()), ("budget_exceeded", true));
    site.ask(0, 0).await.expect("what costs nothing and has no tokens fits").release();
}

#[tokio::test]
async fn a_dropped_reservation_is_released_unless_it_was_sent() {
    let site = Site::new(anonymous(json!({"requests_per_day": 9, "usd_per_day": "0.000001"})));
    let day = |quantity| used(&site, quantity, Period::Day);
    drop(site.ask(0, 400).await.expect("it fits"));
    assert_eq!((day(Quantity::Requests), day(Quantity::NanoUsd)), (0, 0));
    let mut sent = site.ask(0, 400).await.expect("it fits");
    sent.sent();
    drop(sent);
    assert_eq!((day(Quantity::Requests), day(Quantity::NanoUsd)), (1, 400));
}

#[tokio::test]
async fn a_further_attempt_is_no_further_request() {
    let site = Site::new(anonymous(json!({"requests_per_day": 1, "usd_per_day": "0.000001"})));
    let mut first = site.ask(0, 100).await.expect("it fits");
    first.sent();
    let estimate = Estimate { requests: 0, tokens: 0, nano_usd: Some(500) };
    let second = site.limits.reserve(&Identity::Anonymous, None, estimate).await;
    second.expect("only its money counts").settle(actual(0, 200));
    first.settle(actual(0, 0));
    assert_eq!(used(&site, Quantity::NanoUsd, Period::Day), 200);
}

#[tokio::test]
async fn days_end_at_midnight_and_rates_do_not_mix_with_them() {
    let site = Site::new(anonymous(json!({"usd_per_day": 1, "usd_per_month": 2})));
    site.spend(0, 1_000_000_000).await.expect("it fits exactly");
    let hit = site.spend(0, 1).await.expect_err("the day is used up");
    assert_eq!(hit.retry_after, Some(9 * 3_600 * SECOND));
    site.later(9 * 3_600 * SECOND);
    site.spend(0, 1_000_000_000).await.expect("it is another day");
    let hit = site.spend(0, 1).await.expect_err("the month is used up");
    assert!(hit.to_string().contains("$2.00 of $2.00 per month are used"), "{hit}");
    assert_eq!(hit.retry_after, Some(26 * 24 * 3_600 * SECOND), "the longest of two");
}

#[tokio::test]
async fn projects_and_all_have_limits_of_their_own() {
    let site = Site::new(json!({
        "projects": {"shop": {"requests_per_minute": 1}},
        "all": {"requests_per_minute": 2},
    }));
    let ask = async |project| site.ask_for(project, 0, None).await.map(|mut it| it.sent());
    ask(Some("shop")).await.expect("it fits");
    let hit = ask(Some("shop")).await.expect_err("the project has one");
    assert_eq!(hit.scope, Scope::Project("shop".into()));
    ask(Some("bank")).await.expect("it has none");
    let hit = ask(None).await.expect_err("all have two");
    assert!(hit.to_string().starts_with("all clients together: 2 requests of 2"), "{hit}");
}

#[tokio::test]
async fn what_can_never_fit_is_told_so() {
    let site = Site::new(anonymous(json!({"tokens_per_minute": 100, "usd_per_day": 1})));
    let hit = site.ask(101, 0).await.expect_err("it is too large");
    assert_eq!((hit.status(), hit.retry_after), (403, None));
    assert!(hit.to_string().contains("may need 101 tokens, more than 100 tokens per"), "{hit}");
    let hit = site.ask_for(None, 1, None).await.expect_err("nobody knows its price");
    assert_eq!(hit.code(), "unpriced_model");
    assert!(hit.to_string().contains("set quotas.unpriced to `allow`"), "{hit}");
    let site = Site::new(json!({"anonymous": {"usd_per_day": 1}, "unpriced": "allow"}));
    site.ask_for(None, 1, None).await.expect("it counts as nothing").release();
}

#[tokio::test]
async fn an_exceeded_budget_stops_what_costs() {
    let site = Site::new(json!({"budget_action": "reroute"}));
    let until: Timestamp = "2026-12-06T00:00:00Z".parse().expect("a time");
    let until = Some(until.as_millisecond());
    site.limits.hear(&budget("day", "project:shop", until), true);
    let hit = site.ask_for(Some("shop"), 1, None).await.expect_err("it may cost something");
    assert_eq!(hit.action, crate::limits::BudgetAction::Reroute);
    assert_eq!(hit.retry_after, Some(9 * 3_600 * SECOND));
    site.ask_for(Some("shop"), 1, Some(0)).await.expect("it costs nothing").release();
    site.ask_for(Some("bank"), 1, Some(5)).await.expect("it has a budget left").release();
    site.later(9 * 3_600 * SECOND);
    site.ask_for(Some("shop"), 1, Some(5)).await.expect("its time is over").release();
    site.limits.hear(&budget("month", "all", None), true);
    site.ask_for(Some("bank"), 1, Some(5)).await.expect_err("all are stopped");
    site.limits.hear(&budget("day", "all", None), false);
    site.ask_for(Some("bank"), 1, Some(5)).await.expect_err("another one says nothing of it");
    site.limits.hear(&budget("month", "team:blue", None), false);
    site.ask_for(Some("bank"), 1, Some(5)).await.expect_err("that one is not known");
    site.limits.hear(&budget("month", "all", None), false);
    site.ask_for(Some("bank"), 1, Some(5)).await.expect("it has room again").release();
}

fn budget(name: &str, scope: &str, until: Option<i64>) -> BudgetUse {
    BudgetUse { budget: name.to_owned(), scope: scope.to_owned(), until, ..BudgetUse::default() }
}

#[tokio::test]
async fn what_is_left_is_of_the_tightest_budget() {
    let site = Site::new(json!({
        "all": {"usd_per_month": "0.000002", "usd_per_minute": "0.0000005"},
        "projects": {"shop": {"usd_per_day": "0.000001"}},
    }));
    let left = |project| site.limits.budget_left(&Identity::Anonymous, project);
    assert_eq!((left(None), left(Some("shop"))), (Some(2_000), Some(1_000)));
    let mut asked = site.ask_for(Some("shop"), 1, Some(300)).await.expect("it fits");
    assert_eq!((left(None), left(Some("shop"))), (Some(1_700), Some(700)));
    asked.settle(actual(1, 100));
    let nearly = BudgetUse {
        limit_nano_usd: Some(1_000),
        spent_nano_usd: Some(800),
        since: Some(0),
        ..budget("team", "project:shop", None)
    };
    site.limits.hear(&nearly, false);
    assert_eq!((left(None), left(Some("shop"))), (Some(1_900), Some(200)));
    site.limits.spent(&Identity::Anonymous, Some("shop"), 150);
    site.limits.spent(&Identity::Anonymous, None, 150);
    assert_eq!(left(Some("shop")), Some(50));
    // Unknown is not nothing; what is exceeded has nothing left, whatever is known of it.
    site.limits.hear(&budget("other", "project:bank", None), false);
    assert_eq!(left(Some("bank")), Some(1_900));
    site.limits.hear(&budget("other", "project:bank", None), true);
    assert_eq!(left(Some("bank")), Some(0));

    site.limits.save().expect("they are written");
    let again = site.again(json!({}));
    let left = |project| again.limits.budget_left(&Identity::Anonymous, project);
    assert_eq!((left(Some("shop")), left(None)), (Some(50), None));
    let asked = again.limits.budgets_to_ask();
    assert_eq!(asked.len(), 1, "the other one has no beginning: {asked:?}");
    again.limits.budget_told(&asked[0], 1_200);
    assert_eq!(left(Some("shop")), Some(-200));
}

#[tokio::test]
async fn counts_outlast_a_restart_and_a_reload() {
    let options = anonymous(json!({"requests_per_day": 9, "usd_per_day": 1}));
    let site = Site::new(options.clone());
    site.spend(0, 700).await.expect("it fits");
    site.limits.save().expect("they are written");
    let restarted = site.again(options.clone());
    assert_eq!(used(&restarted, Quantity::NanoUsd, Period::Day), 700);

    let mut draining = restarted.ask(0, 1_000).await.expect("it fits");
    draining.sent();
    let reloaded = site.again(options.clone());
    reloaded.limits.restore(restarted.limits.hand_over());
    assert_eq!(used(&reloaded, Quantity::NanoUsd, Period::Day), 1_700);
    draining.settle(actual(0, 100));
    restarted.limits.save().expect("it leaves the file to the next generation");
    restarted.limits.finish().expect("it is written");
    reloaded.limits.save().expect("they are written");
    assert_eq!(used(&reloaded, Quantity::NanoUsd, Period::Day), 800);
    reloaded.limits.save().expect("they are written");
    assert_eq!(used(&reloaded, Quantity::NanoUsd, Period::Day), 800, "it counts once");
    let read = site.again(options);
    assert_eq!(used(&read, Quantity::NanoUsd, Period::Day), 800);
}

#[tokio::test]
async fn what_the_former_generation_heard_counts_for_more_than_the_disk() {
    let options = anonymous(json!({"requests_per_day": 9}));
    let site = Site::new(options.clone());
    let day = budget("day", "all", None);
    site.limits.hear(&day, false);
    site.limits.save().expect("it is written");
    let next = site.again(options);
    site.limits.hear(&day, true);
    // It hears of another one before it has what the former one knows.
    next.limits.hear(&budget("day", "project:shop", None), true);
    next.limits.restore(site.limits.hand_over());
    assert!(next.limits.is_exceeded(&Scope::All));
    assert!(next.limits.is_exceeded(&Scope::Project("shop".into())));
}

#[tokio::test]
async fn what_comes_during_a_reload_counts_once_under_each_limit() {
    let projects = json!({"shop": {"requests_per_day": 90}});
    let limits = json!({"requests_per_hour": 90, "requests_per_day": 90});
    let options = json!({"anonymous": limits, "projects": projects});
    let site = Site::new(options.clone());
    site.spend(0, 0).await.expect("it fits");
    let next = site.again(options);
    // It answers before it has the counts, and for somebody of whom there are none.
    let mut early = next.ask_for(Some("shop"), 0, Some(0)).await.expect("it fits");
    next.limits.restore(site.limits.hand_over());
    early.settle(actual(0, 0));
    let check = |number: u64| {
        assert_eq!(used(&next, Quantity::Requests, Period::Hour), number);
        assert_eq!(used(&next, Quantity::Requests, Period::Day), number);
        let of_shop = next.limits.used(&Scope::Project("shop".into()));
        assert_eq!(of_shop, [(Quantity::Requests, Period::Day, 1)]);
    };
    check(2);
    site.spend(0, 0).await.expect("it fits");
    site.limits.finish().expect("it is written");
    next.limits.save().expect("they are written");
    check(3);
}

#[tokio::test]
async fn counts_are_written_again_where_the_next_generation_does_not_start() {
    let options = anonymous(json!({"requests_per_day": 9}));
    let site = Site::new(options.clone());
    site.limits.save().expect("they are written");
    drop(site.limits.hand_over());
    site.spend(0, 0).await.expect("it fits");
    site.limits.save().expect("it waits for the next generation");
    let nothing = site.again(options.clone());
    assert_eq!(used(&nothing, Quantity::Requests, Period::Day), 0);
    site.later(61 * SECOND);
    site.limits.save().expect("they are written");
    let read = site.again(options);
    assert_eq!(used(&read, Quantity::Requests, Period::Day), 1);
}

#[tokio::test]
async fn a_torn_state_begins_anew() {
    let options = anonymous(json!({"requests_per_day": 1}));
    let site = Site::new(options.clone());
    site.spend(0, 0).await.expect("it fits");
    std::fs::write(site.host.data_dir().join("limits.json"), "{").expect("it is ours");
    site.again(options).spend(0, 0).await.expect("nothing is known");
}

/// Prints the time of a reservation: `cargo test -- --nocapture`.
#[tokio::test]
async fn a_reservation_takes_little_time() {
    let all = json!({
        "requests_per_minute": 1_000_000_000,
        "tokens_per_minute": 1_000_000_000,
        "usd_per_day": 1_000,
    });
    let site = Site::new(json!({"anonymous": all, "all": all}));
    let mut best = std::time::Duration::MAX;
    for _ in 0..20 {
        let begin = std::time::Instant::now();
        for _ in 0..500 {
            site.ask(100, 100).await.expect("it fits").settle(actual(50, 50));
        }
        best = best.min(begin.elapsed() / 500);
    }
    println!("a reservation under six limits, settled: {best:?}");
    assert!(best < std::time::Duration::from_micros(100), "{best:?}");
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let options: LimitOptions = read(json!({}));
    assert!(options.all.is_unlimited());
    let options = json!({"instances": 3});
    let options: LimitOptions = serde_json::from_value(options).expect("they are settings");
    let error = options.check().expect_err("there is no Redis").to_string();
    assert!(error.starts_with("quotas.instances: has no meaning"), "{error}");
}

proptest! {
    /// Checks that the count is the sum of what was used, to the billionth, in whatever order it is
    /// reserved and settled.
    #[test]
    fn the_sum_is_exact(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("it starts");
        runtime.block_on(async {
            let site = Site::new(anonymous(json!({"usd_per_month": 1_000_000})));
            let (mut open, mut sum) = (Vec::new(), 0);
            for (reserved, settled, kind) in steps {
                let mut reservation = site.ask(0, reserved).await.expect("it fits");
                match kind {
                    0 => drop(reservation),
                    1 => {
                        reservation.sent();
                        drop(reservation);
                        sum += reserved;
                    }
                    2 => {
                        reservation.settle(actual(0, settled));
                        sum += settled;
                    }
                    _ => open.push((reservation, settled)),
                }
            }
            for (mut reservation, settled) in open {
                reservation.settle(actual(0, settled));
                sum += settled;
            }
            prop_assert_eq!(used(&site, Quantity::NanoUsd, Period::Month), sum);
            Ok(())
        })?;
    }
}

/// Returns amounts to reserve and to settle, with the way of the settlement.
fn steps() -> impl Strategy<Value = Vec<(u64, u64, i32)>> {
    proptest::collection::vec((0..1_000_000_u64, 0..2_000_000_u64, 0..4), 1..40)
}

use super::*;

fn run(plan: Plan, rates: [f64; 2], seed: u64) -> Experiment {
    let mut random = fastrand::Rng::with_seed(seed);
    let share = f64::from(plan.challenger_percent) / 100.0;
    let most = plan.most_units;
    let mut experiment = Experiment::new(plan).expect("the plan is valid");
    for _ in 0..most {
        let is_challenger = random.f64() < share;
        let arm = if is_challenger { Arm::Challenger } else { Arm::Champion };
        experiment.assigned(arm);
        experiment.outcome(arm, random.f64() < rates[arm.index()]);
        if experiment.verdict() != Verdict::Running {
            break;
        }
    }
    experiment
}

#[test]
fn plans_are_checked() {
    let wrong = |change: fn(&mut Plan)| {
        let mut plan = Plan::default();
        change(&mut plan);
        Experiment::new(plan).expect_err("it is refused").key
    };
    assert_eq!(wrong(|it| it.challenger_percent = 0), "challenger_percent");
    assert_eq!(wrong(|it| it.challenger_percent = 100), "challenger_percent");
    assert_eq!(wrong(|it| it.margin = -0.1), "margin");
    assert_eq!(wrong(|it| it.margin = f64::NAN), "margin");
    assert_eq!(wrong(|it| it.alpha = 0.5), "alpha");
    assert_eq!(wrong(|it| it.most_units = 0), "most_units");
    let guardrails = |it: &mut Plan| {
        it.guardrails.insert("latency_ms".to_owned(), Guardrail::MeanTimes(0.5));
    };
    assert_eq!(wrong(guardrails), "guardrails");
}

#[test]
fn an_experiment_ends_with_its_finding() {
    for (percent, rates, verdict) in [
        (50, [0.9, 0.9], Verdict::Passed),
        (50, [0.7, 0.8], Verdict::Passed),
        (20, [0.9, 0.92], Verdict::Passed),
        (50, [0.9, 0.6], Verdict::Worse),
        (20, [0.9, 0.5], Verdict::Worse),
    ] {
        let plan = Plan { challenger_percent: percent, ..Plan::default() };
        let experiment = run(plan, rates, 1);
        assert_eq!(experiment.verdict(), verdict, "{percent}% {rates:?}");
        let summary = experiment.summary();
        assert!(summary.units < 4_000 && summary.assigned.iter().sum::<u64>() == summary.units);
        let p = if verdict == Verdict::Passed { summary.p_not_worse } else { summary.p_worse };
        assert!(p <= 0.05, "{p}");
    }
    let plan = Plan { most_units: 20, ..Plan::default() };
    assert_eq!(run(plan, [0.8, 0.72], 1).verdict(), Verdict::Inconclusive);
}

#[test]
fn a_challenger_at_the_margin_seldom_passes() {
    let plan = Plan { most_units: 1_000, ..Plan::default() };
    let passed = (0..200)
        .filter(|seed| run(plan.clone(), [0.8, 0.7], *seed).verdict() == Verdict::Passed)
        .count();
    // 5% of 200, and three standard deviations.
    assert!(passed <= 19, "{passed} of 200 passed");
}

#[test]
fn guardrails_stop_and_a_wrong_ratio_ends() {
    let guardrails = BTreeMap::from([
        ("latency_ms".to_owned(), Guardrail::MeanTimes(1.2)),
        ("error".to_owned(), Guardrail::RatePlus(0.05)),
    ]);
    for (latency, errors, exceeded) in
        [(100.0, 0.02, None), (150.0, 0.02, Some("latency_ms")), (100.0, 0.4, Some("error"))]
    {
        let plan = Plan { guardrails: guardrails.clone(), ..Plan::default() };
        let mut experiment = Experiment::new(plan).expect("the plan is valid");
        let mut random = fastrand::Rng::with_seed(9);
        for _ in 0..500 {
            for (arm, latency, errors) in
                [(Arm::Champion, 100.0, 0.02), (Arm::Challenger, latency, errors)]
            {
                experiment.measure(arm, "latency_ms", latency * (0.5 + random.f64()));
                experiment.measure(arm, "error", f64::from(u8::from(random.f64() < errors)));
                experiment.measure(arm, "unknown", 1e9);
            }
        }
        assert_eq!(experiment.summary().exceeded.as_deref(), exceeded);
        let is_stopped = experiment.verdict() == Verdict::Guardrail;
        assert_eq!(is_stopped, exceeded.is_some());
        // What was found is not taken back, and nothing is counted any more.
        experiment.outcome(Arm::Champion, true);
        assert_eq!(experiment.summary().units, u64::from(!is_stopped));
    }
    let mut experiment = Experiment::new(Plan::default()).expect("the plan is valid");
    for _ in 0..500 {
        experiment.assigned(Arm::Champion);
    }
    assert_eq!(experiment.verdict(), Verdict::WrongRatio);
}

#[test]
fn an_experiment_goes_on_where_it_was_kept() {
    let guardrails = BTreeMap::from([("error".to_owned(), Guardrail::RatePlus(0.05))]);
    let plan = Plan { challenger_percent: 25, guardrails, ..Plan::default() };
    let mut kept = Experiment::new(plan).expect("the plan is valid");
    let mut whole = kept.clone();
    let mut random = fastrand::Rng::with_seed(2);
    for _ in 0..120 {
        let arm = if random.u8(..4) == 0 { Arm::Challenger } else { Arm::Champion };
        let is_good = random.bool();
        for experiment in [&mut kept, &mut whole] {
            experiment.assigned(arm);
            experiment.outcome(arm, is_good);
            experiment.measure(arm, "error", f64::from(u8::from(!is_good)));
        }
        let text = serde_json::to_string(&kept).expect("it is written");
        kept = serde_json::from_str(&text).expect("it is read");
    }
    let (kept, whole) = (kept.summary(), whole.summary());
    assert!((kept.p_worse - whole.p_worse).abs() < 1e-9);
    assert_eq!((kept.units, kept.outcomes), (whole.units, whole.outcomes));
}

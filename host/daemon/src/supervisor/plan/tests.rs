use std::{path::Path, thread, time::Instant};

use lodestar_config::{Config, Layers};

use super::*;
use crate::supervisor::{
    Operations,
    history::{self as decisions, Decisions},
    reloads::{Reload, Waiter, Wanted},
};

/// Steps that a module of the tables goes through, one after the other.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Started with the section at [`A`], or with the later one at [`B`].
    Started(&'static str),
    CannotStart,
    Runs,
    /// A reload begins, with this section.
    Reloads(&'static str),
    TookOver,
    Refused,
    Stops,
    Stopped,
    /// It failed, though it is wanted.
    Failed,
    ReplacedWhileLoading,
    /// Somebody asks for another reload, while one is under way.
    AskedToReload,
    AskedToRollBack,
    /// Somebody asks for it, or SIGHUP came.
    AskedFor,
}

use Step::{
    AskedFor, AskedToReload, AskedToRollBack, CannotStart, Failed, Refused, Reloads,
    ReplacedWhileLoading, Runs, Started, Stopped, Stops, TookOver,
};

const A: &str = "enabled: true, size: 1";
const B: &str = "enabled: true, size: 2";
const C: &str = "enabled: true, size: 3";
const DISABLED: &str = "enabled: false, size: 1";
const GONE: &str = "";

fn sections(text: &str) -> Vec<ModuleSection> {
    let parsed = Config::parse(text, Path::new("modules.yaml"), &Layers::default());
    parsed.expect("it is valid").modules
}

fn section(text: &str) -> ModuleSection {
    sections(&format!("modules: {{gear: {{{text}}}}}")).remove(0)
}

fn reload(text: &str) -> Reload {
    let pending = Operations::default().begin("reload", Some("gear"));
    Reload {
        wanted: Wanted::AsStarted,
        waiting: vec![Waiter { pending, transaction: None }],
        section: section(text),
        begun: Instant::now(),
        thread: thread::current().id(),
        claim: std::sync::Arc::default(),
        next: None,
    }
}

fn queue(module: &mut Supervised, wanted: Wanted) {
    let reload = module.reload_mut().expect("a reload is under way");
    drop(reload.queue(wanted, "reload", || Operations::default().begin("reload", Some("gear"))));
}

fn module(steps: &[Step]) -> Supervised {
    let mut module = Supervised::default();
    for step in steps {
        match step {
            Started(text) => module.started(section(text)),
            CannotStart => drop(module.give_up(section(A))),
            Runs => {
                let _ = module.runs();
            }
            Reloads(text) => module.reloads(reload(text)),
            TookOver => drop(module.took_over().expect("a reload is under way")),
            Refused => drop(module.goes_on().expect("a reload is under way")),
            Stops => module.stops(),
            Stopped => drop(module.ended(false)),
            Failed => drop(module.ended(true)),
            ReplacedWhileLoading => module.library_may_have_changed(),
            AskedToReload => queue(&mut module, Wanted::OnPath),
            AskedToRollBack => {
                let [sha256, instead, reason] = ["a", "b", "asked"].map(str::to_owned);
                queue(&mut module, Wanted::Kept(decisions::Refused { sha256, instead, reason }));
            }
            AskedFor => module.try_again(),
        }
    }
    module
}

/// Plans for one module, `gear`, that went through `steps`.
fn planned(steps: &[Step], desired: &str) -> Vec<Action> {
    let modules = BTreeMap::from([("gear".to_owned(), module(steps))]);
    let sections = if desired == GONE { Vec::new() } else { vec![section(desired)] };
    let desired = Desired { sections: &sections, ends: false };
    plan(&desired, &Observed { modules: &modules })
}

#[test]
fn what_follows_from_each_phase_and_section() {
    let gear = || "gear".to_owned();
    let start = || Some(Action::Start(gear()));
    let stop = || Some(Action::Stop(gear()));
    let reload = || Some(Action::Reload(gear(), Cause::Section));
    let forget_refusal = || Some(Action::ForgetRefusal(gear()));
    let show_disabled = || Some(Action::ShowDisabled(gear()));
    let forget = || Some(Action::Forget(gear()));
    let up = [Started(A), Runs];
    let check = |what: &str, steps: &[Step], desired: &str, expected: Option<Action>| {
        let expected: Vec<Action> = expected.into_iter().collect();
        assert_eq!(planned(steps, desired), expected, "{what}: {steps:?}, then {desired:?}");
    };
    let after = |more: &[Step]| [&up[..], more].concat();

    check("enable", &[], A, start());
    check("enable, under way", &[Started(A)], A, None);
    check("enable, done", &up, A, None);
    check("enable, while it stops", &after(&[Stops]), A, None);
    check("enable, once it stopped", &after(&[Stops, Stopped]), A, start());

    check("disable", &up, DISABLED, stop());
    check("disable, while it starts", &[Started(A)], DISABLED, stop());
    check("disable, while it reloads", &after(&[Reloads(A)]), DISABLED, stop());
    check("disable, under way", &after(&[Stops]), DISABLED, stop());
    check("disable, done", &after(&[Stops, Stopped]), DISABLED, show_disabled());
    check("disable, given up", &[CannotStart], DISABLED, show_disabled());
    check("disable, reloaded instead", &after(&[Reloads(A), Stops, TookOver]), DISABLED, stop());

    check("edit", &up, B, reload());
    check("edit, while it starts", &[Started(A)], B, None);
    check("edit, while it stops", &after(&[Stops]), B, None);
    check("edit, while it is taken up", &after(&[Reloads(B)]), B, None);
    check("edit, while another is taken up", &after(&[Reloads(B)]), C, reload());
    check("edit, done", &after(&[Reloads(B), TookOver]), B, None);
    check("edit, refused", &after(&[Reloads(B), Refused]), B, None);
    check("edit, refused and edited again", &after(&[Reloads(B), Refused]), C, reload());
    check("edit, refused and taken back", &after(&[Reloads(B), Refused]), A, forget_refusal());
    let early = [Started(A), Reloads(A), Refused];
    check("edit, after a reload that came before it ran", &early, B, None);
    check("the same, once it runs", &[&early[..], &[Runs]].concat(), B, reload());
    check("edit of what was given up", &[CannotStart], B, start());

    check("reload", &after(&[Reloads(A)]), A, None);
    check("reload, done", &after(&[Reloads(A), TookOver]), A, None);
    check("reload, refused", &after(&[Reloads(A), Refused]), A, None);
    check("reload, the old one fails", &after(&[Reloads(A), Failed]), A, None);

    check("rollback, done", &after(&[Reloads(A), TookOver]), A, None);
    check("rollback of what was given up", &[CannotStart, AskedFor], A, start());

    check("crash, starts again by itself", &after(&[Runs]), A, None);
    check("crash, at its start", &[Started(A), Failed], A, None);
    check("crash, another library there", &[Started(A), ReplacedWhileLoading, Failed], A, start());

    check("quarantine", &after(&[Failed]), A, None);
    check("quarantine, edited", &after(&[Failed]), B, start());
    check("quarantine, asked for", &after(&[Failed, AskedFor]), A, start());

    check("install at rest", &[], DISABLED, show_disabled());
    check("install over one given up", &[CannotStart, AskedFor], A, start());

    check("remove", &up, GONE, stop());
    check("remove, under way", &after(&[Stops]), GONE, stop());
    check("remove, done", &after(&[Stops, Stopped]), GONE, forget());
    check("remove, failed at its stop", &after(&[Stops, Failed]), GONE, forget());
    check("remove, given up", &[CannotStart], GONE, forget());
}

#[test]
fn what_follows_from_another_library() {
    let check = |steps: &[Step], library, expected: Option<fn(String) -> Action>| {
        let expected = expected.map(|action| action("gear".to_owned()));
        let action = on_library("gear", module(steps).phase(), library);
        assert_eq!(action, expected, "{steps:?}, then {library:?}");
    };
    let reload = |module| Action::Reload(module, Cause::Library);
    let up = [Started(A), Runs];
    let refused = |section| [&up[..], &[Reloads(section), Refused]].concat();
    check(&[CannotStart], Library::Other, Some(Action::TryAgain));
    check(&[CannotStart], Library::Bad, None);
    check(&[Started(A)], Library::Other, Some(Action::LookAgain));
    check(&[Started(A), Reloads(A)], Library::Other, Some(Action::LookAgain));
    check(&[Started(A), Reloads(A), Refused], Library::Other, Some(Action::LookAgain));
    check(&up, Library::Other, Some(reload));
    check(&up, Library::Bad, None);
    check(&up, Library::Runs, Some(Action::ForgetRefusal));
    check(&refused(A), Library::Runs, Some(Action::ForgetRefusal));
    check(&refused(B), Library::Runs, None);
    check(&[Started(A), Runs, Reloads(A)], Library::Other, Some(reload));
    check(&[Started(A), Runs, Reloads(A), AskedToReload], Library::Other, None);
    check(&[Started(A), Runs, Reloads(A), AskedToRollBack], Library::Other, Some(reload));
    check(&[Started(A), Runs, Stops], Library::Other, None);
}

#[test]
fn a_reload_of_a_module_that_ended_takes_over_from_nobody() {
    let mut module = module(&[Started(A), Runs]);
    let reload = reload(B);
    let claim = reload.claim.clone();
    module.reloads(reload);
    drop(module.ended(false));
    assert!(!claim.take(), "the new generation is told that it is late");
}

#[test]
fn what_follows_from_a_request() {
    let check = |steps: &[Step], expected| {
        assert_eq!(on_request(module(steps).phase()), expected, "{steps:?}");
    };
    check(&[], Way::Start);
    check(&[CannotStart], Way::Start);
    check(&[Started(A)], Way::Reload);
    check(&[Started(A), Runs], Way::Reload);
    check(&[Started(A), Runs, Reloads(A)], Way::Reload);
    check(&[Started(A), Runs, Stops], Way::Start);
    check(&[Started(A), Runs, Reloads(A), Stops], Way::Reload);
}

#[test]
fn modules_stop_from_the_last_to_the_first_when_the_daemon_ends() {
    let sections = sections("modules: {a: {}, b: {}, c: {}, d: {enabled: false}}");
    let running = || module(&[Started(A), Runs]);
    let names = ["a", "c", "removed"];
    let mut modules = BTreeMap::from(names.map(|name| (name.to_owned(), running())));
    modules.insert("b".to_owned(), module(&[CannotStart]));
    let desired = Desired { sections: &sections, ends: true };
    let actions = plan(&desired, &Observed { modules: &modules });
    assert_eq!(actions, ["c", "a"].map(|name| Action::Stop(name.to_owned())));
}

#[test]
fn what_is_gone_goes_before_the_others_start_in_the_order_of_the_file() {
    let sections = sections("modules: {b: {}, a: {}}");
    let modules = BTreeMap::from([("removed".to_owned(), module(&[Started(A), Runs]))]);
    let desired = Desired { sections: &sections, ends: false };
    let actions = plan(&desired, &Observed { modules: &modules });
    let [stop, b, a] = ["removed", "b", "a"].map(str::to_owned);
    assert_eq!(actions, [Action::Stop(stop), Action::Start(b), Action::Start(a)]);
}

#[test]
fn a_thread_that_ends_leaves_what_waits_for_it() {
    let mut starting = module(&[Started(A)]);
    assert_eq!(starting.starts_for_rollback(Decisions::default()), None);
    let left = starting.ended(true);
    assert_eq!((left.before_rollback, left.waiting.len()), (Some(Decisions::default()), 0));
    let mut running = module(&[Started(A)]);
    assert_eq!(running.starts_for_rollback(Decisions::default()), None);
    let _ = running.runs();
    running.reloads(reload(B));
    let left = running.ended(true);
    assert_eq!((left.before_rollback, left.waiting.len()), (None, 1));
    let before = module(&[CannotStart]).starts_for_rollback(Decisions::default());
    assert!(before.is_some(), "it did not start at all");
}

#[test]
fn a_rollback_while_a_module_stops_is_undone_where_its_start_fails() {
    let stopping = || {
        let mut stopping = module(&[Started(A), Runs, Stops]);
        assert_eq!(stopping.starts_for_rollback(Decisions::default()), None);
        stopping
    };
    let restored = Some(Decisions::default());
    let mut starts = stopping();
    assert_eq!(starts.ended(false).before_rollback, None, "what stopped decides nothing");
    starts.started(section(A));
    assert_eq!(starts.ended(true).before_rollback, restored, "it failed");
    let mut runs = stopping();
    drop(runs.ended(false));
    runs.started(section(A));
    let _ = runs.runs();
    assert_eq!(runs.ended(true).before_rollback, None, "it had come about");
    let mut refused = stopping();
    drop(refused.ended(false));
    assert_eq!(refused.give_up(section(A)), restored, "it did not start at all");
    assert_eq!(stopping().ended(true).before_rollback, restored, "it is not started");
}

//! Metrics of modules that are reloaded, and of several modules that want the same name.

use harness::{Daemon, Sandbox, http, wait_until};

use crate::{reload_faults::ISOLATIONS, reloads::history};

fn scraped(daemon: &Daemon<'_>) -> String {
    let answer = http::get(&daemon.address("", "metrics"), "/metrics").expect("it answers");
    assert_eq!(answer.status, 200);
    answer.text()
}

/// Returns the lines of the misbehaver's own metrics.
fn own(daemon: &Daemon<'_>) -> Vec<String> {
    let text = scraped(daemon);
    text.lines().filter(|line| line.starts_with("misbehaver_")).map(str::to_owned).collect()
}

fn shows(daemon: &Daemon<'_>, label: &str, starts: u64) {
    let expected = [
        format!("misbehaver_size_bytes{{{label}=\"x\"}} 1"),
        format!("misbehaver_starts_total {starts}"),
    ];
    wait_until(&format!("the metrics are {expected:?}"), || {
        (own(daemon) == expected).then_some(())
    });
}

fn config(isolation: &str, keys: &str) -> String {
    format!(
        "modules:\n  misbehaver:\n    isolation: {isolation}\n{keys}metrics:\n  listen: \
         127.0.0.1:0\n"
    )
}

#[test]
fn a_new_generation_may_change_a_label_and_the_one_before_may_come_back() {
    for isolation in ISOLATIONS {
        let label = |label: &str| config(isolation, &format!("    metric_label: {label}\n"));
        let sandbox = Sandbox::new(&["misbehaver"], &label("first"));
        let daemon = sandbox.start();
        shows(&daemon, "first", 1);
        sandbox.configure(&label("second"));
        shows(&daemon, "second", 2);

        // One that does not come to run leaves nothing but what it counted.
        sandbox.configure(&config(isolation, "    metric_label: third\n    fault: start_fails\n"));
        wait_until("it was refused", || {
            history(&sandbox, "misbehaver").contains("planted: start").then_some(())
        });
        shows(&daemon, "second", 3);

        // One that fails on probation gives way to the last good one, which `second` is not yet.
        sandbox.configure(&label("fourth"));
        shows(&daemon, "fourth", 4);
        assert_ne!(sandbox.lodestar(&["misbehaver", "panic"]).code, 0);
        shows(&daemon, "first", 5);
        assert_eq!(sandbox.lodestar(&["modules", "disable", "misbehaver"]).code, 0);
        assert_eq!(own(&daemon), Vec::<String>::new(), "{isolation}");
        assert!(daemon.stop().success());
    }
}

#[test]
fn a_name_that_another_module_took_is_free_when_that_one_is_disabled() {
    const NAME: &str = "lodestar_storage_size_bytes";
    let squats = format!("    squats: {NAME}\n  usage_tracker:\n    enabled: false\n");
    let sandbox = Sandbox::new(&["misbehaver", "usage_tracker"], &config("process", &squats));
    let daemon = sandbox.start();
    assert!(scraped(&daemon).contains(&format!("\n{NAME} 1\n")));
    assert_ne!(sandbox.lodestar(&["modules", "enable", "usage_tracker"]).code, 0);
    let refused = daemon.wait_state("usage_tracker", "failed");
    let words = format!("the metric {NAME} belongs to misbehaver");
    assert!(refused["reason"].to_string().contains(&words), "{refused:#}");
    for (verb, module) in [("disable", "misbehaver"), ("enable", "usage_tracker")] {
        let output = sandbox.lodestar(&["modules", verb, module]);
        assert_eq!(output.code, 0, "{output:#?}");
    }
    daemon.wait_state("usage_tracker", "running");
    assert!(scraped(&daemon).contains(&format!("\n{NAME}{{file=\"main\"}} ")));
    assert!(daemon.stop().success());
}

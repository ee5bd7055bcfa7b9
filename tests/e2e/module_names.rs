//! Module names that contain paths: there is no such module.

use std::fs;

use harness::{Output, Sandbox, http};
use serde_json::json;

#[test]
fn a_name_that_leads_elsewhere_is_no_module() {
    let sandbox = Sandbox::usual();
    let _daemon = sandbox.start();
    // What such a name would lead to.
    let entry = json!({"at": "2026-11-21T01:50:17.000Z", "what": "canary", "detail": "canary"});
    for place in ["state/x.history.jsonl", "x.history.jsonl"] {
        fs::write(sandbox.path(place), format!("{entry}\n")).expect("it is writable");
    }
    let names =
        ["../x", "../../x", "..", ".", "/etc/passwd", "a/b", "\u{1b}[31mred", "\u{202e}gnp"];
    let long = "x".repeat(3000);
    for name in names.into_iter().chain([long.as_str()]) {
        let verbs = [
            &["modules", "why"][..],
            &["modules", "info"],
            &["modules", "reload"],
            &["modules", "rollback"],
            &["modules", "enable"],
            &["modules", "disable"],
            &["modules", "remove"],
            &["modules", "logs"],
            &["modules", "verify"],
            &["config", "show"],
        ];
        for verb in verbs {
            let Output { code, stdout, stderr } = sandbox.lodestar(&[verb, &[name]].concat());
            assert_eq!(code, 1, "{verb:?} {name:?}: {stdout}{stderr}");
            let none = stderr.contains("there is no module") || stderr.contains("not installed");
            assert!(none, "{verb:?} {name:?}: {stderr}");
            assert!(stdout.is_empty() && !stderr.contains("canary"), "{verb:?} {name:?}: {stderr}");
            let is_safe = |c: char| c == '\n' || !(c.is_control() || c == '\u{202e}');
            assert!(stderr.chars().all(is_safe), "{verb:?} {name:?}: {stderr:?}");
            assert!(stderr.len() < 1_000, "{verb:?}: {} bytes", stderr.len());
        }
    }
    for path in [
        "/v1/modules/..%2Fx/why",
        "/v1/modules/..%2F..%2Fx/why",
        "/v1/modules/%2e%2e%2fx/why",
        "/v1/modules/x%00/why",
        "/v1/modules/../why",
        "/v1/modules/%FF/why",
        "/v1/modules/..%2Fx",
        "/v1/config/modules/..%2Fx",
    ] {
        let answer = http::get_unix(&sandbox.socket(), path).expect("it answers");
        assert!([404, 422].contains(&answer.status), "{path}: {}", answer.text());
        assert!(!answer.text().contains("canary"), "{path}: {}", answer.text());
    }
    assert!(!sandbox.path("x.decisions.json").exists());
}

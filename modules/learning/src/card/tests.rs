//! Cards of invented versions.

use serde_json::json;

use super::*;
use crate::registry::{Approval, Digest, Lineage, Overriding, State};

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn gate(name: &str, passed: bool, evidence: serde_json::Value) -> Gate {
    Gate {
        name: name.to_owned(),
        passed,
        value: None,
        limit: Some(2.0),
        evidence,
        overridden: None,
    }
}

fn version() -> Version {
    Version {
        id: "v3".to_owned(),
        state: State::Deployed,
        created_at: 1_796_000_000_000,
        updated_at: 1_796_000_000_000,
        lineage: Lineage {
            run: "r1".to_owned(),
            base: "/home/ada/models/qwen3-0.6b".to_owned(),
            base_digest: digest("base"),
            dataset: digest("dataset").into(),
            dataset_digest: digest("dataset"),
            examples: 120,
            consents: vec!["c1".to_owned()],
            trainer: "embedded".to_owned(),
        },
        artifact: Some(digest("adapter")),
        evaluation: 1,
        bench: Some(digest("bench")),
        gates: vec![
            Gate { value: Some(1.5), ..gate("forgetting", true, json!({})) },
            gate("memory", true, json!({"not_applicable": "it does not say"})),
            Gate {
                overridden: Some(Overriding {
                    by: "ada".to_owned(),
                    reason: "tried | by hand".to_owned(),
                    at: 1_796_000_000_000,
                }),
                ..gate("task", false, json!({"not_measured": "no server"}))
            },
        ],
        approvals: vec![approval("ada", 1), approval("bob", 0)],
        tainted: false,
    }
}

fn approval(by: &str, evaluation: u64) -> Approval {
    Approval {
        by: by.to_owned(),
        reason: "better at our orders".to_owned(),
        at: 1_796_000_000_000,
        evaluation,
        observed: crate::registry::Observed {
            artifact: digest("adapter"),
            base: digest("base"),
            dataset: digest("dataset"),
            bench: digest("bench"),
        },
    }
}

fn written(version: &Version) -> String {
    let curve = Curve { train: vec![(1, 2.5), (60, 0.25)], held_out: vec![(60, 1.26)] };
    let alias = Some("champion");
    let facts = Facts { version, alias, run: None, dataset: None, curve };
    let mut text = metadata(version);
    write_body(&mut text, &facts).expect("it is written");
    text
}

#[test]
fn a_card_says_what_is_known() {
    let card = written(&version());
    for part in [
        "---\nbase_model: \"qwen3-0.6b\"\nlibrary_name: peft\n",
        "tags:\n- lora\n- lodestar\n---\n\n# v3\n",
        "State: **deployed, champion** since 2026-11-30.",
        "| examples | 120 |",
        "| forgetting | yes | 1.500 | 2.000 |  |",
        "| task | no | - | 2.000 | ada: tried \\| by hand |",
        "memory does not apply: it does not say",
        "task was not measured: no server",
        "- ada approved it on 2026-11-30: better at our orders",
        "- bob approved it as it was before on 2026-11-30",
        "- The gate task did not pass.",
        "Nothing is known of the run any more.",
    ] {
        assert!(card.contains(part), "{part:?} is not in {card}");
    }
    assert!(!card.contains("/home/ada") && !card.contains("Tainted"), "{card}");
}

#[test]
fn a_card_tells_of_a_taint_and_of_what_is_missing() {
    let version = Version { tainted: true, gates: Vec::new(), approvals: Vec::new(), ..version() };
    let card = written(&version);
    for part in ["**Tainted", "They were not measured yet.", "Nobody approved it."] {
        assert!(card.contains(part), "{part:?} is not in {card}");
    }
}

#[test]
fn names_are_nothing_but_text() {
    let evil = "x\n---\nlicense: mit | <script>[a](http://b)\u{202e}";
    let mut version = version();
    version.lineage.base = format!("/models/{evil}");
    version.approvals[0].reason = evil.to_owned();
    version.gates[0].name = evil.to_owned();
    let card = written(&version);
    assert!(!card.contains("\nlicense: mit") && !card.contains('\u{202e}'), "{card}");
    assert!(!card.contains("<script>[") && !card.contains("[a]"), "{card}");
    let (metadata, _) = card.split_once("\n---\n").expect("it has metadata");
    assert_eq!(metadata.lines().filter(|line| line.starts_with("license:")).count(), 1);
}

//! The costs of requests, and the costs that their clients state.

use module_sdk::events::{CostSource, LlmRequestCompleted, RequestSource, RequestStatus};
use serde_json::{Value, json};

use crate::common::{NOW, bench, request, summary};

/// Returns a request with the tokens and the cost that a client states, as one event.
fn stated(key: &str, model: &str, tokens: (u64, u64), usd: f64) -> LlmRequestCompleted {
    #[expect(clippy::cast_possible_truncation, reason = "a cost in a test")]
    let nano = (usd * 1e9).round() as i64;
    LlmRequestCompleted {
        input_tokens: Some(tokens.0),
        output_tokens: Some(tokens.1),
        cost_nano_usd: Some(nano),
        cost_source: Some(CostSource::Client),
        client: Some("claude-code".to_owned()),
        ..request(key, NOW, model)
    }
}

#[test]
fn a_request_of_the_fast_mode_costs_what_that_costs() {
    let mut bench = bench(json!({}));
    let fast = LlmRequestCompleted {
        service_tier: Some("fast".to_owned()),
        ..stated("fast", "claude-opus-5", (10_000, 2_000), 0.2)
    };
    bench.send(&fast).expect("it is handled");
    assert_eq!(summary(&mut bench, json!({}))["total"]["cost_usd"], 0.2);
    let requests = bench.command("requests", json!({})).expect("it answers");
    assert_eq!(requests.data[0]["cost_nano_usd"], 200_000_000);
    assert_eq!(requests.data[0]["stated_cost_nano_usd"], 200_000_000);
    assert_eq!(requests.data[0]["service_tier"], "fast");
    let head = requests.table.as_ref().expect("a table").columns.len();
    assert_eq!(head, 8, "both figures agree, so one is shown");
}

#[test]
fn a_tier_without_a_price_is_unpriced() {
    let mut bench = bench(json!({}));
    for (key, tier) in [("a", "priority"), ("b", "scale"), ("c", "standard")] {
        let service_tier = Some(tier.to_owned());
        let request = request(key, NOW, "claude-opus-5");
        bench.send(&LlmRequestCompleted { service_tier, ..request }).expect("it is handled");
    }
    let total = summary(&mut bench, json!({}))["total"].clone();
    assert_eq!((&total["requests"], &total["unpriced_requests"]), (&json!(3), &json!(2)));
    // 1,000 tokens in, 100 out.
    assert_eq!(total["cost_usd"], 0.0075);
}

#[test]
fn dotted_and_decorated_names_have_the_price_of_their_model() {
    let mut bench = bench(json!({}));
    let copilot = LlmRequestCompleted {
        provider: Some("github".to_owned()),
        input_tokens: Some(21_884),
        output_tokens: Some(80),
        cache_write_5m_tokens: Some(21_881),
        ..request("copilot", NOW, "claude-sonnet-4.6")
    };
    bench.send(&copilot).expect("it is handled");
    // 3 × 3 + 21,881 × 3.75 + 80 × 15, per million.
    assert_eq!(summary(&mut bench, json!({}))["total"]["cost_usd"], 0.083_262_75);
}

#[test]
fn what_a_client_states_is_kept_and_added_up_by_source() {
    let mut bench = bench(json!({}));
    let events = [
        // $0.10 by our table.
        stated("far", "claude-opus-5", (10_000, 2_000), 0.25),
        stated("near", "claude-opus-5", (10_000, 2_000), 0.1),
        stated("unknown", "house-model", (10_000, 2_000), 0.5),
        LlmRequestCompleted {
            source: Some(RequestSource::OtlpSpan),
            ..request("silent", NOW, "claude-opus-5")
        },
    ];
    let (handled, result) = bench.send_all(&events);
    assert_eq!((handled, result.is_ok()), (4, true));
    let answer = bench.command("sources", json!({})).expect("it answers");
    assert_eq!(
        answer.data,
        json!([
            {
                "source": "otlp_log", "client": "claude-code", "requests": 3, "cost_usd": 0.7,
                "stated_requests": 3, "stated_cost_usd": 0.85, "difference_usd": 0.15,
                "differing_requests": 1, "merged_requests": 0,
                "also_reported_by": {}, "disagreeing_requests": 0,
            },
            {
                "source": "otlp_span", "client": null, "requests": 1, "cost_usd": 0.0075,
                "stated_requests": 0, "stated_cost_usd": null, "difference_usd": null,
                "differing_requests": 0, "merged_requests": 0,
                "also_reported_by": {}, "disagreeing_requests": 0,
            },
        ])
    );
    let answer = bench.command("requests", json!({})).expect("it answers");
    let table = answer.table.expect("a table");
    assert_eq!(table.columns[7].title, "STATED");
    let shown: Vec<&str> = table.rows.iter().map(|row| row[7].as_str()).collect();
    assert_eq!(shown, ["-", "-", "-", "$0.25"]);
    assert!(table.notes[0].contains("lodestar usage sources"), "{:?}", table.notes);
    // A second report of the request that states nothing takes nothing away.
    let again = LlmRequestCompleted {
        source: Some(RequestSource::Gateway),
        cost_nano_usd: None,
        cost_source: None,
        ..events[0].clone()
    };
    bench.send(&again).expect("it is handled");
    let answer = bench.command("sources", json!({})).expect("it answers");
    assert_eq!(answer.data[0]["source"], "gateway");
    assert_eq!(answer.data[0]["difference_usd"], 0.15);
}

#[test]
fn a_cost_that_is_the_clients_own_is_not_compared() {
    let mut bench = bench(json!({}));
    for key in ["a", "b"] {
        bench.send(&stated(key, "house-model", (10_000, 2_000), 0.5)).expect("it is handled");
    }
    let answer = bench.command("sources", json!({})).expect("it answers");
    let expected = json!([{
        "source": "otlp_log", "client": "claude-code", "requests": 2, "cost_usd": 1.0,
        "stated_requests": 2, "stated_cost_usd": 1.0, "difference_usd": null,
        "differing_requests": 0, "merged_requests": 0,
        "also_reported_by": {}, "disagreeing_requests": 0,
    }]);
    assert_eq!(answer.data, expected);
    assert_eq!(answer.table.expect("a table").rows[0][6], "-");
}

#[test]
fn the_rows_show_whose_cost_is_missing_as_the_foot_counts_it() {
    let mut bench = bench(json!({}));
    let failed = LlmRequestCompleted {
        status: Some(RequestStatus::Error),
        input_tokens: None,
        output_tokens: None,
        ..request("failed", NOW, "house-model-2")
    };
    let events = [
        request("a", NOW, "claude-opus-5"),
        request("b", NOW, "house-model"),
        LlmRequestCompleted { provider: Some("mine".to_owned()), ..request("c", NOW, "house") },
        failed,
    ];
    bench.send_all(&events).1.expect("they are handled");
    let mut costs = |by: &str| {
        let answer = bench.command("summary", json!({"by": by})).expect("it answers");
        let table = answer.table.expect("a table");
        let foot = table.notes.join("\n");
        assert!(foot.contains("2 requests without a known price"), "{foot}");
        let mut shown: Vec<String> =
            table.rows.iter().map(|row| format!("{} {}", row[0], row[5])).collect();
        shown.sort();
        (shown, table.total[5].clone())
    };
    let (by_model, total) = costs("model");
    let expected = ["claude-opus-5 $0.0075", "house -", "house-model -", "house-model-2 $0.00"];
    assert_eq!((by_model, total.as_str()), (expected.map(str::to_owned).to_vec(), "$0.0075+"));
    assert_eq!(costs("provider").0, ["anthropic $0.0075+", "mine -"]);
    assert_eq!(costs("day").0, ["2026-11-21 $0.0075+"]);
}

#[test]
fn a_cache_write_that_cost_the_price_of_an_hour_was_one_of_an_hour() {
    let mut bench = bench(json!({}));
    let write = |key: &str, usd: f64, told: Option<u64>| LlmRequestCompleted {
        cache_write_5m_tokens: Some(10_000),
        cache_write_1h_tokens: told,
        ..stated(key, "claude-opus-5", (10_000, 0), usd)
    };
    // 10,000 × 6.25 for five minutes, × 10 for an hour, per million.
    for (key, usd, told) in [
        ("hour", 0.1, None),
        ("five minutes", 0.0625, None),
        ("something else", 0.09, None),
        ("told apart", 0.1, Some(0)),
    ] {
        bench.send(&write(key, usd, told)).expect("it is handled");
    }
    // The same again, from where the other reports come too, changes nothing.
    bench.send(&write("hour", 0.1, None)).expect("it is handled");
    let answer = bench.command("requests", json!({})).expect("it answers");
    let of = |key: &str| {
        let rows = answer.data.as_array().expect("rows").iter();
        let row = rows.clone().find(|row| row["dedupe_key"] == key).expect("it is there");
        let (short, long) = (&row["cache_write_5m_tokens"], &row["cache_write_1h_tokens"]);
        (short.clone(), long.clone(), row["cost_nano_usd"].clone())
    };
    assert_eq!(of("hour"), (json!(0), json!(10_000), json!(100_000_000)));
    let noted = answer.data.as_array().expect("rows").iter();
    assert_eq!(noted.filter(|row| row["one_hour_by_cost"] == true).count(), 1);
    let short = (json!(10_000), Value::Null, json!(62_500_000));
    assert_eq!(of("five minutes"), short);
    assert_eq!(of("something else"), short);
    assert_eq!(of("told apart"), (json!(10_000), json!(0), json!(62_500_000)));
}

#[test]
fn a_model_that_nothing_is_called_by_is_answered_with_near_ones() {
    let mut bench = bench(json!({}));
    for (key, model) in
        [("a", "claude-sonnet-4-5-20250929"), ("b", "claude-sonnet-4.5"), ("c", "gpt-5.1-codex")]
    {
        let project = Some("website".to_owned());
        let request = LlmRequestCompleted { project, ..request(key, NOW, model) };
        bench.send(&request).expect("it is handled");
    }
    let mut check = |args: Value, rows: usize, note: &str| {
        let answer = bench.command("requests", args).expect("it answers");
        assert_eq!(answer.data.as_array().map(Vec::len), Some(rows), "{}", answer.data);
        let notes = answer.table.expect("a table").notes;
        assert_eq!(notes.first().map_or("", String::as_str), note);
    };
    // However it is spelt, here and there.
    check(json!({"model": "claude-sonnet-4.5"}), 2, "");
    check(json!({"model": "claude-sonnet-4-5-20250929"}), 2, "");
    check(json!({"model": "anthropic/claude-sonnet-4-5"}), 2, "");
    let near = "no request names the model `gpt-5.1-kodex`; did you mean `gpt-5.1-codex`?";
    check(json!({"model": "gpt-5.1-kodex"}), 0, near);
    let part = "no request names the model `codex`; did you mean `gpt-5.1-codex`?";
    check(json!({"model": "codex"}), 0, part);
    check(json!({"model": "qqq"}), 0, "no request names the model `qqq`");
    let project = "no request names the project `web`; did you mean `website`?";
    check(json!({"project": "web"}), 0, project);
    let nothing = "no requests in this time, or they are deleted already";
    check(json!({"model": "gpt-5.1-codex", "errors": true}), 0, nothing);
}

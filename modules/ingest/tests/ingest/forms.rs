//! Bodies as real senders write them: one odd value never costs its neighbours.

use serde_json::{Value, json};

use crate::{
    bodies::*,
    http::{Answer, Site},
};

const JSON: (&str, &str) = ("content-type", "application/json");
const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");

/// Returns a body of Claude Code's with other records beside a good one.
fn beside_a_good_one(others: &[&str]) -> String {
    let good = serde_json::to_string(&claude_request(now_ns(), "req_good")).expect("JSON");
    let records = [others, &[good.as_str()]].concat().join(",");
    format!(
        "{{\"resourceLogs\":[{{\"resource\":{{\"attributes\":[{{\"key\":\"service.name\",\"value\":\
         {{\"stringValue\":\"claude-code\"}}}}]}},\"scopeLogs\":[{{\"scope\":{{\"name\":\
         \"com.anthropic.claude_code.events\"}},\"logRecords\":[{records}]}}]}}]}}"
    )
}

fn attribute(key: &str, value: &str) -> String {
    format!("{{\"key\":\"{key}\",\"value\":{value}}}")
}

fn post(site: &Site, body: &str) -> Answer {
    let answer = site.post("/v1/logs", &[JSON], body.as_bytes());
    assert_eq!(answer.status, 200, "{}: {body}", answer.text());
    answer
}

#[test]
fn a_text_that_was_cut_in_a_character_costs_nothing() {
    for half in ["see \\ud83d...", "\\ude00", "\\ude00\\ud83d", "end \\uD83D", "\\ud83d\\u0041"] {
        let site = Site::plain();
        let text = format!("{{\"stringValue\":\"{half}\"}}");
        let prompt = format!(
            "{{\"{half}\":1,\"body\":{text},\"attributes\":[{},{},{}]}}",
            attribute("event.name", "{\"stringValue\":\"user_prompt\"}"),
            attribute("prompt", &text),
            attribute(half, "{}"),
        );
        let answer = post(&site, &beside_a_good_one(&[&prompt]));
        assert_eq!(answer.text(), "{}");
        assert_eq!(site.requests().len(), 1, "{half}");
    }
}

#[test]
fn the_forms_of_the_json_mapping_are_understood() {
    let site = Site::plain();
    let mut attributes = vec![
        attribute("x", "{\"arrayValue\":{}}"),
        attribute("y", "{\"kvlistValue\":{\"values\":null}}"),
        attribute("z", "{\"bytesValue\":\"-_8\"}"),
        attribute("w", "null"),
        attribute("input_tokens", "{\"int_value\":\"4e2\"}"),
        attribute("output_tokens", "{\"intValue\":34.0}"),
    ];
    for (key, value) in [
        ("event.name", "api_request"),
        ("model", "claude-sonnet-4-5"),
        ("session.id", "s-1"),
        ("request_id", "req_forms"),
    ] {
        attributes.push(attribute(key, &format!("{{\"string_value\":\"{value}\"}}")));
    }
    let record = format!(
        "{{\"time_unix_nano\":{},\"observedTimeUnixNano\":null,\"severityNumber\":\
         \"SEVERITY_NUMBER_INFO\",\"severityText\":null,\"traceId\":null,\"flags\":null,\
         \"droppedAttributesCount\":null,\"body\":null,\"new\":[{{}}],\"attributes\":[{}]}}",
        now_ns(),
        attributes.join(","),
    );
    let body = beside_a_good_one(&[&record]);
    let answer = site.post("/v1/logs", &[JSON, ("content-encoding", "")], body.as_bytes());
    assert_eq!((answer.status, answer.text().as_str()), (200, "{}"));
    let requests = site.requests();
    assert_eq!(requests.len(), 2);
    let formed = requests.iter().find(|it| it.dedupe_key == "anthropic:req_forms");
    let formed = formed.expect("it is counted");
    assert_eq!((formed.input_tokens, formed.output_tokens), (Some(400), Some(34)));
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_is_taken() {
    let mut site = Site::plain();
    let secret = "{\"attributes\":[{\"key\":\"k\",\"value\":{\"stringValue\":[\"sk-secret\"]}}]}";
    let answer = post(&site, &beside_a_good_one(&["{}", secret, "7"]));
    let partial = &answer.json()["partialSuccess"];
    assert_eq!(partial["rejectedLogRecords"], "2");
    assert_eq!(
        partial["errorMessage"],
        "2 records were refused, the first: resourceLogs[0].scopeLogs[0].logRecords[1]: \
         attributes[0].value.stringValue must be a text"
    );
    assert_eq!(site.requests().len(), 1);
    let reply = site.bench.command("sources", json!({"outcome": "refused"})).expect("it answers");
    let row = &reply.data["rows"][0];
    assert_eq!((&row["record"], &row["count"]), (&json!("(record)"), &json!(2)));
    assert!(!site.everything_told().contains("secret"));
}

#[test]
fn what_stands_around_records_does_not_cost_them() {
    let site = Site::plain();
    let body = beside_a_good_one(&[]).replacen("\"scope\"", "\"schemaUrl\":[],\"scope\"", 1);
    let answer = post(&site, &body);
    let partial = &answer.json()["partialSuccess"];
    assert_eq!(partial["rejectedLogRecords"], "0");
    let told = partial["errorMessage"].as_str().expect("a text");
    assert!(told.ends_with("resourceLogs[0].scopeLogs[0].schemaUrl must be a text"), "{told}");
    assert_eq!(site.requests().len(), 1);
}

#[test]
fn bytes_that_are_no_text_cost_their_place_only() {
    use prost::Message as _;
    let mut prompt = record(now_ns(), vec![attr("prompt", "cut here: XYZ")]);
    prompt.severity_text = "XYZ".to_owned();
    let mut body = claude_logs(vec![prompt, claude_request(now_ns(), "req_good")]).encode_to_vec();
    while let Some(at) = body.windows(3).position(|bytes| bytes == b"XYZ") {
        body[at..at + 3].copy_from_slice(b"\xed\xa0\xbd");
    }
    let site = Site::plain();
    let answer = site.post("/v1/logs", &[PROTOBUF], &body);
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(site.requests().len(), 1);
}

#[test]
fn lynex_events_may_hold_halves_of_characters() {
    let site = Site::plain();
    let event = |id: &str, half: &str| {
        format!(
            "{{\"eventId\":\"{id}\",\"projectId\":\"p\",\"type\":\"message\",\"timestamp\":\
             \"{}\",\"{half}\":null,\"body\":{{\"role\":\"user\",\"content\":\"{half}\"}}}}",
            jiff::Timestamp::now(),
        )
    };
    let body = format!("[{},{}]", event("a", "cut \\ud83d"), event("b", "\\ude00\\ud83d"));
    let answer = site.post("/api/v1/events", &[JSON], body.as_bytes());
    assert_eq!(answer.status, 202, "{}", answer.text());
    let body = event("c", "XYZ").into_bytes();
    let body: Vec<u8> = body.iter().map(|byte| if *byte == b'Y' { 0xff } else { *byte }).collect();
    assert_eq!(site.post("/api/v1/event", &[JSON], &body).status, 202);
    let events = site.lynex_events();
    let lengths: Vec<Value> = events
        .iter()
        .map(|event| serde_json::to_value(event).expect("it serialises"))
        .map(|event| event["fields"]["content_chars"].clone())
        .collect();
    assert_eq!(events.len(), 3, "{lengths:?}");
}

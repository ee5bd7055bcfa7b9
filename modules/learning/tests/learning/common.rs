//! The helpers that the tests of the module share.

use std::{path::PathBuf, time::Duration};

use learning::Learning;
use module_sdk::{
    Reply, Result,
    events::{ContentMessage, ContentRole, LlmRequestContent},
    jiff::Timestamp,
    testing::Bench,
};
use serde_json::{Value, json};

pub(crate) use crate::invented::{answer, question};

/// Time of the fake clock in these tests.
pub(crate) const NOW: &str = "2026-11-21T12:00:00Z";

/// Returns a time in milliseconds since the Unix epoch.
pub(crate) fn ms(time: &str) -> i64 {
    time.parse::<Timestamp>().expect("a time").as_millisecond()
}

/// Starts the module with its clock at [`NOW`].
pub(crate) fn bench(config: Value) -> Bench<Learning> {
    let bench = Bench::start(config).expect("it starts");
    bench.host().set_now(NOW.parse().expect("a time"));
    bench
}

/// Starts the module where somebody has agreed for the project `shop`.
pub(crate) fn with_consent() -> Bench<Learning> {
    let mut bench = bench(json!({}));
    grant(&mut bench, "shop");
    bench
}

/// Lets days pass from [`NOW`] on, and the timers run once.
pub(crate) fn after_days(bench: &mut Bench<Learning>, days: i64) {
    let now = Timestamp::from_millisecond(ms(NOW) + days * 24 * 3_600_000).expect("a time");
    bench.host().set_now(now);
    bench.advance(Duration::from_secs(600)).expect("timers run");
}

/// Agrees for a project.
pub(crate) fn grant(bench: &mut Bench<Learning>, project: &str) {
    let args = json!({"action": "grant", "name": project, "by": "ada", "days": 10});
    bench.command("consent", args).expect("it is granted");
}

/// Runs a command that is expected to work, and returns its data.
pub(crate) fn run(bench: &mut Bench<Learning>, command: &str, args: Value) -> Value {
    bench.command(command, args).expect("it answers").data
}

/// Runs a command that is expected to be refused, and returns the message.
pub(crate) fn refused(bench: &mut Bench<Learning>, command: &str, args: Value) -> String {
    bench.command(command, args).expect_err("it is refused").to_string()
}

/// Returns the line of a conversation about an order.
pub(crate) fn chat(number: u32) -> Value {
    json!({
        "messages": [
            {"role": "user", "content": question(number)},
            {"role": "assistant", "content": answer(number)},
        ],
        "model": "qwen3:4b",
        "session": format!("session-{number}"),
        "at": ms(NOW) - 1_000_000 + i64::from(number) * 1_000,
    })
}

/// Writes lines into a file in the data directory.
pub(crate) fn file(bench: &Bench<Learning>, name: &str, lines: &[Value]) -> PathBuf {
    let path = bench.data_dir().join(name);
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(&path, text).expect("it is written");
    path
}

/// Imports the file at the path in the arguments, which is sent as the command line does.
pub(crate) fn import_file(bench: &mut Bench<Learning>, args: Value) -> Result<Reply> {
    let path = args["path"].as_str().expect("a path").to_owned();
    let content = std::fs::read(&path).expect("it is read");
    bench.command_with_files("import", args, &[(&path, &content)])
}

/// Imports a file that is expected to work, and returns the data of the answer.
pub(crate) fn imported(bench: &mut Bench<Learning>, args: Value) -> Value {
    import_file(bench, args).expect("it is imported").data
}

/// Imports the conversations of a range for the project `shop`.
pub(crate) fn import(bench: &mut Bench<Learning>, numbers: std::ops::Range<u32>) -> Value {
    let lines: Vec<Value> = numbers.map(chat).collect();
    let path = file(bench, "chats.jsonl", &lines);
    imported(bench, json!({"format": "jsonl", "path": path, "project": "shop"}))
}

/// Builds a dataset of the project `shop`.
pub(crate) fn build(bench: &mut Bench<Learning>) -> Value {
    run(bench, "datasets", json!({"action": "build", "project": ["shop"]}))
}

/// Returns the text of a request of the project `shop`, and of its answer.
pub(crate) fn content(key: &str, question: &str) -> LlmRequestContent {
    let say = |role, text: &str| ContentMessage { role, text: text.to_owned() };
    LlmRequestContent {
        schema: 1,
        dedupe_key: key.to_owned(),
        project: "shop".to_owned(),
        request_id: None,
        at: ms(NOW),
        session_id: Some("s1".to_owned()),
        model: Some("qwen3:4b".to_owned()),
        request: vec![say(ContentRole::User, question)],
        answer: vec![say(
            ContentRole::Assistant,
            "It costs seven euros and a bit, as the list of prices says.",
        )],
        truncated: false,
    }
}

/// Returns how many examples a filter dropped for a reason.
pub(crate) fn dropped(dataset: &Value, reason: &str) -> u64 {
    let steps = dataset["funnel"].as_array().expect("it has a funnel");
    steps.iter().filter_map(|step| step["reasons"][reason].as_u64()).sum()
}

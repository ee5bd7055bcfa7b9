//! Ten thousand requests while providers fail, and the books compared with what was served.
//!
//! Three providers have one model. The first is killed and started again, answers HTML, refuses,
//! and cuts its answers; the second is slow and fails seldom; the third only answers. Every
//! request asks for an answer of its own, with counts of its own, so that nothing can be mistaken
//! for another.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use harness::{
    FakeUpstream,
    upstream::{Answer, Cut, Exchange, Fault, Outcome, Usage},
};
use serde_json::{Value, json};

use crate::{
    daemon::{Gateway, KEY, configuration},
    load::ask_once,
    reply::Reply,
    report,
};

/// Number of requests.
const REQUESTS: u64 = 10_000;
/// Number of clients at once.
const CLIENTS: usize = 32;
/// Price of a token of input and of output, in nano-USD.
const PRICES: (u64, u64) = (1_000, 2_000);

/// Settings of the router: all providers are asked alike, waits are short, and no breaker spares
/// the router the faults.
const ROUTER: &str = "    \
    discover_ollama: false
    routing: {strategy: weighted}
    breaker: {failures: 1000, open_seconds: 1}
    retries: {attempts: 1, backoff_ms: 5, max_backoff_ms: 50}
    timeouts: {first_byte_seconds: 2, idle_seconds: 2}
";

/// Asks, and reports what went wrong.
pub(crate) fn run() {
    let upstreams: Vec<FakeUpstream> = (0..3).map(|_| FakeUpstream::start()).collect();
    for (number, upstream) in upstreams.iter().enumerate() {
        upstream.only_models(&["m"]);
        upstream.decide(move |asked| Some(scripted(number, asked)));
    }
    let provider = |(name, upstream): (&str, &FakeUpstream)| {
        format!(
            "  {name}: {{base_url: \"{}\", api: openai, key: {KEY}, models: [m]}}\n",
            upstream.url("/v1")
        )
    };
    let providers: String =
        ["one", "two", "three"].into_iter().zip(&upstreams).map(provider).collect();
    let mut text = configuration("127.0.0.1:0", &providers, ROUTER);
    text = text.replace(
        "  usage_tracker:\n    enabled: true\n",
        "  usage_tracker:\n    enabled: true\n    prices: {m: {input: 1, output: 2}}\n",
    );
    let gateway = Gateway::with(&text);
    let (answers, upstreams) = ask_all(&gateway, upstreams);
    report_answers(&answers);
    let exchanges: Vec<Exchange> =
        upstreams.iter().flat_map(FakeUpstream::asked).filter(|it| it.status.is_some()).collect();
    report_books(&exchanges, &gateway.export(), &answers);
    if std::env::var_os("LODESTAR_BENCH_LOG").is_some() {
        eprintln!("{}", gateway.log());
    }
}

/// Returns a number that looks random and depends on the words alone.
fn dice(words: &[u64]) -> u64 {
    let mixed = words.iter().fold(0x9e37_79b9_7f4a_7c15_u64, |sum, word| {
        let sum = (sum ^ word).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        sum ^ (sum >> 29)
    });
    mixed % 100
}

/// Returns the text and the counts of the answer to a request.
fn expected(number: u64) -> (String, Usage) {
    let text = format!("answer {number}: {}", "all of these words belong to it ".repeat(8));
    let usage =
        Usage { input: 100 + number, cache_read: 0, output: 10 + number % 97, ..Usage::default() };
    (text, usage)
}

/// Returns the answer of a provider to a request; the faults of the third are none.
fn scripted(provider: usize, asked: &Exchange) -> Answer {
    let body = asked.json();
    let content = body["messages"][0]["content"].as_str().unwrap_or_default();
    let number = content.strip_prefix("request ").and_then(|it| it.parse().ok()).unwrap_or(0);
    let (text, usage) = expected(number);
    let whole = Answer { text, usage, pieces: 8, ..Answer::default() };
    // Another attempt at the same request may end otherwise.
    let roll = dice(&[provider as u64, number, asked.connection]);
    let cut = |how| Some(Fault::CutAfter { events: 1 + (number % 7) as usize, how });
    let (fault, head_ms) = match (provider, roll) {
        (0, 0..5) => (Some(Fault::Html), 0),
        (0, 5..9) => (Some(Fault::Status { status: 503, body: None }), 0),
        (0, 9..14) => (cut(Cut::Close), 0),
        (0, 14..18) => (cut(Cut::Reset), 0),
        (0, 18..22) => (cut(Cut::End), 0),
        (0, 22..25) => (Some(Fault::ErrorAfter { events: 1 + (number % 7) as usize }), 0),
        (0, 25..27) => (Some(Fault::ErrorInOk), 0),
        (0, 27..40) | (1, 0..20) => (None, 5 + roll * 3),
        (1, 20..22) => (cut(Cut::Close), 0),
        (1, 22..24) => (Some(Fault::Html), 0),
        _ => (None, 0),
    };
    Answer { fault, head_ms, ..whole }
}

/// Answer as a client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Got {
    /// The whole answer.
    Right,
    /// Something else that claims to be a whole answer.
    Wrong,
    /// An error, or a connection that broke.
    Failed,
    /// A stream that ended without an end and without an error.
    Silent,
}

fn ask_all(gateway: &Gateway, mut upstreams: Vec<FakeUpstream>) -> (Vec<Got>, Vec<FakeUpstream>) {
    let done = Arc::new(AtomicBool::new(false));
    let mut killed = upstreams.remove(0);
    let killer = thread::spawn({
        let done = done.clone();
        move || {
            for round in 0.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                thread::sleep(Duration::from_millis(200 + 3 * dice(&[round])));
                killed.stop();
                thread::sleep(Duration::from_millis(2 * dice(&[round, 1])));
                killed.start_again();
            }
            killed
        }
    });
    let address = gateway.address;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let answers = runtime.expect("a runtime needs two descriptors").block_on(async {
        let next = Arc::new(AtomicU64::new(0));
        let clients = (0..CLIENTS).map(|_| client(address, next.clone()));
        let clients: tokio::task::JoinSet<Vec<Got>> = clients.collect();
        clients.join_all().await.concat()
    });
    done.store(true, Ordering::Relaxed);
    upstreams.insert(0, killer.join().expect("no panic"));
    (answers, upstreams)
}

async fn client(address: SocketAddr, next: Arc<AtomicU64>) -> Vec<Got> {
    let mut answers = Vec::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= REQUESTS {
            return answers;
        }
        let stream = number.is_multiple_of(2);
        let mut body = json!({
            "model": "auto", "messages": [{"role": "user", "content": format!("request {number}")}],
            "temperature": 1,
        });
        if stream {
            body["stream"] = json!(true);
        }
        let got = match ask_once(address, &body.to_string()).await {
            Ok(reply) => judged(&reply, stream, &expected(number).0),
            Err(_) => Got::Failed,
        };
        if got == Got::Wrong {
            eprintln!("request {number} was answered as whole, and is not");
        }
        answers.push(got);
    }
}

/// Judges an answer that ended as HTTP answers end.
fn judged(reply: &Reply, stream: bool, expected: &str) -> Got {
    if reply.status() != 200 {
        return Got::Failed;
    }
    let body = reply.body();
    let right = |text: &str| if text == expected { Got::Right } else { Got::Wrong };
    if !stream {
        let Ok(body) = serde_json::from_str::<Value>(&body) else { return Got::Failed };
        return match body["choices"][0]["message"]["content"].as_str() {
            Some(text) => right(text),
            None => Got::Failed,
        };
    }
    let (mut text, mut ended, mut failed) = (String::new(), false, false);
    for data in body.lines().filter_map(|line| line.strip_prefix("data: ")) {
        ended |= data == "[DONE]";
        let Ok(chunk) = serde_json::from_str::<Value>(data) else { continue };
        failed |= chunk["error"].is_object();
        text.push_str(chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
        ended |= chunk["choices"][0]["finish_reason"].is_string();
    }
    match (failed, ended) {
        (true, _) => Got::Failed,
        (false, true) => right(&text),
        (false, false) => Got::Silent,
    }
}

fn report_answers(answers: &[Got]) {
    let count = |wanted: Got| answers.iter().filter(|got| **got == wanted).count();
    let asked = answers.len();
    report(json!({
        "name": format!("gateway: faults: {asked} requests, answered"), "value": count(Got::Right),
        "unit": "answers",
    }));
    report(json!({
        "name": "gateway: faults: errors told to the client", "value": count(Got::Failed),
        "unit": "answers",
    }));
    for (name, got) in [
        ("gateway: faults: claim to be whole and are not", Got::Wrong),
        ("gateway: faults: streams without end or error", Got::Silent),
    ] {
        report(json!({
            "name": name, "value": count(got), "unit": "answers",
            "goal": {"at_most": 0, "of": "value"},
        }));
    }
}

/// Compares what was served with what is in the books.
fn report_books(exchanges: &[Exchange], events: &[Value], answers: &[Got]) {
    let mut by_id: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, event) in events.iter().enumerate() {
        let mut ids: Vec<&str> = ["upstream_request_id", "response_id"]
            .iter()
            .filter_map(|key| event[key].as_str())
            .collect();
        ids.dedup();
        for id in ids {
            by_id.entry(id).or_default().push(index);
        }
    }
    let of = |exchange: &Exchange| {
        let ids = [Some(exchange.request_id.as_str()), exchange.response_id.as_deref()];
        let found = ids.into_iter().flatten().filter_map(|id| by_id.get(id)).flatten();
        let mut found: Vec<usize> = found.copied().collect();
        found.sort_unstable();
        found.dedup();
        found
    };
    let (mut lost, mut unmatched, mut wrong, mut matched) = (0_usize, 0_usize, Vec::new(), 0_usize);
    let served: u64 = exchanges
        .iter()
        .filter(|exchange| exchange.outcome == Outcome::Whole)
        .filter_map(|exchange| exchange.usage.as_ref().map(price))
        .sum();
    for exchange in exchanges {
        let found = of(exchange);
        matched += found.len();
        match (found.as_slice(), exchange.outcome) {
            ([], Outcome::Whole) => {
                lost += 1;
                eprintln!("no event: {}", shown(exchange));
            }
            ([], _) => unmatched += 1,
            ([only], _) if rightly_charged(exchange, &events[*only]) => {}
            (several, _) => wrong.push((exchange, several.to_vec())),
        }
    }
    for (exchange, found) in wrong.iter().take(20) {
        eprintln!("wrongly charged: {}", shown(exchange));
        for event in found {
            eprintln!("    {}", events[*event]);
        }
    }
    // An attempt of which nothing arrived has no id: such events are only counted.
    let without_id = events.len().saturating_sub(matched);
    lost += unmatched.saturating_sub(without_id);
    lost += answers.len().saturating_sub(events.len());
    report(json!({
        "name": "gateway: faults: attempts in the books", "value": events.len(), "unit": "events",
        "baseline": {"name": "served", "value": exchanges.len()},
    }));
    let charged = events.iter().filter(|event| event["status"] == "ok");
    let charged: u64 = charged.filter_map(|event| event["cost_nano_usd"].as_u64()).sum();
    report(json!({
        "name": "gateway: faults: charged for whole answers", "value": charged as f64 / 1e9,
        "unit": "USD", "baseline": {"name": "served", "value": served as f64 / 1e9},
    }));
    for (name, value) in [("wrong charges", wrong.len()), ("lost events", lost)] {
        report(json!({
            "name": format!("gateway: faults: {name}"), "value": value, "unit": "events",
            "goal": {"at_most": 0, "of": "value"},
        }));
    }
}

/// Returns the price of what was served, in nano-USD.
const fn price(usage: &Usage) -> u64 {
    usage.input * PRICES.0 + usage.output * PRICES.1
}

/// Returns whether an event charges what was served: the counts that were told, and nothing where
/// none were. An estimate of a part says that it is one.
fn rightly_charged(exchange: &Exchange, event: &Value) -> bool {
    let counts = (event["input_tokens"].as_u64(), event["output_tokens"].as_u64());
    let cost = event["cost_nano_usd"].as_u64();
    let estimated = matches!(event["usage_source"].as_str(), Some("estimated" | "partial"));
    match (exchange.outcome, &exchange.usage) {
        (Outcome::Whole, Some(usage)) => {
            counts == (Some(usage.input), Some(usage.output))
                && cost == Some(price(usage))
                && event["status"] == "ok"
        }
        _ => estimated || cost.unwrap_or(0) == 0 && event["status"] != "ok",
    }
}

fn shown(exchange: &Exchange) -> String {
    format!(
        "{} {} stream={} status={:?} events={} outcome={:?} usage={:?}",
        exchange.request_id,
        exchange.json()["messages"][0]["content"],
        exchange.stream,
        exchange.status,
        exchange.events,
        exchange.outcome,
        exchange.usage,
    )
}

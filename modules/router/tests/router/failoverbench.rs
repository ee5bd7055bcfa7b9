//! The sixteen faults that a gateway has to stand, by the names that failoverbench gives them. In
//! each a provider fails as told, another one is well, and what is checked is what a client sees.

use std::time::{Duration, Instant};

use module_sdk::events::{LlmRequestCompleted, RequestStatus};
use serde_json::{Value, json};

use crate::{
    faults::{ask, two},
    gateway::{Answer, Gateway},
    upstream::{Act, End, Upstream, chat_events},
};

/// Scenario: its name, its title, what the first provider does on its nth request, and settings.
type Scenario = (&'static str, &'static str, Box<dyn Fn(usize) -> Act + Send + Sync>, Value);

/// Facts about one scenario after a streamed request.
struct Seen {
    bad: Upstream,
    good: Upstream,
    gateway: Gateway,
    answer: Answer,
    took: Duration,
}

impl Seen {
    fn attempts(&self) -> usize {
        self.bad.asked("/chat/completions").len()
    }

    fn fallbacks(&self) -> usize {
        self.good.asked("/chat/completions").len()
    }

    fn reports(&self) -> Vec<LlmRequestCompleted> {
        self.gateway.reports(self.attempts() + self.fallbacks())
    }

    /// Returns whether the answer is whole, and says so.
    fn is_whole(&self) -> bool {
        let body = &self.answer.body;
        self.answer.status == 200 && body.contains("\"stop\"") && !self.is_error()
    }

    fn is_error(&self) -> bool {
        self.answer.body.contains("\"error\"")
    }

    /// Checks that the next request is answered.
    fn is_alive(&self) {
        let answer = self.gateway.post(
            "/v1/chat/completions",
            &json!({"model": "b/m", "messages": [{"role": "user", "content": "still?"}]}),
        );
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

fn words(number: usize) -> Vec<String> {
    (0..number).map(|index| format!("w{index} ")).collect()
}

fn stream(pieces: Vec<String>, end: End) -> Act {
    Act::Stream("text/event-stream", pieces, end)
}

fn whole() -> Act {
    let words = words(60);
    stream(chat_events(&words.iter().map(String::as_str).collect::<Vec<_>>()), End::Good)
}

/// Returns the first events of a stream of sixty words: its begin and so many words.
fn first_words(number: usize) -> Vec<String> {
    let words = words(60);
    let mut events = chat_events(&words.iter().map(String::as_str).collect::<Vec<_>>());
    events.truncate(number + 1);
    events
}

fn status(status: u16, body: &'static str) -> Act {
    Act::Answer(status, vec![], body.to_owned())
}

fn first_then_whole(first: impl Fn() -> Act + Send + Sync + 'static) -> Scripted {
    Box::new(move |number| if number == 0 { first() } else { whole() })
}

type Scripted = Box<dyn Fn(usize) -> Act + Send + Sync>;

const LONG: &str = r#"{"error":{"code":"context_length_exceeded","message":"too long"}}"#;
const FILTERED: &str = r#"{"error":{"code":"content_policy_violation","message":"no"}}"#;

fn scenarios() -> Vec<Scenario> {
    let none = json!({});
    let alone = json!({"routing": {"aliases": {"x": ["a/m"]}}});
    let limited = || Act::Answer(429, vec![("retry-after", "2".to_owned())], "{}".to_owned());
    let hedged = json!({"routing": {"aliases": {"x": ["a/m", "b/m"]}, "hedge": {"after_ms": 50}},
            "timeouts": {"idle_seconds": 60}});
    vec![
        ("S01", "429 with Retry-After", first_then_whole(limited), alone),
        (
            "S02",
            "429 without Retry-After, persistent",
            Box::new(|_| status(429, "{}")),
            none.clone(),
        ),
        ("S03", "500 once, then healthy", first_then_whole(|| status(500, "{}")), none.clone()),
        ("S04", "503 persistent", Box::new(|_| status(503, "{}")), none.clone()),
        ("S05", "TCP reset before headers", first_then_whole(|| Act::Close), none.clone()),
        ("S06", "No response at all", Box::new(|_| Act::Hang), none.clone()),
        ("S07", "Slow first token", Box::new(|_| stream(first_words(0), End::Hang)), hedged),
        (
            "S08",
            "Stream cut mid-answer",
            Box::new(|_| stream(first_words(40), End::Cut)),
            none.clone(),
        ),
        ("S09", "Stream stalls", Box::new(|_| stream(first_words(20), End::Hang)), none.clone()),
        (
            "S10",
            "Malformed chunk in the stream",
            Box::new(|_| {
                let mut events = first_words(60);
                events[9] = "data: {\"choices\": [{\"delta\": {\"cont\n\n".to_owned();
                stream(events, End::Good)
            }),
            none.clone(),
        ),
        (
            "S11",
            "Stream ends without [DONE]",
            Box::new(|_| {
                let words = words(60);
                let mut events = chat_events(&words.iter().map(String::as_str).collect::<Vec<_>>());
                events.pop();
                stream(events, End::Good)
            }),
            none.clone(),
        ),
        ("S12", "Context length exceeded", Box::new(|_| status(400, LONG)), none.clone()),
        ("S13", "Content-filter rejection", Box::new(|_| status(400, FILTERED)), none.clone()),
        (
            "S14",
            "Fallback target rejects prefill",
            Box::new(|_| stream(first_words(40), End::Cut)),
            none.clone(),
        ),
        (
            "S15",
            "Primary flaps: down, then healthy",
            Box::new(|number| if number < 3 { status(503, "{}") } else { whole() }),
            json!({"breaker": {"failures": 2, "open_seconds": 1, "max_open_seconds": 1}}),
        ),
        ("S16", "Fail-over accounting", Box::new(|_| status(503, "{}")), none),
    ]
}

fn check(name: &str, seen: &Seen) {
    let (attempts, fallbacks) = (seen.attempts(), seen.fallbacks());
    match name {
        "S01" => {
            assert!(seen.is_whole());
            assert_eq!(attempts, 2, "it is asked again, and not hammered");
            assert!(seen.took >= Duration::from_millis(1800), "{:?}", seen.took);
        }
        "S02" | "S04" => {
            assert!(seen.is_whole());
            assert!((1..=2).contains(&attempts) && fallbacks == 1, "{attempts}");
        }
        "S03" | "S05" => {
            assert!(seen.is_whole());
            assert_eq!((attempts, fallbacks), (2, 0), "the same one is well again");
        }
        "S06" => {
            assert!(seen.is_whole());
            assert_eq!((attempts, fallbacks), (1, 1), "one that is silent is waited for once");
        }
        "S07" => {
            assert!(seen.is_whole());
            assert!(seen.took < Duration::from_secs(15), "{:?}", seen.took);
        }
        "S08" | "S09" | "S10" | "S14" => {
            assert!(seen.is_error() && !seen.is_whole(), "{}", seen.answer.body);
            assert!(!seen.answer.body.contains("[DONE]"), "{}", seen.answer.body);
            assert_eq!((attempts, fallbacks), (1, 0), "nothing is repeated after content");
            assert_ne!(seen.reports()[0].status, Some(RequestStatus::Ok));
            seen.is_alive();
        }
        "S11" => {
            assert!(seen.is_whole());
            assert!(seen.took < Duration::from_secs(8), "{:?}", seen.took);
            let report = &seen.reports()[0];
            assert_eq!((report.status, report.output_tokens), (Some(RequestStatus::Ok), Some(20)));
        }
        "S12" => {
            assert!(seen.is_whole());
            assert_eq!((attempts, fallbacks), (1, 1));
        }
        "S13" => {
            assert_eq!((seen.answer.status, seen.answer.body.as_str()), (400, FILTERED));
            assert_eq!((attempts, fallbacks), (1, 0));
        }
        "S15" => {
            assert!(seen.is_whole());
            let end = Instant::now() + Duration::from_secs(30);
            let mut number = 1;
            loop {
                let answer = ask(&seen.gateway, true);
                number += 1;
                assert_eq!(answer.status, 200, "it is answered all the time: {answer:?}");
                let route = answer.header("x-lodestar-route").unwrap_or_default();
                if route.starts_with("a/m") {
                    break;
                }
                assert!(Instant::now() < end, "it is never asked again");
                std::thread::yield_now();
            }
            // Two failures, a probe that failed, and the one that was answered.
            assert_eq!(seen.attempts(), 4, "of {number} requests");
        }
        "S16" => {
            assert!(seen.is_whole() && seen.answer.body.contains("\"model\":\"big-1\""));
            let reports = seen.reports();
            let (last, failed) = reports.split_last().expect("reports");
            assert!(
                failed.iter().all(|it| it.cost_nano_usd.is_none() && it.output_tokens.is_none())
            );
            assert_eq!((last.upstream.as_deref(), last.output_tokens), (Some("b"), Some(20)));
            assert_eq!(last.fallback_from.as_deref(), Some("a/m"));
        }
        _ => panic!("{name} has no check"),
    }
}

#[test]
fn all_sixteen_faults_are_stood() {
    let all = scenarios();
    assert_eq!(all.len(), 16);
    for (name, title, act, settings) in all {
        println!("{name} {title}");
        let (bad, good, gateway) = two(act, settings);
        let begun = Instant::now();
        let answer = ask(&gateway, true);
        let took = begun.elapsed();
        check(name, &Seen { bad, good, gateway, answer, took });
    }
}

//! A corpus of secrets as chance makes them, and texts that are full of what only looks like one.

use super::*;
use crate::quality::tests::{Random, chat};

const BASE62: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const BASE64: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL64: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const HEX: &str = "0123456789abcdef";
const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Makes a secret.
type Make = fn(&mut Random) -> String;

/// Kinds of secrets, each with how one is made.
const KINDS: [(&str, Make); 28] = [
    ("OpenAI", |it| format!("sk-proj-{}", it.chars(URL64, 74))),
    ("Anthropic", |it| format!("sk-ant-api03-{}AA", it.chars(URL64, 93))),
    ("OpenRouter", |it| format!("sk-or-v1-{}", it.chars(HEX, 64))),
    ("xAI", |it| format!("xai-{}", it.chars(BASE62, 80))),
    ("Groq", |it| format!("gsk_{}", it.chars(BASE62, 52))),
    ("Hugging Face", |it| format!("hf_{}", it.chars(&BASE62[..52], 34))),
    ("GitHub", |it| format!("ghp_{}", it.chars(BASE62, 36))),
    ("GitHub fine-grained", |it| {
        format!("github_pat_{}_{}", it.chars(BASE62, 22), it.chars(BASE62, 59))
    }),
    ("GitLab", |it| format!("glpat-{}", it.chars(URL64, 20))),
    ("npm", |it| format!("npm_{}", it.chars(BASE62, 36))),
    ("PyPI", |it| format!("pypi-AgEIcHlwaS5vcmc{}", it.chars(URL64, 70))),
    ("Docker", |it| format!("dckr_pat_{}", it.chars(URL64, 27))),
    ("AWS key id", |it| format!("AKIA{}", it.chars(UPPER, 16))),
    ("AWS secret", |it| format!("aws_secret_access_key = {}", it.chars(BASE64, 40))),
    ("Google", |it| format!("AIza{}", it.chars(URL64, 35))),
    ("Stripe", |it| format!("sk_live_{}", it.chars(BASE62, 24))),
    ("Slack", |it| {
        format!(
            "xoxb-{}-{}-{}",
            it.chars(&HEX[..10], 12),
            it.chars(&HEX[..10], 12),
            it.chars(BASE62, 24)
        )
    }),
    ("SendGrid", |it| format!("SG.{}.{}", it.chars(URL64, 22), it.chars(URL64, 43))),
    ("Twilio", |it| format!("SK{}", it.chars(HEX, 32))),
    ("Telegram", |it| format!("{}:AA{}", it.chars("123456789", 9), it.chars(URL64, 33))),
    ("JSON web token", |it| {
        let [head, body, sign] = [30, 60, 43].map(|count| it.chars(URL64, count));
        format!("eyJ{head}.eyJ{body}.{sign}")
    }),
    ("private key", |it| {
        let lines: String = (0..20).map(|_| it.chars(BASE64, 64) + "\n").collect();
        format!("-----BEGIN RSA PRIVATE KEY-----\n{lines}-----END RSA PRIVATE KEY-----")
    }),
    ("URL with a password", |it| format!("postgres://app:{}@db:5432/shop", password(it))),
    ("password", |it| format!("password: {}", password(it))),
    ("password in JSON", |it| format!(r#"{{"db_password": "{}"}}"#, password(it))),
    ("key in an environment", |it| format!("export SHOP_API_KEY={}", it.chars(HEX, 32))),
    ("bearer", |it| format!("Authorization: Bearer {}", it.chars(BASE62, 40))),
    ("no form", |it| it.chars(BASE64, 40)),
];

fn password(random: &mut Random) -> String {
    let length = 10 + random.below(8);
    random.chars(BASE62, length)
}

/// Puts a secret where people do.
fn placed(random: &mut Random, secret: &str) -> String {
    let (before, after) = [
        ("My key is ", ", why is it refused?"),
        ("```sh\n", "\n```"),
        ("I tried `", "` and it failed."),
        ("", ""),
        ("config:\n  - ", "\n"),
        ("(", ")"),
    ][random.below(6)];
    format!("{before}{secret}{after}")
}

#[test]
fn of_twenty_kinds_all_but_one_in_a_hundred_are_found() {
    let secrets = Secrets::new();
    for (kind, make) in KINDS {
        let mut random = Random::new(42);
        let mut missed = Vec::new();
        for _ in 0..500 {
            let secret = make(&mut random);
            let text = placed(&mut random, &secret);
            if secrets.sort(&text).is_none() {
                missed.push(text);
            }
        }
        assert!(missed.len() <= 5, "{kind}: {} of 500 missed, {:?}", missed.len(), &missed[..3]);
    }
}

#[test]
fn code_and_prose_are_no_secrets() {
    let secrets = Secrets::new();
    let corpus = include_str!("plain.txt");
    let texts: Vec<&str> = corpus.split("\n====\n").collect();
    assert!(texts.len() >= 60, "{}", texts.len());
    let alarms: Vec<_> =
        texts.iter().filter_map(|text| Some((secrets.sort(text)?, *text))).collect();
    assert!(alarms.is_empty(), "{alarms:#?}");
}

#[test]
fn calls_and_descriptions_of_tools_are_looked_through() {
    let secrets = Secrets::new();
    let token = format!("ghp_{}", Random::new(1).chars(BASE62, 36));
    let plain = || chat("1", "List my pull requests, please.", "Here they are.");
    assert_eq!(secrets.judge_one(&plain()), None);
    let arguments = serde_json::json!({"token": token}).to_string();
    let call = serde_json::json!([{"function": {"name": "list", "arguments": arguments}}]);
    let mut called = plain();
    called.messages[1].tool_calls = Some(call.clone());
    assert_eq!(secrets.judge_one(&called), Some("secret_form"));
    let mut described = plain();
    described.tools = Some(call);
    assert_eq!(secrets.judge_one(&described), Some("secret_form"));
}

#[test]
fn hostile_texts_take_no_long_time() {
    let secrets = Secrets::new();
    for unit in ["-----BEGIN PRIVATE KEY-----!", "password=", "a://b:", "eyJ", "A1b", "sk-", "key="]
    {
        let text = unit.repeat(1_000_000 / unit.len());
        let begun = std::time::Instant::now();
        secrets.sort(&text);
        assert!(begun.elapsed().as_secs() < 20, "{unit}: {:?}", begun.elapsed());
    }
}

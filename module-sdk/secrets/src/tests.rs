//! The corpus of texts that must not stay, and of those that must. All of it is made up.

use super::{keys::MAX_LINES, *};

/// Letters and digits as a generator of keys gives them.
const RANDOM: &str =
    "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xYzA1bC2dE3fG4hI5jK6lM7nO8pQ9rS0tU1vW2xY3z4A5b6C7d8E9";
const HEX: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0ab";
const UPPER: &str = "QWERTZ2UIOPAS3DFGHJK4LYXCVBN5MQWERTZ6UIOPASD7FGHJKLYXCVBNM2QWERT";

/// Returns a secret of each kind, several of some: the kind, what stands around it, and the secret.
fn secrets() -> Vec<(&'static str, String)> {
    let random = |length: usize| &RANDOM[..length];
    let hex = |length: usize| &HEX[..length];
    vec![
        ("OpenAI", format!("sk-{}", random(48))),
        ("OpenAI project", format!("sk-proj-{}_{}-x", random(40), random(20))),
        ("OpenAI service account", format!("sk-svcacct-{}", random(40))),
        ("OpenAI admin", format!("sk-admin-{}", random(40))),
        ("Anthropic", format!("sk-ant-api03-{}-{}AA", random(40), random(30))),
        ("Anthropic OAuth", format!("sk-ant-oat01-{}", random(60))),
        ("OpenRouter", format!("sk-or-v1-{}", hex(64))),
        ("DeepSeek", format!("sk-{}", hex(32))),
        ("Langfuse", "sk-lf-0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0".to_owned()),
        ("Lynex, Stripe", format!("sk_live_{}", random(24))),
        ("Stripe restricted", format!("rk_live_{}", random(40))),
        ("Stripe webhook", format!("whsec_{}", random(32))),
        ("xAI", format!("xai-{}", random(80))),
        ("Groq", format!("gsk_{}", random(52))),
        ("Hugging Face", format!("hf_{}", random(34))),
        ("Perplexity", format!("pplx-{}", random(48))),
        ("Replicate", format!("r8_{}", random(37))),
        ("NVIDIA", format!("nvapi-{}", random(64))),
        ("Fireworks", format!("fw_{}", random(24))),
        ("Cerebras", format!("csk-{}", random(48))),
        ("Together", format!("tgp_v1_{}", random(43))),
        ("Tavily", format!("tvly-dev-{}", random(32))),
        ("Pinecone", format!("pcsk_{}_{}", random(6), random(60))),
        ("LangSmith", format!("lsv2_pt_{}_{}", hex(32), hex(10))),
        ("Bedrock", format!("ABSK{}==", random(80))),
        ("Voyage", format!("pa-{}", random(43))),
        ("Astra", format!("AstraCS:{}:{}", random(24), hex(64))),
        ("Cursor", format!("crsr_{}", hex(64))),
        ("Gemini", format!("AQ.Ab8RN6{}", random(44))),
        ("AWS session", format!("IQoJb3JpZ2luX2Vj{}", random(80))),
        ("Facebook", format!("EAAB{}", random(60))),
        ("Twitter", format!("{}%3D{}", "A".repeat(21), random(60))),
        ("GitHub", format!("ghp_{}", random(36))),
        ("GitHub OAuth", format!("gho_{}", random(36))),
        ("GitHub app", format!("ghs_{}", random(36))),
        ("GitHub refresh", format!("ghr_{}", random(36))),
        ("GitHub fine-grained", format!("github_pat_{}_{}", random(22), random(59))),
        ("GitLab", format!("glpat-{}", random(20))),
        ("GitLab runner", format!("glrt-{}", random(20))),
        ("Atlassian", format!("ATATT3xFfGF0{}={}", random(60), "1A2B3C4D")),
        ("npm", format!("npm_{}", random(36))),
        ("PyPI", format!("pypi-AgEIcHlwaS5vcmc{}", random(70))),
        ("RubyGems", format!("rubygems_{}", hex(48))),
        ("Docker", format!("dckr_pat_{}", random(27))),
        ("AWS", format!("AKIA{}", &UPPER[..16])),
        ("AWS for a while", format!("ASIA{}", &UPPER[3..19])),
        ("Google", format!("AIza{}", random(35))),
        ("Google OAuth", format!("ya29.{}", random(60))),
        ("Google client", format!("GOCSPX-{}", random(28))),
        ("Google refresh", format!("1//0{}", random(60))),
        ("Azure AI", format!("{}JQQJ99{}", random(52), random(26))),
        ("Azure client", format!("aB38Q~{}", random(34))),
        ("Alibaba", format!("LTAI{}", random(20))),
        ("DigitalOcean", format!("dop_v1_{}", hex(64))),
        ("Databricks", format!("dapi{}", hex(32))),
        ("Supabase", format!("sbp_{}", hex(40))),
        ("PlanetScale", format!("pscale_tkn_{}", random(43))),
        ("Vault", format!("hvs.{}", random(60))),
        ("Terraform", format!("{}.atlasv1.{}", random(14), random(60))),
        ("Doppler", format!("dp.pt.{}", random(43))),
        ("Pulumi", format!("pul-{}", hex(40))),
        ("Tailscale", format!("tskey-auth-{}-{}", random(12), random(32))),
        ("Grafana", format!("glsa_{}_{}", random(32), hex(8))),
        ("Sentry", format!("sntrys_{}", random(60))),
        ("New Relic", format!("NRAK-{}", &UPPER[..27])),
        ("Postman", format!("PMAK-{}-{}", hex(24), hex(34))),
        ("Slack", format!("xoxb-123456789012-123456789012-{}", random(24))),
        ("Slack app", format!("xapp-1-A0123456789-1234567890123-{}", hex(64))),
        ("Discord", format!("MTA{}.G{}.{}", random(23), random(5), random(38))),
        ("Telegram", format!("123456789:AA{}", random(33))),
        ("SendGrid", format!("SG.{}.{}", random(22), random(43))),
        ("Twilio", format!("SK{}", hex(32))),
        ("Mailgun", format!("key-{}", hex(32))),
        ("Mailchimp", format!("{}-us12", hex(32))),
        ("Square", format!("sq0atp-{}", random(22))),
        ("Shopify", format!("shpat_{}", hex(32))),
        ("Linear", format!("lin_api_{}", random(40))),
        ("Notion", format!("ntn_{}", random(46))),
        ("Figma", format!("figd_{}", random(40))),
        ("Airtable", format!("pat{}.{}", random(14), hex(64))),
        ("age", format!("AGE-SECRET-KEY-1{}", &UPPER[..58])),
        ("JSON web token", format!("eyJ{}.eyJ{}.{}", random(30), random(40), random(43))),
        (
            "private key",
            format!(
                "-----BEGIN RSA PRIVATE KEY-----\n{0}\n{0}\n-----END RSA PRIVATE KEY-----",
                random(64)
            ),
        ),
        (
            "OpenSSH key",
            format!(
                "-----BEGIN OPENSSH PRIVATE KEY-----\\n{}\\n-----END OPENSSH PRIVATE KEY-----",
                random(64)
            ),
        ),
        ("private key, cut off", format!("-----BEGIN EC PRIVATE KEY-----\r\n{}", random(64))),
        (
            "PGP key",
            format!(
                "-----BEGIN {0}-----\nVersion: 1\n\n{1}\n=aBcD\n-----END {0}-----",
                "PGP PRIVATE KEY BLOCK",
                random(64)
            ),
        ),
    ]
}

/// Returns texts in which only a part is secret, with that part.
fn named() -> Vec<(String, String)> {
    let random = |length: usize| RANDOM[..length].to_owned();
    let within =
        |before: &str, secret: String, after: &str| (format!("{before}{secret}{after}"), secret);
    vec![
        within("https://joe:", "s3cret".to_owned(), "@host/x"),
        within("postgres://app:", "pa%24s".to_owned(), "@db.local:5432/app"),
        within("redis://:", "hunter22".to_owned(), "@cache:6379"),
        within("https://", random(40), "@github.com/acme/shop.git"),
        within("https://hooks.slack.com/services/", "T0/B0/".to_owned() + &random(24), ""),
        within("https://discord.com/api/webhooks/1234/", random(60), ""),
        within("https://maps.example/v1?x=1&key=", random(30), "&y=2"),
        within("https://b.example/f?X-Amz-Signature=", HEX[..64].to_owned(), ""),
        within("https://a.blob.core.windows.net/c?sv=1&sig=", random(40), ""),
        within("Authorization: Bearer ", "abc.def-ghi_jkl".to_owned(), ""),
        within("authorization: Basic ", "dXNlcjpodW50ZXIy".to_owned(), ""),
        within("authorization: token ", random(20), ""),
        within("x-api-key: ", "0123456789abcdef".to_owned(), ""),
        within(r#"{"password":""#, "hunter22".to_owned(), r#""}"#),
        within(r#"{\"client_secret\":\""#, "hunter22".to_owned(), r#"\"}"#),
        within("AWS_SECRET_ACCESS_KEY=", random(40), " x"),
        within("DD_API_KEY=", HEX[..32].to_owned(), ""),
        within("AccountKey=", random(80) + "==", ";EndpointSuffix=core.windows.net"),
        within("refresh_token=", random(30), "&a=b"),
    ]
}

/// Names as they are: none of them is a secret.
const NAMES: &[&str] = &[
    "claude-sonnet-4-5-20250929",
    "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    "anthropic/claude-opus-4.1:thinking",
    "gpt-5-codex",
    "gpt-4o-mini-2024-07-18",
    "o3-mini-high",
    "chatgpt-4o-latest",
    "text-embedding-3-large",
    "gemini-2.5-pro-preview-05-06",
    "models/gemini-1.5-flash-002",
    "accounts/fireworks/models/llama-v3p1-405b-instruct",
    "meta-llama/Meta-Llama-3.1-405B-Instruct-Turbo",
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B",
    "mistralai/Mixtral-8x22B-Instruct-v0.1",
    "qwen2.5-coder:32b-instruct-q4_K_M",
    "hf.co/bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M",
    "openai/gpt-oss-120b",
    "ft:gpt-4o-mini-2024-07-18:acme:custom-suffix:9AbCdEfG",
    "grok-4-fast-reasoning",
    "command-r-plus-08-2024",
    "nova-pro-v1:0",
    "amazon.titan-embed-text-v2:0",
    "sonar-deep-research",
    "vertex_ai/claude-3-5-haiku@20241022",
    "azure/gpt-4.1-nano",
    "kimi-k2-0905-preview",
    "skywork-o1-open-llama-3.1-8b",
    "sk-translation-of-the-readme",
    "disk-cleanup-internationally",
    "feature/task-1234-do-not-leak",
    "dependabot/npm_and_yarn/lodash-4.17.21",
    "main",
    "HEAD",
    "release/2026.11",
    "feature/basic-configuration",
    "fix/bearer",
    "user/sk-learn-upgrade",
    "req_d17677f0_0004",
    "req_011CSHoEeqs5C35K2UUqR7Fy",
    "msg_01XFDUDYJgAACzvnptvVoYEL",
    "chatcmpl-9aBcDeFgHiJkLmNoPqRsTuVwXyZ12",
    "resp_0a1b2c3d4e5f60718293a4b5c6d7e8f9",
    "gen-1712345678-AbCdEfGhIjKlMnOp",
    "toolu_01A09q90qw90lq917835lq9",
    "run_aB3dE5fG7hJ9kL1mN2pQ",
    "019aa3c1-7b5e-7000-8000-000000000001",
    "D17677F0-0004-4000-8000-00805F9B34FB",
    "2bab386f80d780d4f7f395240837c2c90690ad7648b5",
    "0f1e2d3c4b5a69788796a5b4c3d2e1f0",
    "sha256:0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "b7ad6b7169203331",
    "hash:0f1e2d3c4b5a69788796a5b4c3d2e1f0",
    "anthropic:req_011CSHoEeqs5C35K2UUqR7Fy",
    "lynex:019aa3c1-7b5e-7000-8000-000000000001",
    "session_k3j5h7abcdefghijklmnopqrst",
    "user_abcdefghijklmnopqrstuvwxyz",
    "host_2345672345672345672345672a",
    "/home/ada/src/secret-santa/main.rs",
    "/var/lib/lodestar/usage_tracker/usage.db",
    "C:\\Users\\ada\\AppData\\Local\\x",
    "https://api.anthropic.com/v1/messages",
    "http://127.0.0.1:4318/v1/logs",
    "postgres://db.local:5432/app",
    "ssh://git@host:22/a.git",
    "git@github.com:acme/shop.git",
    "aGVsbG8gd29ybGQ=",
    "SGVsbG8sIFdvcmxkIQ==",
    "claude-cli/2.1.0 (external, cli)",
    "codex_cli_rs",
    "opentelemetry.instrumentation.openai_v2",
    "max_tokens=4096",
    "input_tokens: 123456",
    "took 19 ms for 1795218501711000000 ns",
    "request req_d17677f0_0004 of sketch",
    "the key is gone",
    "token: none",
    "1.2.3-beta.4+build.5",
    "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-v1",
    "projects/my-project/locations/us-central1/publishers/google/models/gemini-2.0-flash",
    "asia-northeast1",
    "AsiaPacificNorthEast2",
    "hf_transformers_model_for_something_else",
    "feature/pa-1234-implement-new-payment-authorization-flow",
    "rnd_pricing-model-comparison",
    "sgp_prod-customer-support",
    "phx_datacenter-agents-nightly",
    "jina_embeddings_v2_base_en",
    "jina_embeddings_v3_for_long_documents",
    "xapp-frontend-for-the-customers",
    "Bearer authentication is required",
    "the header authorization has no bearer credentials",
    "feature/bearer authentication-of-services",
    "fc-barcelona-match-statistics-dashboard",
    "glc_monitoring_of_all_the_clusters",
    "figd_design-system-migration",
    "hvs.controllers-of-the-building_automation",
    "sl.Backend-for-the-whole-of-the-company_and_more",
    "SG.customer-support-chat.production-environment",
    "ntn_norwegian-telecom-network-planning",
    "sbp_small-business-platform",
    "vcp_venture-capital-portfolio-tracker",
    "pat-replacement-of-the-login",
    "team-ASIA-PACIFIC-NORTHEAST",
    "users/ada/spike/AddNewPaymentAuthorizationFlow",
    "renovate/typescript-eslint-monorepo",
    "bugfix/JIRA-4711-null-pointer-in-checkout",
    "hotfix/2026-11-29-rate-limit-of-anthropic",
    "release-please--branches--main--components--lodestar",
    "gh-readonly-queue/main/pr-1234-0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c",
    "secret_santa_gift_exchange_planner",
    "secrets-manager-migration",
    "password-reset-by-mail",
    "token-bucket-rate-limiter",
    "basic_internationalization",
    "internationalization",
];

#[test]
fn no_secret_of_any_kind_stays() {
    let redactor = Redactor::new();
    let kinds = secrets();
    assert!(kinds.len() >= 34);
    for (kind, secret) in &kinds {
        assert_eq!(redactor.redact(secret), REPLACEMENT, "{kind}: {secret}");
        for (before, after) in [
            ("key ", " failed"),
            ("(", ")"),
            ("claude-4 ", ""),
            ("a=", ","),
            ("é", "é"),
            ("'", "'"),
            ("_", " "),
        ] {
            let text = format!("{before}{secret}{after}");
            let redacted = redactor.redact(&text);
            let body = &secret[secret.len() / 2..];
            assert!(!redacted.contains(body), "{kind}: {redacted}");
            assert!(redacted.starts_with(before) && redacted.contains(REPLACEMENT), "{redacted}");
        }
    }
    for (text, secret) in named() {
        let redacted = redactor.redact(&text);
        assert_eq!(redacted, text.replace(&secret, REPLACEMENT));
    }
}

#[test]
fn names_stay() {
    let redactor = Redactor::new();
    for name in NAMES {
        assert_eq!(redactor.redact(name), *name);
        let data = serde_json::json!({"model": name, "session_id": name, "dedupe_key": name});
        let json = redactor.redact_json(data.to_string().as_bytes());
        assert_eq!(json, None, "{name}");
    }
}

#[test]
fn no_secret_stays_in_json_however_it_is_written() {
    let redactor = Redactor::new();
    for (kind, secret) in secrets() {
        let plain =
            serde_json::json!({"schema": 1, "model": secret, "n": 1.0, secret.as_str(): []});
        let escape = |text: &str| {
            text.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect::<String>()
        };
        let newline = serde_json::json!({"branch": format!("\n{secret}\t")}).to_string();
        for json in [plain.to_string(), newline, format!(r#"{{"model":"{}"}}"#, escape(&secret))] {
            let redacted = redactor.redact_json(json.as_bytes());
            let redacted = String::from_utf8(redacted.expect("it is found")).expect("it is text");
            let value: serde_json::Value = serde_json::from_str(&redacted).expect("it is JSON");
            let text = value.to_string();
            let half = serde_json::Value::from(&secret[secret.len() / 2..]).to_string();
            assert!(!text.contains(&half[1..half.len() - 1]), "{kind}: {text}");
            assert!(text.contains(REPLACEMENT), "{kind}: {text}");
        }
    }
    let url = r#"{"url":"https:\/\/joe:s3cret@host\/x"}"#;
    let redacted = redactor.redact_json(url.as_bytes()).expect("it is found");
    assert_eq!(redacted, br#"{"url":"https://joe:[redacted]@host/x"}"#);
}

#[test]
fn json_stays_as_it_is_beside_its_secrets() {
    let redactor = Redactor::new();
    let key = &secrets()[0].1;
    let json =
        format!(r#" {{"a": 1.0, "big":12345678901234567890123, "a":"\u0041", "k":"{key}" }}"#);
    let redacted = redactor.redact_json(json.as_bytes()).expect("it is found");
    assert_eq!(String::from_utf8_lossy(&redacted), json.replace(key, REPLACEMENT));
    let secret = r#"{"password":"correct","next":"correct","token":"correct"}"#;
    let redacted = redactor.redact_json(secret.as_bytes()).expect("found");
    assert_eq!(redacted, br#"{"password":"[redacted]","next":"correct","token":"correct"}"#);
    for (before, after) in [("no JSON \" ", ""), ("", ""), ("a,", ",\"b\""), ("\"b\",", "")] {
        let broken = format!("{before}{key}{after}");
        let redacted = redactor.redact_json(broken.as_bytes()).expect("found");
        assert_eq!(String::from_utf8_lossy(&redacted), format!("{before}[redacted]{after}"));
    }
}

#[test]
fn a_list_of_secrets_and_names_that_are_secrets() {
    let redactor = Redactor::new();
    let json = br#"{"password":["correct","horse01",["battery"],{"a":"correct"}],"b":["correct"]}"#;
    let redacted = redactor.redact_data(json).expect("they are found");
    let expected = concat!(
        r#"{"password":["[redacted]","[redacted]",["[redacted]"],{"a":"correct"}],"#,
        r#""b":["correct"]}"#
    );
    assert_eq!(String::from_utf8_lossy(&redacted), expected);
    let [one, other] = ["sk-ant-", "sk-proj-"].map(|mark| format!("{mark}{}", &RANDOM[..30]));
    let json = format!(r#"{{"{one}":1,"{other}":{{"{one}":2}},"x{one}":["{one}"]}}"#);
    let redacted = redactor.redact_data(json.as_bytes()).expect("they are found");
    assert_eq!(
        String::from_utf8_lossy(&redacted).replace(&format!("x{one}"), "x"),
        r#"{"[redacted]":1,"[redacted] 2":{"[redacted]":2},"x":["[redacted]"]}"#
    );
    let deep = format!(r#"{}"{one}""#, "[".repeat(100_000));
    let redacted = redactor.redact_data(deep.as_bytes()).expect("it is found");
    assert!(redacted.ends_with(b"[\"[redacted]\""));
}

#[test]
fn ids_that_differ_still_differ() {
    let redactor = Redactor::new();
    let alias = |secret: &str| format!("{}", secret.len());
    let redacted = |id: &str| {
        let json = format!(r#"{{"dedupe_key":"openai:{id}","response_id":"{id}","model":"{id}"}}"#);
        let redacted = redactor.redact_data_to_alias(json.as_bytes(), &alias).expect("it is found");
        String::from_utf8(redacted).expect("it is text")
    };
    let (one, other) = (format!("sk-ant-{}", &RANDOM[..30]), format!("sk-ant-{}", &RANDOM[..40]));
    let expected = |alias: usize| {
        let alias = format!("[redacted:{alias}]");
        format!(r#"{{"dedupe_key":"openai:{alias}","response_id":"{alias}","model":"[redacted]"}}"#)
    };
    assert_eq!(redacted(&one), expected(37));
    assert_eq!(redacted(&other), expected(47));
    assert_eq!(redactor.redact_name_to_alias(&one, &alias), "[redacted:37]");
}

#[test]
fn takes_out_what_it_was_told() {
    let redactor = Redactor::new();
    redactor.learn("correct horse");
    redactor.learn("short");
    assert_eq!(redactor.redact("a correct horse, a short one"), "a [redacted], a short one");
    redactor.learn("correct horse battery");
    assert_eq!(redactor.redact("a correct horse battery"), "a [redacted]");
    redactor.learn_secret("two\n\"lines\"");
    for text in ["two\n\"lines\"", r#"two\n\"lines\""#] {
        assert_eq!(redactor.redact(text), "[redacted]");
    }
    let json = br#"{"model":"correct horse"}"#;
    let redacted = redactor.redact_json(json).expect("it is found");
    assert_eq!(redacted, br#"{"model":"[redacted]"}"#);
    assert_eq!(redactor.redact_data(json), None, "it may be a name");
}

#[test]
fn a_key_line_by_line_is_left_out() {
    let pass = |lines: &[&str]| {
        let mut keys = KeyLines::default();
        let passed = lines.iter().filter_map(|line| keys.pass(line).map(Cow::into_owned));
        passed.collect::<Vec<_>>()
    };
    let body = &RANDOM[..64];
    let key = [
        "-----BEGIN RSA PRIVATE KEY-----",
        "Proc-Type: 4,ENCRYPTED",
        "",
        body,
        "aB3=",
        "-----END RSA PRIVATE KEY-----",
    ];
    assert_eq!(
        pass(&[&["before"][..], &key, &["after"]].concat()),
        ["before", REPLACEMENT, "after"]
    );
    let logged = [
        "12:00 key -----BEGIN PRIVATE KEY-----",
        &format!("12:00 {body}"),
        "12:00 -----END PRIVATE KEY-----, done",
    ];
    assert_eq!(pass(&logged), ["12:00 key [redacted]", ", done"]);
    let cut = ["-----BEGIN PRIVATE KEY-----", body, "went on, and did something else"];
    assert_eq!(pass(&cut), [REPLACEMENT, "went on, and did something else"]);
    // Another thread speaks in between.
    let between = [&key[..4], &["ready to serve"], &key[4..], &["after"]].concat();
    assert_eq!(pass(&between), [REPLACEMENT, "ready to serve", "after"]);
    let two = [&key[..4], &key[..4], &["x y"], &key[4..], &[body], &key[4..], &["z"]].concat();
    assert_eq!(pass(&two), [REPLACEMENT, REPLACEMENT, "x y", "z"]);
    // Of one that has no end, words that follow what was said are words.
    let cut = ["-----BEGIN PRIVATE KEY-----", body, "stopped it", "ready", "", body];
    assert_eq!(pass(&cut), [REPLACEMENT, "stopped it", "ready", ""]);
    let cut = [vec![key[0]], vec!["x y"; MAX_LINES], vec![body]].concat();
    assert_eq!(pass(&cut).last().map(String::as_str), Some(body));
    let certificate = ["-----BEGIN CERTIFICATE-----", body, "-----END CERTIFICATE-----"];
    assert_eq!(pass(&certificate), certificate);
}

use module_sdk::ProviderApi::{self, Ollama};
use serde_json::json;

use super::*;

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(text, Path::new("m.yaml"), &Layers::default())
}

fn valid(text: &str) -> Config {
    parse(text).unwrap_or_else(|errors| panic!("{text}\n{errors}"))
}

fn layered(text: &str, variables: &[(&str, &str)], sets: &[(&str, &str)]) -> Config {
    let layers = Layers {
        environment: variables.iter().copied().collect(),
        settings: sets.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
    };
    Config::parse(text, Path::new("m.yaml"), &layers).unwrap_or_else(|e| panic!("{text}\n{e}"))
}

#[test]
fn takes_the_example_of_the_documentation() {
    let config = valid(
        "modules:\n  usage_tracker:\n    enabled: true\n    database: ~/.lodestar/usage.db\n  \
         learning:\n    enabled: false\n  health_monitor:\n    enabled: true\n",
    );
    let modules: Vec<_> = config.modules.iter().map(|m| (m.name.as_str(), m.enabled)).collect();
    assert_eq!(modules, [("usage_tracker", true), ("learning", false), ("health_monitor", true)]);
    let settings = config.effective("usage_tracker", None).expect("it is valid");
    assert_eq!(settings["database"], "~/.lodestar/usage.db");
}

#[test]
fn takes_the_shipped_file() {
    let config = valid(DEFAULT);
    let modules: Vec<_> = config.modules.iter().map(|m| (m.name.as_str(), m.enabled)).collect();
    let expected = [
        ("ingest", true),
        ("usage_tracker", true),
        ("router", true),
        ("health_monitor", true),
        ("learning", false),
    ];
    assert_eq!(modules, expected);
    assert_eq!(config.effective("usage_tracker", None), Ok(Map::new()));
}

/// The comments of the shipped file show the defaults, and are valid.
#[test]
fn the_shipped_comments_are_true() {
    let text: String = DEFAULT
        .lines()
        .map(|line| line.replacen("# ", "", usize::from(is_commented_key(line))) + "\n")
        .collect();
    let shown = parse(&text).unwrap_or_else(|errors| panic!("{text}\n{errors}"));
    let defaults = valid("modules:\n");
    assert_eq!(shown.bus, defaults.bus);
    assert_eq!(shown.metrics, defaults.metrics);
    assert_eq!(shown.privacy, defaults.privacy);
    assert_eq!((shown.log.level, shown.log.format), (LogLevel::Info, LogFormat::Human));
    assert_eq!(shown.providers.len(), 2);
}

fn is_commented_key(line: &str) -> bool {
    let words = line.trim_start().strip_prefix("# ").unwrap_or_default();
    // Within `modules` the comment explains keys of any section, which stand nowhere.
    let indent = line.len() - line.trim_start().len();
    let key = words.trim_start().split(':').next().unwrap_or_default();
    words.contains(':')
        && !key.is_empty()
        && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
        && !(indent == 2 && words.starts_with(' '))
}

#[test]
fn a_file_without_modules_is_a_configuration() {
    for text in ["modules:\n", "modules: {}\n", "bus:\n  ledger:\n"] {
        let config = valid(text);
        assert!(config.modules.is_empty());
        let ledger =
            Ledger { retention_hours: 168, max_bytes: 1 << 30, durability: Durability::Process };
        assert_eq!(config.bus, Bus { ledger, inbox_events: 8192 });
        assert_eq!(config.metrics, Metrics { enabled: true, listen: "127.0.0.1:9464".to_owned() });
    }
}

#[test]
fn reads_every_key() {
    let config = valid(
        "modules:\n  a:\n    isolation: process\n    unload: true\n    path: ~/a\n    limits: \
         {memory_bytes: 8388608, cpu_percent: 50, tasks: 8, data_bytes: 1048576, \
         log_records_per_second: 1, call_deadline_ms: 10}\n    restart: {limit: 0, \
         backoff_max_ms: 1}\n    secrets: {one: \"${ONE}\", two: file:/run/two}\n    \
         provider_keys: false\n    control: operate\n    own: [1]\n  b:\n\
         providers:\n  o:\n    base_url: http://localhost:11434/\n    api: ollama\n    \
         models: [a, \"b:1\"]\n    local: true\n    key: ${K}\nbus: {inbox_events: 16, ledger: \
         {retention_hours: 1, max_bytes: 1048576, durability: power}}\ncontrol: {socket: /run/s, \
         group: g, listen: \"[::1]:0\", token: file:/t}\nmetrics: {enabled: false, listen: \
         localhost:0}\nlog: {level: off, format: json, modules: {a: trace}}\nprivacy: {anonymise: \
         false, full_logging: true, full_logging_projects: [shop]}\n",
    );
    let a = config.module("a").expect("it is there");
    assert!(a.enabled && a.unload);
    assert_eq!(a.isolation, Some(Isolation::Process));
    assert_eq!(a.path.as_deref(), Some(Path::new("~/a")));
    assert_eq!(a.limits.cpu_percent, Some(50));
    assert_eq!((a.limits.tasks, a.limits.data_bytes), (Some(8), Some(1 << 20)));
    assert_eq!(a.limits.log_records_per_second, Some(1));
    assert_eq!(a.restart, Restart { limit: 0, backoff_max_ms: 1 });
    assert_eq!(a.secrets["one"], Reference::Variable("ONE".to_owned()));
    assert_eq!(a.secrets["two"].to_string(), "file:/run/two");
    assert_eq!(a.provider_keys, Some(false));
    assert_eq!(a.control, Some(module_sdk::manifest::Control::Operate));
    assert_eq!(json!(a.settings.0), json!({"own": [1]}));
    assert!(config.module("b").is_some_and(|b| b.enabled && b.settings.0.is_empty()));
    let provider = &config.providers[0];
    assert_eq!((provider.base_url.as_str(), provider.api), ("http://localhost:11434", Ollama));
    assert_eq!(provider.models, ["a", "b:1"]);
    assert_eq!(config.bus.ledger.durability, Durability::Power);
    assert_eq!(config.control.listen.as_deref(), Some("[::1]:0"));
    assert_eq!(config.log.modules["a"], LogLevel::Trace);
    assert!(config.privacy.full_logging && !config.metrics.enabled);
    assert_eq!(config.privacy.full_logging_projects, ["shop"]);
}

#[test]
fn says_what_is_wrong_where_and_what_would_be_right() {
    let check = |text: &str, expected: &str| {
        let errors = parse(text).err().unwrap_or_else(|| panic!("{text:?} was taken"));
        assert_eq!(errors.to_string(), expected, "{text:?}");
    };
    check(
        "just a text\n",
        "m.yaml:1:1: the file must be a map of sections, but is a text; it begins with `modules:`",
    );
    check("module:\n", "m.yaml:1:1: module: unknown key; did you mean `modules`?");
    check(
        "bus:\n  ledger:\n    retention: 5\n",
        "m.yaml:3:5: bus.ledger.retention: unknown key; did you mean `retention_hours`?",
    );
    check(
        "modules:\n  a: true\n",
        "m.yaml:2:6: modules.a: must be a map of keys, but is a boolean; write `key: value` lines \
         below it",
    );
    check(
        "modules:\n  a:\n    enabled: yes\n",
        "m.yaml:3:14: modules.a.enabled: must be `true` or `false`, but is a text; only `true` \
         and `false` are booleans in YAML 1.2",
    );
    check(
        "modules:\n  a:\n    isolation: proces\n",
        "m.yaml:3:16: modules.a.isolation: must be `in_process` or `process`, but is another \
         word; did you mean `process`?",
    );
    check(
        "modules:\n  a:\n    limits:\n      memory: 5\n",
        "m.yaml:4:7: modules.a.limits.memory: unknown key; did you mean `memory_bytes`?",
    );
    check(
        "bus:\n  inbox_events: '9000'\n",
        "m.yaml:2:17: bus.inbox_events: must be a whole number from 16 to 1048576, but is a text; \
         write it without quotes and without a unit",
    );
    check(
        "bus:\n  inbox_events: -1\n",
        "m.yaml:2:17: bus.inbox_events: must be a whole number from 16 to 1048576, but is -1",
    );
    check(
        "metrics:\n  listen: 9464\n",
        "m.yaml:2:11: metrics.listen: must be a text, but is a number; put it in quotes",
    );
    check(
        "metrics:\n  listen: example.com\n",
        "m.yaml:2:11: metrics.listen: must be an address with a port, such as \
         `127.0.0.1:4318` or `[::1]:0` (port 0 takes a free one)",
    );
    check(
        "control:\n  listen: 127.0.0.1:0\n",
        "m.yaml:2:3: control.listen: TCP needs a token; add `token: ${NAME}` or `token: \
         file:/path` beside it",
    );
    check(
        "modules:\n  ../a: {}\n",
        "m.yaml:2:3: modules.../a: is no name of a module; names are 1 to 32 of a-z, 0-9 and _, \
         beginning with a letter",
    );
    check(
        "providers:\n  p:\n    base_url: ftp://x\n",
        "m.yaml:2:3: providers.p: `api` is missing; it is one of `openai`, `anthropic`, \
         `gemini` and `ollama`\nm.yaml:3:15: providers.p.base_url: must \
         begin with `https://` or `http://` and name a host",
    );
}

#[test]
fn the_api_of_a_provider_had_another_name() {
    let provider = |keys: &str| parse(&format!("providers:\n  p:\n    base_url: http://x\n{keys}"));
    let config = provider("    dialect: gemini\n").expect("it is still read");
    assert_eq!(config.providers[0].api, ProviderApi::Gemini);
    let warnings: Vec<String> = config.outdated.iter().map(ToString::to_string).collect();
    let expected = "m.yaml:4:5: providers.p.dialect: is called `api` now, and is still read; write \
                    `api` instead";
    assert_eq!(warnings, [expected]);
    assert_eq!(provider("    api: gemini\n").expect("it is valid").outdated, []);
    let check = |keys: &str, expected: &str| {
        let errors = provider(keys).err().unwrap_or_else(|| panic!("{keys:?} was taken"));
        assert_eq!(errors.to_string(), expected, "{keys:?}");
    };
    let missing = parse("providers:\n  dialect:\n    base_url: http://x\n").expect_err("no api");
    assert!(missing.to_string().contains(" providers.dialect: `api` is missing"), "{missing}");
    check(
        "    api: gemini\n    dialect: gemini\n",
        "m.yaml:5:5: providers.p.dialect: is the former name of `api`, which is given as well; \
         remove it",
    );
    check(
        "    dialect: olama\n",
        "m.yaml:4:14: providers.p.dialect: must be `openai`, `anthropic`, `gemini` or `ollama`, \
         but is another word; did you mean `ollama`?",
    );
    check(
        "    api: ollama\n    models: llama\n",
        "m.yaml:5:13: providers.p.models: must be a list of texts, but is a text; write `[one, \
         another]`",
    );
    check(
        "    api: ollama\n    models: [llama, 3]\n",
        "m.yaml:5:21: providers.p.models[1]: must be a text, but is a number; put it in quotes",
    );
}

#[test]
fn gathers_every_error_by_line() {
    let errors = parse("log:\n  level: loud\nbuss: 1\nmodules:\n  a:\n    unload: 1\n  b: 2\n")
        .expect_err("four are wrong");
    let lines: Vec<_> = errors.as_slice().iter().map(|error| error.line).collect();
    assert_eq!(lines, [2, 3, 6, 7]);
}

#[test]
fn never_shows_a_secret_that_stands_in_the_wrong_place() {
    for text in [
        "modules:\n  a:\n    secrets: {key: sk-ant-12345}\n",
        "modules:\n  a:\n    secrets: sk-ant-12345\n",
        "providers:\n  a: {base_url: 'https://u:sk-ant-12345@x', api: openai}\n",
        "providers:\n  a: {base_url: 'https://x', api: sk-ant-12345, key: sk-ant-12345}\n",
        "control:\n  token: sk-ant-12345\n",
        "modules: sk-ant-12345\n",
    ] {
        let errors = parse(text).expect_err("it is refused").to_string();
        assert!(!errors.contains("sk-ant"), "{errors}");
    }
    let config = valid("modules:\n  a:\n    api_key: sk-ant-12345\n");
    assert!(!format!("{config:?} {:?}", config.modules).contains("sk-ant"));
}

#[test]
fn merges_the_layers_in_their_order() {
    let text = "modules:\n  m:\n    two: file\n    three: file\n    four: file\n    map: {b: file, \
                c: file}\n    gone:\n";
    let defaults = "one: own\ntwo: own\nthree: own\nfour: own\ngone: own\nmap: {a: own, b: own}\n\
                    enabled: false\n";
    let config = layered(
        text,
        &[
            ("LODESTAR_M__THREE", "environment"),
            ("LODESTAR_M__FOUR", "environment"),
            ("LODESTAR_M__MAP__C", "5"),
            ("LODESTAR_M__EMPTY", ""),
            ("LODESTAR_CONFIG", "/x"),
            ("LODESTAR_LOG__LEVEL", "debug"),
        ],
        &[("m.four", "[1, a: b]"), ("m.url", "http://x: y"), ("bus.ledger.durability", "power")],
    );
    let expected = json!({
        "one": "own", "two": "file", "three": "environment", "four": [1, {"a": "b"}],
        "map": {"a": "own", "b": "file", "c": 5}, "url": "http://x: y",
    });
    assert_eq!(json!(config.effective("m", Some(defaults)).expect("it is valid")), expected);
    assert_eq!(config.log.level, LogLevel::Debug);
    assert_eq!(config.bus.ledger.durability, Durability::Power);
    let errors = config.effective("m", Some("- list\n")).expect_err("it is no map").to_string();
    assert!(errors.starts_with("m/config.yaml:1:1: must be a map"), "{errors}");
}

#[test]
fn a_file_that_holds_nothing_is_refused() {
    for text in ["", "\n", "# only a comment\n", "---\n", "~\n"] {
        let refused = Config::parse(text, Path::new("m.yaml"), &Layers::default());
        let expected = "m.yaml: holds nothing; restore it from a copy; to run no module, write \
                        `modules: {}`";
        assert_eq!(refused.expect_err(text).to_string(), expected);
    }
}

#[test]
fn a_layer_enables_a_module_only_when_it_says_so() {
    let stray = layered("modules:\n", &[("LODESTAR_GHOST__KEY", "1")], &[]);
    assert!(stray.modules.is_empty());
    assert_eq!(json!(stray.effective("ghost", None).expect("it is valid")), json!({"key": 1}));
    let asked = layered("modules:\n", &[], &[("ghost.enabled", "true")]);
    assert!(asked.module("ghost").is_some_and(|module| module.enabled));
    let over = layered("modules:\n  m:\n", &[("LODESTAR_M__ENABLED", "false")], &[]);
    assert!(over.module("m").is_some_and(|module| !module.enabled));
}

#[test]
fn names_the_layer_of_an_error() {
    let layers = Layers {
        environment: [("LODESTAR_BUS__INBOX_EVENTS", "many")].into_iter().collect(),
        settings: vec![("alone".to_owned(), "1".to_owned())],
    };
    let errors = Config::parse("bus:\n", Path::new("m.yaml"), &layers).expect_err("both are wrong");
    let text = errors.to_string();
    assert!(text.contains("environment variable LODESTAR_BUS__INBOX_EVENTS: bus.inbox_"), "{text}");
    assert!(text.contains("--set alone: names no key of a module; write --set MOD"), "{text}");
}

#[test]
fn explains_a_modules_refusal_at_its_place() {
    let config = valid(
        "modules:\n  m:\n    databse: x\n    enabeld: true\n    limits_ms:\n      - max: many\n    \
         flag: yes\n    prices:\n      gpt-5.1:\n        {input: -1}\n",
    );
    let check = |report: serde_json::Value, expected: &str| {
        assert_eq!(config.explain("m", &report.to_string()).to_string(), expected);
    };
    check(
        json!({"path": "databse",
            "message": "unknown field `databse`, expected one of `database`, `retention_days`"}),
        "m.yaml:3:5: modules.m.databse: unknown key; did you mean `database`?",
    );
    check(
        json!({"path": "", "message": "unknown field `databse`, expected `database`"}),
        "m.yaml:3:5: modules.m.databse: unknown key; did you mean `database`?",
    );
    check(
        json!({"path": "", "message": "unknown field `enabeld`, expected `database`"}),
        "m.yaml:4:5: modules.m.enabeld: unknown key; did you mean `enabled`?",
    );
    check(
        json!({"path": "limits_ms[0].max",
            "message": "invalid type: string \"many\", expected u64"}),
        "m.yaml:6:9: modules.m.limits_ms[0].max: must be a whole number, but is a text; write it \
         without quotes and without a unit",
    );
    check(
        json!({"path": "flag", "message": "invalid type: string \"yes\", expected a boolean"}),
        "m.yaml:7:5: modules.m.flag: must be a boolean, but is a text; only `true` and `false` \
         are booleans in YAML 1.2",
    );
    check(
        json!({"path": "mode", "message": "unknown variant `fst`, expected `fast` or `slow`"}),
        "m.yaml:2:3: modules.m.mode: must be `fast` or `slow`, but is another word; did you mean \
         `fast`?",
    );
    check(
        json!({"path": "", "message": "missing field `project`"}),
        "m.yaml:2:3: modules.m.project: the key is missing; add it to the section",
    );
    check(
        json!({"path": "limits_ms", "message": "must not be empty"}),
        "m.yaml:5:5: modules.m.limits_ms: must not be empty",
    );
    check(
        json!({"path": "limits_ms[0].max", "message": "is too much", "hint": "take less"}),
        "m.yaml:6:9: modules.m.limits_ms[0].max: is too much; take less",
    );
    check(
        json!({"path": "prices.gpt-5.1.input", "message": "is negative"}),
        "m.yaml:10:10: modules.m.prices.gpt-5.1.input: is negative",
    );
    let plain = config.explain("other", "the disk is full").to_string();
    assert_eq!(plain, "m.yaml: modules.other: the disk is full");
}

#[test]
fn a_refusal_of_what_came_with_the_module_is_placed_there() {
    let config = valid("modules:\n  m:\n    mine: x\n    map: {mine: x}\n");
    let defaults = "# none\nmine: y\nyours: y\nmap:\n  yours: y\n";
    let check = |path: &str, expected: &str| {
        let report = json!({"path": path, "message": "is wrong"}).to_string();
        assert_eq!(config.explain_with("m", &report, Some(defaults)).to_string(), expected);
    };
    check("mine", "m.yaml:3:5: modules.m.mine: is wrong");
    check("map.mine", "m.yaml:4:11: modules.m.map.mine: is wrong");
    check("yours", "m/config.yaml:3:1: yours: is wrong");
    check("map.yours", "m/config.yaml:5:3: map.yours: is wrong");
    check("absent", "m.yaml:2:3: modules.m.absent: is wrong");
    check("", "m.yaml:2:3: modules.m: is wrong");
}

#[test]
fn a_modules_refusal_shows_no_value() {
    let config = valid("modules:\n  m:\n    port: sk-ant-1, expected x\n");
    let report = json!({"path": "port",
        "message": "invalid type: string \"sk-ant-1, expected x\", expected u16"});
    let error = config.explain("m", &report.to_string()).to_string();
    assert_eq!(
        error,
        "m.yaml:3:5: modules.m.port: must be a whole number, but is a text; write it without \
         quotes and without a unit"
    );
}

#[test]
fn tells_what_differs() {
    let old = valid("modules:\n  a: {n: 1, api_key: one}\n  b:\n  c:\n    x: ${X}\nlog: {}\n");
    let new = valid("modules:\n  c:\n    x: ${Y}\n  a: {n: 2, api_key: two}\n  d:\nbus:\n");
    let changes: Vec<_> = diff(&old, &new)
        .into_iter()
        .map(|change| (change.path, json!([change.before, change.after])))
        .collect();
    let expected = [
        ("modules.c.x", json!(["${X}", "${Y}"])),
        ("modules.a.n", json!([1, 2])),
        ("modules.a.api_key", json!(["[redacted]", "[redacted]"])),
        ("modules.d", json!([null, {}])),
        ("modules.b", json!([{}, null])),
        ("log", json!([{}, null])),
    ];
    assert_eq!(changes, expected.map(|(path, change)| (path.to_owned(), change)));
    assert_eq!(changed_modules(&old, &new), ["c", "a", "d", "b"]);
    assert_eq!(changed_sections(&old, &new), ["modules"]);
    let full = valid("modules:\nbus: {inbox_events: 100}\n");
    assert_eq!(changed_sections(&new, &full), ["modules", "bus"]);
    let check = |path: &str, restart: bool, reloads: bool| {
        assert_eq!((needs_a_restart(path), needs_reloads(path)), (restart, reloads), "{path}");
    };
    check("modules.ingest.listen", false, false);
    check("log", false, false);
    check("providers", false, true);
    check("providers.p.key", false, true);
    check("metrics.listen", true, false);
    assert_eq!(diff(&old, &old), []);
    assert_eq!(diff(&old, &valid("modules:\n")).len(), 5);
}

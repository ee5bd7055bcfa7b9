//! Tests of the whole verb, each with a home of its own and without a daemon.

mod files;

use std::{
    collections::HashMap,
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Parser as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::{
    commands::{Cli, Verb},
    tests::Captured,
};

/// A home with the settings of tools.
struct Home {
    directory: TempDir,
    variables: HashMap<String, OsString>,
}

/// Result of a command line.
#[derive(Debug)]
struct Outcome {
    code: u8,
    stdout: String,
    stderr: String,
}

impl Outcome {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).expect("JSON")
    }

    fn assert_refused(&self, code: u8, parts: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.stdout, "");
        for part in parts {
            assert!(self.stderr.contains(part), "{part}: {}", self.stderr);
        }
        assert!(self.stderr.contains("help: "), "{}", self.stderr);
    }
}

impl Home {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let home = directory.path().canonicalize().expect("it is there").into_os_string();
        Self { directory, variables: HashMap::from([("HOME".to_owned(), home)]) }
    }

    fn with(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.insert(name.to_owned(), value.into());
        self
    }

    fn path(&self, below: &str) -> PathBuf {
        self.directory.path().canonicalize().expect("it is there").join(below)
    }

    /// Writes a file of the home.
    fn put(&self, below: &str, text: &str) -> PathBuf {
        let path = self.path(below);
        fs::create_dir_all(path.parent().expect("it has one")).expect("it can be made");
        fs::write(&path, text).expect("it is writable");
        path
    }

    fn read(&self, below: &str) -> String {
        fs::read_to_string(self.path(below)).unwrap_or_else(|error| panic!("{below}: {error}"))
    }

    /// Returns all files of the home with their content, but for the records.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut directories = vec![self.path("")];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).expect("it is a directory") {
                let path = entry.expect("an entry").path();
                if path.is_dir() && !path.is_symlink() {
                    found.push((path.clone(), Vec::new()));
                    directories.push(path);
                } else {
                    found.push((path.clone(), fs::read(&path).unwrap_or_default()));
                }
            }
        }
        found.retain(|(path, _)| !path.starts_with(self.path(".lodestar")));
        found.sort();
        found
    }

    /// Runs `lodestar connect WORDS`.
    async fn connect(&self, words: &str) -> Outcome {
        let variables = self.variables.clone();
        let environment = Environment::of(move |name| variables.get(name).cloned());
        let words = words.split(' ').filter(|word| !word.is_empty());
        let argv = ["lodestar", "--socket=/nonexistent/s", "connect"].into_iter().chain(words);
        let cli = Cli::try_parse_from(argv).expect("it is a command line");
        let (stdout, stderr) = (Captured::default(), Captured::default());
        let mut terminal = Terminal::on(Box::new(stdout.clone()), Box::new(stderr.clone()));
        terminal.json = cli.global.json;
        let client = Client { sockets: Vec::new(), timeout: Duration::from_secs(1) };
        let Verb::Connect(verb) = cli.verb else { unreachable!("it is this verb") };
        let code = match verb.run_in(&environment, &client, &mut terminal).await {
            Ok(code) => code,
            Err(error) => terminal.report(&error),
        };
        Outcome { code, stdout: stdout.text(), stderr: stderr.text() }
    }

    async fn done(&self, words: &str) -> Outcome {
        let outcome = self.connect(words).await;
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{words}: {outcome:?}");
        outcome
    }
}

const CLAUDE: &str = ".claude/settings.json";

const SETTINGS: &str = r#"{
  // mine
  "model": "opus",
  "env": {
    "A": "1" // a
  }
}
"#;

/// The settings files of all tools, as somebody may have them.
const ALL_FILES: [(&str, &str, &str); 5] = [
    ("claude-code", CLAUDE, SETTINGS),
    (
        "codex",
        ".codex/config.toml",
        "# mine\nmodel = 'm' # why\n\n[projects.\"/x\"]\ntrust_level = \"trusted\"\n",
    ),
    ("gemini", ".gemini/settings.json", "{\"theme\": \"x\", \"telemetry\": {\"enabled\": false}}"),
    ("opencode", ".config/opencode/opencode.jsonc", "{\n\t\"provider\": {\n\t\t// p\n\t},\n}\n"),
    ("aider", ".aider.conf.yml", "# mine\ndark-mode: true # d\nopenai-api-base: http://x/v1\n"),
];

#[tokio::test]
async fn shows_and_changes_nothing() {
    let home = Home::new();
    home.put(CLAUDE, SETTINGS);
    let before = home.files();
    let outcome = home.done("claude-code").await;
    let text = &outcome.stdout;
    for part in [
        "Claude Code: ",
        "env.OTEL_EXPORTER_OTLP_ENDPOINT",
        "http://127.0.0.1:4318",
        "lodestard is not running: this shows its default addresses.",
        "--router",
        "`lodestar connect claude-code --write`",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("ANTHROPIC"), "{text}");
    let shown = home.done("claude-code --router --json").await.json();
    assert_eq!(shown["connected"], false);
    assert_eq!(shown["addresses"]["from"], "default");
    let settings = shown["files"][0]["settings"].as_array().expect("a list");
    let last = settings.last().expect("there are some");
    assert_eq!(last["key"], "env.ANTHROPIC_BASE_URL");
    assert_eq!((&last["value"], &last["state"]), (&json!("http://127.0.0.1:4000"), &json!("new")));
    assert_eq!(home.files(), before);
    assert!(!home.path(".lodestar").exists());
}

#[tokio::test]
async fn every_tool_comes_back_byte_for_byte() {
    for options in ["", " --router", " --router --project shop", " --no-router --project shop"] {
        let home = Home::new();
        for (_, file, text) in ALL_FILES {
            home.put(file, text);
        }
        home.put(".gemini/.env", "GEMINI_API_KEY=\"k\"\n");
        let before = home.files();
        for (tool, file, text) in ALL_FILES {
            home.done(&format!("{tool} --write{options}")).await;
            assert_ne!(home.read(file), text, "{tool}");
            let shown = home.done(&format!("{tool} --json{options}")).await.json();
            assert_eq!(shown["connected"], true, "{tool}: {shown}");
            let now = home.files();
            let again = home.done(&format!("{tool} --write{options}")).await;
            assert!(again.stdout.contains("Nothing to do"), "{tool}: {}", again.stdout);
            assert_eq!(home.files(), now, "{tool}: twice is once");
        }
        for (tool, _, _) in ALL_FILES {
            let outcome = home.done(&format!("{tool} --undo")).await;
            assert!(outcome.stdout.contains("byte for byte"), "{tool}: {}", outcome.stdout);
        }
        assert_eq!(home.files(), before, "{options}");
    }
}

#[tokio::test]
async fn files_that_were_not_there_are_made_and_removed() {
    let home = Home::new();
    for (tool, _, _) in ALL_FILES {
        home.done(&format!("{tool} --write --router --project shop")).await;
    }
    let env = "GOOGLE_GEMINI_BASE_URL=http://127.0.0.1:4000\n\
               GEMINI_CLI_CUSTOM_HEADERS=X-Lodestar-Project:shop\n";
    assert_eq!(home.read(".gemini/.env"), env);
    let path = home.path(".config/opencode/opencode.json");
    assert_eq!(path.metadata().expect("it is there").permissions().mode() & 0o777, 0o600);
    for (tool, _, _) in ALL_FILES {
        home.done(&format!("{tool} --undo")).await;
    }
    assert_eq!(home.files(), []);
}

#[tokio::test]
async fn edits_made_since_stay() {
    let home = Home::new();
    for (tool, file, text) in ALL_FILES {
        home.put(file, text);
        home.done(&format!("{tool} --write --router")).await;
        let edited = home.read(file);
        let (edited, expected) = if file.ends_with("toml") || file.ends_with("yml") {
            (format!("# new\n{edited}"), format!("# new\n{text}"))
        } else {
            (format!("// new\n{edited}"), format!("// new\n{text}"))
        };
        home.put(file, &edited);
        let outcome = home.done(&format!("{tool} --undo")).await;
        assert!(outcome.stdout.contains("what was edited since is kept"), "{}", outcome.stdout);
        assert_eq!(home.read(file), expected, "{tool}");
        let copy = home.path(&format!("{file}.before-lodestar"));
        assert_eq!(fs::read_to_string(copy).expect("it stays"), text);
    }
}

#[tokio::test]
async fn a_value_that_was_changed_since_stays_and_is_named() {
    let home = Home::new();
    home.put(CLAUDE, SETTINGS);
    home.done("claude-code --write").await;
    let changed = home.read(CLAUDE).replace("127.0.0.1:4318", "collector:4318");
    home.put(CLAUDE, &changed);
    let files = home.done("claude-code --undo --json").await.json();
    assert_eq!(files["files"][0]["outcome"], "edited");
    assert_eq!(files["files"][0]["kept"], json!(["env.OTEL_EXPORTER_OTLP_ENDPOINT"]));
    assert!(home.read(CLAUDE).contains("http://collector:4318"));
    assert!(!home.read(CLAUDE).contains("OTEL_LOGS_EXPORTER"));
}

#[tokio::test]
async fn a_value_of_yours_is_shown_replaced_and_put_back() {
    let home = Home::new();
    let text = r#"{"env": {"OTEL_EXPORTER_OTLP_ENDPOINT" : "http://c:1", /* x */ "B": "2"}}"#;
    home.put(CLAUDE, text);
    let shown = home.done("claude-code").await.stdout;
    assert!(shown.contains("http://c:1, is replaced"), "{shown}");
    let written = home.done("claude-code --write").await.stdout;
    assert!(written.contains("http://c:1, is replaced"), "{written}");
    assert!(!home.read(CLAUDE).contains("http://c:1"));
    // Also where somebody edited the file since.
    home.put(CLAUDE, &home.read(CLAUDE).replace("\"2\"", "\"3\""));
    home.done("claude-code --undo").await;
    assert_eq!(home.read(CLAUDE), text.replace("\"2\"", "\"3\""));
}

#[tokio::test]
async fn secrets_are_neither_shown_nor_lost() {
    let home = Home::new();
    let text = "{\"env\": {\"ANTHROPIC_CUSTOM_HEADERS\": \"Authorization: canary\", \
                \"ANTHROPIC_BASE_URL\": \"https://user:canary@x\"}}";
    home.put(CLAUDE, text);
    let words = "claude-code --router --project shop";
    for words in [words.to_owned(), format!("{words} --json"), format!("{words} --write")] {
        let shown = home.done(&words).await.stdout;
        assert!(!shown.contains("canary"), "{shown}");
    }
    assert!(home.read(CLAUDE).contains("Authorization: canary\\nX-Lodestar-Project: shop"));
    let record = home.path(".lodestar/connect/claude-code.json");
    assert_eq!(record.metadata().expect("it is there").permissions().mode() & 0o777, 0o600);
    home.done("claude-code --undo").await;
    assert_eq!(home.read(CLAUDE), text);
    assert!(!record.exists());
}

#[tokio::test]
async fn what_was_connected_otherwise_is_connected_anew() {
    let home = Home::new();
    home.put(CLAUDE, SETTINGS);
    let before = home.files();
    home.done("claude-code --write --router --project shop").await;
    home.done("claude-code --write --no-router").await;
    assert!(!home.read(CLAUDE).contains("ANTHROPIC"), "{}", home.read(CLAUDE));
    home.done("claude-code --undo").await;
    assert_eq!(home.files(), before);
    home.done("codex --write --project shop").await;
    assert!(home.read(".codex/config.toml").contains("shop"));
    home.done("codex --write").await;
    assert!(!home.read(".codex/config.toml").contains("shop"));
    home.done("codex --undo").await;
    assert_eq!(home.files(), before);
    // A file that is no part of it any more is as it was.
    home.done("gemini --write --router").await;
    let outcome = home.done("gemini --write --no-router").await;
    assert!(outcome.stdout.contains("/.env was made by the connection"), "{}", outcome.stdout);
    assert!(!home.path(".gemini/.env").exists());
    home.done("gemini --undo").await;
    assert_eq!(home.files(), before);
}

#[tokio::test]
async fn connected_anew_after_an_edit_keeps_the_edit() {
    let home = Home::new();
    home.put(CLAUDE, SETTINGS);
    home.done("claude-code --write").await;
    home.put(CLAUDE, &home.read(CLAUDE).replace("\"opus\"", "\"haiku\""));
    let outcome = home.done("claude-code --write --router --json").await.json();
    let copy = format!("{}.before-lodestar.1", home.path(CLAUDE).display());
    assert_eq!(outcome["backups"], json!([copy]));
    assert!(home.read(CLAUDE).contains("ANTHROPIC_BASE_URL"));
    home.done("claude-code --undo").await;
    assert_eq!(home.read(CLAUDE), SETTINGS.replace("\"opus\"", "\"haiku\""));
    assert_eq!(home.read(&format!("{CLAUDE}.before-lodestar")), SETTINGS);
}

#[tokio::test]
async fn codex_keeps_its_login_unless_the_router_is_to_be_its_default() {
    let home = Home::new();
    let text = "[otel.exporter.otlp-http]\nendpoint = \"http://c/v1/logs\" # mine\n\
                protocol = \"json\"\nheaders = { x = \"canary\" }\n";
    home.put(".codex/config.toml", text);
    home.done("codex --write --router").await;
    let written = home.read(".codex/config.toml");
    let expected = "model_provider = \"lodestar\"\n[otel.exporter.otlp-http]\n\
                    endpoint = \"http://127.0.0.1:4318/v1/logs\" # mine\nprotocol = \"binary\"\n\
                    headers = { x = \"canary\" }\n\n[model_providers.lodestar]\n\
                    name = \"Lodestar\"\nbase_url = \"http://127.0.0.1:4000/v1\"\n\
                    wire_api = \"responses\"\n";
    assert_eq!(written, expected);
    home.done("codex --undo").await;
    assert_eq!(home.read(".codex/config.toml"), text);
}

#[tokio::test]
async fn folders_that_variables_name_are_used() {
    let home = Home::new();
    let other = home.path("other").into_os_string();
    let mut home = home.with("CODEX_HOME", other.clone()).with("XDG_CONFIG_HOME", other.clone());
    for name in ["CLAUDE_CONFIG_DIR", "GEMINI_CLI_HOME", "LODESTAR_STATE_DIR"] {
        home = home.with(name, other.clone());
    }
    for (tool, _, _) in ALL_FILES {
        home.done(&format!("{tool} --write")).await;
    }
    for path in [
        "other/config.toml",
        "other/settings.json",
        "other/.gemini/settings.json",
        "other/opencode/opencode.json",
        "other/connect/aider.json",
    ] {
        assert!(home.path(path).is_file(), "{path}");
    }
    assert!(!home.path(".lodestar").exists() && !home.path(".codex").exists());
}

#[tokio::test]
async fn lists_what_is_installed_and_connected() {
    let home = Home::new();
    let program = home.put("bin/codex", "#!/bin/sh\n");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
    home.put("bin/gemini", "no program");
    let path = home.path("bin").into_os_string();
    let home = home.with("PATH", path);
    home.put(CLAUDE, "{\"env\": {\"OTEL_EXPORTER_OTLP_ENDPOINT\": \"http://c:1\"}}");
    home.put(".config/opencode/opencode.json", "{");
    home.done("codex --write").await;
    let text = home.done("--list").await.stdout;
    assert!(text.starts_with("TOOL "), "{text}");
    assert!(text.contains("`lodestar connect TOOL`"), "{text}");
    let list = home.done("--list --json").await.json();
    let states = |index: usize| {
        let line = &list[index];
        [&line["tool"], &line["installed"], &line["telemetry"], &line["router"]].map(Value::clone)
    };
    assert_eq!(states(0), [json!("claude-code"), json!(true), json!("elsewhere"), json!("no")]);
    assert_eq!(states(1), [json!("codex"), json!(true), json!("connected"), json!("no")]);
    assert_eq!(states(2), [json!("gemini"), json!(false), json!("no"), json!("no")]);
    assert_eq!(states(3), [json!("opencode"), json!(true), json!("unknown"), json!("unknown")]);
    assert_eq!(list[1]["program"], program.display().to_string());
    assert!(list[1]["written_at"].is_string() && list[0]["written_at"].is_null());
    let error = list[3]["error"].as_str().expect("it is said");
    assert!(error.contains("opencode.json:1:1: "), "{error}");
}

#[test]
fn no_login_is_replaced() {
    let directory = Path::new("/home/ada");
    let environment = Environment::of(move |name| (name == "HOME").then(|| directory.into()));
    let wish = Wish {
        ingest: "http://127.0.0.1:4318".to_owned(),
        router: Some("http://127.0.0.1:4000".to_owned()),
        is_default: true,
        project: Some("shop".to_owned()),
    };
    for tool in tools::ALL {
        let files = tool.settings(&environment, &wish).expect("they are known");
        for setting in files.iter().flat_map(|file| &file.settings) {
            let name = setting.key.join(".").to_uppercase();
            for word in ["TOKEN", "API_KEY", "APIKEY", "API-KEY", "ENV_KEY"] {
                assert!(!name.contains(word), "{}: {name}", tool.id());
            }
        }
    }
}

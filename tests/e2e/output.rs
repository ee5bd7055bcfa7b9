//! Output of commands: no text of senders and modules controls the terminal or is hidden.

use std::{fs, process::Child};

use harness::{Daemon, Sandbox, http, program, telemetry, wait_until};

/// Characters that a terminal obeys (ECMA-48 in seven and eight bits), that change the direction of
/// writing, that are invisible, or that end a line.
const HOSTILE: &str = "a\u{1b}]0;t\u{7}\u{1b}[31m\u{9b}2J\u{202e}b\u{200b}\u{2028}\u{7f}\u{8}\rc";

/// Part of the escaped form of the hostile text.
const SHOWN: &str = "\\u202e";

/// Faults of the misbehaver, with the commands that must show the hostile text then.
const FAULTS: [(&str, &[&str]); 3] = [
    (
        "health_degrades",
        &[
            "status",
            "doctor",
            "modules info",
            "modules why",
            "modules logs",
            "modules list",
            "misbehaver show",
            "misbehaver pour",
            "misbehaver fail",
            "misbehaver panic",
        ],
    ),
    ("event_fails", &["events dead", "modules info"]),
    ("start_fails", &["status", "doctor", "modules list", "modules info", "modules why"]),
];

#[test]
fn no_command_lets_a_terminal_obey() {
    for (fault, telling) in FAULTS {
        let sandbox = sandbox(fault);
        let daemon = sandbox.start();
        send(&daemon, 0);
        if fault != "start_fails" {
            assert_eq!(sandbox.lodestar(&["misbehaver", "log", "--text", HOSTILE]).code, 0);
        }
        if fault == "event_fails" {
            wait_until("an event is dead", || {
                let dead = sandbox.json(&["events", "dead"]);
                (!dead.as_array()?.is_empty()).then_some(())
            });
        }
        let mut silent = Vec::new();
        for words in commands(&sandbox) {
            let shown = outputs(&sandbox, &daemon, &words);
            for (args, text) in &shown {
                let hidden = text.chars().find(|c| is_hidden(*c));
                assert_eq!(hidden, None, "{fault}: {args:?} writes {text:?}");
            }
            let tells = shown.iter().all(|(_, text)| text.contains(SHOWN));
            if telling.contains(&words.as_str()) && !tells {
                silent.push(shown);
            }
        }
        let log = daemon.log();
        assert_eq!(log.chars().find(|c| is_hidden(*c)), None, "{log}");
        assert!(silent.is_empty(), "{fault}: these do not tell what was said: {silent:#?}");
    }
}

fn sandbox(fault: &str) -> Sandbox {
    // JSON is YAML; the escapes are those of TOML as well.
    let quoted: String = HOSTILE.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
    let config = format!(
        "modules:\n  ingest:\n    listen: 127.0.0.1:0\n  usage_tracker: {{}}\n  misbehaver:\n    \
         isolation: process\n    fault: {fault}\n    says: \"{quoted}\"\n"
    );
    let sandbox = Sandbox::new(&["ingest", "usage_tracker", "misbehaver"], &config);
    let manifest = sandbox.path("modules/misbehaver/module.toml");
    let text = fs::read_to_string(&manifest).expect("it was copied");
    let text = text.replace("Does what no module should do.", &quoted);
    assert!(text.contains(&quoted));
    fs::write(manifest, text).expect("the sandbox is writable");
    sandbox
}

/// Sends two requests with hostile names: one with all characters, and one without control
/// characters.
fn send(daemon: &Daemon<'_>, number: usize) {
    send_named(daemon, HOSTILE, number);
    send_named(daemon, "a\u{202e}b\u{200b}c", number);
}

fn send_named(daemon: &Daemon<'_>, name: &str, number: usize) {
    let mut body = telemetry::claude_code(name, &format!("{number}{name}"));
    let records = &mut body["resourceLogs"][0]["scopeLogs"][0]["logRecords"];
    records[0]["attributes"][3] = telemetry::text("model", name);
    let mut body = telemetry::logs(name, "com.anthropic.claude_code.events", records);
    let resource = &mut body["resourceLogs"][0]["resource"]["attributes"];
    resource[1] = telemetry::text("service.version", name);
    let address = daemon.address("ingest", "http");
    let answer = http::post(&address, "/v1/logs", &[telemetry::JSON], body.to_string().as_bytes());
    assert_eq!(answer.expect("ingest answers").status, 200);
}

/// Returns every command: those of the manual, which is generated from the parser, and those of the
/// modules.
fn commands(sandbox: &Sandbox) -> Vec<String> {
    let manual = sandbox.path("manual");
    let directory = manual.to_str().expect("it is text");
    assert_eq!(sandbox.lodestar(&["man", "--out", directory]).code, 0);
    let pages = fs::read_dir(&manual).expect("it was made");
    let words = pages.map(|page| {
        let page = page.expect("it is listed").file_name().into_string().expect("it is text");
        page.trim_end_matches(".1").trim_start_matches("lodestar").replace('-', " ")
    });
    let mut commands: Vec<String> = words.map(|words| words.trim().to_owned()).collect();
    let modules = http::get_unix(&sandbox.socket(), "/v1/module-commands")
        .expect("the daemon answers")
        .json();
    for module in modules.as_array().expect("a list") {
        let name = module["command"].as_str().expect("it has a name");
        for command in module["commands"].as_array().expect("a list") {
            commands.push(format!("{name} {}", command["name"].as_str().expect("it has one")));
        }
    }
    // What ends the module comes last.
    commands.sort_by_key(|words| (words == "misbehaver panic", words.clone()));
    commands
}

/// Returns the output of a command with its arguments: its answer and its JSON. Checks its help as
/// well.
fn outputs(sandbox: &Sandbox, daemon: &Daemon<'_>, words: &str) -> Vec<(Vec<String>, String)> {
    let mut shown = Vec::new();
    let words: Vec<&str> = words.split_whitespace().collect();
    let mut run = |args: Vec<&str>, is_answer: bool| {
        let output = sandbox.lodestar(&args);
        // The ends of lines in CSV.
        let text = (output.stdout + &output.stderr).replace("\r\n", "\n");
        assert!(!is_hostile(&text), "{args:?} writes {text:?}");
        if is_answer {
            shown.push((args.into_iter().map(str::to_owned).collect(), text));
        }
    };
    run([&words[..], &["--help"]].concat(), false);
    run([&words[..], &[HOSTILE]].concat(), false);
    run([&words[..], &["--no-such-option", HOSTILE]].concat(), false);
    if words == ["events", "tail"] {
        for more in [&[][..], &["--json"]] {
            shown.push((vec!["events tail".to_owned()], tail(sandbox, daemon, more)));
        }
        return shown;
    }
    for more in arguments(&words) {
        for json in [&[][..], &["--json"]] {
            run([&words[..], more, json].concat(), true);
        }
    }
    shown
}

/// Returns the arguments that each command needs; a group shows its help.
fn arguments(words: &[&str]) -> &'static [&'static [&'static str]] {
    match words {
        [] | ["config" | "events" | "modules"] => &[&[]],
        ["status" | "doctor" | "man"] => &[&[]],
        ["top"] => &[&["--once"]],
        ["connect"] => &[&["--list"], &["claude-code", "--project", HOSTILE]],
        ["completions"] => &[&["bash"], &["zsh"], &["fish"]],
        ["config", "check" | "show" | "diff"] => &[&[]],
        ["events", "lag" | "dead" | "audit"] => &[&[]],
        ["events", "replay"] => &[&["misbehaver", "--all"]],
        ["modules", "list" | "verify"] => &[&[]],
        ["modules", "info" | "why" | "logs" | "enable" | "reload" | "rollback"] => {
            &[&["misbehaver"]]
        }
        // Another one, so that this one goes on.
        ["modules", "disable" | "remove"] => &[&["no_such_module"]],
        ["modules", "check" | "install"] => &[&["modules/misbehaver"]],
        ["modules", "dev" | "new"] => &[&[HOSTILE]],
        ["misbehaver", "show" | "pour" | "print" | "log"] => &[&["--text", HOSTILE]],
        ["misbehaver", "read"] => &[&["--path", HOSTILE]],
        ["misbehaver", "secret"] => &[&["--name", HOSTILE]],
        ["misbehaver", "call"] => &[&["--words", HOSTILE, "--from", "itself"]],
        ["misbehaver", "take"] => &[&["--what", HOSTILE, "--amount", "1"]],
        ["misbehaver", "run"] => &[&["--script", HOSTILE]],
        ["misbehaver", "copy"] => &[&["--from", HOSTILE, "--to", HOSTILE]],
        ["misbehaver", "big"] => &[&["--bytes", "9"]],
        ["misbehaver", "ask"] => &[&["--socket", HOSTILE, "--from", "itself"]],
        ["misbehaver", "handled" | "panic" | "fail" | "key" | "providers"] => &[&[]],
        ["misbehaver", "crash"] => &[&["--how", HOSTILE]],
        // They do not end by themselves.
        ["misbehaver", "hang" | "drip"] => &[],
        ["ingest", "sources"] => &[&[], &["--all"]],
        ["usage", "summary"] => &[&["--by", "model"]],
        ["usage", "sessions" | "requests" | "models" | "sources"] => &[&[]],
        ["usage", "import"] => &[&["all", HOSTILE], &[]],
        // Asked by the command line, before it sends files.
        ["usage", "import-known"] => &[&["--files", HOSTILE]],
        ["usage", "backup"] => &[&[HOSTILE, "--force"]],
        ["usage", "export"] => &[&["--format", "csv"], &["--format", "json"], &[]],
        _ => panic!("what does the new command {words:?} show of hostile names?"),
    }
}

/// Returns the output of `events tail` for one request.
fn tail(sandbox: &Sandbox, daemon: &Daemon<'_>, more: &[&str]) -> String {
    let (file, args) = (sandbox.path("tail"), ["events", "tail", "llm.>", "--count", "1"]);
    let mut tail = sandbox.isolated(&program("lodestar"));
    tail.args(args).args(more).stdout(fs::File::create(&file).expect("it is writable"));
    let mut tail: Child = tail.spawn().expect("it is built");
    let mut number = 0;
    wait_until("the tail has seen one", || {
        number += 1;
        send(daemon, number);
        tail.try_wait().expect("it is ours")
    });
    let text = fs::read_to_string(file).expect("it was written");
    assert!(!is_hostile(&text), "the tail writes {text:?}");
    text
}

fn is_hostile(text: &str) -> bool {
    text.chars().any(is_hidden)
}

/// Returns whether a terminal obeys or hides a character. Line feeds are allowed.
fn is_hidden(c: char) -> bool {
    c != '\n' && c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
}

//! `lodestar connect` with a daemon: tools get the addresses that are in use, and their files back.

use std::fs;

use harness::Sandbox;

const CONFIG: &str = "\
modules:
  ingest:
    enabled: true
    listen: 127.0.0.1:0
  router:
    enabled: true
    listen: 127.0.0.1:0
metrics:
  listen: 127.0.0.1:0
";

const SETTINGS: &str = "{\n  // mine\n  \"model\": \"opus\",\n}\n";

#[test]
fn a_tool_gets_the_addresses_in_use_and_its_file_back() {
    let sandbox = Sandbox::new(&["ingest", "router"], CONFIG);
    let daemon = sandbox.start();
    let ingest = format!("http://{}", daemon.address("ingest", "http"));
    let router = format!("http://{}", daemon.address("router", "http"));
    let folder = sandbox.path("home/.claude");
    fs::create_dir(&folder).expect("the home is writable");
    let file = folder.join("settings.json");
    fs::write(&file, SETTINGS).expect("it is writable");

    let written = sandbox.json(&["connect", "claude-code", "--write"]);
    assert_eq!(written["addresses"]["from"], "daemon", "{written:#}");
    let text = fs::read_to_string(&file).expect("it is there");
    assert!(text.starts_with("{\n  // mine\n  \"model\": \"opus\",\n  \"env\": {\n"), "{text}");
    for (name, address) in
        [("OTEL_EXPORTER_OTLP_ENDPOINT", &ingest), ("ANTHROPIC_BASE_URL", &router)]
    {
        assert!(text.contains(&format!("\"{name}\": \"{address}\"")), "{name}: {text}");
    }
    let list = sandbox.json(&["connect", "--list"]);
    assert_eq!(list[0]["telemetry"], "connected", "{list:#}");
    assert_eq!(list[0]["router"], "connected", "{list:#}");

    // The addresses of the next start are others.
    daemon.stop();
    let daemon = sandbox.start();
    let moved = format!("http://{}", daemon.address("ingest", "http"));
    let written = sandbox.json(&["connect", "claude-code", "--write", "--no-router"]);
    assert_eq!(written["addresses"]["ingest"], moved);
    let text = fs::read_to_string(&file).expect("it is there");
    assert!(text.contains(&moved) && !text.contains("ANTHROPIC_BASE_URL"), "{text}");

    let undone = sandbox.json(&["connect", "claude-code", "--undo"]);
    assert_eq!(undone["files"][0]["outcome"], "restored", "{undone:#}");
    assert_eq!(fs::read_to_string(&file).expect("it is there"), SETTINGS);
    assert_eq!(fs::read_dir(&folder).expect("it is a directory").count(), 1);
    assert_eq!(sandbox.lodestar(&["connect", "claude-code", "--undo"]).code, 1);
    daemon.stop();
}

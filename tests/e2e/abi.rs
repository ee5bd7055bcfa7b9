//! Modules of other releases of the ABI: an older one and a newer one load and work.

use std::{fs, path::Path};

use harness::{Sandbox, http, telemetry};
use sha2::{Digest as _, Sha256};

const CONFIG: &str = "\
modules:
  ingest:
    listen: 127.0.0.1:0
  previous_sdk:
    enabled: true
  next_sdk:
    enabled: true
metrics:
  listen: 127.0.0.1:0
";

/// Hashes of the interface as released. The files are never edited: otherwise a module built
/// against them would prove nothing.
const FROZEN: [(&str, &str); 2] = [
    ("lib.rs", "89cd8afbe6e05cd380790b84dc6a80dae0e475dcbb8fecd17b388669bf0eaeef"),
    ("build_info.rs", "bb7a9a8b555e63a52d8fc39df0844a3119ad78fe0720e03a112e8e119b4bfe43"),
];

#[test]
fn modules_of_the_release_before_and_of_the_next_one_work() {
    let sandbox = Sandbox::new(&["ingest", "previous_sdk", "next_sdk"], CONFIG);
    let daemon = sandbox.start();
    let address = daemon.address("ingest", "http");
    let body = telemetry::claude_code("s", "abi").to_string();
    let answer = http::post(&address, "/v1/logs", &[telemetry::JSON], body.as_bytes());
    assert_eq!(answer.expect("ingest answers").status, 200);
    let previous = sandbox.json(&["previous_sdk", "report"]);
    assert_eq!((&previous["events"], &previous["surplus"]), (&1.into(), &().into()), "{previous}");
    // The host of this release lacks the callback that was added later: its default answers.
    let next = sandbox.json(&["next_sdk", "report"]);
    assert_eq!((&next["events"], &next["surplus"]), (&1.into(), &0.into()), "{next}");
    assert!(next["host_ms"].as_u64().is_some_and(|ms| ms > 0), "the others work: {next}");
    for module in ["previous_sdk", "next_sdk"] {
        let path = format!("modules/{module}");
        let check = sandbox.lodestar(&["modules", "check", &path]);
        assert_eq!(check.code, 0, "{check:#?}");
    }
}

#[test]
fn the_released_interface_is_frozen() {
    for (file, expected) in FROZEN {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/previous_sdk/abi");
        let bytes = fs::read(path.join(file)).expect("it is there");
        let hash: String = Sha256::digest(bytes).iter().map(|it| format!("{it:02x}")).collect();
        assert_eq!(hash, expected, "{file} is the first release and may not change");
    }
}

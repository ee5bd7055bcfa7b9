//! The key of the pseudonyms of sessions, users and hosts.

use std::{fs, os::unix::fs::PermissionsExt as _};

use harness::{Sandbox, run};
use serde_json::{Value, json};

#[test]
fn another_key_of_pseudonyms_is_told_until_it_is_accepted() {
    let sandbox = Sandbox::usual();
    let key = sandbox.state().join("pseudonym.key");
    let warnings = || sandbox.json(&["status"])["warnings"].clone();
    let told = || -> Value {
        let warnings = warnings();
        assert_eq!(warnings[0]["name"], "pseudonym key", "{warnings:#}");
        for args in [["doctor"], ["status"]] {
            let output = sandbox.lodestar(&args).stdout;
            assert!(output.contains("pseudonym key"), "{args:?}: {output}");
        }
        warnings[0].clone()
    };
    let daemon = sandbox.start();
    assert_eq!(warnings(), json!([]));
    let backup = fs::read(&key).expect("it is there");
    fs::remove_file(&key).expect("it is ours");
    assert!(told()["message"].to_string().contains("cannot be used any more"), "{:#}", told());
    assert!(daemon.stop().success());
    for _ in 0..2 {
        let daemon = sandbox.start();
        let warning = told();
        assert!(warning["message"].to_string().contains("have other names now"), "{warning:#}");
        assert!(warning["remedy"].to_string().contains("pseudonym.fingerprint"), "{warning:#}");
        assert!(daemon.log().contains("have other names now"), "{}", daemon.log());
        assert!(daemon.stop().success());
    }
    // Each remedy helps: the old key, or going on with the new one.
    let new = fs::read(&key).expect("it was made");
    assert_ne!(new, backup);
    fs::write(&key, &backup).expect("it is ours");
    let daemon = sandbox.start();
    assert_eq!(warnings(), json!([]));
    fs::write(&key, &new).expect("it is ours");
    assert!(told()["message"].to_string().contains("was replaced"), "{:#}", told());
    assert!(daemon.stop().success());
    fs::remove_file(sandbox.state().join("pseudonym.fingerprint")).expect("it is ours");
    let _daemon = sandbox.start();
    assert_eq!(warnings(), json!([]));
}

#[test]
fn a_key_that_is_open_to_others_is_told_with_the_command_that_mends_it() {
    let sandbox = Sandbox::usual();
    let key = sandbox.state().join("pseudonym.key");
    let daemon = sandbox.start();
    for (mode, name, command) in
        [(0o644, "pseudonym key", "chmod 600"), (0o666, "permissions", "chmod o-w")]
    {
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(&key, permissions).expect("it is ours");
        let warnings = sandbox.json(&["status"])["warnings"].clone();
        let remedy = format!("run `{command} {}`", key.display());
        assert_eq!(warnings.as_array().map(Vec::len), Some(1), "{warnings:#}");
        assert_eq!((&warnings[0]["name"], &warnings[0]["remedy"]), (&name.into(), &remedy.into()));
        for args in [["doctor"], ["status"]] {
            let said = sandbox.lodestar(&args).stdout;
            assert!(said.contains(name) && !said.contains("backup"), "{args:?}: {said}");
        }
    }
    assert!(daemon.stop().success());
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("it is ours");
    fs::write(&key, "short").expect("it is ours");
    let refused = run(&mut sandbox.lodestard());
    assert!(refused.stderr.contains(&format!("{} does not have 32 bytes", key.display())));
}

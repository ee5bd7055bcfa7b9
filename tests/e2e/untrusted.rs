//! What strangers made: packages that lead elsewhere, and modules that nobody signed.

use std::{fs, io::Write as _, path::PathBuf, time::Duration};

use flate2::{Compression, write::GzEncoder};
use harness::{Sandbox, library, wait_until};
use tar::{Builder, EntryType, Header};

use crate::install::{install, package, refused, salted, sandbox};

const PATIENCE: Duration = Duration::from_secs(30);

/// An entry as an attacker writes it: the library that packs refuses such names.
fn entry(kind: EntryType, name: &str, link: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    if !link.is_empty() {
        header.set_link_name(link).expect("it is short");
    }
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    let mut builder = Builder::new(Vec::new());
    builder.append(&header, bytes).expect("memory is there");
    let mut packed = builder.into_inner().expect("memory is there");
    // Without the two empty blocks that end an archive: more entries follow.
    packed.truncate(packed.len() - 1024);
    packed
}

fn tarball(sandbox: &Sandbox, bytes: &[u8]) -> PathBuf {
    let path = sandbox.path("counter.tar.gz");
    let file = fs::File::create(&path).expect("the sandbox is writable");
    let mut packer = GzEncoder::new(file, Compression::fast());
    packer.write_all(bytes).and_then(|()| packer.finish()).expect("the sandbox is writable");
    path
}

#[test]
fn a_package_leads_nowhere_else() {
    let sandbox = sandbox();
    let daemon = sandbox.start();
    let good = library("counter");
    let regular = |name: &str| entry(EntryType::Regular, name, "", &good);
    let absolute = format!("{}/libcounter.so", sandbox.path("out").display());
    let link = entry(EntryType::Symlink, "counter/config.yaml", "/etc/hostname", b"");
    let hard = entry(EntryType::Link, "counter/libcounter.so", "/etc/hostname", b"");
    let table = [
        (regular("../../libcounter.so"), "leads out of the package"),
        (regular("counter/../../libcounter.so"), "leads out of the package"),
        (regular(&absolute), "leads out of the package"),
        ([regular("counter/libcounter.so"), link].concat(), "is a link or a device"),
        (hard, "is a link or a device"),
        ([regular("a/libcounter.so"), regular("b/libcounter.so")].concat(), "more than one folder"),
        ([regular("libcounter.so"), regular("libcounter.so")].concat(), "two files"),
        (entry(EntryType::Regular, "counter/README.md", "", b"text"), "no library"),
        (vec![0; 200 << 20], "no library"),
        (b"no archive at all".repeat(100), "no archive"),
    ];
    for (bytes, words) in table {
        refused(&sandbox, &tarball(&sandbox, &bytes), words);
    }
    // A kilobyte that unpacks to a gigabyte.
    let bomb = entry(EntryType::Regular, "counter/filler", "", &vec![0; 1 << 30]);
    let bomb = tarball(&sandbox, &bomb);
    assert!(fs::metadata(&bomb).expect("it is there").len() < 8 << 20);
    refused(&sandbox, &bomb, "unpacks to more than");
    assert!(!sandbox.path("out").exists());
    let good = regular("counter/libcounter.so");
    assert_eq!(install(&sandbox, &tarball(&sandbox, &good))["change"], "new", "it was good");
    assert!(daemon.stop().success());
}

#[test]
fn an_unsigned_module_runs_in_a_process_of_its_own() {
    let sandbox = sandbox();
    let daemon = sandbox.start();
    let folder = package(&sandbox, "counter", &library("counter"));
    install(&sandbox, &folder);
    assert_eq!(sandbox.lodestar(&["modules", "enable", "counter"]).code, 0);
    let info = || sandbox.json(&["modules", "info", "counter"]);
    let shown = info();
    assert_eq!((&shown["state"], &shown["isolation"]), (&"running".into(), &"process".into()));
    let (reason, pid) = (&shown["isolation_reason"], &shown["process"]["pid"]);
    assert!(reason.as_str().is_some_and(|it| it.contains("installed unsigned")), "{shown:#}");
    assert!(pid.is_number(), "{shown:#}");
    let text = sandbox.lodestar(&["modules", "info", "counter"]).stdout;
    assert!(text.contains("process (it was installed unsigned; `isolation: in_proc"), "{text}");
    assert_eq!(sandbox.lodestar(&["counter", "report"]).code, 0);

    // Another build of it, while it runs: its successor is isolated as well.
    package(&sandbox, "counter", &salted("counter", 3));
    let upgraded = install(&sandbox, &folder);
    assert_eq!(upgraded["operation"]["state"], "done", "{upgraded:#}");
    let after = info();
    assert_eq!(after["sha256"], upgraded["sha256"], "{after:#}");
    assert!(after["process"]["pid"].is_number() && after["process"]["pid"] != *pid, "{after:#}");

    let trusting = sandbox.configuration().replace(
        "  counter:\n    enabled: true\n",
        "  counter:\n    enabled: true\n    isolation: in_process\n",
    );
    sandbox.configure(&trusting);
    wait_until("it runs in the daemon", PATIENCE, || {
        let shown = info();
        (shown["process"].is_null() && shown["state"] == "running").then_some(())
    });
    let shown = info();
    assert_eq!(shown["isolation"], "in_process");
    assert_eq!(shown["isolation_reason"], "its section says so");
    assert!(daemon.stop().success());
}

#[test]
fn a_link_to_the_installed_module_makes_it_no_first_party() {
    let sandbox = sandbox();
    let daemon = sandbox.start();
    install(&sandbox, &package(&sandbox, "counter", &library("counter")));
    let link = sandbox.path("elsewhere");
    std::os::unix::fs::symlink(sandbox.state().join("modules"), &link).expect("it is new");
    let on = format!("  counter:\n    path: {}\n", link.join("counter").display());
    sandbox.configure(&sandbox.configuration().replace("  counter:\n    enabled: false\n", &on));
    daemon.wait_state("counter", "running");
    assert_eq!(sandbox.json(&["modules", "info", "counter"])["isolation"], "process");
    assert!(daemon.stop().success());
}

/// Its code runs when it is asked what it is; asked about an installed module, it is held back.
#[test]
fn what_is_asked_before_it_is_in_place_reaches_nothing() {
    let config = "modules: {}\nmetrics:\n  listen: 127.0.0.1:0\n";
    let sandbox = Sandbox::new(&[], config);
    fs::write(sandbox.path("prowl"), "").expect("the sandbox is writable");
    let prowled = sandbox.path("prowled");
    let folder = package(&sandbox, "misbehaver", &library("misbehaver"));
    let checked = sandbox.lodestar(&["modules", "check", &folder.display().to_string()]);
    assert_eq!(checked.code, 0, "{checked:#?}");
    assert!(prowled.exists(), "it does so where nothing holds it back: {checked:#?}");
    fs::remove_file(&prowled).expect("it is there");
    let daemon = sandbox.start();
    let doctor = sandbox.lodestar(&["doctor"]);
    if doctor.stdout.contains("no Landlock") {
        return harness::skip("untrusted", "this kernel has no Landlock");
    }
    assert_eq!(install(&sandbox, &folder)["change"], "new");
    assert_eq!(sandbox.lodestar(&["misbehaver", "--help"]).code, 0);
    assert_eq!(sandbox.lodestar(&["config", "check"]).code, 0);
    assert_eq!(sandbox.lodestar(&["modules", "verify"]).code, 0);
    assert_eq!(sandbox.lodestar(&["modules", "enable", "misbehaver"]).code, 0);
    assert!(!prowled.exists(), "it wrote where it may not");
    assert!(daemon.stop().success());
}

//! Untrusted content: packages with paths that lead elsewhere, and unsigned modules.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use flate2::{Compression, write::GzEncoder};
use harness::{Sandbox, library, program, wait_until};
use tar::{Builder, EntryType, Header};

use crate::install::{install, package, refused, salted, sandbox};

/// Returns an archive entry as an attacker writes it: the library refuses such names.
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
    wait_until("it runs in the daemon", || {
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

/// A library's code runs when it is described; for an installed module, the sandbox restricts it.
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
        return harness::skip_even_in_ci("untrusted", "this kernel has no Landlock");
    }
    assert_eq!(install(&sandbox, &folder)["change"], "new");
    assert_eq!(sandbox.lodestar(&["misbehaver", "--help"]).code, 0);
    assert_eq!(sandbox.lodestar(&["config", "check"]).code, 0);
    assert_eq!(sandbox.lodestar(&["modules", "verify"]).code, 0);
    assert_eq!(sandbox.lodestar(&["modules", "enable", "misbehaver"]).code, 0);
    assert!(!prowled.exists(), "it wrote where it may not");
    assert!(daemon.stop().success());
}

/// A package must not refer to secrets of the daemon and files of its user.
#[test]
fn the_defaults_of_a_package_name_no_secret_and_open_no_path() {
    let sandbox = sandbox();
    let daemon = sandbox.start();
    let folder = package(&sandbox, "misbehaver", &library("misbehaver"));
    let secret = sandbox.path("secret");
    fs::write(&secret, "s3cret-of-somebody").expect("the sandbox is writable");
    let defaults = folder.join("config.yaml");
    let lookups = ["${HOME}".to_owned(), format!("file:{}", secret.display())];
    for text in lookups.clone() {
        fs::write(&defaults, format!("fault: none\nnote: {text}\n")).expect("it is writable");
        refused(&sandbox, &folder, "misbehaver/config.yaml:2:7: note: a module's own defaults");
    }
    fs::remove_file(&defaults).expect("it is there");
    install(&sandbox, &folder);
    // Neither does one that was put there by hand, and is asked about while it is switched off.
    let planted = sandbox.state().join("modules/misbehaver/config.yaml");
    for text in lookups {
        fs::write(&planted, format!("note: {text}\n")).expect("it is writable");
        let output = sandbox.lodestar(&["config", "check"]);
        assert!(output.stdout.contains("must not refer to"), "{output:#?}");
        assert!(!format!("{output:?}").contains("s3cret-of-somebody"), "{output:#?}");
    }
    assert!(daemon.stop().success());
}

/// Trust belongs to bytes: the signature of the installed version says nothing about the version
/// before it.
#[test]
fn an_unsigned_generation_that_comes_back_is_not_trusted() {
    let sandbox = sandbox();
    let daemon = sandbox.start();
    let folder = package(&sandbox, "counter", &library("counter"));
    let unsigned = install(&sandbox, &folder)["sha256"].clone();
    assert_eq!(sandbox.lodestar(&["modules", "enable", "counter"]).code, 0);
    let pair = minisign::KeyPair::generate_unencrypted_keypair().expect("there is randomness");
    fs::create_dir(sandbox.path("trusted_keys")).expect("it is new");
    let key = pair.pk.to_box().expect("a box").into_string();
    fs::write(sandbox.path("trusted_keys/acme.pub"), key).expect("the sandbox is writable");
    let bytes = salted("counter", 1);
    let signature = minisign::sign(None, &pair.sk, bytes.as_slice(), None, None);
    let signature = signature.expect("it signs").into_string();
    package(&sandbox, "counter", &bytes);
    fs::write(folder.join("libcounter.so.minisig"), signature).expect("it is writable");
    assert_eq!(install(&sandbox, &folder)["operation"]["state"], "done");
    let info = || sandbox.json(&["modules", "info", "counter"]);
    let runs_in = |what: &str, isolation: &str| {
        let info = info();
        assert_eq!(info["state"], "running", "{what}: {info:#}");
        assert_eq!(info["isolation"], isolation, "{what}: {info:#}");
        assert_eq!(info["process"].is_null(), isolation == "in_process", "{what}: {info:#}");
        info["sha256"].clone()
    };
    assert_ne!(runs_in("signed", "in_process"), unsigned);
    assert_eq!(sandbox.lodestar(&["modules", "rollback", "counter"]).code, 0);
    assert_eq!(runs_in("rolled back", "process"), unsigned);
    assert!(daemon.stop().success());
    let daemon = sandbox.start();
    daemon.wait_state("counter", "running");
    assert_eq!(runs_in("after a restart", "process"), unsigned);
    let reason = info()["isolation_reason"].to_string();
    assert!(reason.contains("no signature of these bytes is on record"), "{reason}");

    // Nor is a kept one that is no longer what it was.
    assert_eq!(sandbox.lodestar(&["modules", "reload", "counter"]).code, 0);
    assert_ne!(runs_in("asked for", "in_process"), unsigned);
    let sha256 = unsigned.as_str().expect("a hash");
    let kept = sandbox.state().join("generations/counter").join(sha256).join("libcounter.so");
    fs::write(kept, salted("counter", 9)).expect("it is ours");
    let output = sandbox.lodestar(&["modules", "rollback", "counter"]);
    assert_ne!(output.code, 0, "{output:#?}");
    assert!(output.stderr.contains("modified since it was kept"), "{output:#?}");
    assert_ne!(runs_in("it goes on", "in_process"), unsigned);
    assert!(daemon.stop().success());
}

#[test]
fn a_repaired_build_takes_a_module_out_of_quarantine() {
    let sandbox = sandbox();
    let daemon = sandbox.start();
    let folder = package(&sandbox, "misbehaver", &library("misbehaver"));
    fs::write(folder.join("config.yaml"), "fault: timer_panics\n").expect("it is writable");
    install(&sandbox, &folder);
    let on = "  misbehaver:\n    enabled: true\n    restart: {limit: 0}\n";
    let configuration = sandbox.configuration();
    sandbox.configure(&configuration.replace("  misbehaver:\n    enabled: false\n", on));
    daemon.wait_state("misbehaver", "quarantined");
    package(&sandbox, "misbehaver", &salted("misbehaver", 1));
    fs::remove_file(folder.join("config.yaml")).expect("it is there");
    let installed = install(&sandbox, &folder);
    assert_eq!(installed["operation"]["state"], "done", "{installed:#}");
    assert_eq!(daemon.module("misbehaver")["state"], "running");
    assert!(daemon.stop().success());
}

/// Returns the number of processes that describe a library in this folder.
fn asked(folder: &Path) -> usize {
    let folder = folder.display().to_string();
    let processes = fs::read_dir("/proc").expect("it is there").flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).into_owned());
    lines.filter(|line| line.contains("--describe") && line.contains(&folder)).count()
}

#[test]
fn libraries_are_asked_at_the_same_time_and_not_beyond_the_daemon() {
    let modules = ["gear", "misbehaver"];
    let config = "modules:\n  gear:\n  misbehaver:\nmetrics:\n  listen: 127.0.0.1:0\n";
    let sandbox = Sandbox::new(&modules, config);
    let daemon = sandbox.start();
    fs::write(sandbox.path("linger"), "").expect("the sandbox is writable");
    let mut check = sandbox.isolated(&program("lodestar"));
    check.args(["config", "check"]).stderr(Stdio::null());
    let mut check = check.spawn().expect("it is built");
    let folder = sandbox.path("modules");
    wait_until("both are asked", || (asked(&folder) == modules.len()).then_some(()));
    daemon.kill();
    wait_until("nothing is left of it", || (asked(&folder) == 0).then_some(()));
    check.wait().expect("it is ours");
}

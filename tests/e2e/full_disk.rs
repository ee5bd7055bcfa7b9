//! A full disk: what was goes on, nothing changes, and the error says what to do.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use harness::{Sandbox, library};

use crate::install::package;

/// A small file system for the state, gone when it is dropped.
struct SmallDisk {
    place: PathBuf,
}

impl SmallDisk {
    /// `None` where this user cannot mount one; the test is noted as skipped then.
    fn new(sandbox: &Sandbox, test: &str) -> Option<Self> {
        let place = sandbox.state();
        fs::create_dir(&place).expect("it is new");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=48m,mode=700", "tmpfs"]).arg(&place);
        if mount.output().is_ok_and(|output| output.status.success()) {
            return Some(Self { place });
        }
        harness::skip(test, "this user cannot mount a small file system");
        None
    }

    /// Takes all the room there is.
    fn fill(&self) -> PathBuf {
        let path = self.place.join("filler");
        let mut file = fs::File::create(&path).expect("a name is left");
        let mut block = vec![1; 1 << 20];
        while !block.is_empty() {
            if file.write_all(&block).is_err() {
                block.truncate(block.len() / 2);
            }
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a daemon of a test that failed may still be there.
        drop(Command::new("umount").arg("--lazy").arg(&self.place).status());
    }
}

fn half_written(generations: &Path) -> usize {
    let entries = fs::read_dir(generations).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with('.')).count()
}

#[test]
fn an_install_changes_nothing() {
    let sandbox = crate::install::sandbox();
    let Some(_disk) = SmallDisk::new(&sandbox, "full_disk::an_install_changes_nothing") else {
        return;
    };
    let daemon = sandbox.start();
    let folder = package(&sandbox, "sink", &library("sink"));
    let output = sandbox.lodestar(&["modules", "install", &folder.display().to_string()]);
    assert_eq!(output.code, 0, "there is room for one: {output:#?}");
    let mut large = library("sink");
    large.resize(64 << 20, 0);
    package(&sandbox, "sink", &large);
    let before = sandbox.configuration();
    let output = sandbox.lodestar(&["modules", "install", &folder.display().to_string()]);
    assert_eq!(output.code, 1, "{output:#?}");
    assert!(output.stderr.contains("No space left"), "{output:#?}");
    assert!(output.stderr.contains("make room"), "{output:#?}");
    assert_eq!(sandbox.configuration(), before);
    assert_eq!(sandbox.json(&["modules", "verify"])[0]["ok"], true);
    assert!(daemon.stop().success());
}

#[test]
fn a_reload_changes_nothing() {
    for isolation in ["in_process", "process"] {
        reload_on_a_full_disk(isolation);
    }
}

fn reload_on_a_full_disk(isolation: &str) {
    let config = format!(
        "modules:\n  counter:\n    enabled: true\n    isolation: {isolation}\n\
         metrics:\n  listen: 127.0.0.1:0\n"
    );
    let sandbox = Sandbox::new(&["counter"], &config);
    let Some(disk) = SmallDisk::new(&sandbox, "full_disk::a_reload_changes_nothing") else {
        return;
    };
    let daemon = sandbox.start();
    let generations = sandbox.state().join("generations/counter");
    let before = daemon.module("counter");
    let sha256 = || sandbox.json(&["modules", "info", "counter"])["sha256"].clone();
    let old = sha256();
    let filler = disk.fill();
    sandbox.replace_library("counter", 1);
    let output = sandbox.lodestar(&["modules", "reload", "counter"]);
    assert_eq!(output.code, 4, "{isolation}: {output:#?}");
    for part in ["No space left", "make room", "generations", "the generation before goes on"] {
        assert!(output.stderr.contains(part), "{isolation}, {part}: {output:#?}");
    }
    let after = daemon.module("counter");
    assert_eq!((&after["state"], &after["generation"]), (&"running".into(), &before["generation"]));
    assert_eq!(after["restarts"], 0);
    assert_eq!(sha256(), old, "{isolation}");
    assert_eq!(sandbox.lodestar(&["counter", "report"]).code, 0, "it answers");
    assert_eq!(half_written(&generations), 0);

    fs::remove_file(filler).expect("it is there");
    let output = sandbox.lodestar(&["modules", "reload", "counter"]);
    assert_eq!(output.code, 0, "{isolation}: {output:#?}");
    assert_ne!(sha256(), old, "{isolation}");
    assert_eq!(fs::read_dir(&generations).expect("it is there").count(), 2, "both are kept");
    let output = sandbox.lodestar(&["modules", "rollback", "counter"]);
    assert_eq!(output.code, 0, "there is a way back, {isolation}: {output:#?}");
    assert_eq!(sha256(), old, "{isolation}");
    assert!(daemon.stop().success());
}

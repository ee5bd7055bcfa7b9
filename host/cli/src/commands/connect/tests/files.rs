//! Files and records that are odd, broken, closed or changed meanwhile.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
};

use super::{CLAUDE, Home, SETTINGS};
use crate::commands::connect::{environment::Environment, files, record};

#[tokio::test]
async fn bytes_that_are_not_ours_stay() {
    let windows = format!("\u{feff}{}", SETTINGS.replace('\n', "\r\n"));
    let home = Home::new();
    let path = home.put(CLAUDE, &windows);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("it is ours");
    home.done("claude-code --write").await;
    let written = home.read(CLAUDE);
    assert!(written.starts_with("\u{feff}{\r\n  // mine\r\n"), "{written}");
    assert_eq!(written.matches('\n').count(), written.matches("\r\n").count());
    assert_eq!(path.metadata().expect("it is there").mode() & 0o777, 0o640);
    home.put(CLAUDE, &written.replace("opus", "haiku"));
    home.done("claude-code --undo").await;
    assert_eq!(home.read(CLAUDE), windows.replace("opus", "haiku"));
}

#[tokio::test]
async fn a_link_stays_a_link() {
    let home = Home::new();
    let real = home.put("dotfiles/claude.json", SETTINGS);
    fs::create_dir(home.path(".claude")).expect("it is new");
    symlink("../dotfiles/claude.json", home.path(CLAUDE)).expect("it is new");
    let before = home.files();
    home.done("claude-code --write").await;
    assert!(home.path(CLAUDE).is_symlink());
    assert!(fs::read_to_string(&real).expect("it is there").contains("OTEL"));
    home.done("claude-code --undo").await;
    assert_eq!(home.files(), before);
    assert!(home.path(CLAUDE).is_symlink());
    fs::remove_file(real).expect("it is ours");
    let outcome = home.connect("claude-code --write").await;
    outcome.assert_refused(4, &["settings.json is a link that leads nowhere"]);
}

#[tokio::test]
async fn a_file_that_cannot_be_edited_stays_as_it_is() {
    let check = async |text: &str, part: &str| {
        let home = Home::new();
        home.put(CLAUDE, text);
        let before = home.files();
        for words in ["claude-code", "claude-code --write", "claude-code --write --json"] {
            let outcome = home.connect(words).await;
            assert_eq!((outcome.code, outcome.stdout.as_str()), (4, ""), "{outcome:?}");
            assert!(outcome.stderr.contains(part), "{part}: {}", outcome.stderr);
        }
        assert_eq!(home.files(), before);
        assert!(!home.path(".lodestar").exists());
    };
    check("{\n  \"a\": 1\n  \"b\": 2\n}\n", "settings.json:2:9: Expected comma").await;
    check("[]", "it is not a map of settings").await;
    check("{\"env\": \"x\"}", "env is not a map of settings").await;
    check(&format!("{{\"a\": \"{}\"}}", "x".repeat(5 << 20)), "has more than 4194304 bytes").await;
    let home = Home::new();
    let path = home.put(CLAUDE, "");
    fs::write(&path, b"{\"a\": \"\xff\"}").expect("it is writable");
    home.connect("claude-code --write").await.assert_refused(4, &["it is not UTF-8 text"]);
    fs::remove_file(&path).expect("it is ours");
    fs::create_dir(&path).expect("it is new");
    home.connect("claude-code --write").await.assert_refused(4, &["but a directory"]);
}

#[tokio::test]
async fn an_empty_file_is_one_without_settings() {
    for text in ["", "\n", "{}", "// note\n"] {
        let home = Home::new();
        home.put(CLAUDE, text);
        home.done("claude-code --write").await;
        home.done("claude-code --undo").await;
        assert_eq!(home.read(CLAUDE), text);
    }
}

#[tokio::test]
async fn what_is_read_only_is_not_written() {
    let home = Home::new();
    let path = home.put(CLAUDE, SETTINGS);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).expect("it is ours");
    let before = home.files();
    let outcome = home.connect("claude-code --write").await;
    outcome.assert_refused(4, &["settings.json is read-only", "chmod u+w "]);
    assert_eq!(home.files(), before);
    // A directory in which nobody can make anything.
    let home = Home::new().with("CLAUDE_CONFIG_DIR", "/proc/lodestar");
    let outcome = home.connect("claude-code --write").await;
    outcome.assert_refused(4, &["cannot write /proc/lodestar/settings.json"]);
    let home = Home::new();
    home.put(".claude", "a file");
    home.connect("claude-code --write").await.assert_refused(4, &["Not a directory"]);
    // Nothing is written where no record can be kept.
    let home = Home::new();
    home.put(CLAUDE, SETTINGS);
    home.put(".lodestar", "a file");
    let outcome = home.connect("claude-code --write").await;
    assert_ne!(outcome.code, 0);
    assert_eq!(home.read(CLAUDE), SETTINGS);
}

#[tokio::test]
async fn nothing_to_undo_is_said() {
    let home = Home::new();
    home.put(CLAUDE, SETTINGS);
    let outcome = home.connect("claude-code --undo").await;
    outcome.assert_refused(1, &["Claude Code was not connected by this command"]);
    assert_eq!(home.read(CLAUDE), SETTINGS);
    home.done("claude-code --write").await;
    fs::remove_file(home.path(CLAUDE)).expect("it is ours");
    let outcome = home.done("claude-code --undo").await;
    assert!(outcome.stdout.contains("is not there any more"), "{}", outcome.stdout);
    home.connect("claude-code --undo").await.assert_refused(1, &["was not connected"]);
}

#[tokio::test]
async fn without_a_home_it_says_so() {
    let mut home = Home::new();
    home.variables.clear();
    for words in ["claude-code", "codex --write", "--list", "aider --undo"] {
        home.connect(words).await.assert_refused(1, &["HOME is not set"]);
    }
    home.variables.insert("HOME".to_owned(), OsString::new());
    home.connect("gemini").await.assert_refused(1, &["HOME is not set"]);
}

#[tokio::test]
async fn a_damaged_record_is_named() {
    let home = Home::new();
    home.put(CLAUDE, SETTINGS);
    home.put(".lodestar/connect/claude-code.json", "{");
    for words in ["claude-code --write", "claude-code --undo"] {
        let outcome = home.connect(words).await;
        outcome.assert_refused(1, &["cannot read the record ", ".before-lodestar"]);
    }
    assert_eq!(home.read(CLAUDE), SETTINGS);
}

#[tokio::test]
async fn a_lost_copy_is_no_loss() {
    let home = Home::new();
    home.put(CLAUDE, SETTINGS);
    home.done("claude-code --write").await;
    fs::remove_file(home.path(&format!("{CLAUDE}.before-lodestar"))).expect("it is there");
    home.done("claude-code --undo").await;
    assert_eq!(home.read(CLAUDE), SETTINGS);
}

#[tokio::test]
async fn two_at_once_do_not_mix() {
    let home = Home::new();
    home.put(CLAUDE, SETTINGS);
    let variables = home.variables.clone();
    let environment = Environment::of(move |name| variables.get(name).cloned());
    let records = record::Records::open(&environment).expect("they can be opened");
    let outcome = home.connect("claude-code --write").await;
    outcome.assert_refused(1, &["another `lodestar connect` is at work"]);
    drop(records);
    home.done("claude-code --write").await;
}

#[test]
fn a_file_that_changes_between_reading_and_writing_wins() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("settings.json");
    let check = |source: Option<&files::Source>, meanwhile: &str| {
        let prepared = files::Prepared::new(&path, source, "ours").expect("it can be made");
        fs::write(&path, meanwhile).expect("it is writable");
        let error = prepared.commit().expect_err("it changed");
        let failure = error.failure().expect("it is a failure");
        assert!(failure.message.ends_with("was changed meanwhile"), "{}", failure.message);
        assert_eq!(fs::read_to_string(&path).expect("it is there"), meanwhile);
        assert_eq!(fs::read_dir(directory.path()).expect("it is one").count(), 1);
    };
    check(None, "theirs");
    let source = files::read(&path).expect("it can be read");
    check(source.as_ref(), "theirs too");
}

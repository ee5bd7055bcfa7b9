use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
};

use module_sdk::{FILE_PART, FileHead};
use module_transcripts::{HEAD_BYTES, head};
use serde_json::json;

use super::*;

fn asked(from: Origin, endings: &[&str]) -> AskedFiles {
    let rows = true;
    let endings = endings.iter().map(|ending| (*ending).to_owned()).collect();
    AskedFiles { from, endings, rows, known: Some("import-known".to_owned()) }
}

fn nobody() -> Person<'static> {
    Person { home: None, variable: &|_| None }
}

/// Finds the files at a path.
fn at(path: &Path, endings: &[&str]) -> Result<SentFiles> {
    SentFiles::find(&asked(Origin::Path(path.to_owned(), None), endings), &nobody())
}

/// Finds the files of tools below a home directory.
fn of_tools(tools: &[Tool], home: &Path, endings: &[&str]) -> Result<SentFiles> {
    let person = Person { home: Some(home.to_owned()), variable: &|_| None };
    SentFiles::find(&asked(Origin::Tools(tools.to_vec()), endings), &person)
}

fn write(root: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = root.join(name);
    fs::create_dir_all(path.parent().expect("it has one")).expect("a folder");
    fs::write(&path, content).expect("a file");
    path
}

/// Gives the files an answer, the same for each of them.
fn answer(files: &mut SentFiles, known: &Value) {
    let mut answers = Answers::default();
    for question in files.questions() {
        let each = vec![known.clone(); question.indexes().len()];
        let data = json!({ "files": each });
        answers.add(question.indexes(), "import-known", data).expect("it is whole");
    }
    files.answered(answers);
}

/// Sends the files, and returns all records with their kinds.
async fn records(files: SentFiles) -> Vec<(char, Vec<u8>)> {
    let FilesBody(mut parts) = files.send(&Map::new()).expect("it is sent");
    let mut bytes = Vec::new();
    while let Some(part) = parts.recv().await {
        bytes.extend_from_slice(&part);
    }
    let mut rest = bytes.as_slice();
    let mut records = Vec::new();
    while let [kind, length @ ..] = rest {
        let (length, content) = length.split_first_chunk().expect("a length");
        let (content, after) = content.split_at(u32::from_be_bytes(*length) as usize);
        records.push((char::from(*kind), content.to_vec()));
        rest = after;
    }
    records
}

/// Sends the files, and returns the head, the content and the error of each.
async fn sent(files: SentFiles) -> Vec<(FileHead, String, String)> {
    let mut all: Vec<(FileHead, String, String)> = Vec::new();
    for (kind, bytes) in records(files).await {
        let text = || String::from_utf8(bytes.clone()).expect("it is text");
        match (kind, all.last_mut()) {
            ('F', _) => {
                let head = serde_json::from_slice(&bytes).expect("a head");
                all.push((head, String::new(), String::new()));
            }
            ('D', Some(file)) => file.1 += &text(),
            ('E', Some(file)) => file.2 = text(),
            _ => {}
        }
    }
    all
}

#[tokio::test]
async fn files_are_sent_with_the_arguments_before_them() {
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), "a", "x".repeat(3 * FILE_PART));
    write(directory.path(), "b", "b");
    let files = at(directory.path(), &[]).expect("it is read");
    let size = 3 * FILE_PART as u64 + 1;
    assert_eq!(files.sum(), FilesSum { files: 2, bytes: size, unchanged: 0 });
    let records = records(files).await;
    let kinds: String = records.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, "ASFDDDEFDEZ");
    assert_eq!(records[0].1, b"{}");
    assert_eq!(records[8].1, b"b");
}

#[test]
fn a_path_is_checked_before_anything_is_sent() {
    let directory = tempfile::tempdir().expect("a directory");
    let absent = directory.path().join("absent");
    let error = at(&absent, &[]).expect_err("it is absent");
    let failure = error.failure().expect("a failure");
    assert_eq!(failure.message, format!("there is no file {}", absent.display()));
    // A file that is named is sent, whatever its name ends with.
    let file = write(directory.path(), "a.txt", "four");
    let files = at(&file, &["jsonl"]).expect("it is there");
    assert_eq!(files.sum(), FilesSum { files: 1, bytes: 4, unchanged: 0 });
    let stdin = at(Path::new("-"), &[]).expect("it is there");
    assert_eq!(stdin.sum().files, 1);
    assert!(stdin.questions().is_empty());
}

#[tokio::test]
async fn the_files_of_a_tool_are_found_by_its_name() {
    let home = tempfile::tempdir().expect("a directory");
    let root = home.path();
    write(root, ".claude/projects/p/s.jsonl", "1\n");
    write(root, ".claude/history.jsonl", "no\n");
    write(root, ".codex/sessions/2026/rollout-a.jsonl", "2\n");
    write(root, ".codex/sessions/2026/rollout-b.jsonl.zst", "3");
    symlink(root, root.join(".codex/sessions/circle")).expect("a link");
    let tools = [Tool::ClaudeCode, Tool::Codex, Tool::Gemini];
    let found = sent(of_tools(&tools, root, &["jsonl"]).expect("it is read")).await;
    let found: Vec<_> = found
        .iter()
        .map(|(head, content, _)| (&*head.name, head.tool.as_deref(), &**content))
        .collect();
    let name = |path: &str| root.join(path).display().to_string();
    let claude = name(".claude/projects/p/s.jsonl");
    let codex = name(".codex/sessions/2026/rollout-a.jsonl");
    assert_eq!(found, [(&*claude, Some("claude-code"), "1\n"), (&*codex, Some("codex"), "2\n")]);
    let packed = of_tools(&[Tool::Codex], root, &["jsonl", "zst"]).expect("it is read");
    assert_eq!(packed.sum().files, 2);
}

#[test]
fn a_tool_that_is_not_here_is_told() {
    let home = tempfile::tempdir().expect("a directory");
    let told = |tools: &[Tool]| {
        let error = of_tools(tools, home.path(), &[]).expect_err("it is not here");
        let failure = error.failure().expect("a failure");
        assert_eq!(failure.exit, crate::exit_codes::FAILED);
        (failure.message.clone(), failure.help.clone().unwrap_or_default())
    };
    let (message, help) = told(&[Tool::Qwen]);
    assert_eq!(message, "there are no transcripts of qwen here");
    let place = home.path().join(".qwen/projects").display().to_string();
    assert_eq!(help, format!("looked in {place}; name the path where they lie"));
    let (message, help) = told(Tool::ALL);
    assert_eq!(message, "there are no transcripts of any tool here");
    assert!(help.contains(" more places; name the path"), "{help}");
    let (_, help) = told(&[Tool::Aider]);
    assert_eq!(help, "it keeps them where its user says: name the path");
    // A place without a file is one.
    fs::create_dir_all(home.path().join(".qwen/projects")).expect("a folder");
    let files = of_tools(&[Tool::Qwen], home.path(), &[]).expect("it is here");
    assert_eq!(files.sum(), FilesSum::default());
}

#[tokio::test]
async fn what_is_known_is_not_sent() {
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), "a.jsonl", "1\n");
    write(directory.path(), "b.jsonl", "2\n");
    let mut files = at(directory.path(), &["jsonl"]).expect("it is read");
    answer(&mut files, &Value::Null);
    assert_eq!(files.sum(), FilesSum { files: 0, bytes: 0, unchanged: 2 });
    let kinds: String = records(files).await.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, "ASZ");
}

#[tokio::test]
async fn a_file_that_grew_is_sent_from_where_it_was_read_to() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = write(directory.path(), "a.jsonl", "one\ntwo\n");
    let hash = |bytes| head(&fs::File::open(&path).expect("it is there"), bytes).expect("a hash");
    let then = json!({"from": 4, "head": hash(4), "head_bytes": 4});
    let again = async || {
        let mut files = at(&path, &[]).expect("it is there");
        answer(&mut files, &then);
        let bytes = files.sum().bytes;
        let (head, content, error) = sent(files).await.remove(0);
        assert_eq!(error, "");
        (head, content, bytes)
    };
    let (head, content, bytes) = again().await;
    assert_eq!((head.from, &*content, bytes), (4, "two\n", 4));
    assert_eq!((head.bytes, head.head), (8, Some(hash(8))));
    // Another file at its place.
    fs::write(&path, "new\ntwo\n").expect("it is written");
    let (head, content, _) = again().await;
    assert_eq!((head.from, &*content, head.head), (0, "new\ntwo\n", Some(hash(8))));
    // It shrank.
    fs::write(&path, "one").expect("it is written");
    let (head, content, bytes) = again().await;
    assert_eq!((head.from, &*content, bytes), (0, "one", 3));
}

#[tokio::test]
async fn the_beginning_of_a_long_file_is_hashed_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = "x".repeat(9_999) + "\n";
    let path = write(directory.path(), "a.jsonl", &text);
    let file = fs::File::open(&path).expect("it is there");
    let hash = head(&file, HEAD_BYTES).expect("a hash");
    let mut files = at(&path, &[]).expect("it is there");
    let known = json!({"from": 10_000, "head": hash, "head_bytes": HEAD_BYTES});
    answer(&mut files, &known);
    let (head, content, _) = sent(files).await.remove(0);
    assert_eq!((head.from, &*content, head.head), (10_000, "", Some(hash)));
    // A module that knows nothing of a file wants it whole.
    let mut files = at(&path, &[]).expect("it is there");
    answer(&mut files, &json!({"from": 0, "head": null, "head_bytes": 0}));
    let (head, content, _) = sent(files).await.remove(0);
    assert_eq!((head.from, content), (0, text));
}

#[tokio::test]
async fn what_cannot_be_read_is_sent_with_its_error() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = write(directory.path(), "a.jsonl", "1\n");
    let gone = write(directory.path(), "b.jsonl", "2\n");
    let files = at(directory.path(), &["jsonl"]).expect("it is read");
    fs::remove_file(gone).expect("it was there");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).expect("it is ours");
    let is_readable = fs::File::open(&path).is_ok();
    let sent = sent(files).await;
    // An administrator may read everything.
    assert_eq!(sent[0].2.is_empty(), is_readable, "{sent:?}");
    assert!(sent[1].2.contains("No such file"), "{sent:?}");
    assert_eq!(sent[1].0.mark, None);
}

#[tokio::test]
async fn a_database_is_sent_as_rows() {
    let home = tempfile::tempdir().expect("a directory");
    let path = write(home.path(), ".local/share/kilo/kilo.db", "");
    write(home.path(), ".local/share/kilo/other.db", "");
    let kilo = of_tools(&[Tool::Kilo], home.path(), &["jsonl", "db"]).expect("it is there");
    assert_eq!(kilo.sum(), FilesSum { files: 1, bytes: 0, unchanged: 0 });
    assert_eq!(kilo.questions()[0].indexes(), [0]);
    let (head, content, error) = sent(kilo).await.remove(0);
    assert_eq!((head.name, head.tool.as_deref()), (path.display().to_string(), Some("kilo")));
    assert!(head.mark.is_some() && content.is_empty());
    assert!(error.starts_with("its tables are of no form that is known"), "{error}");
    // A command that cannot read rows gets none.
    let none = of_tools(&[Tool::Kilo], home.path(), &["jsonl"]).expect("it is there");
    assert_eq!(none.sum().files, 0);
}

#[test]
fn a_question_is_about_some_of_the_files() {
    let directory = tempfile::tempdir().expect("a directory");
    for number in 0..1_001 {
        write(directory.path(), &format!("{number:04}"), "");
    }
    let files = at(directory.path(), &[]).expect("it is read");
    let questions = files.questions();
    let counts: Vec<usize> = questions.iter().map(|it| it.indexes().len()).collect();
    assert_eq!(counts, [1_000, 1]);
    assert_eq!(questions[1].indexes(), [1_000]);
    let told = serde_json::to_value(&questions[1]).expect("it is JSON");
    let name = directory.path().join("1000").display().to_string();
    assert_eq!(told["files"][0]["name"], name);
    assert_eq!(told["files"][0]["mark"]["bytes"], 0);
    assert_eq!(told["files"][0].get("tool"), None);
}

#[test]
fn an_answer_tells_of_each_file() {
    for data in [json!({}), json!({"files": [null]}), json!({"files": [null, {"head": "a"}]})] {
        let error = Answers::default().add(&[0, 1], "import-known", data).expect_err("it is cut");
        let message = &error.failure().expect("a failure").message;
        assert_eq!(message, "the answer of `import-known` does not tell of each file");
    }
}

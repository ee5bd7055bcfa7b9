//! Servers that answer as the real ones do, and servers that do not.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::Bytes,
    http::{Method, StatusCode, Uri},
    routing::any,
};
use serde_json::json;

use super::*;

mod tokens;
mod vllm;

/// A request that a fake server got: method and path, and the body.
type Seen = (String, Vec<u8>);
type Answers = dyn Fn(&str, &[u8]) -> (u16, String) + Send + Sync;

struct FakeServer {
    base_url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl FakeServer {
    async fn start(answers: impl Fn(&str, &[u8]) -> (u16, String) + Send + Sync + 'static) -> Self {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (log, answers): (_, Arc<Answers>) = (Arc::clone(&seen), Arc::new(answers));
        let handler = move |method: Method, uri: Uri, body: Bytes| {
            let line = format!("{method} {}", uri.path());
            let (status, text) = answers(&line, &body);
            log.lock().expect("nobody panics with it").push((line, body.to_vec()));
            async move { (StatusCode::from_u16(status).expect("a status"), text) }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let app = Router::new().fallback(any(handler));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { base_url: format!("http://{address}/"), seen }
    }

    fn lines(&self) -> Vec<String> {
        self.seen.lock().expect("nobody panics with it").iter().map(|it| it.0.clone()).collect()
    }

    fn body(&self, line: &str) -> Value {
        let seen = self.seen.lock().expect("nobody panics with it");
        let found = seen.iter().rfind(|it| it.0 == line).expect("it was asked");
        serde_json::from_slice(&found.1).expect("JSON")
    }
}

fn adapter(directory: &Path) -> Adapter {
    let file = directory.join("adapter.gguf");
    fs::write(&file, b"GGUF of a test").expect("it is writable");
    Adapter {
        sha256: Digest::of(b"GGUF of a test").into(),
        file,
        base: "llama3.2:1b".to_owned(),
        alias: "lodestar-shop".to_owned(),
        version: "v1".to_owned(),
        files: BTreeMap::new(),
    }
}

fn ollama(line: &str, _body: &[u8]) -> (u16, String) {
    match line {
        line if line.starts_with("HEAD /api/blobs/") => (404, String::new()),
        line if line.starts_with("POST /api/blobs/") => (201, String::new()),
        "POST /api/create" => (200, json!({"status": "success"}).to_string()),
        "POST /api/chat" => (200, json!({"message": {"content": "Hello!"}}).to_string()),
        "POST /api/copy" => (200, String::new()),
        _ => (404, json!({"error": "no such endpoint"}).to_string()),
    }
}

#[tokio::test]
async fn ollama_gets_the_adapter_once_and_the_alias_last() {
    let directory = tempfile::tempdir().expect("a directory");
    let (adapter, fake) = (adapter(directory.path()), FakeServer::start(ollama).await);
    let server = Server::new(Kind::Ollama, &fake.base_url);
    assert_eq!(server.install(&adapter).await.expect("it is taken"), "lodestar-shop:v1");
    assert_eq!(server.smoke_test(&adapter).await.expect("it answers").characters, 6);
    server.activate(&adapter).await.expect("it is copied");
    let blob = format!("/api/blobs/sha256:{}", adapter.sha256);
    let asked = [
        format!("HEAD {blob}"),
        format!("POST {blob}"),
        "POST /api/create".to_owned(),
        "POST /api/chat".to_owned(),
        "POST /api/copy".to_owned(),
    ];
    assert_eq!(fake.lines(), asked);
    let created = fake.body("POST /api/create");
    assert_eq!(created["from"], "llama3.2:1b");
    assert_eq!(created["adapters"]["adapter.gguf"], format!("sha256:{}", adapter.sha256));
    let copied = json!({"source": "lodestar-shop:v1", "destination": "lodestar-shop"});
    assert_eq!(fake.body("POST /api/copy"), copied);
    server.deactivate("llama3.2:1b", "lodestar-shop").await.expect("it is copied");
    assert_eq!(fake.body("POST /api/copy")["source"], "llama3.2:1b");
}

#[tokio::test]
async fn a_blob_that_is_there_is_not_sent_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let fake = FakeServer::start(|line, body| match line {
        line if line.starts_with("HEAD /api/blobs/") => (200, String::new()),
        _ => ollama(line, body),
    });
    let fake = fake.await;
    let server = Server::new(Kind::Ollama, &fake.base_url);
    server.install(&adapter(directory.path())).await.expect("it is taken");
    assert!(!fake.lines().iter().any(|line| line.starts_with("POST /api/blobs")));
}

#[tokio::test]
async fn a_file_that_was_not_approved_is_not_sent() {
    let directory = tempfile::tempdir().expect("a directory");
    let (adapter, fake) = (adapter(directory.path()), FakeServer::start(ollama).await);
    let server = Server::new(Kind::Ollama, &fake.base_url);
    fs::write(&adapter.file, b"GGUF of a tesT").expect("it is writable");
    let changed = server.install(&adapter).await.expect_err("it is another file");
    assert!(matches!(changed, DeployError::Changed { .. }), "{changed}");
    fs::remove_file(&adapter.file).expect("it is there");
    let missing = server.install(&adapter).await.expect_err("there is no file");
    assert!(matches!(missing, DeployError::Read { .. }), "{missing}");
    assert_eq!(fake.lines(), [""; 0]);
}

#[tokio::test]
async fn what_a_server_says_is_told_in_safe_words() {
    let directory = tempfile::tempdir().expect("a directory");
    let adapter = adapter(directory.path());
    let error = json!({"error": "unsupported\u{1b}[31m architecture"}).to_string();
    let cases: [(u16, String, &str); 5] = [
        (200, error.clone(), "unsupported\\u{1b}[31m architecture"),
        (500, error, "500 Internal Server Error: unsupported\\u{1b}"),
        (200, "<html>".to_owned(), "no JSON"),
        (200, json!({"status": "waiting"}).to_string(), "no `success`"),
        (503, String::new(), "503 Service Unavailable: nothing more"),
    ];
    for (status, text, words) in cases {
        let fake = FakeServer::start(move |line, body| match line {
            "POST /api/create" => (status, text.clone()),
            _ => ollama(line, body),
        });
        let server = Server::new(Kind::Ollama, &fake.await.base_url);
        let error = server.install(&adapter).await.expect_err("it says no").to_string();
        assert!(error.contains(words), "{error}");
        assert!(!error.contains('\u{1b}'), "{error:?}");
    }
}

#[tokio::test]
async fn a_version_that_says_nothing_and_a_server_that_is_away_are_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let adapter = adapter(directory.path());
    let fake = FakeServer::start(|line, body| match line {
        "POST /api/chat" => (200, json!({"message": {"content": " \n"}}).to_string()),
        _ => ollama(line, body),
    });
    let server = Server::new(Kind::Ollama, &fake.await.base_url);
    let empty = server.smoke_test(&adapter).await.expect_err("it says nothing");
    assert!(matches!(empty, DeployError::Empty), "{empty}");
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = free.local_addr().expect("it is bound");
    drop(free);
    for kind in [Kind::Ollama, Kind::LlamaServer] {
        let away = Server::new(kind, &format!("http://{address}"));
        let error = away.activate(&adapter).await.expect_err("nobody is there");
        assert!(matches!(error, DeployError::Unreachable(_)), "{error}");
        assert!(error.to_string().contains("start it"), "{error}");
    }
}

#[tokio::test]
async fn llama_server_switches_one_adapter_on_and_all_others_off() {
    let directory = tempfile::tempdir().expect("a directory");
    let adapter = adapter(directory.path());
    // As a path is written where the server was started.
    let path = directory.path().join(".").join("adapter.gguf");
    let list = json!([{"id": 0, "path": "/a/b.gguf", "scale": 1.0}, {"id": 1, "path": path}]);
    let fake = FakeServer::start(move |line, _| match line {
        "GET /lora-adapters" => (200, list.to_string()),
        "POST /lora-adapters" => (200, json!({"success": true}).to_string()),
        _ => (200, json!({"choices": [{"message": {"content": "Hi"}}]}).to_string()),
    });
    let fake = fake.await;
    let server = Server::new(Kind::LlamaServer, &fake.base_url);
    server.install(&adapter).await.expect("it is loaded");
    assert_eq!(server.smoke_test(&adapter).await.expect("it answers").characters, 2);
    let on = json!([{"id": 0, "scale": 0}, {"id": 1, "scale": 1}]);
    assert_eq!(fake.body("POST /v1/chat/completions")["lora"], on);
    server.activate(&adapter).await.expect("it is on");
    assert_eq!(fake.body("POST /lora-adapters"), on);
    server.deactivate("base", "lodestar-shop").await.expect("it is off");
    let off = json!([{"id": 0, "scale": 0}, {"id": 1, "scale": 0}]);
    assert_eq!(fake.body("POST /lora-adapters"), off);

    let other = Adapter { file: directory.path().join("other.gguf"), ..adapter };
    let error = server.activate(&other).await.expect_err("it does not have it");
    assert!(error.to_string().contains("--lora-scaled"), "{error}");
}

#[tokio::test]
async fn an_answer_of_another_kind_of_server_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let adapter = adapter(directory.path());
    let fake = FakeServer::start(|_, _| (200, "{}".to_owned())).await;
    let server = Server::new(Kind::LlamaServer, &fake.base_url);
    let error = server.install(&adapter).await.expect_err("no list").to_string();
    assert!(error.contains("no list of adapters"), "{error}");
    let server = Server::new(Kind::Ollama, &fake.base_url);
    let error = server.smoke_test(&adapter).await.expect_err("no message").to_string();
    assert!(error.contains("without a message"), "{error}");
}

#[tokio::test]
async fn a_base_is_made_in_ollama_from_its_files_and_only_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let known = Arc::new(Mutex::new(false));
    let is_known = known.clone();
    let fake = FakeServer::start(move |line, body| match line {
        "POST /api/show" if !*is_known.lock().expect("nobody panics with it") => {
            (404, String::new())
        }
        "POST /api/show" => (200, "{}".to_owned()),
        "POST /api/create" => {
            *is_known.lock().expect("nobody panics with it") = true;
            ollama(line, body)
        }
        _ => ollama(line, body),
    });
    let fake = fake.await;
    let server = Server::new(Kind::Ollama, &fake.base_url);
    for (name, text) in [("config.json", "{}"), ("model.safetensors", "weights"), ("a.txt", "no")] {
        fs::write(directory.path().join(name), text).expect("it is writable");
    }
    server.make_base("shop-base:00", directory.path()).await.expect("it is made");
    server.make_base("shop-base:00", directory.path()).await.expect("it is there");
    let lines = fake.lines();
    let of = |begin: &str| lines.iter().filter(|line| line.starts_with(begin)).count();
    assert_eq!((of("POST /api/blobs/"), of("POST /api/create"), of("POST /api/show")), (2, 1, 2));
    let digest = |bytes: &[u8]| format!("sha256:{}", Digest::of(bytes));
    let files = json!({"config.json": digest(b"{}"), "model.safetensors": digest(b"weights")});
    assert_eq!(fake.body("POST /api/create")["files"], files);
    let sent = fake.seen.lock().expect("nobody panics with it").iter().any(|it| it.1 == b"weights");
    assert!(sent, "the file itself");

    let file = directory.path().join("base.gguf");
    let error = server.make_base("shop-base:01", &file).await;
    assert!(error.is_ok(), "that name is known by now: {error:?}");
    *known.lock().expect("nobody panics with it") = false;
    let error = server.make_base("shop-base:01", &file).await.expect_err("there is no file");
    assert!(matches!(error, DeployError::Read { .. }), "{error}");
    fs::write(&file, "GGUF").expect("it is writable");
    let encrypted = Server::new(Kind::Ollama, "https://127.0.0.1:1");
    let error = upload::send(&encrypted.base_url, "/", &file).await.expect_err("no TLS");
    assert!(error.to_string().contains("serving.base"), "{error}");
}

//! The server as its clients and its supervisor see it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use lodestar_trainer::{adapter, base::Base, evaluate, examples};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// Key of who decides.
const KEY: &str = "the key of this test";

/// A base with an adapter, made once.
struct Made {
    folder: tempfile::TempDir,
    sha256: String,
}

impl Made {
    fn base(&self) -> PathBuf {
        self.folder.path().join("base")
    }

    fn output(&self) -> PathBuf {
        self.folder.path().join("output")
    }
}

fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let (base, output) = (folder.path().join("base"), folder.path().join("output"));
        let out = program().arg("tiny-base").arg(&base).output().expect("it starts");
        assert_eq!(out.status.code(), Some(0), "{out:?}");
        let job = json!({
            "job_id": "serve", "base": {"path": base}, "output_dir": output,
            "dataset": {"train": base.join("train.jsonl")},
            "lora": {"r": 8, "alpha": 16}, "train": {"max_steps": 60, "batch_size": 8, "lr": 5e-3},
        });
        let path = folder.path().join("job.json");
        fs::write(&path, job.to_string()).expect("it is writable");
        let out = program().arg(path).output().expect("it starts");
        assert_eq!(out.status.code(), Some(0), "{out:?}");
        let told = String::from_utf8_lossy(&out.stdout).into_owned();
        let told = told.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let saved = told.into_iter().find(|it| it["event"] == "saved").expect("it is saved");
        let sha256 = saved["gguf_sha256"].as_str().expect("a digest").to_owned();
        Made { folder, sha256 }
    })
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lodestar-trainer"));
    command.env("RAYON_NUM_THREADS", "1");
    command
}

/// Returns the header with the key.
fn key() -> String {
    format!("authorization: Bearer {KEY}\r\n")
}

/// A server that runs. A drop ends it.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(words: &[&str]) -> Self {
        let mut command = program();
        command.arg("serve").arg(made().base()).args(["--listen", "127.0.0.1:0"]).args(words);
        let mut child = command
            .env("LODESTAR_SERVING_KEY", KEY)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut line).expect("it tells");
        let told: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(told["context"], 512, "{told}");
        let address = told["address"].as_str().expect("an address").parse().expect("an address");
        Self { child, address }
    }

    fn with_adapter() -> Self {
        let file = made().output().join("adapter.gguf");
        let file = file.to_string_lossy();
        Self::start(&["--adapter", "v1", &file, &made().sha256])
    }

    /// Sends a request and returns its connection.
    fn send(&self, head: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        let length = body.len();
        let text = format!(
            "{head} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{headers}content-length: \
             {length}\r\n\r\n{body}",
            self.address
        );
        stream.write_all(text.as_bytes()).expect("it is sent");
        stream
    }

    fn get(&self, path: &str) -> Value {
        self.get_with(path, &key())
    }

    fn get_with(&self, path: &str, headers: &str) -> Value {
        let (status, body) = whole(self.send(&format!("GET {path}"), headers, ""));
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).expect("JSON")
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, body) = whole(self.send(&format!("POST {path}"), &key(), &body.to_string()));
        (status, serde_json::from_str(&body).expect("JSON"))
    }

    fn chat(&self, body: &Value) -> Value {
        let (status, answer) = self.post("/v1/chat/completions", body);
        assert_eq!(status, 200, "{answer}");
        answer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Reads an answer to its end.
fn whole(mut stream: TcpStream) -> (u16, String) {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer");
    let text = String::from_utf8(bytes).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok()).expect("a status");
    (status, body.to_owned())
}

/// Returns what a stream told: each line that begins with `data: `.
fn data(body: &str) -> Vec<String> {
    let lines = body.lines().filter_map(|line| line.strip_prefix("data: "));
    lines.map(str::to_owned).collect()
}

fn content(answer: &Value) -> String {
    answer["choices"][0]["message"]["content"].as_str().expect("a text").to_owned()
}

/// Returns the names of a list of models.
fn ids(models: &Value) -> Vec<&str> {
    let all = models["data"].as_array().expect("a list");
    all.iter().filter_map(|it| it["id"].as_str()).collect()
}

fn ask(model: &str, question: &Value) -> Value {
    json!({"model": model, "messages": [question], "temperature": 0, "max_tokens": 40})
}

#[test]
fn greedy_answers_are_those_of_an_evaluation_whole_streamed_and_by_scale() {
    let server = Server::with_adapter();
    let base = Base::open(&made().base()).expect("it is whole");
    let of_peft = adapter::load(&made().output(), &base.model.shape, &base.sha256);
    let of_peft = of_peft.expect("it is whole");
    let path = made().base().join("held_out.jsonl");
    let (held_out, _) = examples::read(&path, &base.chat, 512).expect("they are there");
    let lines = fs::read_to_string(&path).expect("they are there");
    let mut changed = 0;
    for (line, example) in lines.lines().zip(&held_out).take(8) {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let question = &line["messages"][0];
        let expected = [None, Some(&of_peft)].map(|adapter| {
            evaluate::answer(&base.model, &base.chat, adapter, example).expect("it is computed")
        });
        for (model, expected) in ["lodestar:base", "lodestar:v1"].into_iter().zip(&expected) {
            let answer = server.chat(&ask(model, question));
            // An evaluation gives up where an answer is much longer than the one that was kept.
            let text = content(&answer);
            assert!(text.trim().starts_with(expected.as_str()), "{model}: {text} {expected}");
            assert!(answer["choices"][0]["finish_reason"] == "stop", "{answer}");
            let usage = &answer["usage"];
            assert_eq!(usage["prompt_tokens"], example.prompt, "{usage}");
            let mut body = ask(model, question);
            body["stream"] = true.into();
            body["stream_options"] = json!({"include_usage": true});
            let path = "POST /v1/chat/completions";
            let (status, told) = whole(server.send(path, &key(), &body.to_string()));
            assert_eq!(status, 200, "{told}");
            let mut told = data(&told);
            assert_eq!(told.pop().as_deref(), Some("[DONE]"));
            let told: Vec<Value> =
                told.iter().map(|it| serde_json::from_str(it).expect("JSON")).collect();
            let parts = told.iter().filter_map(|it| it["choices"][0]["delta"]["content"].as_str());
            assert_eq!(parts.collect::<String>(), text, "{told:?}");
            assert_eq!(&told[told.len() - 1]["usage"], usage);
        }
        changed += usize::from(expected[0] != expected[1]);
        // By the scale, as llama-server has it.
        let mut body = ask("", question);
        body["lora"] = json!([{"id": 0, "scale": 1}]);
        let by_scale = content(&server.chat(&body));
        assert!(by_scale.trim().starts_with(&expected[1]), "{by_scale}");
    }
    assert!(changed >= 6, "the adapter changes answers: {changed} of 8");
}

#[test]
fn adapters_are_loaded_switched_and_refused_while_it_runs() {
    let server = Server::start(&["--alias", "shop"]);
    let question = json!({"role": "user", "content": "How do you sort the queue?"});
    let of_base = content(&server.chat(&ask("shop", &question)));
    let load = |name: &str, path: &Path, sha256: &str| {
        let body = json!({"name": name, "path": path, "sha256": sha256});
        server.post("/lora-adapters/load", &body)
    };
    let file = made().output().join("adapter.gguf");
    assert_eq!(load("v1", &file, &made().sha256), (200, json!({"id": 0})));
    assert_eq!(load("v1", &file, &made().sha256), (200, json!({"id": 0})));
    let other = made().output().join("adapter_model.safetensors");
    for (name, path, sha256, words) in [
        ("v2", &file, "00", "another file"),
        ("v1", &file, "00", "another adapter has the name"),
        ("a b", &file, "00", "letters"),
        ("v2", &other, "00", "another file"),
        ("v2", &PathBuf::from("/nowhere"), "00", "cannot read"),
    ] {
        let (status, body) = load(name, path, sha256);
        assert_eq!(status, 400, "{body}");
        assert!(body["error"]["message"].as_str().unwrap_or_default().contains(words), "{body}");
    }
    assert_eq!(content(&server.chat(&ask("shop", &question))), of_base);
    assert_eq!(ids(&server.get("/v1/models")), ["shop", "shop:base", "shop:v1"]);

    let on = json!([{"id": 0, "scale": 1}]);
    let path = "POST /lora-adapters";
    let (status, body) = whole(server.send(path, "", &on.to_string()));
    assert_eq!(status, 401, "{body}");
    assert_eq!(server.post("/lora-adapters", &on).0, 200);
    assert_eq!(server.get("/lora-adapters")[0]["scale"], 1.0);
    let of_version = content(&server.chat(&ask("shop", &question)));
    assert_ne!(of_version, of_base);
    assert_eq!(content(&server.chat(&ask("shop:base", &question))), of_base);
    for wrong in [json!([{"id": 7, "scale": 1}]), json!([{"id": 0, "scale": 99}])] {
        assert_eq!(server.post("/lora-adapters", &wrong).0, 400);
    }
    assert_eq!(server.post("/lora-adapters", &json!([])).0, 200);
    assert_eq!(content(&server.chat(&ask("shop", &question))), of_base);
}

#[test]
fn nobody_asks_for_what_is_loaded_alone_without_the_key() {
    let file = made().output().join("adapter.gguf");
    let file = file.to_string_lossy();
    let two = ["--adapter", "v1", &file, &made().sha256, "--adapter", "v2", &file, &made().sha256];
    let server = Server::start(&[&two[..], &["--on", "v1"]].concat());
    let question = json!({"role": "user", "content": "How do you sort the queue?"});
    let chat = |body: &Value, headers: &str| {
        let told = whole(server.send("POST /v1/chat/completions", headers, &body.to_string()));
        (told.0, serde_json::from_str::<Value>(&told.1).expect("JSON"))
    };
    let by_name = |name: &str| chat(&ask(name, &question), "");
    let known = || {
        let models = server.get_with("/v1/models", "");
        ids(&models).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    // What is on answers by its name as well; what is loaded besides is not even known.
    assert_eq!(known(), ["lodestar", "lodestar:base", "lodestar:v1"]);
    for name in ["lodestar", "lodestar:base", "lodestar:v1"] {
        assert_eq!(by_name(name).0, 200, "{name}");
    }
    let (status, refused) = by_name("lodestar:v2");
    let unknown = by_name("lodestar:v3");
    let same = refused.to_string().replace("v2", "v3");
    assert_eq!((status, same), (404, unknown.1.to_string()));
    assert_eq!(chat(&ask("lodestar:v2", &question), &key()).0, 200);
    let wrong = "authorization: Bearer the key of another\r\n";
    assert_eq!(chat(&ask("lodestar:v2", &question), wrong).0, 404);

    // Scales and the list of adapters reach everything, and need the key.
    let mut by_scale = ask("lodestar", &question);
    by_scale["lora"] = json!([{"id": 1, "scale": 1}]);
    assert_eq!(chat(&by_scale, "").0, 401);
    assert_eq!(chat(&by_scale, &key()).0, 200);
    let raw = json!({"prompt": "a", "n_predict": 1, "lora": [{"id": 1, "scale": 1}]}).to_string();
    assert_eq!(whole(server.send("POST /completion", "", &raw)).0, 401);
    assert_eq!(whole(server.send("GET /lora-adapters", "", "")).0, 401);

    // Who has the key opens a version to everybody, and takes that back.
    let open = json!({"names": ["v2"]});
    let path = "POST /lora-adapters/open";
    assert_eq!(whole(server.send(path, "", &open.to_string())).0, 401);
    assert_eq!(server.post("/lora-adapters/open", &json!({"names": ["v9"]})).0, 400);
    assert_eq!(by_name("lodestar:v2").0, 404);
    assert_eq!(server.post("/lora-adapters/open", &open).0, 200);
    assert_eq!(by_name("lodestar:v2").0, 200);
    assert_eq!(known(), ["lodestar", "lodestar:base", "lodestar:v1", "lodestar:v2"]);
    assert_eq!(server.post("/lora-adapters/open", &json!({"names": []})).0, 200);
    assert_eq!(by_name("lodestar:v2").0, 404);
    // What is switched off is not asked any more either.
    assert_eq!(server.post("/lora-adapters", &json!([])).0, 200);
    assert_eq!(by_name("lodestar:v1").0, 404);
    drop(server);
    let server = Server::start(&[&two[..], &["--open", "v2"]].concat());
    let asked = ask("lodestar:v2", &question).to_string();
    assert_eq!(whole(server.send("POST /v1/chat/completions", "", &asked)).0, 200);
}

#[test]
fn what_cannot_be_answered_is_refused_by_name_and_quotes_nothing() {
    let server = Server::with_adapter();
    let secret = "the blue heron";
    let check = |body: &str, status: u16, code: &str| {
        let answered = whole(server.send("POST /v1/chat/completions", "", body));
        assert_eq!(answered.0, status, "{}", answered.1);
        let error: Value = serde_json::from_str(&answered.1).expect("JSON");
        assert_eq!(error["error"]["code"], code, "{error}");
        assert!(error["error"]["type"].is_string() && !answered.1.contains(secret), "{error}");
    };
    let long = "sort the queue ".repeat(600);
    let of = |content: &str, model: &str| {
        json!({"model": model, "messages": [{"role": "user", "content": content}]}).to_string()
    };
    check(&of(&long, ""), 400, "context_length_exceeded");
    check(&of(secret, "lodestar:v9"), 404, "model_not_found");
    check(&of(secret, "gpt-4"), 404, "model_not_found");
    check(&format!("{{\"messages\": \"{secret}"), 400, "invalid_json");
    check(&format!("{{\"messages\": \"{secret}\"}}"), 400, "invalid_json");
    check("{\"messages\": []}", 400, "invalid_value");
    check(&" ".repeat((4 << 20) + 1), 413, "request_too_large");
    for headers in ["origin: http://a.example\r\n", "host: a.example\r\n"] {
        let text = format!("GET /health HTTP/1.1\r\n{headers}connection: close\r\n\r\n");
        let mut stream = TcpStream::connect(server.address).expect("it listens");
        stream.write_all(text.as_bytes()).expect("it is sent");
        assert_eq!(whole(stream).0, 403);
    }
    assert_eq!(whole(server.send("GET /nothing", "", "")).0, 404);
    assert_eq!(server.get("/health")["status"], "ok");
}

#[test]
fn a_text_goes_on_by_seed_and_ends_by_a_word_or_a_number() {
    let server = Server::with_adapter();
    let prompt = "<|im_start|>user\nHow do you sort the queue?<|im_end|>\n<|im_start|>assistant\n";
    let go_on = |more: Value| {
        let mut body = json!({"prompt": prompt, "n_predict": 12, "temperature": 0});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("one").clone());
        let (status, answer) = server.post("/completion", &body);
        assert_eq!(status, 200, "{answer}");
        answer
    };
    let whole = go_on(json!({"return_tokens": true}));
    let text = whole["content"].as_str().expect("a text");
    assert!(whole["tokens_predicted"].as_u64() <= Some(12) && !text.is_empty(), "{whole}");
    assert_eq!(
        whole["tokens"].as_array().map(Vec::len) as Option<usize>,
        whole["tokens_predicted"].as_u64().map(|it| it as usize)
    );
    let short = go_on(json!({"n_predict": 2}));
    assert_eq!((&short["tokens_predicted"], &short["stop_type"]), (&json!(2), &json!("limit")));
    let word = text.split_whitespace().nth(1).expect("more than a word");
    let cut = go_on(json!({"stop": [word]}));
    let expected = text.split(word).next().expect("it is in it");
    assert_eq!(cut["content"], expected, "{text:?}");
    let by_seed = |seed: u64| go_on(json!({"temperature": 1.5, "seed": seed, "n_predict": 30}));
    assert_eq!(by_seed(1)["content"], by_seed(1)["content"]);
    assert!((2..12).any(|seed| by_seed(seed)["content"] != by_seed(1)["content"]));
}

#[test]
fn sigterm_lets_an_answer_come_to_its_end() {
    let mut server = Server::with_adapter();
    let body = json!({
        "messages": [{"role": "user", "content": "How do you sort the queue?"}],
        "stream": true, "temperature": 2, "seed": 3, "max_tokens": 200,
    });
    let mut stream = server.send("POST /v1/chat/completions", "", &body.to_string());
    let mut first = [0; 1];
    stream.read_exact(&mut first).expect("it begins");
    kill_process(Pid::from_child(&server.child), Signal::TERM).expect("it runs");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("an answer");
    assert_eq!(data(&rest).pop().as_deref(), Some("[DONE]"), "{rest}");
    assert_eq!(server.child.wait().expect("it was started").code(), Some(0));
}

#[test]
fn it_ends_with_the_process_that_started_it() {
    let script = "\"$0\" serve \"$1\" --listen 127.0.0.1:0 --parent $$ & read line";
    let mut shell = Command::new("/bin/sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_lodestar-trainer")])
        .arg(made().base())
        .env("RAYON_NUM_THREADS", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut out = BufReader::new(shell.stdout.take().expect("it is piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("it tells");
    assert!(line.contains("listening"), "{line}");
    shell.kill().expect("it runs");
    shell.wait().expect("it was started");
    // The server has the other end: it is closed when that has ended.
    assert_eq!(out.read_line(&mut line).expect("it is read"), 0);
    let gone = program().arg("serve").arg(made().base()).args(["--parent", "1"]).output();
    assert_eq!(gone.expect("it starts").status.code(), Some(5));
}

#[test]
fn what_it_cannot_serve_is_told_at_its_start() {
    let check = |words: &[&str], code: i32, expected: &str| {
        let out = program().arg("serve").args(words).output().expect("it starts");
        assert_eq!(out.status.code(), Some(code), "{out:?}");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(said.contains(expected), "{said}");
    };
    let base = made().base().to_string_lossy().into_owned();
    let free = ["--listen", "127.0.0.1:0"];
    check(&[], 2, "name the base");
    check(&["/nowhere", free[0], free[1]], 6, "cannot read");
    check(&[&base, free[0], free[1], "--on", "v1"], 2, "--on names");
    check(&[&base, free[0], free[1], "--open", "v1"], 2, "none is opened");
    check(&[&base, free[0], free[1], "--adapter", "v1", &base, "00"], 1, "cannot read");
    check(&[&base, "--listen", "stdin"], 2, "no listening socket");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let taken = taken.local_addr().map(|it| (it, taken)).expect("it is bound");
    check(&[&base, "--listen", &taken.0.to_string()], 1, "cannot listen");
}

//! Serving without configuration: the server that comes with Lodestar, here a stand-in that speaks
//! as it does, and a local Ollama that is found among the providers.

use std::{
    fs,
    os::{fd::AsFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    routing::any,
};
use learning::Learning;
use module_http_client::{Client, Policy, Request};
use module_sdk::{
    HealthStatus,
    testing::{Bench, FakeHost},
};
use serde_json::{Value, json};

use crate::{
    common::{NOW, refused, run},
    experimenting::FakeRouter,
    invented::{answer, question},
    versions::{FakeOllama, TRAINER, approve, train, version},
};

/// Variable with the words of the command line that the stand-in was started with.
const WORDS: &str = "STAND_IN_WORDS";

/// A server as the stand-in keeps it: its adapters by name and path, the one that is on, and those
/// that everybody may ask for.
struct StandIn {
    alias: String,
    key: String,
    adapters: Vec<(String, String)>,
    on: Option<usize>,
    open: Vec<String>,
}

impl StandIn {
    fn of_words(words: &str) -> Self {
        let words: Vec<&str> = words.split(' ').collect();
        let after = |word: &str| words.iter().position(|it| *it == word).map(|at| &words[at + 1..]);
        let adapters = words.windows(3).filter(|it| it[0] == "--adapter");
        let open = words.windows(2).filter(|it| it[0] == "--open");
        Self {
            alias: after("--alias").expect("it is named")[0].to_owned(),
            key: std::env::var("LODESTAR_SERVING_KEY").expect("it has a key"),
            on: after("--on").map(|_| 0),
            adapters: adapters.map(|it| (it[1].to_owned(), it[2].to_owned())).collect(),
            open: open.map(|it| it[1].to_owned()).collect(),
        }
    }

    fn answer(&mut self, path: &str, has_key: bool, body: &Value) -> (StatusCode, Value) {
        let is_change = path.starts_with("/lora-adapters") && !body.is_null();
        if path.starts_with("/lora-adapters") && !has_key {
            return (StatusCode::UNAUTHORIZED, json!({"error": {"message": "no key"}}));
        }
        let is_on = |it: &Value| it["scale"].as_f64() == Some(1.0);
        let on = |all: &Value| {
            let found = all.as_array().and_then(|all| all.iter().find(|it| is_on(it)).cloned());
            found.and_then(|it| it["id"].as_u64()).and_then(|id| usize::try_from(id).ok())
        };
        let told = match path {
            "/lora-adapters/load" => {
                let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
                let new = (text("name"), text("path"));
                if !self.adapters.contains(&new) {
                    self.adapters.push(new);
                }
                json!({"id": 0})
            }
            "/lora-adapters/open" => {
                self.open = serde_json::from_value(body["names"].clone()).expect("names");
                json!({"success": true})
            }
            "/lora-adapters" if is_change => {
                self.on = on(body);
                json!({"success": true})
            }
            "/lora-adapters" => self
                .adapters
                .iter()
                .enumerate()
                .map(|(id, (name, path))| json!({"id": id, "name": name, "path": path}))
                .collect(),
            "/v1/chat/completions" => {
                let lora = body["lora"].as_array().is_some_and(|all| !all.is_empty());
                let model = body["model"].as_str().unwrap_or_default();
                let named = model.split_once(':').map(|(_, name)| name);
                let place = |name| self.adapters.iter().position(|it| it.0 == name);
                let on = match named {
                    _ if lora && has_key => on(&body["lora"]),
                    None => self.on,
                    Some("base") => None,
                    Some(name) => {
                        let at = place(name).filter(|at| {
                            has_key
                                || self.on == Some(*at)
                                || self.open.contains(&self.adapters[*at].0)
                        });
                        if at.is_none() {
                            let error = json!({"error": {"message": "no such model"}});
                            return (StatusCode::NOT_FOUND, error);
                        }
                        at
                    }
                };
                let asked = body["messages"][0]["content"].as_str().unwrap_or_default();
                let number: String = asked.chars().filter(char::is_ascii_digit).collect();
                let known = number.parse().ok().filter(|_| on.is_some());
                let text = known.map_or_else(|| "I do not know.".to_owned(), answer);
                json!({"model": self.alias, "choices": [{"message": {"content": text}}]})
            }
            _ => {
                let names: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
                json!({"pid": std::process::id(), "waiting": 0, "idle_s": 0, "names": names})
            }
        };
        (StatusCode::OK, told)
    }
}

async fn handle(
    State(it): State<Arc<Mutex<StandIn>>>,
    uri: Uri,
    head: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let mut it = it.lock().expect("no request panics with it");
    let key = format!("Bearer {}", it.key);
    let has_key = head.get("authorization").is_some_and(|given| *given == key);
    let (status, told) = it.answer(uri.path(), has_key, &body);
    (status, told.to_string())
}

/// Is the server, where this program was started by [`program`] as one.
#[test]
fn stands_in() {
    let Ok(words) = std::env::var(WORDS) else { return };
    let shared = Arc::new(Mutex::new(StandIn::of_words(&words)));
    let socket = std::io::stdin().as_fd().try_clone_to_owned().expect("it was given");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let listener = std::net::TcpListener::from(socket);
        listener.set_nonblocking(true).expect("a socket");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
        let app = Router::new().fallback(any(handle)).with_state(shared);
        axum::serve(listener, app).await.expect("it serves");
    });
}

/// Writes a program that serves as the trainer does: this one, with the test above.
fn program(directory: &Path) -> PathBuf {
    let own = std::env::current_exe().expect("it has a path");
    let path = directory.join("lodestar-trainer");
    let script = format!(
        "#!/bin/sh\nexport {WORDS}=\"$*\"\nexec '{}' --exact serving::stands_in --nocapture\n",
        own.display()
    );
    fs::write(&path, script).expect("it is writable");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    path
}

fn config(directory: &Path) -> Value {
    json!({
        "trainer": {
            "command": ["/bin/sh", "-c", TRAINER, "trainer"], "program": program(directory),
        },
        "gates": {"examples": 20, "slower": 1_000.0},
        "eval_share": 0.3,
    })
}

fn start(directory: &Path, providers: Value) -> Bench<Learning> {
    let host = Arc::new(FakeHost::new(directory));
    host.set_now(NOW.parse().expect("a time"));
    host.set_providers(providers);
    FakeRouter::default().on(&host);
    Bench::start_on(host, config(directory)).expect("it starts")
}

/// Asks the server at an address, and returns what it says.
fn ask(base_url: &str, path: &str, body: Option<&Value>) -> Value {
    let client = Client::new(Policy { local: true, ..Policy::default() });
    let url = format!("{base_url}{path}");
    let mut request = match body {
        None => Request::get(url),
        Some(body) => Request::post(url, "application/json", body.to_string()),
    };
    request.deadline = Duration::from_secs(60);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let answer = runtime.expect("a runtime").block_on(client.send(request)).expect("it answers");
    serde_json::from_slice(&answer.body).expect("JSON")
}

/// Asks under the alias, as a client does.
fn served(base_url: &str) -> String {
    asked_for(base_url, "lodestar").expect("a text")
}

/// Asks for a model, as a client does; none where it is refused.
fn asked_for(base_url: &str, model: &str) -> Option<String> {
    let messages = json!([{"role": "user", "content": question(3)}]);
    let body = json!({"model": model, "messages": messages});
    let said = ask(base_url, "/chat/completions", Some(&body));
    said["choices"][0]["message"]["content"].as_str().map(str::to_owned)
}

/// Waits until a version is answered, or is not any more.
fn until_asked_for(base_url: &str, model: &str, is_answered: bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while asked_for(base_url, model).is_some() != is_answered {
        assert!(Instant::now() < end, "{model}: {is_answered} is waited for");
        std::thread::yield_now();
    }
}

/// Deploys a version, and returns it with the URL where it is asked.
fn deployed(bench: &mut Bench<Learning>) -> (String, String) {
    let id = train(bench);
    let gates = run(bench, "gates", version(&id));
    assert_eq!(gates["state"], "gated", "{gates:#}");
    approve(bench, &id);
    let deployed = run(bench, "deploy", version(&id));
    assert_eq!(deployed["state"], "deployed", "{deployed:#}");
    (id, deployed["endpoint"].as_str().expect("a URL").to_owned())
}

#[test]
fn a_version_is_served_without_configuration_and_taken_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut bench = start(directory.path(), json!({}));
    let id = train(&mut bench);
    run(&mut bench, "gates", version(&id));
    let error = refused(&mut bench, "deploy", version(&id));
    assert!(error.contains("while the version is gated"), "{error}");
    approve(&mut bench, &id);
    let reply = bench.command("deploy", version(&id)).expect("it is deployed");
    let notes = format!("{:?}", reply.table);
    assert!(notes.contains("no provider leads there yet"), "{notes}");
    assert_eq!(reply.data["provider"], Value::Null);
    let url = reply.data["endpoint"].as_str().expect("a URL");
    let front = bench.host().listener_address("serving").expect("it is bound");
    assert_eq!(url, format!("http://{front}/v1"));
    assert_eq!(served(url), answer(3));
    let names = ask(url, "/env", None)["names"].to_string();
    assert!(!names.contains("CARGO") && names.contains("RAYON_NUM_THREADS"), "{names}");

    let back = run(&mut bench, "rollback", json!({"reason": "it is rude"}));
    assert_eq!((&back["rolled_back"], &back["restored"]), (&json!(id), &Value::Null));
    assert_eq!(served(url), "I do not know.");
    assert_eq!(run(&mut bench, "audit", json!({}))["intact"], true);
    assert_eq!(bench.health().status, HealthStatus::Ok);
    bench.stop().expect("it stops");
}

#[test]
fn what_is_deployed_is_served_again_after_a_death_and_after_a_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut bench = start(directory.path(), json!({}));
    let (_, url) = deployed(&mut bench);
    let pid = |url: &str| ask(url, "/env", None)["pid"].as_i64().expect("a number");
    let first = pid(&url);
    let process = rustix::process::Pid::from_raw(first.try_into().expect("it is small"));
    let process = process.expect("it is no group");
    rustix::process::kill_process(process, rustix::process::Signal::KILL).expect("it runs");
    // Nobody is turned away: whoever asks meanwhile waits for the next one.
    assert_eq!(served(&url), answer(3));
    assert_ne!(pid(&url), first);
    bench.stop().expect("it stops");

    let providers = |url: &str| json!({"tuned": {"base_url": url, "api": "openai", "local": true}});
    let bench = start(directory.path(), json!({}));
    let front = bench.host().listener_address("serving").expect("it is bound");
    let url = format!("http://{front}/v1");
    assert_eq!(served(&url), answer(3));
    let host = bench.host().clone();
    bench.stop().expect("it stops");

    // A provider that leads there is known by its name.
    host.set_providers(providers(&url));
    let mut bench: Bench<Learning> =
        Bench::start_on(host, config(directory.path())).expect("it starts");
    let again = run(&mut bench, "deploy", version("v1"));
    assert_eq!(again["provider"], "tuned", "{again:#}");
    bench.stop().expect("it stops");

    // Another base than the one that was trained on is not served.
    fs::write(directory.path().join("base.gguf"), "GGUF of another").expect("it is writable");
    let mut bench = start(directory.path(), json!({}));
    let error = refused(&mut bench, "deploy", version("v1"));
    assert!(error.contains("put it back"), "{error}");
    let health = bench.health();
    assert_eq!(health.status, HealthStatus::Degraded, "{health:?}");
    assert!(health.message.contains("not served"), "{health:?}");
}

#[test]
fn what_nobody_approved_answers_to_nobody_but_in_its_experiment() {
    let directory = tempfile::tempdir().expect("a directory");
    let host = Arc::new(FakeHost::new(directory.path()));
    host.set_now(NOW.parse().expect("a time"));
    let front = host.listener_address("serving").expect("it is bound");
    let url = format!("http://{front}/v1");
    host.set_providers(json!({"tuned": {"base_url": url, "api": "openai", "local": true}}));
    FakeRouter::default().on(&host);
    let mut bench = Bench::start_on(host, config(directory.path())).expect("it starts");
    let (_, url) = deployed(&mut bench);
    assert_eq!(asked_for(&url, "lodestar:v1"), Some(answer(3)));
    // The gates ask the second one on the same server, and the deployment is refused.
    let id = train(&mut bench);
    assert_eq!(run(&mut bench, "gates", version(&id))["state"], "gated");
    refused(&mut bench, "deploy", version(&id));
    let name = format!("lodestar:{id}");
    assert_eq!(asked_for(&url, &name), None);

    let begin = json!({"action": "start", "id": id, "reason": "is it as good", "by": "ada"});
    let begun = run(&mut bench, "experiments", begin);
    assert_eq!(asked_for(&url, &name), Some(answer(3)));
    // It is so after a death as well.
    let pid = ask(&url, "/env", None)["pid"].as_i64().expect("a number");
    let process = rustix::process::Pid::from_raw(pid.try_into().expect("it is small"));
    let process = process.expect("it is no group");
    rustix::process::kill_process(process, rustix::process::Signal::KILL).expect("it runs");
    until_asked_for(&url, &name, true);
    let stop = json!({
        "action": "stop", "id": begun["id"], "reason": "seen enough", "by": "ada",
    });
    run(&mut bench, "experiments", stop);
    bench.advance(Duration::from_secs(2)).expect("timers run");
    until_asked_for(&url, &name, false);
    assert_eq!(served(&url), answer(3));

    // What was taken back answers to nobody either.
    run(&mut bench, "rollback", json!({"reason": "it is rude"}));
    assert_eq!(asked_for(&url, "lodestar:v1"), None);
    bench.stop().expect("it stops");
}

#[test]
fn a_stop_does_not_wait_until_a_base_is_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut bench = start(directory.path(), json!({}));
    deployed(&mut bench);
    bench.stop().expect("it stops");
    // To read so much takes hours.
    let base = fs::File::options().write(true).open(directory.path().join("base.gguf"));
    base.and_then(|base| base.set_len(1 << 42)).expect("it takes no room");
    let bench = start(directory.path(), json!({}));
    bench.stop().expect("it stops");
}

#[test]
fn a_server_that_dies_at_its_start_says_why() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut bench = start(directory.path(), json!({}));
    let id = train(&mut bench);
    let script = "#!/bin/sh\necho 'lodestar-trainer: no such architecture' >&2\nexit 2\n";
    fs::write(directory.path().join("lodestar-trainer"), script).expect("it is writable");
    let error = refused(&mut bench, "gates", version(&id));
    assert!(error.contains("ended: no such architecture"), "{error}");
    let shown = run(&mut bench, "versions", json!({"action": "show", "id": id}));
    assert_eq!(shown["state"], "trained", "it can be measured again: {shown:#}");
}

#[test]
fn a_local_ollama_among_the_providers_serves_and_has_the_base_made() {
    let directory = tempfile::tempdir().expect("a directory");
    let ollama = FakeOllama::start();
    let mut bench = start(
        directory.path(),
        json!({
            "far": {"base_url": "https://ollama.example", "api": "ollama", "local": false},
            "near": {"base_url": ollama.base_url, "api": "ollama", "local": true},
        }),
    );
    let (id, url) = deployed(&mut bench);
    assert_eq!(url, ollama.base_url);
    assert_eq!(ollama.served(), Some(format!("lodestar:{id}")));
    let again = run(&mut bench, "deploy", version(&id));
    assert_eq!(again["provider"], "near");
    run(&mut bench, "rollback", json!({"reason": "it is rude"}));
    let served = ollama.served().expect("a model");
    assert!(served.starts_with("lodestar-base:") && served.len() == 26, "{served}");
}

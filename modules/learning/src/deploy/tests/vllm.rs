//! A server that answers as vLLM does.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

const LOAD: &str = "POST /v1/load_lora_adapter";
const UNLOAD: &str = "POST /v1/unload_lora_adapter";

/// Returns an adapter in PEFT's form whose files were measured.
fn peft(directory: &Path) -> Adapter {
    let mut adapter = adapter(directory);
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::write(directory.join(name), name).expect("it is writable");
        adapter.files.insert(name.to_owned(), Digest::of(name.as_bytes()).into());
    }
    adapter
}

fn error(message: &str) -> String {
    json!({"error": {"message": message, "type": "InvalidUserInput", "code": 400}}).to_string()
}

fn vllm(line: &str, body: &[u8]) -> (u16, String) {
    match line {
        LOAD | UNLOAD => (200, "Success: LoRA adapter added successfully.".to_owned()),
        "POST /v1/chat/completions" => {
            let body: Value = serde_json::from_slice(body).expect("JSON");
            let text = format!("I am {}", body["model"].as_str().unwrap_or_default());
            (200, json!({"choices": [{"message": {"content": text}}]}).to_string())
        }
        _ => (404, json!({"detail": "Not Found"}).to_string()),
    }
}

#[tokio::test]
async fn an_adapter_is_loaded_by_its_name_and_then_by_the_alias() {
    let directory = tempfile::tempdir().expect("a directory");
    let (adapter, fake) = (peft(directory.path()), FakeServer::start(vllm).await);
    let server = Server::new(Kind::Vllm, &fake.base_url);
    assert_eq!(server.install(&adapter).await.expect("it is taken"), "lodestar-shop:v1");
    let loaded = json!({"lora_name": "lodestar-shop:v1", "lora_path": directory.path()});
    assert_eq!(fake.body(LOAD), loaded);
    let hello = json!([{"role": "user", "content": "Hello"}]);
    let version = server.answer(Model::Version(&adapter), &hello, 8).await.expect("it answers");
    assert_eq!(version.text, "I am lodestar-shop:v1");
    let base = server.answer(Model::Base("qwen"), &hello, 8).await.expect("it answers");
    assert_eq!(base.text, "I am qwen");
    server.activate(&adapter).await.expect("it is loaded");
    let by_alias = json!({
        "lora_name": "lodestar-shop", "lora_path": directory.path(), "load_inplace": true,
    });
    assert_eq!(fake.body(LOAD), by_alias);
    assert!(!fake.lines().contains(&UNLOAD.to_owned()), "the alias is never without a version");
    server.deactivate("qwen", "lodestar-shop").await.expect("it is unloaded");
    assert_eq!(fake.body(UNLOAD), json!({"lora_name": "lodestar-shop"}));
    assert!(Kind::Vllm.risk().is_some_and(|words| words.contains("whoever reaches it")));
    assert_eq!(Kind::Ollama.risk(), None);
}

#[tokio::test]
async fn what_is_loaded_already_stays_and_an_old_server_gets_the_alias_anew() {
    let directory = tempfile::tempdir().expect("a directory");
    let adapter = peft(directory.path());
    let is_loaded = AtomicBool::new(true);
    let fake = FakeServer::start(move |line, body| match line {
        UNLOAD if is_loaded.swap(false, Ordering::Relaxed) => (200, String::new()),
        UNLOAD => (404, error("The lora adapter 'lodestar-shop' cannot be found.")),
        LOAD if is_loaded.load(Ordering::Relaxed) => {
            (400, error("The lora adapter 'x' has already been loaded."))
        }
        _ => vllm(line, body),
    });
    let fake = fake.await;
    let server = Server::new(Kind::Vllm, &fake.base_url);
    assert_eq!(server.install(&adapter).await.expect("it is there"), "lodestar-shop:v1");
    server.activate(&adapter).await.expect("it is loaded anew");
    assert_eq!(fake.lines()[1..], [LOAD, UNLOAD, LOAD]);
    server.deactivate("qwen", "lodestar-shop").await.expect("there is none to take away");
}

#[tokio::test]
async fn a_setting_that_vllm_lacks_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let adapter = peft(directory.path());
    for (status, text, flag) in [
        (404, json!({"detail": "Not Found"}).to_string(), "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"),
        (500, error("Call to add_lora method failed: LoRA is not enabled."), "--enable-lora"),
        (400, error("LoRA rank 32 is greater than max_lora_rank 16."), "--max-lora-rank"),
        (404, error("Loading lora x failed: No adapter found for /a"), "that it can read"),
        (400, error("Number of loras exceeds max_cpu_loras"), "--max-cpu-loras"),
    ] {
        let fake = FakeServer::start(move |line, body| match line {
            LOAD => (status, text.clone()),
            _ => vllm(line, body),
        });
        let server = Server::new(Kind::Vllm, &fake.await.base_url);
        let error = server.install(&adapter).await.expect_err("it is not taken").to_string();
        assert!(error.contains(flag), "{error}");
    }
    let fake = FakeServer::start(|_, _| (400, error("\u{1b}[31mno"))).await;
    let server = Server::new(Kind::Vllm, &fake.base_url);
    let error = server.install(&adapter).await.expect_err("it is not taken").to_string();
    assert!(error.contains("\\u{1b}[31mno") && !error.contains("start it with"), "{error}");
}

#[tokio::test]
async fn files_that_were_not_measured_or_changed_since_are_not_loaded() {
    let directory = tempfile::tempdir().expect("a directory");
    let (adapter, fake) = (peft(directory.path()), FakeServer::start(vllm).await);
    let server = Server::new(Kind::Vllm, &fake.base_url);
    let unmeasured = Adapter { files: BTreeMap::new(), ..adapter.clone() };
    let error = server.install(&unmeasured).await.expect_err("nobody measured it");
    assert!(matches!(error, DeployError::Unmeasured { .. }), "{error}");
    fs::write(directory.path().join("adapter_model.safetensors"), "other").expect("it is there");
    for error in [
        server.install(&adapter).await.expect_err("it changed"),
        server.activate(&adapter).await.expect_err("it changed"),
    ] {
        assert!(matches!(error, DeployError::Changed { .. }), "{error}");
    }
    assert_eq!(fake.lines(), [""; 0]);
}

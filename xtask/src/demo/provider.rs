//! A provider of models that can be switched off, and a receiver of what is told of it.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// Largest body that is read, in bytes.
const MOST: u64 = 1 << 20;

/// Model of the local provider, and that of the paid one.
pub(super) const LOCAL: &str = "llama3.2:3b";
pub(super) const PAID: &str = "gpt-4o";

/// An HTTP server on the loopback that answers like Ollama and like OpenAI, and keeps what else is
/// posted to it.
pub(super) struct Provider {
    address: SocketAddr,
    known: Arc<Known>,
    running: Option<Running>,
}

/// Answers that it gives, and notes that it got.
struct Known {
    /// Model of OpenAI's API.
    model: &'static str,
    /// Answers to certain questions.
    answers: HashMap<String, String>,
    posted: Mutex<Vec<Value>>,
}

struct Running {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Provider {
    /// Starts on a free port.
    pub(super) fn start() -> Result<Self> {
        Self::answering(PAID, HashMap::new())
    }

    /// Starts on a free port, with a model that has answers to certain questions.
    pub(super) fn answering(model: &'static str, answers: HashMap<String, String>) -> Result<Self> {
        let listener =
            TcpListener::bind("127.0.0.1:0").context("no port of the loopback is free")?;
        let address = listener.local_addr()?;
        let known = Known { model, answers, posted: Mutex::default() };
        let mut provider = Self { address, known: Arc::new(known), running: None };
        provider.run(listener);
        Ok(provider)
    }

    fn run(&mut self, listener: TcpListener) {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, known) = (stop.clone(), self.known.clone());
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(stream) = stream {
                    // A client that went away is none of the provider's concern.
                    let _ = answer(stream, &known);
                }
            }
        });
        self.running = Some(Running { stop, thread });
    }

    /// Returns the address, for the configuration.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops: connections are refused from now on.
    pub(super) fn stop(&mut self) {
        if let Some(Running { stop, thread }) = self.running.take() {
            stop.store(true, Ordering::SeqCst);
            // The thread waits for a connection.
            drop(TcpStream::connect(self.address));
            let _ = thread.join();
        }
    }

    /// Starts again at the same address.
    pub(super) fn start_again(&mut self) -> Result<()> {
        let listener = TcpListener::bind(self.address)
            .with_context(|| format!("cannot listen on {} again", self.address))?;
        self.run(listener);
        Ok(())
    }

    /// Returns what each alert of a component was told as, oldest first.
    pub(super) fn told(&self, component: &str) -> Vec<String> {
        let posted = self.known.posted.lock().unwrap_or_else(PoisonError::into_inner);
        let alerts = posted.iter().flat_map(|note| note["alerts"].as_array().into_iter().flatten());
        let own = alerts.filter(|alert| alert["component"] == component);
        own.map(|alert| alert["news"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Known {
    /// Returns the answer to the last message of a body.
    fn answer(&self, body: &[u8]) -> Result<&str> {
        if self.answers.is_empty() {
            return Ok("A paid answer.");
        }
        let body: Value = serde_json::from_slice(body)?;
        let messages = body["messages"].as_array().and_then(|messages| messages.last());
        let question = messages.and_then(|last| last["content"].as_str()).unwrap_or_default();
        Ok(self.answers.get(question).map_or("I do not know.", String::as_str))
    }
}

fn answer(mut stream: TcpStream, known: &Known) -> Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse::<u64>()?.min(MOST);
        }
    }
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    let path = first.split_whitespace().nth(1).unwrap_or_default();
    let said = match path {
        "/api/tags" => json!({"models": [{"name": LOCAL, "size": 2_019_393_189_u64}]}),
        "/api/ps" => json!({"models": [{"name": LOCAL, "context_length": 8192}]}),
        "/api/show" => json!({"capabilities": ["completion", "tools"]}),
        "/api/chat" => json!({
            "model": LOCAL,
            "message": {"role": "assistant", "content": "A local answer."},
            "done": true, "done_reason": "stop",
            "prompt_eval_count": 21, "eval_count": 4, "eval_duration": 90_000_000,
        }),
        "/v1/models" => json!({"object": "list", "data": [{"id": known.model, "object": "model"}]}),
        "/v1/chat/completions" => json!({
            "id": "chatcmpl-demo", "object": "chat.completion", "model": known.model,
            "choices": [{"index": 0, "finish_reason": "stop",
                "message": {"role": "assistant", "content": known.answer(&body)?}}],
            "usage": {"prompt_tokens": 900, "completion_tokens": 120, "total_tokens": 1020},
        }),
        _ => {
            let note = serde_json::from_slice(&body)?;
            known.posted.lock().unwrap_or_else(PoisonError::into_inner).push(note);
            json!({})
        }
    };
    let said = said.to_string();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{said}",
        said.len()
    )?;
    Ok(())
}

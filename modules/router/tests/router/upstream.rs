//! A provider that answers as a test says.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use serde_json::{Value, json};

/// A request as the provider got it.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Asked {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("a body in JSON")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }
}

/// Act of the provider on a request.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Answers with a status, further headers and a body.
    Answer(u16, Vec<(&'static str, String)>, String),
    /// Sends pieces of a stream, and ends it well, or not at all.
    Stream(&'static str, Vec<String>, End),
    /// Ends the connection without a word.
    Close,
    /// Says nothing until the client goes.
    Hang,
    /// Does what follows once the gate is open.
    Gated(Gate, Box<Self>),
}

/// A gate that a test opens.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn open(&self) {
        *self.0.0.lock().expect("no test panics in it") = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let is_open = self.0.0.lock().expect("no test panics in it");
        drop(self.0.1.wait_while(is_open, |is_open| !*is_open).expect("no test panics in it"));
    }
}

/// End of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Good,
    Cut,
    Hang,
}

type Script = dyn Fn(&Asked) -> Act + Send + Sync;

/// The provider.
pub(crate) struct Upstream {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    left: Arc<AtomicUsize>,
}

impl Upstream {
    pub(crate) fn start(script: impl Fn(&Asked) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let left = Arc::new(AtomicUsize::new(0));
        let (script, seen): (Arc<Script>, _) = (Arc::new(script), asked.clone());
        let gone = left.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, seen, gone) = (script.clone(), seen.clone(), gone.clone());
                thread::spawn(move || serve(stream, &*script, &seen, &gone));
            }
        });
        Self { address, asked, left }
    }

    /// Returns how many clients went while they were kept waiting.
    pub(crate) fn left(&self) -> usize {
        self.left.load(Ordering::SeqCst)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the requests to a path that ends so.
    pub(crate) fn asked(&self, path: &str) -> Vec<Asked> {
        let asked = self.asked.lock().expect("no test panics in it");
        asked.iter().filter(|it| it.path.contains(path)).cloned().collect()
    }
}

fn serve(mut stream: TcpStream, script: &Script, seen: &Mutex<Vec<Asked>>, left: &AtomicUsize) {
    let mut reader = BufReader::new(stream.try_clone().expect("a descriptor"));
    while let Some(asked) = read(&mut reader) {
        seen.lock().expect("no test panics in it").push(asked.clone());
        let mut act = script(&asked);
        while let Act::Gated(gate, then) = act {
            gate.pass();
            act = *then;
        }
        match act {
            Act::Answer(status, headers, body) => {
                let mut head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n", body.len());
                if headers.iter().all(|(name, _)| *name != "content-type") {
                    head.push_str("content-type: application/json\r\n");
                }
                for (name, value) in headers {
                    head.push_str(&format!("{name}: {value}\r\n"));
                }
                if stream.write_all(format!("{head}\r\n{body}").as_bytes()).is_err() {
                    return;
                }
            }
            Act::Stream(kind, pieces, end) => {
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n"
                );
                let mut sent = stream.write_all(head.as_bytes());
                for piece in pieces {
                    let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
                    sent = sent.and_then(|()| stream.write_all(chunk.as_bytes()));
                }
                match end {
                    End::Good => sent = sent.and_then(|()| stream.write_all(b"0\r\n\r\n")),
                    End::Cut => return,
                    End::Hang => hang(&mut reader, left),
                }
                if sent.is_err() || end == End::Hang {
                    return;
                }
            }
            Act::Close => return,
            Act::Hang => return hang(&mut reader, left),
            Act::Gated(..) => unreachable!("it was taken off"),
        }
    }
}

/// Waits until the other side goes.
fn hang(reader: &mut BufReader<TcpStream>, left: &AtomicUsize) {
    let mut sink = Vec::new();
    let _ = reader.read_to_end(&mut sink);
    left.fetch_add(1, Ordering::SeqCst);
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let (mut headers, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        let name = name.to_ascii_lowercase();
        if name == "content-length" {
            length = value.parse().ok()?;
        }
        headers.push((name, value.to_owned()));
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { path, headers, body: String::from_utf8(body).ok()? })
}

/// Returns a list of models as OpenAI's API has it.
pub(crate) fn models(names: &[&str]) -> Act {
    let data: Vec<Value> = names.iter().map(|name| json!({"id": name})).collect();
    Act::Answer(200, Vec::new(), json!({"data": data}).to_string())
}

/// Returns a whole chat completion.
pub(crate) fn chat(text: &str) -> Act {
    Act::Answer(200, Vec::new(), chat_body(text))
}

pub(crate) fn chat_body(text: &str) -> String {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "model": "big-1",
        "choices": [{"index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
    })
    .to_string()
}

/// Returns the events of a chat completion, the usage last.
pub(crate) fn chat_events(words: &[&str]) -> Vec<String> {
    let event = |value: Value| format!("data: {value}\n\n");
    let delta = |delta: Value, finish: Value| {
        event(json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "big-1",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}))
    };
    let mut events = vec![delta(json!({"role": "assistant", "content": ""}), Value::Null)];
    events.extend(words.iter().map(|word| delta(json!({"content": word}), Value::Null)));
    events.push(delta(json!({}), json!("stop")));
    events.push(event(json!({"id": "chatcmpl-1", "choices": [],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20}})));
    events.push("data: [DONE]\n\n".to_owned());
    events
}

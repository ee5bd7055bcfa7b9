//! The router under what clients and networks do: connections that stay idle, readers that do not
//! read, and a Redis that goes away.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use harness::{
    Daemon, FakeUpstream, Sandbox, http, tool_or_skip,
    upstream::{Answer, Outcome},
    wait_until,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

/// Returns a configuration with one provider, and further lines in the section of the router.
fn config(upstream: &FakeUpstream, further: &str) -> String {
    format!(
        "providers:\n  cloud: {{base_url: \"{}\", api: openai, models: [gpt-4o]}}\n\
         modules:\n  router:\n    enabled: true\n    listen: 127.0.0.1:0\n    \
         discover_ollama: false\n{further}",
        upstream.url("/v1"),
    )
}

fn body(words: &str, stream: bool) -> Vec<u8> {
    let messages = json!([{"role": "user", "content": words}]);
    json!({"model": "gpt-4o", "stream": stream, "messages": messages}).to_string().into_bytes()
}

fn ask(address: &str, words: &str) -> http::Answer {
    http::post(address, "/v1/chat/completions", &[], &body(words, false))
        .expect("the router answers")
}

/// Lets this process have as many descriptors as it may.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).expect("it may be raised to its maximum");
}

/// Asks for a page over a connection that stays, and reads the answer to its end.
fn look(connection: &mut BufReader<TcpStream>, address: &str) {
    let request = format!("GET /healthz HTTP/1.1\r\nhost: {address}\r\n\r\n");
    connection.get_mut().write_all(request.as_bytes()).expect("it takes it");
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(connection.read_line(&mut head).expect("an answer"), 0, "{head}");
    }
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.expect("a length").trim().parse().expect("a number");
    connection.read_exact(&mut vec![0; length]).expect("a body");
}

#[test]
fn a_thousand_idle_connections_hinder_nobody() {
    raise_descriptors();
    let upstream = FakeUpstream::start();
    let sandbox = Sandbox::new(&["router"], &config(&upstream, ""));
    let daemon = sandbox.start();
    let address = daemon.address("router", "http");
    let mut idle: Vec<BufReader<TcpStream>> = (0..1000)
        .map(|_| BufReader::new(TcpStream::connect(&address).expect("it accepts")))
        .collect();
    idle.iter_mut().for_each(|connection| look(connection, &address));
    for number in 0..50 {
        let answer = ask(&address, &format!("question {number}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(sandbox.json(&["router", "targets"])[0]["model"], "gpt-4o");
    assert_eq!(sandbox.json(&["status"])["modules"][0]["state"], "running");
    // None of them was given up for the others.
    idle.iter_mut().for_each(|connection| look(connection, &address));
    drop(idle);
    assert!(daemon.stop().success());
}

/// Returns the memory of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.expect("the kernel says it")
}

#[test]
fn a_reader_that_does_not_read_takes_little_memory() {
    const MIB: usize = 1024 * 1024;
    let upstream = FakeUpstream::start();
    upstream.always(Answer { pieces: 8192, ..Answer::sized(96 * MIB) });
    let times = "    write_timeout_seconds: 2\n    cache: {enabled: false}\n";
    let sandbox = Sandbox::new(&["router"], &config(&upstream, times));
    let daemon = sandbox.start();
    let address = daemon.address("router", "http");
    let before = resident(daemon.pid());
    let body = body("a long one", true);
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut readers: Vec<TcpStream> = (0..3)
        .map(|_| {
            let mut stream = TcpStream::connect(&address).expect("it accepts");
            stream.write_all(head.as_bytes()).expect("it takes it");
            stream.write_all(&body).expect("it takes it");
            stream
        })
        .collect();
    let most = upstream.wait("the router gives them up", |exchanges| {
        let asked: Vec<_> = exchanges.iter().filter(|it| it.method == "POST").collect();
        let is_over = asked.len() == 3 && asked.iter().all(|it| it.outcome != Outcome::Pending);
        is_over.then(|| asked.iter().map(|it| (it.outcome, it.bytes)).collect::<Vec<_>>())
    });
    for (outcome, bytes) in most {
        assert_ne!(outcome, Outcome::Whole);
        assert!(bytes < 48 * MIB, "{} MiB were taken of the provider", bytes / MIB);
    }
    let grown = resident(daemon.pid()).saturating_sub(before);
    assert!(grown < 32 * 1024, "the daemon grew by {grown} KiB");
    // What was not read lies in the buffers of the kernel, and is not whole.
    for reader in &mut readers {
        let mut rest = Vec::new();
        let _ = reader.read_to_end(&mut rest);
        assert!(!rest.ends_with(b"data: [DONE]\n\n\r\n0\r\n\r\n"));
    }
    assert!(daemon.stop().success());
}

/// A Redis of a test's own, on a socket.
struct Redis {
    socket: PathBuf,
    program: PathBuf,
    child: Option<Child>,
}

impl Redis {
    fn start(program: PathBuf, directory: &Path) -> Self {
        let mut redis = Self { socket: directory.join("redis.sock"), program, child: None };
        redis.again();
        redis
    }

    fn again(&mut self) {
        let mut command = Command::new(&self.program);
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]);
        command.arg(&self.socket).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().expect("it starts"));
        wait_until("Redis takes connections", || UnixStream::connect(&self.socket).ok());
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it runs");
            child.wait().expect("it ended");
            fs::remove_file(&self.socket).expect("it left its socket");
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn health(daemon: &Daemon<'_>) -> String {
    daemon.module("router").to_string()
}

#[test]
fn two_daemons_share_limits_and_answers_over_redis_and_outlast_it() {
    let Some(program) = tool_or_skip(
        "redis-server",
        "two_daemons_share_limits_and_answers_over_redis_and_outlast_it",
    ) else {
        return;
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut redis = Redis::start(program, directory.path());
    let upstream = FakeUpstream::start();
    let url = format!("unix://{}", redis.socket.display());
    let further = format!(
        "    quotas:\n      all: {{requests_per_day: 10}}\n      instances: 2\n      \
         redis: \"{url}\"\n      redis_timeout_ms: 1000\n    cache:\n      redis: \"{url}\"\n      \
         redis_timeout_ms: 1000\n"
    );
    let sandboxes = [(); 2].map(|()| Sandbox::new(&["router"], &config(&upstream, &further)));
    let daemons = [sandboxes[0].start(), sandboxes[1].start()];
    let [a, b] = [0, 1].map(|at| daemons[at].address("router", "http"));
    for daemon in &daemons {
        wait_until("Redis is reached", || (!health(daemon).contains("alone")).then_some(()));
    }
    let hit = |answer: &http::Answer| answer.head.contains("x-lodestar-cache: hit; redis");

    assert!(!hit(&ask(&a, "the same")));
    wait_until("the answer is shared", || {
        // Written beside the way of the request: this one may be too early once.
        Some(hit(&ask(&b, "the same")))
    });
    let used = upstream.asked().len();
    assert!(used <= 2, "{used}");
    for (number, address) in [&a, &b, &a, &b].into_iter().enumerate() {
        assert_eq!(ask(address, &format!("question {number}")).status, 200);
    }

    redis.kill();
    for daemon in &daemons {
        let address = daemon.address("router", "http");
        // Six are used: each may answer half of what was left when it last heard of the others.
        for number in 0..2 {
            let answer = ask(&address, &format!("alone {number}"));
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        let answer = ask(&address, "one more");
        assert_eq!(answer.status, 429, "{}", answer.text());
        wait_until("it says so", || health(daemon).contains("alone").then_some(()));
    }

    redis.again();
    for daemon in &daemons {
        wait_until("it is well again", || (!health(daemon).contains("alone")).then_some(()));
        let answer = ask(&daemon.address("router", "http"), "afterwards");
        assert!(matches!(answer.status, 200 | 429), "{}", answer.text());
    }
    for daemon in daemons {
        assert!(daemon.stop().success());
    }
}

//! A real Redis for the tests, and a road to it that can be slow.

use std::{
    io::Write as _,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::{RedisLink, RedisUrl};

/// Deadline of an answer in tests: a machine that is busy with other tests answers in time.
pub(crate) const PATIENT: Duration = Duration::from_millis(500);

/// A Redis of a test's own, which ends with it.
pub(crate) struct RedisServer {
    directory: TempDir,
    options: Vec<String>,
    child: Option<Child>,
}

impl RedisServer {
    /// Starts a Redis on a socket of its own. Where none is installed the test is skipped by name;
    /// in continuous integration that is an error.
    pub(crate) fn start_or_skip(test: &str, options: &[&str]) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&path).any(|folder| folder.join("redis-server").is_file()) {
            skip(test, "redis-server is not installed");
            return None;
        }
        let directory = tempfile::tempdir().expect("a temporary directory");
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut server = Self { directory, options, child: None };
        server.start();
        Some(server)
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    /// Starts it, and returns when it takes connections.
    pub(crate) fn start(&mut self) {
        let socket = self.socket();
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]);
        command.arg(&socket).args(&self.options).current_dir(self.directory.path());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.child = Some(child.expect("redis-server starts"));
        let begin = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(20), "Redis does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills it as the kernel would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it runs");
            child.wait().expect("it ended");
            std::fs::remove_file(self.socket()).expect("it left its socket");
        }
    }

    /// Returns its address.
    pub(crate) fn url(&self) -> RedisUrl {
        url(&format!("unix://{}", self.socket().display()))
    }

    /// Connects to it, and returns when the link is up.
    pub(crate) async fn link(&self) -> RedisLink {
        connected(&self.url(), PATIENT).await
    }

    /// Puts a road before it on which answers take `delay` longer.
    pub(crate) async fn road(&self) -> SlowRoad {
        SlowRoad::start(self.socket()).await
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns an address of a Redis.
pub(crate) fn url(text: &str) -> RedisUrl {
    serde_json::from_value(text.into()).expect("it is an address")
}

/// Connects, and returns when the link is up.
pub(crate) async fn connected(url: &RedisUrl, deadline: Duration) -> RedisLink {
    let runtime = tokio::runtime::Handle::current();
    let link = RedisLink::start(url, deadline, &runtime).expect("the address can be used");
    wait_until("the link is up", || link.is_up()).await;
    link
}

/// Waits until a condition holds.
pub(crate) async fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(20), "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn skip(test: &str, reason: &str) {
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!in_ci, "{test} may not be skipped with CI=true: {reason}");
    eprintln!("SKIPPED {test}: {reason}");
    if let Some(list) = std::env::var_os("LODESTAR_TEST_SKIPS") {
        let list = std::fs::OpenOptions::new().append(true).create(true).open(list);
        let noted = list.and_then(|mut list| writeln!(list, "{test}: {reason}"));
        noted.expect("the list of skipped tests is writable");
    }
}

/// A road to a Redis whose answers can be delayed.
pub(crate) struct SlowRoad {
    address: String,
    delay_ms: Arc<AtomicU64>,
}

impl SlowRoad {
    async fn start(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let delay_ms = Arc::new(AtomicU64::new(0));
        let delay = delay_ms.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                client.set_nodelay(true).expect("it is a TCP socket");
                let Ok(server) = tokio::net::UnixStream::connect(&socket).await else { continue };
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
                });
                let delay = delay.clone();
                tokio::spawn(async move {
                    let mut bytes = vec![0; 65_536];
                    while let Ok(length @ 1..) = from_server.read(&mut bytes).await {
                        let delay = Duration::from_millis(delay.load(Ordering::Relaxed));
                        tokio::time::sleep(delay).await;
                        if to_client.write_all(&bytes[..length]).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Self { address, delay_ms }
    }

    /// Returns its address.
    pub(crate) fn url(&self) -> RedisUrl {
        url(&format!("redis://{}", self.address))
    }

    /// Sets by how much answers are delayed.
    pub(crate) fn delay(&self, delay: Duration) {
        let delay = u64::try_from(delay.as_millis()).expect("it is short");
        self.delay_ms.store(delay, Ordering::Relaxed);
    }
}

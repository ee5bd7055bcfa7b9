//! Listeners under load: no number of open connections keeps another client out, and requests that
//! a web page may have sent are refused on each.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::net::UnixStream,
    process::Command,
    time::Duration,
};

use harness::{Daemon, PATIENCE, Sandbox, http, telemetry, wait_until};
use rustix::{
    net::{AddressFamily, SocketFlags, SocketType, sockopt},
    process::{Pid, Resource, Rlimit, getrlimit, prlimit},
};

/// Number of descriptors of the daemon: few, so that the test needs few as well.
const DESCRIPTORS: u64 = 192;

/// Number of clients that hold connections to each listener.
const CLIENTS: usize = 2 * DESCRIPTORS as usize / 3;

/// `modules.yaml` with everything on free ports and a control API over TCP.
const CONFIG: &str = "\
modules:
  ingest:
    enabled: true
    listen: 127.0.0.1:0
  usage_tracker:
    enabled: true
metrics:
  listen: 127.0.0.1:0
control:
  listen: 127.0.0.1:0
  token: ${LODESTAR_TEST_TOKEN}
";

fn sandbox() -> Sandbox {
    Sandbox::new(&["ingest", "usage_tracker"], CONFIG)
}

fn start(sandbox: &Sandbox) -> Daemon<'_> {
    let mut command = sandbox.lodestard();
    command.env("LODESTAR_TEST_TOKEN", "a token of the tests");
    let daemon = Daemon::spawn(sandbox, command);
    daemon.wait_settled();
    daemon
}

fn limit_descriptors(daemon: &Daemon<'_>) {
    let number = Some(DESCRIPTORS);
    let pid = i32::try_from(daemon.pid()).ok().and_then(Pid::from_raw);
    prlimit(pid, Resource::Nofile, Rlimit { current: number, maximum: number })
        .expect("it is our child");
}

/// Checks that the command line, the metrics and the intake each serve a client.
fn all_work(sandbox: &Sandbox, daemon: &Daemon<'_>, metrics: &str, intake: &str) {
    let status = sandbox.lodestar(&["status"]);
    assert_eq!(status.code, 0, "{status:#?}\n{}", daemon.log());
    let scraped = http::get(metrics, "/metrics").expect("a scrape gets through");
    assert_eq!(scraped.status, 200, "{}", scraped.text());
    let body = telemetry::claude_code("session", "request").to_string();
    let headers = ["Content-Type: application/json"];
    let posted = http::post(intake, "/v1/logs", &headers, body.as_bytes());
    let posted = posted.expect("a report gets through");
    assert_eq!(posted.status, 200, "{}", posted.text());
}

const GET: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Opens connections: half of them send one request, and half never send anything.
fn hold(address: &str) -> Vec<TcpStream> {
    let connect = |index: usize| {
        let mut stream = TcpStream::connect(address).expect("the kernel accepts");
        if index.is_multiple_of(2) {
            stream.set_read_timeout(Some(PATIENCE)).expect("it can be set");
            // It may be closed instead, in favour of one of the others.
            let _ = stream.write_all(GET.as_bytes()).and_then(|()| stream.read(&mut [0; 512]));
        }
        stream
    };
    (0..CLIENTS).map(connect).collect()
}

#[test]
fn idle_clients_on_every_listener_keep_nobody_out() {
    let sandbox = sandbox();
    let daemon = start(&sandbox);
    let address = |module, listener| daemon.address(module, listener);
    let (metrics, intake) = (address("", "metrics"), address("ingest", "http"));
    let control = address("", "control");
    limit_descriptors(&daemon);
    let mut held = Vec::new();
    for address in [&metrics, &intake, &control] {
        held.extend(hold(address));
        all_work(&sandbox, &daemon, &metrics, &intake);
    }
    let mut silent = Vec::new();
    for _ in 0..CLIENTS {
        silent.push(UnixStream::connect(sandbox.socket()).expect("the kernel accepts"));
    }
    all_work(&sandbox, &daemon, &metrics, &intake);
    let status = sandbox.json(&["status"]);
    for connections in status["connections"].as_array().expect("a list") {
        let number = |key: &str| connections[key].as_u64().expect("a number");
        assert!(number("open") <= number("limit"), "{connections:#}");
        assert_eq!(number("accept_errors"), 0, "{connections:#}");
    }
    let scraped = http::get(&metrics, "/metrics").expect("it answers").text();
    let family = "lodestar_http_connections_closed_total";
    let displaced = format!("{family}{{listener=\"metrics\",reason=\"displaced\"}}");
    let line = scraped.lines().find(|line| line.starts_with(&displaced));
    assert!(line.is_some_and(|line| !line.ends_with(" 0")), "{scraped}");
    drop((held, silent));
    all_work(&sandbox, &daemon, &metrics, &intake);
    assert!(daemon.stop().success());
}

/// Opens a connection with a small receive buffer.
fn connect_deaf(address: &str) -> TcpStream {
    let address: std::net::SocketAddr = address.parse().expect("an address");
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None);
    let socket = socket.expect("a descriptor is free");
    sockopt::set_socket_recv_buffer_size(&socket, 4096).expect("it is a socket");
    rustix::net::connect(&socket, &address).expect("the kernel accepts");
    TcpStream::from(socket)
}

#[test]
fn clients_that_never_read_their_answers_do_not_stop_the_intake() {
    let config = CONFIG.replace(
        "listen: 127.0.0.1:0\n  usage",
        "max_connections: 16\n    \
                                 listen: 127.0.0.1:0\n  usage",
    );
    let sandbox = Sandbox::new(&["ingest", "usage_tracker"], &config);
    let daemon = start(&sandbox);
    let (metrics, intake) = (daemon.address("", "metrics"), daemon.address("ingest", "http"));
    let requests = GET.repeat(100);
    let mut deaf = Vec::new();
    for _ in 0..20 {
        let mut stream = connect_deaf(&intake);
        stream.set_write_timeout(Some(Duration::from_millis(200))).expect("it can be set");
        // Until the module takes no more, since it cannot get rid of its answers.
        while stream.write_all(requests.as_bytes()).is_ok() {}
        deaf.push(stream);
    }
    all_work(&sandbox, &daemon, &metrics, &intake);
    drop(deaf);
    assert!(daemon.stop().success());
}

#[test]
fn who_was_refused_is_told_by_the_doctor() {
    let sandbox = sandbox();
    let daemon = start(&sandbox);
    limit_descriptors(&daemon);
    let tail = |count| -> Vec<UnixStream> {
        let follow = |_| {
            let mut stream = UnixStream::connect(sandbox.socket()).expect("the kernel accepts");
            let request = "GET /v1/events/tail HTTP/1.1\r\nHost: localhost\r\n\r\n";
            stream.set_read_timeout(Some(PATIENCE)).expect("it can be set");
            // One that is refused may be closed before it has written.
            let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.read(&mut [0; 512]));
            stream
        };
        (0..count).map(follow).collect()
    };
    // Those at work are not ended: so the last of them are refused.
    let following = tail(140);
    let connections = || {
        let status = daemon.status().unwrap_or_default();
        status["connections"].as_array().cloned().unwrap_or_default()
    };
    let refused = |all: &[serde_json::Value]| {
        let socket = all.iter().find(|it| it["listener"] == "socket");
        socket.and_then(|it| it["refused"].as_u64()).unwrap_or_default()
    };
    drop(following);
    let seen =
        wait_until("there is room again", || Some(connections()).filter(|all| !all.is_empty()));
    assert!(refused(&seen) > 0, "{seen:#?}");
    let doctor = sandbox.lodestar(&["doctor"]);
    assert!(doctor.stdout.contains("clients were refused so far"), "{doctor:#?}");
    assert!(daemon.stop().success());
}

#[test]
fn the_soft_limit_of_descriptors_is_raised() {
    let sandbox = sandbox();
    let daemon = sandbox.lodestard();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -S -n 100 && exec \"$@\"", "sh"]).arg(daemon.get_program());
    command.args(daemon.get_args()).env_clear();
    for (name, value) in daemon.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let daemon = Daemon::spawn(&sandbox, command);
    daemon.wait_settled();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid()));
    let limits = limits.expect("it lives");
    let files = limits.lines().find(|line| line.starts_with("Max open files"));
    let soft = files.and_then(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok());
    let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    assert_eq!(soft, Some(hard.min(65_536)), "{limits}");
    assert!(daemon.stop().success());
}

#[test]
fn requests_of_doubtful_target_and_of_web_pages_are_refused_on_every_listener() {
    let sandbox = sandbox();
    let daemon = start(&sandbox);
    let addresses = [("", "metrics"), ("", "control"), ("ingest", "http")];
    let addresses = addresses.map(|(module, listener)| daemon.address(module, listener));
    let metrics = addresses[0].as_str();
    let check = |target: &str, headers: &[&str], on_tcp: u16, on_socket: Option<u16>| {
        let mut request = format!("GET {target} HTTP/1.1\r\nConnection: close\r\n");
        headers.iter().for_each(|header| request.push_str(&format!("{header}\r\n")));
        request.push_str("\r\n");
        for address in &addresses {
            let answer = http::raw(address, &request).expect("it answers");
            assert_eq!(answer.status, on_tcp, "{address}: {request}{}", answer.text());
        }
        if let Some(expected) = on_socket {
            let answer = http::raw_unix(&sandbox.socket(), &request).expect("it answers");
            assert_eq!(answer.status, expected, "{request}{}", answer.text());
        }
    };
    let host = format!("Host: {metrics}");
    check("/metrics", &["Host: localhost", "Host: localhost"], 400, Some(400));
    check("/metrics", &["Host: localhost", "Host: evil.example"], 400, Some(400));
    check("/metrics", &[], 400, Some(400));
    check("/metrics", &["Host:"], 400, Some(400));
    check("/metrics", &["Host: evil.example@127.0.0.1"], 400, Some(400));
    check("http://evil.example/metrics", &[&host], 403, Some(400));
    check("http://evil.example/metrics", &["Host: evil.example"], 403, None);
    check("http://localhost/metrics", &[&host], 400, Some(400));
    check("/metrics", &["Host: evil.example"], 403, None);
    check("/metrics", &[&host, "Origin: http://localhost"], 403, Some(403));
    check("/metrics", &[&host, "Origin: null", "Origin: null"], 400, Some(400));
    check("/metrics", &[&host, "Sec-Fetch-Site: cross-site"], 403, Some(403));
    let target = format!("http://{metrics}/metrics");
    let own = format!("GET {target} HTTP/1.1\r\n{host}\r\nConnection: close\r\n\r\n");
    assert_eq!(http::raw(metrics, &own).expect("it answers").status, 200);
    assert!(daemon.stop().success());
}

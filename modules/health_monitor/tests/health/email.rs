//! Mail, to a server of the test's own.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use health_monitor::HealthMonitor;
use module_sdk::testing::Bench;
use serde_json::{Value, json};

/// A mail server that keeps what it is told.
struct MailServer {
    port: u16,
    told: Arc<Mutex<String>>,
}

impl MailServer {
    /// Begins to listen; `end` is its answer to a mail.
    fn start(end: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it has an address").port();
        let told = Arc::new(Mutex::new(String::new()));
        let shared = told.clone();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut lines = BufReader::new(stream.try_clone().expect("it is open")).lines();
                let mut is_data = false;
                let mut say = |text: &str| stream.write_all(format!("{text}\r\n").as_bytes());
                if say("220 mail.example").is_err() {
                    continue;
                }
                while let Some(Ok(line)) = lines.next() {
                    let mut told = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    told.push_str(&line);
                    told.push('\n');
                    drop(told);
                    let answer = match (is_data, line.split(' ').next().unwrap_or_default()) {
                        (true, ".") => end,
                        (true, _) => continue,
                        (false, "DATA") => "354 go on",
                        (false, "QUIT") => "221 bye",
                        (false, _) => "250 ok",
                    };
                    is_data = answer.starts_with("354");
                    if say(answer).is_err() {
                        break;
                    }
                }
            }
        });
        Self { port, told }
    }

    fn told(&self) -> String {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Sends a test; returns its error.
fn outcome(server: &MailServer, more: Value) -> Value {
    let mut channel = json!({
        "kind": "email", "host": "127.0.0.1", "port": server.port, "tls": "none",
        "from": "Lodestar <lodestar@a.example>", "to": ["Me <me@b.example>", "you@b.example"],
        "deadline": "20s",
    });
    for (key, value) in more.as_object().expect("it is an object") {
        channel[key] = value.clone();
    }
    let checks = json!({"disk": {"enabled": false}, "memory": {"enabled": false}});
    let config = json!({"checks": checks, "notify": {"channels": {"mail": channel}}});
    let mut bench = Bench::<HealthMonitor>::start(config).expect("it starts");
    let reply = bench.command("test-notify", json!({"channel": "mail"})).expect("it answers");
    reply.data[0]["error"].clone()
}

#[test]
fn a_mail_reaches_its_receivers() {
    let server = MailServer::start("250 queued");
    assert_eq!(outcome(&server, json!({})), Value::Null);
    let told = server.told();
    for expected in [
        "MAIL FROM:<lodestar@a.example>",
        "RCPT TO:<me@b.example>",
        "RCPT TO:<you@b.example>",
        "Subject: Lodestar: test",
        "@a.example>",
        "\nThis is a test of Lodestar's notifications: nothing is wrong.\n",
    ] {
        assert!(told.contains(expected), "{expected} is not in {told}");
    }
}

#[test]
fn a_failure_shows_neither_account_nor_mail() {
    let server = MailServer::start("554 canary@b.example is not welcome");
    assert_eq!(
        outcome(&server, json!({})),
        "the server refuses the note: the mail server answers 554"
    );
    // No password without encryption: the server does not offer it.
    let account = json!({"tls": "starttls", "username": "canary", "password": "canary-password"});
    let server = MailServer::start("250 queued");
    assert_eq!(
        outcome(&server, account.clone()),
        "the mail server does not offer the encryption or the sign-in that is asked for"
    );
    assert!(!server.told().contains("AUTH"), "{}", server.told());
    let mut encrypted = account;
    encrypted["tls"] = json!("tls");
    let error = outcome(&server, encrypted).to_string();
    assert!(error.contains("encryption") && !error.contains("canary"), "{error}");
    let nobody = MailServer { port: 1, told: Arc::default() };
    assert_eq!(outcome(&nobody, json!({})), "no connection to the mail server");
}

//! `health_monitor` where things are at their worst: providers that answer wrongly, a state
//! directory without room, and a disk that vanishes.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use harness::{Daemon, Sandbox, is_root, run, skip_even_in_ci, tool_or_skip, wait_until};
use serde_json::{Value, json};

use crate::{
    full_disk::{fill, on_a_small_disk},
    health::{check, firing, is_known, monitor, wait_for},
};

/// Answers every request on a port of its own, or leaves it without an answer.
fn serve(answer: impl Fn() -> Option<&'static str> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        let mut unanswered: Vec<TcpStream> = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let Some(answer) = answer() else {
                unanswered.push(stream);
                continue;
            };
            // An error means that the client has gone.
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    format!("http://{address}")
}

/// A server whose certificate nobody knows. It is killed when it is dropped.
struct SelfSigned(Child);

impl SelfSigned {
    fn start(sandbox: &Sandbox, openssl: &Path) -> (Self, String) {
        let (key, certificate) = (sandbox.path("key.pem"), sandbox.path("cert.pem"));
        let mut make = Command::new(openssl);
        make.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj"]);
        make.args(["/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout"]);
        let made = run(make.arg(&key).arg("-out").arg(&certificate));
        assert_eq!(made.code, 0, "{made:#?}");
        let free = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = free.local_addr().expect("it is bound").to_string();
        drop(free);
        let mut server = Command::new(openssl);
        server.args(["s_server", "-quiet", "-accept", &address, "-key"]).arg(&key);
        server.arg("-cert").arg(&certificate);
        let server = server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self(server.spawn().expect("it was found"));
        wait_until("openssl listens", || TcpStream::connect(&address).ok());
        (server, format!("https://{address}"))
    }
}

impl Drop for SelfSigned {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_provider_that_answers_wrongly_is_down_and_its_reason_is_told() {
    let test = "health_faults::a_provider_that_answers_wrongly_is_down_and_its_reason_is_told";
    let sandbox = Sandbox::new(&["health_monitor"], "");
    let html = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 26\r\n\
                Connection: close\r\n\r\n<html>\x1b[31mportal</html>  ";
    let away = "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest/meta-data/\r\n\
                Content-Length: 0\r\nConnection: close\r\n\r\n";
    let error = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 45\r\n\
                 Connection: close\r\n\r\n{\"error\":{\"message\":\"the backend is broken\"}}";
    let mut providers = vec![
        ("hangs", serve(|| None), "no answer within"),
        ("html", serve(move || Some(html)), "a web page"),
        ("away", serve(move || Some(away)), "the server redirects to http://169.254.169.254"),
        ("broken", serve(move || Some(error)), "last probe: "),
        ("metadata", "http://169.254.169.254".to_owned(), "169.254.169.254 is not asked"),
    ];
    let openssl = tool_or_skip("openssl", test);
    let _server = openssl.map(|openssl| {
        let (server, url) = SelfSigned::start(&sandbox, &openssl);
        providers.push(("unknown", url, "bad certificate or encryption"));
        server
    });
    let section = providers.iter().map(|(name, url, _)| {
        format!("  {name}: {{base_url: \"{url}\", api: openai, local: true}}\n")
    });
    let keys = "    checks: {providers: {deadline_ms: 500}}\n";
    sandbox.configure(&format!("{}providers:\n{}", monitor(keys), section.collect::<String>()));
    let daemon = sandbox.start();
    for (name, _, reason) in &providers {
        let component = format!("provider.{name}");
        let health = wait_for(&sandbox, &format!("{name} is known to be down"), |health| {
            let check = check(health, &component);
            let message = check["message"].as_str().unwrap_or_default();
            check["value"] == 0.0 && message.contains(reason)
        });
        let shown = health.to_string();
        assert!(!shown.contains("\\u001b"), "{shown}");
    }
    // All others are looked at all the time, and the module is well.
    let health = wait_for(&sandbox, "memory is read", is_known);
    assert_ne!(health["status"], Value::Null);
    assert_eq!(daemon.module("health_monitor")["state"], "running");
    assert!(daemon.stop().success());
}

/// Without room an alert fires and is shown; it is written down once there is some.
#[test]
fn a_full_state_directory_hides_no_alert() {
    let test = "health_faults::a_full_state_directory_hides_no_alert";
    let well = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\
                Connection: close\r\n\r\n{\"data\":[]}";
    let broken = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\
                  Connection: close\r\n\r\n";
    let is_broken = Arc::new(AtomicBool::new(false));
    let breaks = is_broken.clone();
    let url = serve(move || Some(if breaks.load(Ordering::Relaxed) { broken } else { well }));
    let rules = "    rules:\n      provider_down: {for: 0s, keep_firing_for: 0s}\n";
    let provider = format!("  house: {{base_url: \"{url}\", api: openai, local: true}}\n");
    let config = format!("{}providers:\n{provider}", monitor(rules));
    let sandbox = Sandbox::new(&["health_monitor"], &config);
    let Some((daemon, disk)) = on_a_small_disk(&sandbox, "48m", test) else { return };
    wait_for(&sandbox, "the provider is up", |health| {
        check(health, "provider.house")["status"] == "ok"
    });
    let filler = disk.join("filler");
    fill(&filler);
    is_broken.store(true, Ordering::Relaxed);
    let full = wait_for(&sandbox, "the alert fires", |health| {
        firing(health).iter().any(|(name, _)| name == "provider_down")
    });
    let ids = firing(&full);
    let state = wait_until("the module tells of the disk", || {
        let module = daemon.module("health_monitor");
        (module["state"] == "degraded").then_some(module)
    });
    let message = state["health"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("no space is left"), "{state:#}");
    fs::remove_file(filler).expect("it is ours");
    daemon.wait_state("health_monitor", "running");
    let listed = wait_until("it is written down", || {
        let output = sandbox.lodestar(&["health", "history", "--json"]);
        let history: Value = serde_json::from_str(&output.stdout).ok()?;
        let known = |id: &str| {
            history.as_array().is_some_and(|all| all.iter().any(|alert| alert["id"] == id))
        };
        ids.iter().all(|(_, id)| known(id)).then_some(history)
    });
    let listed = listed.as_array().expect("it is a list");
    let of_rule = listed.iter().filter(|alert| alert["name"] == "provider_down").count();
    assert_eq!(of_rule, 1, "{listed:#?}");
    assert!(daemon.stop().success());
}

/// Starts a daemon that sees a disk of its own at `disk` in the sandbox.
fn with_a_disk<'a>(sandbox: &'a Sandbox, test: &str) -> Option<Daemon<'a>> {
    let (unshare, mkfs) = (tool_or_skip("unshare", test)?, tool_or_skip("mkfs.ext2", test)?);
    if !is_root() {
        skip_even_in_ci(test, "only root can mount an image");
        return None;
    }
    let (image, disk) = (sandbox.path("image"), sandbox.path("disk"));
    fs::create_dir(&disk).expect("the sandbox is writable");
    let file = fs::File::create(&image).expect("the sandbox is writable");
    file.set_len(16 << 20).expect("it takes no room");
    assert_eq!(run(Command::new(mkfs).args(["-q", "-F"]).arg(&image)).code, 0);
    let begin = || {
        let mut command = sandbox.isolated(&unshare);
        command.args(["-m", "sh", "-c", "mount -o loop \"$0\" \"$1\" && shift && exec \"$@\""]);
        command.args([&image, &disk]);
        command
    };
    if run(begin().arg("true")).code != 0 {
        skip_even_in_ci(test, "this machine has no loop devices");
        return None;
    }
    let mut command = begin();
    let lodestard = sandbox.lodestard();
    command.arg(lodestard.get_program()).args(lodestard.get_args());
    let daemon = Daemon::spawn(sandbox, command);
    daemon.wait_settled();
    Some(daemon)
}

#[test]
fn a_disk_that_vanishes_takes_its_alert_along() {
    let test = "health_faults::a_disk_that_vanishes_takes_its_alert_along";
    let rules = "    rules:\n      disk_almost_full: {for: 0s, keep_firing_for: 0s}\n";
    let sandbox = Sandbox::new(&["health_monitor"], &monitor(rules));
    let Some(daemon) = with_a_disk(&sandbox, test) else { return };
    let nsenter = tool_or_skip("nsenter", test).expect("it comes with unshare");
    let disk = sandbox.path("disk");
    let component = format!("disk.{}", disk.display());
    wait_for(&sandbox, "the disk is seen", |health| {
        check(health, &component)["status"] == "critical"
    });
    let is_of_disk = |alert: &Value| alert["labels"]["component"] == json!(component);
    let fires = |health: &Value| {
        health["alerts"].as_array().is_some_and(|alerts| alerts.iter().any(is_of_disk))
    };
    wait_for(&sandbox, "its alert fires: it has less than 1 GB", fires);
    let mut vanish = Command::new(nsenter);
    vanish.args(["-m", "-t", &daemon.pid().to_string(), "umount", "-l"]).arg(&disk);
    assert_eq!(run(&mut vanish).code, 0);
    let health = wait_for(&sandbox, "the disk is gone", |health| {
        check(health, &component).is_null() && !fires(health)
    });
    assert_eq!(check(&health, "memory")["status"], "ok", "all else goes on");
    assert_eq!(daemon.module("health_monitor")["state"], "running");
    assert!(daemon.stop().success());
}

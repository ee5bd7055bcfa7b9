//! `cargo xtask demo`: a daemon of one's own, real traffic, and proof that nothing is lost.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use serde_json::json;

use crate::{build, http};

mod daemon;
mod learning;
mod protobuf;
mod provider;
mod traffic;
mod transcripts;

use daemon::Daemon;
use provider::{LOCAL, PAID, Provider};
use traffic::{Sender, Sent};

/// Build, start a daemon, send it traffic and show what it makes of it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Part to show instead of the whole.
    #[arg(value_enum)]
    part: Option<Part>,
    /// Leave the daemon up at the end.
    #[arg(long)]
    keep: bool,
}

/// Part of the demonstration that is shown by itself.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Part {
    /// Good answers become a model of one's own; builds the trainer as well.
    Learning,
}

/// Configuration of the daemon, with free ports everywhere: a demonstration must not meet what
/// already runs.
///
/// The local model is looked at more often than is usual, and told of at once.
const CONFIG: &str = "\
modules:
  health_monitor:
    enabled: true
    interval_ms: 200
    rules:
      provider_down: {for: 0s, keep_firing_for: 1s}
    notify:
      group_wait: 1s
      group_interval: 1s
      channels:
        receiver: {kind: webhook, url: RECEIVER, local: true}
  ingest:
    enabled: true
    listen: 127.0.0.1:0
    grpc: {listen: 127.0.0.1:0}
    # The demonstration is one client that sends fast.
    rate_limit: {requests_per_second: 10000, burst: 10000}
  router:
    enabled: true
    listen: 127.0.0.1:0
    baseline_model: gpt-4o
    routing:
      aliases: {safe: [cloud/gpt-4o, workstation/llama3.2:3b]}
  usage_tracker:
    enabled: true
metrics:
  listen: 127.0.0.1:0
providers:
  workstation:
    base_url: PROVIDER
    api: ollama
    local: true
  cloud:
    base_url: CLOUD/v1
    api: openai
    models: [gpt-4o]
";

/// Number of requests that the first part sends in each form.
const FIRST: u64 = 12;
/// Number of live requests that must have been sent in each state of the module.
const LIVE: u64 = 40;
/// Time that the daemon may take for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the demonstration.
///
/// # Errors
///
/// When a step fails or a request was lost or counted twice.
pub(crate) fn run(args: &Args) -> Result<()> {
    match args.part {
        Some(Part::Learning) => learning::run(args.keep),
        None => run_plain(args.keep),
    }
}

fn run_plain(keep: bool) -> Result<()> {
    heading("Building (release)");
    let workspace = build::shipped()?;
    heading("Starting lodestard on free ports, with a state directory of its own");
    let (mut provider, mut cloud) = (Provider::start()?, Provider::start()?);
    let receiver = Provider::start()?;
    let (local, paid) = (provider.url(), cloud.url());
    let config = CONFIG.replace("PROVIDER", &local).replace("CLOUD", &paid);
    let config = config.replace("RECEIVER", &receiver.url());
    let mut daemon = Daemon::start(&workspace.stage(), &config)?;
    let result = show(&daemon)
        .and_then(|()| show_router(&daemon, &mut cloud))
        .and_then(|()| show_health(&daemon, &mut provider, &receiver));
    if result.is_ok() && keep {
        daemon.keep();
    } else {
        daemon.stop()?;
    }
    result?;
    farewell(&daemon, keep);
    Ok(())
}

fn show(daemon: &Daemon) -> Result<()> {
    let imported = transcripts::show(daemon)?;
    let sender = Sender::new(daemon.listener("ingest", "http")?);
    heading("Sending what Claude Code, Codex and a program with the Lynex SDK send");
    let mut sent = Sent::default();
    for number in 0..FIRST {
        sender.claude_code_json(number, &mut sent)?;
        sender.claude_code_protobuf(number, &mut sent)?;
        sender.codex_json(number, &mut sent)?;
        sender.lynex(number, &mut sent)?;
    }
    println!("{}", sender.described(&sent));
    sender.again(&mut sent)?;
    println!("One of the bodies was sent twice, as a client does after a lost answer.");

    heading("What the daemon makes of it");
    daemon.shown(&["status"])?;
    daemon.shown(&["usage", "summary"])?;
    daemon.shown(&["usage", "sessions"])?;

    heading("Disabling and enabling usage_tracker while requests go on");
    let live = toggled(daemon, &sender)?;
    sent.requests += live;
    daemon.shown(&["events", "lag"])?;
    compare(daemon, sent.requests, imported)
}

/// Sends requests of several clients through the router, and lets the paid provider go away.
fn show_router(daemon: &Daemon, cloud: &mut Provider) -> Result<()> {
    heading("Asking models at one address: a local one, a paid one, and one that goes away");
    until("the router knows the models", || {
        let known = daemon.json(&["router", "targets"])?.to_string();
        Ok(known.contains(LOCAL) && known.contains(PAID))
    })?;
    let address = daemon.listener("router", "http")?;
    let ask = |client: &str, path: &str, model: &str, expected: &str| -> Result<()> {
        // The same words would be answered from the cache.
        let words = format!("Rename the variable x to count, for {client} and {model}.");
        let messages = json!([{"role": "user", "content": words}]);
        let body = json!({"model": model, "max_tokens": 64, "stream": false, "messages": messages});
        let body = body.to_string();
        let answer = http::post(&address, path, "application/json", body.as_bytes())?;
        ensure!(
            answer.status == 200 && answer.body.contains(expected),
            "{client} asked for {model} and got {}: {}",
            answer.status,
            answer.body
        );
        println!("{client:<22} {path:<22} {model:<14} {expected}");
        Ok(())
    };
    ask("OpenAI's library", "/v1/chat/completions", "auto", "A local answer.")?;
    ask("OpenAI's library", "/v1/chat/completions", PAID, "A paid answer.")?;
    ask("Anthropic's library", "/v1/messages", LOCAL, "A local answer.")?;
    ask("a client of Ollama", "/api/chat", PAID, "A paid answer.")?;
    cloud.stop();
    println!("The paid provider is gone.");
    ask("OpenAI's library", "/v1/chat/completions", "safe", "A local answer.")?;
    println!();
    daemon.shown(&["router", "route", "Rename the variable x to count."])?;
    daemon.shown(&["router", "targets"])?;
    until("all is counted", || Ok(daemon.json(&["router", "savings"])?["requests"] == 5))?;
    daemon.shown(&["router", "savings"])?;
    cloud.start_again()
}

/// Lets the provider of a local model go away and come back: each is told once.
fn show_health(daemon: &Daemon, provider: &mut Provider, receiver: &Provider) -> Result<()> {
    heading("Watching the machine, and a local model that goes away and comes back");
    wait_for_state(daemon, "ok")?;
    daemon.shown_health()?;
    provider.stop();
    println!("The provider is gone.\n");
    until("the alert fires", || {
        Ok(!daemon.json(&["health", "alerts"])?.as_array().is_none_or(Vec::is_empty))
    })?;
    daemon.shown(&["health", "alerts"])?;
    until("the alert is told", || Ok(!receiver.told(COMPONENT).is_empty()))?;
    provider.start_again()?;
    println!("The provider is back.\n");
    wait_for_state(daemon, "ok")?;
    until("its end is told", || Ok(receiver.told(COMPONENT).len() >= 2))?;
    daemon.shown(&["health", "history"])?;
    let told = receiver.told(COMPONENT);
    ensure!(told == ["firing", "resolved"], "the receiver was told {told:?}");
    println!("the receiver of a webhook was told once that it broke, and once that it is well");
    Ok(())
}

/// The component that goes away.
const COMPONENT: &str = "provider.workstation";

fn wait_for_state(daemon: &Daemon, state: &str) -> Result<()> {
    until("the provider is seen", || {
        let checks = daemon.json(&["health", "checks"])?;
        let mut checks = checks.as_array().into_iter().flatten();
        Ok(checks.any(|check| check["name"] == COMPONENT && check["status"] == state))
    })
}

/// Waits until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let begin = Instant::now();
    while !is_so()? {
        ensure!(begin.elapsed() < PATIENCE, "waited {} s in vain until {what}", PATIENCE.as_secs());
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Sends requests on a thread of their own while the module is switched off and on again.
fn toggled(daemon: &Daemon, sender: &Sender) -> Result<u64> {
    let enough = AtomicBool::new(false);
    let sent = Mutex::new(Sent::default());
    thread::scope(|scope| {
        let traffic = scope.spawn(|| -> Result<()> {
            for number in FIRST.. {
                if enough.load(Ordering::Relaxed) {
                    break;
                }
                let mut sent = sent.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                sender.claude_code_json(number, &mut sent)?;
                drop(sent);
                thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        });
        let count = || sent.lock().map_or(0, |sent| sent.requests);
        let switched = (|| {
            more(count, LIVE)?;
            daemon.shown(&["modules", "disable", "usage_tracker"])?;
            let while_disabled = more(count, LIVE)?;
            println!("{while_disabled} requests were accepted while usage_tracker was disabled.\n");
            daemon.shown(&["modules", "enable", "usage_tracker"])?;
            more(count, LIVE)
        })();
        enough.store(true, Ordering::Relaxed);
        let traffic = traffic.join().map_err(|_| anyhow::anyhow!("the traffic thread panicked"))?;
        traffic.context("a request was not accepted")?;
        switched?;
        Ok(count())
    })
}

/// Waits until `by` more requests are sent.
fn more(count: impl Fn() -> u64, by: u64) -> Result<u64> {
    let (from, begin) = (count(), Instant::now());
    while count() < from + by {
        ensure!(begin.elapsed() < PATIENCE, "the daemon takes no more requests");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(count() - from)
}

/// Checks that usage_tracker has counted as many requests as were sent, besides those imported.
fn compare(daemon: &Daemon, sent: u64, imported: u64) -> Result<()> {
    let begin = Instant::now();
    loop {
        let summary = daemon.json(&["usage", "summary"])?;
        let counted = summary["total"]["requests"].as_u64().context("the summary has no total")?;
        let counted = counted.saturating_sub(imported);
        if counted == sent {
            println!("sent {sent} requests, counted {counted}: nothing lost, nothing twice");
            return Ok(());
        }
        if counted > sent || begin.elapsed() > PATIENCE {
            daemon.shown(&["events", "audit"])?;
            bail!("sent {sent} requests, but usage_tracker counted {counted}");
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn heading(text: &str) {
    println!("\n== {text}\n");
}

fn farewell(daemon: &Daemon, kept: bool) {
    if kept {
        println!("\nThe daemon is up. Ask it: {} usage", daemon.program());
        println!("Stop it: kill {}", daemon.pid());
    }
    println!("\nHow good answers become a model of your own: cargo xtask demo learning");
    println!("\nTo start for real: {}", daemon.for_real());
    println!("and point your tools at http://127.0.0.1:4318 (modules/ingest/README.md says how).");
}

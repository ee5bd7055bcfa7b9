//! `lodestar modules …`

mod check;
mod dev;
mod dev_log;
mod install;
mod new;
mod remove;
mod verify;
mod why;

use std::pin::pin;

use lodestar_api::{self as api, LogLine, ModuleInfo};
use lodestar_platform::visible::visible_line;
use module_sdk::Table;

use self::{
    check::Check, dev::Dev, install::Install, new::New, remove::Remove, verify::Verify, why::Why,
};
use crate::{
    client::{Client, escaped},
    commands::status::{address, note_cell},
    error::Result,
    exit_codes, human, operation,
    terminal::{Terminal, Tone},
};

/// List modules, look into one, install, enable, reload and remove them, read their logs, write new
/// ones
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Modules {
    List(List),
    Info(Info),
    Enable(Enable),
    Disable(Disable),
    Reload(Reload),
    Rollback(Rollback),
    Install(Install),
    Verify(Verify),
    Remove(Remove),
    Why(Why),
    Logs(Logs),
    New(New),
    Dev(Dev),
    Check(Check),
}

/// List the modules that are configured or installed
#[derive(Debug, clap::Args)]
#[command(visible_alias = "ls")]
pub(crate) struct List {}

/// Show everything about one module
#[derive(Debug, clap::Args)]
pub(crate) struct Info {
    /// The module
    #[arg(value_name = "MODULE")]
    name: String,
}

/// Enable a module: edit the configuration file, keep its comments, and start the module
#[derive(Debug, clap::Args)]
pub(crate) struct Enable {
    #[command(flatten)]
    change: StateChange,
}

/// Disable a module: edit the configuration file, keep its comments, and stop the module
///
/// Durable events that it listens to wait for it.
#[derive(Debug, clap::Args)]
pub(crate) struct Disable {
    #[command(flatten)]
    change: StateChange,
}

/// Replace a module by the library that lies on the module path now, without a gap
///
/// The new one is loaded, started and asked how it is before it takes over. If anything fails, the
/// old one goes on and the reason is printed.
#[derive(Debug, clap::Args)]
pub(crate) struct Reload {
    #[command(flatten)]
    change: StateChange,
}

/// Put the generation back that ran before the present one
#[derive(Debug, clap::Args)]
pub(crate) struct Rollback {
    #[command(flatten)]
    change: StateChange,
}

#[derive(Debug, clap::Args)]
struct StateChange {
    /// The module
    #[arg(value_name = "MODULE")]
    name: String,
    /// Print the id of the operation and do not wait for its outcome
    #[arg(long)]
    no_wait: bool,
}

/// Show the log of a module
#[derive(Debug, clap::Args)]
pub(crate) struct Logs {
    /// The module
    #[arg(value_name = "MODULE")]
    name: String,
    /// Number of the last lines to show
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    lines: u64,
    /// Go on with new lines until Ctrl-C
    #[arg(short, long)]
    follow: bool,
}

impl Modules {
    pub(crate) async fn run(self, client: &Client, terminal: &mut Terminal) -> Result<u8> {
        match self {
            Self::List(_) => list(client, terminal).await,
            Self::Info(Info { name }) => info(&name, client, terminal).await,
            Self::Enable(Enable { change }) => change.run("enable", client, terminal).await,
            Self::Disable(Disable { change }) => change.run("disable", client, terminal).await,
            Self::Reload(Reload { change }) => change.run("reload", client, terminal).await,
            Self::Rollback(Rollback { change }) => change.run("rollback", client, terminal).await,
            Self::Install(verb) => verb.run(client, terminal).await,
            Self::Verify(verb) => verb.run(client, terminal).await,
            Self::Remove(verb) => verb.run(client, terminal).await,
            Self::Why(verb) => verb.run(client, terminal).await,
            Self::Logs(verb) => verb.run(client, terminal).await,
            Self::New(verb) => verb.run(terminal),
            Self::Dev(verb) => verb.run(client, terminal).await,
            Self::Check(verb) => verb.run(terminal),
        }
    }
}

impl StateChange {
    async fn run(self, change: &str, client: &Client, terminal: &mut Terminal) -> Result<u8> {
        let path = format!("/v1/modules/{}/{change}", escaped(&self.name));
        operation::run(&path, self.no_wait, client, terminal).await
    }
}

impl Logs {
    async fn run(self, client: &Client, terminal: &mut Terminal) -> Result<u8> {
        let path = format!(
            "/v1/modules/{}/logs?lines={}&follow={}",
            escaped(&self.name),
            self.lines,
            self.follow
        );
        let mut lines = client.follow(&path).await?;
        let mut gone = pin!(terminal.reader_gone());
        loop {
            let line = tokio::select! {
                line = lines.next::<LogLine>() => line?,
                () = &mut gone => break,
            };
            let Some(line) = line else { break };
            if terminal.json {
                terminal.json_line(&line)?;
            } else {
                let text = log_line(&line, terminal);
                terminal.line(&text)?;
            }
        }
        Ok(exit_codes::DONE)
    }
}

async fn list(client: &Client, terminal: &mut Terminal) -> Result<u8> {
    let modules: Vec<api::Module> = client.get("/v1/modules").await?;
    if terminal.json {
        terminal.json_document(&modules)?;
    } else {
        terminal.table(&list_table(&modules))?;
    }
    Ok(exit_codes::DONE)
}

fn list_table(modules: &[api::Module]) -> Table {
    let mut table =
        Table::new(["MODULE", "VERSION", "DESIRED", "STATE", "ISOLATION", "RESTARTS#", "NOTE"]);
    for module in modules {
        let note = note_cell(module, &mut table);
        table.row([
            module.name.clone(),
            module.version.clone().unwrap_or_else(|| "-".to_owned()),
            module.desired.clone(),
            module.state.clone(),
            module.isolation.clone(),
            human::count(module.restarts),
            note,
        ]);
    }
    if modules.is_empty() {
        table.notes.push("No module is configured and none lies on the module path.".to_owned());
    }
    table
}

async fn info(name: &str, client: &Client, terminal: &mut Terminal) -> Result<u8> {
    let info: ModuleInfo = client.get(&format!("/v1/modules/{}", escaped(name))).await?;
    if terminal.json {
        terminal.json_document(&info)?;
    } else {
        let state = terminal.paint_state(&info.module.state, tone(&info.module.state));
        terminal.line(&info_text(&info, &state))?;
    }
    Ok(exit_codes::DONE)
}

fn info_text(info: &ModuleInfo, state: &str) -> String {
    let module = &info.module;
    let plain = |text: &str| human::plain(text).into_owned();
    let optional = |text: &Option<String>| text.as_deref().map(plain).unwrap_or_default();
    let mut lines = vec![
        ("module", [module.name.clone(), optional(&module.version)].join(" ")),
        ("", plain(&info.description)),
        ("state", state.to_owned()),
        ("reason", optional(&module.reason)),
        ("since", optional(&info.since)),
        ("desired", module.desired.clone()),
        ("health", plain(&[&*module.health.status, &*module.health.message].join(" "))),
        ("isolation", isolation(info)),
        ("generation", generation(info)),
        ("restarts", human::count(module.restarts)),
        ("cpu", human::duration_ms(module.cpu_ms)),
        ("memory", human::bytes(module.memory_bytes)),
        ("threads", human::count(module.threads)),
        ("library", optional(&info.library)),
        ("sha256", optional(&info.sha256)),
        ("sdk", optional(&info.sdk_version)),
        ("data", optional(&info.data_dir)),
        ("command", optional(&info.command)),
        ("commands", info.commands.join(", ")),
        ("listens to", info.subscriptions.join(", ")),
        ("publishes", info.publishes.join(", ")),
        ("timers", timers(info)),
        ("events", counters(module.events)),
        ("dropped", dropped(module)),
    ];
    lines.extend(module.calls.iter().map(|calls| ("calls", spent(calls))));
    if let Some(process) = &info.process {
        let optional = |limit: &Option<String>| limit.clone().unwrap_or_default();
        lines.push(("process", format!("{} ({} threads)", process.pid, process.threads)));
        lines.push(("sandbox", process.sandbox.clone()));
        lines.push(("memory max", optional(&process.memory_limit)));
        lines.push(("cpu max", optional(&process.cpu_limit)));
        lines.push(("tasks max", process.tasks_limit.clone()));
        lines.push(("data max", process.data_limit.clone()));
    }
    if let Some(most) = info.log_records_per_second {
        lines.push(("log max", format!("{most} records a second")));
    }
    for listener in &module.listeners {
        lines.push(("listener", format!("{} {}", listener.name, plain(&address(listener)))));
    }
    for error in &info.last_errors {
        let place = if error.place.is_empty() { "" } else { " in " };
        let text = format!("{}{place}{}: {}", error.time, error.place, error.message);
        lines.push(("error", plain(&text)));
    }
    // What the library and the manifest say; the state has its colour.
    for (_, value) in lines.iter_mut().filter(|(key, _)| *key != "state") {
        *value = visible_line(value).into_owned();
    }
    let shown = lines.iter().filter(|(_, value)| !value.trim().is_empty());
    shown.map(|(key, value)| format!("{key:<12}{}", value.trim())).collect::<Vec<_>>().join("\n")
}

fn isolation(info: &ModuleInfo) -> String {
    let isolation = &info.module.isolation;
    match &info.isolation_reason {
        Some(reason) => format!("{isolation} ({})", human::plain(reason)),
        None => isolation.clone(),
    }
}

fn generation(info: &ModuleInfo) -> String {
    match info.module.generation {
        0 => "none yet".to_owned(),
        number => format!("{number} ({} resident)", info.resident_generations),
    }
}

fn timers(info: &ModuleInfo) -> String {
    let timer = |timer: &api::Timer| match &timer.daily {
        Some(at) => format!("{} daily at {at}", timer.name),
        None => format!("{} every {}", timer.name, human::duration_ms(timer.every_ms)),
    };
    info.timers.iter().map(timer).collect::<Vec<_>>().join(", ")
}

/// Formats the counters of a module as one line.
pub(crate) fn counters(counters: api::EventCounters) -> String {
    format!(
        "{} accepted = {} handled + {} dead + {} dropped + {} pending",
        human::exact(counters.accepted),
        human::exact(counters.handled),
        human::exact(counters.dead),
        human::exact(counters.dropped),
        human::exact(counters.pending)
    )
}

/// Formats the reasons for dropped events with their counts, empty where there are none.
pub(crate) fn dropped(module: &api::Module) -> String {
    let reasons = module.dropped_by.iter();
    let reasons = reasons.map(|(reason, count)| format!("{} {reason}", human::count(*count)));
    reasons.collect::<Vec<_>>().join(", ")
}

/// Formats the figures of a kind of calls, empty where there were none.
pub(crate) fn spent(calls: &api::CallFigures) -> String {
    let (Some(p50), Some(p99)) = (calls.p50_ns, calls.p99_ns) else { return String::new() };
    let mut text = format!("{}: {} calls", calls.kind, human::count(calls.calls));
    if calls.items != calls.calls {
        text.push_str(&format!(" with {}", human::count(calls.items)));
    }
    let times = [("p50", p50), ("p99", p99), ("max", calls.max_ns), ("sum", calls.total_ns)];
    for (name, time) in times {
        text.push_str(&format!(", {name} {}", human::duration_ns(time)));
    }
    if calls.failures > 0 {
        text.push_str(&format!(", {} failed", human::count(calls.failures)));
    }
    text
}

fn tone(state: &str) -> Tone {
    match state {
        "running" => Tone::Good,
        "failed" | "quarantined" | "incompatible" | "stalled" | "absent" => Tone::Bad,
        _ => Tone::Warning,
    }
}

pub(crate) fn log_line(line: &LogLine, terminal: &Terminal) -> String {
    let level = format!("{:<5}", line.level.to_uppercase());
    let level = match line.level.as_str() {
        "error" => terminal.paint_state(&level, Tone::Bad),
        "warn" => terminal.paint_state(&level, Tone::Warning),
        _ => level,
    };
    let one_line = |text: &str| visible_line(text).into_owned();
    let mut text = format!("{} {level} {}", one_line(&line.time), one_line(&line.message));
    for (key, value) in &line.fields {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text.push_str(&format!(" {}={}", one_line(key), one_line(&value)));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tests::sample;

    #[test]
    fn lists_modules() {
        assert_eq!(
            crate::render::table(&list_table(&sample::status().modules), 80, false),
            "\
MODULE         VERSION  DESIRED  STATE    ISOLATION   RESTARTS  NOTE
ingest         0.1.0    enabled  running  in_process         0
usage_tracker  0.1.0    enabled  failed   in_process         5  the database is
                                                                locked; 2 dead
"
        );
    }

    #[test]
    fn tells_everything_of_a_module() {
        assert_eq!(
            info_text(&sample::info(), "failed"),
            "\
module      usage_tracker 0.1.0
            Tokens, cost and sessions.
state       failed
reason      the database is locked
since       2026-11-21T01:50:17.000Z
desired     enabled
health      unknown
isolation   in_process
generation  42 (2 resident)
restarts    5
cpu         0s
memory      0 B
threads     0
command     usage
commands    summary, export
timers      retain every 1m 0s
events      1,247 accepted = 1,204 handled + 2 dead + 0 dropped + 41 pending
calls       events: 12 calls with 1,206, p50 1.20ms, p99 8.30ms, max 9ms, sum 20ms, 2 failed
error       2026-11-21T01:50:17.000Z in completed: the database is locked"
        );
    }

    #[test]
    fn writes_a_log_line_on_one_line() {
        let terminal = Terminal::on(Box::new(std::io::sink()), Box::new(std::io::sink()));
        let line: LogLine = serde_json::from_value(json!({
            "time": "2026-11-21T01:50:17.123Z", "level": "warn", "module": "ingest",
            "message": "slow\n\u{1b}[2J", "fields": {"rows": 3, "path": "/v1/logs"},
        }))
        .expect("a line");
        assert_eq!(
            log_line(&line, &terminal),
            "2026-11-21T01:50:17.123Z WARN  slow\\n\\u001b[2J path=/v1/logs rows=3"
        );
    }
}

//! `lodestar status`

use lodestar_api as api;
use module_sdk::Table;

use crate::{client::Client, error::Result, exit_codes, human, terminal::Terminal};

/// Show the daemon and its modules
#[derive(Debug, clap::Args)]
pub(crate) struct Status {}

impl Status {
    pub(crate) async fn run(self, client: &Client, terminal: &mut Terminal) -> Result<u8> {
        let status: api::Status = client.get("/v1/status").await?;
        if terminal.json {
            terminal.json_document(&status)?;
        } else {
            terminal.line(&head(&status))?;
            terminal.table(&modules(&status.modules))?;
        }
        Ok(exit_codes::DONE)
    }
}

fn head(status: &api::Status) -> String {
    let mut lines = format!(
        "lodestard {}   pid {}   up {}\nconfiguration   {}\n",
        status.version,
        status.pid,
        human::duration_s(status.uptime_s),
        status.config_path
    );
    if let Some(error) = &status.config_error {
        lines.push_str(&format!("{:<16}was not taken: {error}\n", ""));
        lines.push_str(&format!("{:<16}the one before runs; see `lodestar config check`\n", ""));
    }
    for warning in &status.warnings {
        let label = format!("! {}", warning.name);
        lines.push_str(&format!(
            "{label:<16}{}\n{:<16}-> {}\n",
            warning.message, "", warning.remedy
        ));
    }
    if let Some(trouble) = &status.ledger.trouble {
        lines.push_str(&format!("event ledger    {trouble}\n"));
        let remedy = status.ledger.remedy.iter();
        lines.extend(remedy.map(|remedy| format!("{:<16}-> {remedy}\n", "")));
    }
    lines.push_str(&losses(&status.ledger.losses));
    let own = status.listeners.iter().map(|listener| ("", listener));
    let of_modules = status.modules.iter().flat_map(|module| {
        module.listeners.iter().map(|listener| (module.name.as_str(), listener))
    });
    for (index, (module, listener)) in own.chain(of_modules).enumerate() {
        let label = if index == 0 { "listening on" } else { "" };
        let name = [module, &listener.name].join(" ");
        lines.push_str(&format!("{label:<16}{} ({})\n", address(listener), name.trim()));
    }
    human::plain(&lines).into_owned()
}

/// Number of losses that are shown; the doctor shows more.
const SHOWN_LOSSES: usize = 3;

/// Formats the losses of the event ledger, newest first.
fn losses(losses: &[api::LedgerLoss]) -> String {
    let shown = losses.iter().rev().take(SHOWN_LOSSES);
    let mut lines: String =
        shown.map(|loss| format!("event ledger    {} ({})\n", loss.what, loss.found)).collect();
    if !losses.is_empty() {
        let more = match losses.len().saturating_sub(SHOWN_LOSSES) {
            0 => String::new(),
            more => format!("{more} more; "),
        };
        lines.push_str(&format!("{:<16}{more}see `lodestar doctor`\n", ""));
    }
    lines
}

/// Longest word of a note in characters; a note with a longer one, mostly a path, stands below the
/// table: its column has no room.
const WIDE_WORD: usize = 20;

/// Builds the table of the modules with their counters.
fn modules(modules: &[api::Module]) -> Table {
    let columns = ["MODULE", "STATE", "HANDLED#", "PENDING#", "CPU#", "MEMORY#", "P99#", "NOTE"];
    let mut table = Table::new(columns);
    for module in modules {
        let note = note_cell(module, &mut table);
        table.row([
            module.name.clone(),
            module.state.clone(),
            human::count(module.events.handled),
            human::count(module.events.pending),
            known(module.cpu_ms, human::duration_ms),
            known(module.memory_bytes, human::bytes),
            module.recent.p99_ns.map_or_else(|| "-".to_owned(), human::duration_ns),
            note,
        ]);
    }
    if modules.is_empty() {
        table.notes.push("No module is configured and none lies on the module path.".to_owned());
    }
    table
}

/// Formats a figure, or a dash for 0.
fn known(figure: u64, text: fn(u64) -> String) -> String {
    if figure == 0 { "-".to_owned() } else { text(figure) }
}

/// Returns the note of a module for its row, or adds it below the table.
pub(crate) fn note_cell(module: &api::Module, table: &mut Table) -> String {
    let note = note(module);
    if note.split(' ').all(|word| word.chars().count() <= WIDE_WORD) {
        return note;
    }
    table.notes.push(format!("{}: {note}", module.name));
    "see below".to_owned()
}

/// Returns the note on a module: the reason for its state, its health, and the events that it lost.
pub(crate) fn note(module: &api::Module) -> String {
    let mut parts = Vec::new();
    // That it is disabled needs no reason: somebody wanted it so.
    let is_wanted = module.state == "disabled" && module.desired != "removed";
    let reason = module.reason.clone().filter(|_| !is_wanted);
    parts.extend(reason.filter(|reason| !reason.is_empty()));
    let healthy = matches!(module.health.status.as_str(), "ok" | "unknown");
    let message = &module.health.message;
    // A module is often in its state because of its health.
    if !healthy && !message.is_empty() && parts.first() != Some(message) {
        parts.push(message.clone());
    }
    for (number, what) in [(module.events.dead, "dead"), (module.events.dropped, "dropped")] {
        if number > 0 {
            parts.push(format!("{} {what}", human::count(number)));
        }
    }
    parts.extend(module.listeners.iter().filter_map(|listener| listener.error.clone()));
    parts.join("; ")
}

/// Returns the address of a listener, or the reason if it has none.
pub(crate) fn address(listener: &api::Listener) -> String {
    match (&listener.address, &listener.error) {
        (Some(address), _) => address.clone(),
        (None, Some(error)) => format!("nothing: {error}"),
        (None, None) => "nothing".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::sample;

    #[test]
    fn shows_the_head() {
        let status = sample::status();
        assert_eq!(
            head(&status),
            "\
lodestard 0.1.0   pid 4711   up 3h 12m
configuration   /home/ada/.lodestar/modules.yaml
listening on    127.0.0.1:9464 (metrics)
                127.0.0.1:4318 (ingest http)
"
        );
    }

    #[test]
    fn says_that_the_saved_file_does_not_run() {
        let mut status = sample::status();
        status.config_error = Some("modules.yaml:3: modules.ingest.lisen: unknown".to_owned());
        let expected = "\
                was not taken: modules.yaml:3: modules.ingest.lisen: unknown
                the one before runs; see `lodestar config check`
";
        assert!(head(&status).contains(expected), "{}", head(&status));
    }

    #[test]
    fn warnings_of_the_daemon_come_with_their_remedy() {
        let mut status = sample::status();
        let (message, remedy) = ("/x can be written by others".to_owned(), "chmod".to_owned());
        status.warnings.push(api::Warning { name: "permissions".to_owned(), message, remedy });
        let expected = "! permissions   /x can be written by others\n                -> chmod\n";
        assert!(head(&status).contains(expected), "{}", head(&status));
    }

    #[test]
    fn says_that_no_event_is_accepted() {
        let mut status = sample::status();
        assert!(!head(&status).contains("ledger"));
        status.ledger.trouble = Some("cannot write /l/1.seg: disk full".to_owned());
        status.ledger.remedy = Some("free space".to_owned());
        let expected =
            "\nevent ledger    cannot write /l/1.seg: disk full\n                -> free space\n";
        assert!(head(&status).contains(expected), "{}", head(&status));
    }

    #[test]
    fn says_what_the_ledger_lost() {
        let mut status = sample::status();
        let loss = |what: &str| api::LedgerLoss {
            found: "2026-11-21T01:50:17Z".to_owned(),
            what: what.to_owned(),
            ..api::LedgerLoss::default()
        };
        status.ledger.losses = vec![loss("one")];
        let one = "\
event ledger    one (2026-11-21T01:50:17Z)
                see `lodestar doctor`
";
        assert!(head(&status).contains(one), "{}", head(&status));
        status.ledger.losses = ["one", "two", "three", "four"].map(loss).into();
        let four = "\
event ledger    four (2026-11-21T01:50:17Z)
event ledger    three (2026-11-21T01:50:17Z)
event ledger    two (2026-11-21T01:50:17Z)
                1 more; see `lodestar doctor`
";
        assert!(head(&status).contains(four), "{}", head(&status));
    }

    #[test]
    fn shows_the_modules() {
        let table = modules(&sample::status().modules);
        assert_eq!(
            crate::render::table(&table, 80, false),
            "\
MODULE         STATE    HANDLED  PENDING   CPU  MEMORY     P99  NOTE
ingest         running        0        0  12ms   2 MiB       -
usage_tracker  failed     1,204       41     -       -  8.30ms  the database is
                                                                locked; 2 dead
"
        );
        let mut absent = sample::status().modules.remove(1);
        absent.reason = Some("there is no module x in /usr/lib/lodestar/modules, /s".to_owned());
        let drawn = crate::render::table(&modules(&[absent]), 80, false);
        assert!(drawn.contains("  see below\n"), "{drawn}");
        assert!(drawn.contains("\nusage_tracker: there is no module x in /usr/lib/lodestar/"));
        let mut disabled = sample::status().modules.remove(1);
        disabled.state = "disabled".to_owned();
        assert_eq!(note(&disabled), "2 dead");
        let mut ill = sample::status().modules.remove(1);
        (ill.state, ill.health.status) = ("degraded".to_owned(), "degraded".to_owned());
        (ill.health.message, ill.reason) = ("it is locked".to_owned(), Some("it is locked".into()));
        assert_eq!(note(&ill), "it is locked; 2 dead");
        let none = crate::render::table(&modules(&[]), 80, false);
        assert!(none.contains("No module is configured"), "{none}");
    }
}

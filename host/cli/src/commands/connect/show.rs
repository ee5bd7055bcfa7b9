//! Output of `lodestar connect`, for people and for programs.

use std::path::Path;

use module_sdk::Table;
use serde_json::{Value, json};

use super::{
    addresses::Addresses,
    plan::{Change, FilePlan, Kind},
    tools::{Tool, Wish},
    undo::{Outcome, UndoneFile},
    write::Written,
};
use crate::{error::Result, terminal::Terminal};

/// Words of names whose values are not shown.
const SECRET: [&str; 7] = ["KEY", "TOKEN", "SECRET", "PASSWORD", "HEADER", "AUTH", "ATTRIBUTES"];

/// Everything that is shown of one connection.
pub(super) struct Shown<'a> {
    pub(super) tool: &'a dyn Tool,
    pub(super) addresses: &'a Addresses,
    pub(super) wish: &'a Wish,
    pub(super) plans: &'a [FilePlan],
    pub(super) notes: &'a [String],
    /// Result of the write, if it was one.
    pub(super) written: Option<&'a Written>,
}

impl Shown<'_> {
    pub(super) fn show(&self, terminal: &mut Terminal) -> Result<()> {
        if terminal.json {
            return terminal.json_document(&self.json());
        }
        for plan in self.plans {
            terminal.table(&settings(self.tool, plan))?;
            terminal.line("")?;
        }
        let mut table = Table::default();
        table.notes.extend(self.addresses.notes.iter().cloned());
        table.notes.extend(self.notes.iter().cloned());
        table.notes.extend(self.outcome());
        terminal.table(&table)
    }

    /// Returns whether nothing has to be written.
    fn is_connected(&self) -> bool {
        self.written.is_some() || self.plans.iter().all(|plan| plan.text.is_none())
    }

    fn outcome(&self) -> Vec<String> {
        let (name, id) = (self.tool.name(), self.tool.id());
        let Some(written) = self.written else {
            return vec![match self.is_connected() {
                true => format!("{name} has these settings."),
                false => format!(
                    "`lodestar connect {id} --write` writes these settings, and keeps a copy of \
                     each file that it changes."
                ),
            }];
        };
        let mut lines = Vec::new();
        let is_changed = written.plans.iter().any(|plan| plan.text.is_some());
        lines.push(match is_changed {
            true => format!("Written. {name} takes the settings at its next start."),
            false => format!("Nothing to do: {name} has these settings."),
        });
        let copies = written.backups.iter();
        lines.extend(copies.map(|copy| format!("The file as it was: {}", path(copy))));
        lines.extend(written.left.iter().map(undone_line));
        if is_changed {
            lines.push(format!("`lodestar connect {id} --undo` takes them out again."));
        }
        lines
    }

    fn json(&self) -> Value {
        let files: Vec<Value> = self.plans.iter().map(file_json).collect();
        let mut shown = json!({
            "tool": self.tool.id(), "name": self.tool.name(),
            "connected": self.is_connected(), "written": self.written.is_some(),
            "addresses": {"ingest": self.wish.ingest, "router": self.wish.router,
                          "from": if self.addresses.are_known { "daemon" } else { "default" }},
            "files": files,
            "notes": self.addresses.notes.iter().chain(self.notes).collect::<Vec<_>>(),
        });
        if let Some(written) = self.written {
            shown["backups"] = json!(written.backups);
            shown["taken_out"] = json!(written.left);
        }
        shown
    }
}

fn settings(tool: &dyn Tool, plan: &FilePlan) -> Table {
    let mut table = Table::new(["SETTING", "VALUE", "NOW"]);
    let is_new = if plan.source.is_none() { " (not there yet)" } else { "" };
    table.title = format!("{}: {}{is_new}", tool.name(), path(&plan.path));
    for change in &plan.changes {
        let now = match change.kind() {
            Kind::New => "-".to_owned(),
            Kind::Same => "the same".to_owned(),
            Kind::Replaces => present(change).map_or_else(
                || "another value, not shown".to_owned(),
                |value| format!("{}, is replaced", plain(&value)),
            ),
        };
        table.row([change.name(), plain(&change.own), now]);
    }
    table
}

fn file_json(plan: &FilePlan) -> Value {
    let settings = plan.changes.iter().map(|change| {
        json!({
            "key": change.name(), "part": change.part, "value": change.own,
            "state": change.kind(), "present": present(change),
        })
    });
    json!({
        "path": path(&plan.path), "format": plan.format, "exists": plan.source.is_some(),
        "settings": settings.collect::<Vec<_>>(),
    })
}

/// Returns the present value of a setting, if it may be shown.
fn present(change: &Change) -> Option<Value> {
    let present = change.present.clone()?;
    let name = change.key.last().map(|word| word.to_uppercase()).unwrap_or_default();
    let is_secret = SECRET.iter().any(|word| name.contains(word));
    let is_hidden = match &present {
        // A user and a password, or a key in a query.
        Value::String(text) => text.contains(['@', '?']),
        Value::Object(_) | Value::Array(_) => true,
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    };
    (!is_secret && !is_hidden).then_some(present)
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

/// Shows what became of the files of a tool whose connection was taken out.
pub(super) fn undone(tool: &dyn Tool, files: &[UndoneFile], terminal: &mut Terminal) -> Result<()> {
    if terminal.json {
        return terminal.json_document(&json!({"tool": tool.id(), "files": files}));
    }
    for file in files {
        terminal.line(&undone_line(file))?;
        if !file.kept.is_empty() {
            let kept = file.kept.join(", ");
            terminal.line(&format!("    changed since by somebody, and kept: {kept}"))?;
        }
        if let Some(backup) = &file.backup {
            terminal.line(&format!("    the file before it was connected: {}", path(backup)))?;
        }
    }
    terminal.line(&format!("{} is not connected any more", tool.name()))
}

fn undone_line(file: &UndoneFile) -> String {
    let what = match file.outcome {
        Outcome::Restored => "is as it was before, byte for byte",
        Outcome::Edited => "has the settings no more; what was edited since is kept",
        Outcome::Removed => "was made by the connection, and is removed",
        Outcome::Unchanged => "had nothing of the connection any more",
        Outcome::Gone => "is not there any more",
    };
    format!("{} {what}", path(&file.path))
}

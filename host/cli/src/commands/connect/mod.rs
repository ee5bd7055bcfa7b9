//! `lodestar connect TOOL`: the settings that make a tool report here, and ask the router.
//!
//! A tool is a file below `tools`; `plan` compares what it wants with its settings files, `write`
//! merges it in, `undo` takes it out by the `record` (adr/0100).

mod addresses;
mod edit;
mod environment;
mod files;
mod list;
mod plan;
mod record;
mod show;
mod tools;
mod undo;
mod write;

use clap::builder::PossibleValuesParser;

use self::{
    addresses::{Addresses, Choice},
    environment::Environment,
    plan::FilePlan,
    show::Shown,
    tools::{Tool, Wish},
};
use crate::{
    client::Client,
    error::{CliError, InvalidValue, Result},
    exit_codes,
    terminal::Terminal,
};

/// Longest name of a project.
const MAX_PROJECT: usize = 64;

/// Point an AI tool here, or take the settings out again
///
/// Shows the settings that make a tool report to the module `ingest` and, where the router is
/// enabled, know its address. With --write they are merged into the tool's own settings file; the
/// file as it was stays beside it.
#[derive(Debug, clap::Args)]
pub(crate) struct Connect {
    /// The tool
    #[arg(
        value_name = "TOOL",
        required_unless_present = "list",
        value_parser = PossibleValuesParser::new(tools::ALL.map(|tool| tool.id()))
    )]
    tool: Option<String>,
    /// Write the settings into the tool's own file
    #[arg(long)]
    write: bool,
    /// Take the settings out of the tool's file; what was there before comes back
    #[arg(long, conflicts_with_all = ["write", "router", "no_router", "project"])]
    undo: bool,
    /// Show which tools are installed here, and which are connected
    #[arg(long, conflicts_with_all = ["tool", "write", "undo", "router", "no_router", "project"])]
    list: bool,
    /// Make the tool ask the router, whether it is enabled or not
    #[arg(long)]
    router: bool,
    /// Leave the router out
    #[arg(long, conflicts_with = "router")]
    no_router: bool,
    /// Project that all requests of the tool are counted for
    #[arg(long, value_name = "NAME", value_parser = project)]
    project: Option<String>,
}

/// Checks the name of a project: it stands in headers and lists.
fn project(text: &str) -> Result<String, InvalidValue> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let is_name = !text.is_empty() && text.len() <= MAX_PROJECT && text.chars().all(is_plain);
    let wrong = || InvalidValue::expected("1 to 64 letters, digits, and `_`, `-`, `.` or `/`");
    is_name.then(|| text.to_owned()).ok_or_else(wrong)
}

impl Connect {
    pub(crate) async fn run(self, client: &Client, terminal: &mut Terminal) -> Result<u8> {
        self.run_in(&Environment::of_process(), client, terminal).await
    }

    async fn run_in(
        self,
        environment: &Environment,
        client: &Client,
        terminal: &mut Terminal,
    ) -> Result<u8> {
        if self.list {
            // A tool may know a router that does not run now.
            let addresses = Addresses::find(client, Choice::Yes).await;
            list::list(environment, &addresses, terminal)?;
            return Ok(exit_codes::DONE);
        }
        let tool = self.tool()?;
        if self.undo {
            let files = undo::undo(environment, tool)?;
            show::undone(tool, &files, terminal)?;
            return Ok(exit_codes::DONE);
        }
        let addresses = Addresses::find(client, self.choice()).await;
        self.connect(environment, tool, &addresses, terminal)?;
        Ok(exit_codes::DONE)
    }

    fn connect(
        &self,
        environment: &Environment,
        tool: &dyn Tool,
        addresses: &Addresses,
        terminal: &mut Terminal,
    ) -> Result<()> {
        let wish = Wish {
            ingest: addresses.ingest.clone(),
            router: addresses.router.clone(),
            is_default: self.router,
            project: self.project.clone(),
        };
        let settings = tool.settings(environment, &wish)?;
        let notes = tool.notes(environment, &wish);
        let mut shown =
            Shown { tool, addresses, wish: &wish, plans: &[], notes: &notes, written: None };
        if self.write {
            let written = write::write(environment, tool, &settings)?;
            shown.plans = &written.plans;
            shown.written = Some(&written);
            return shown.show(terminal);
        }
        let record = record::peek(environment, tool.id())?;
        let plans: Vec<FilePlan> = settings
            .iter()
            .map(|file| FilePlan::new(file, record.as_ref()))
            .collect::<Result<_>>()?;
        shown.plans = &plans;
        shown.show(terminal)
    }

    fn tool(&self) -> Result<&'static dyn Tool> {
        let id = self.tool.as_deref().unwrap_or_default();
        tools::find(id).ok_or_else(|| CliError::usage(format!("there is no tool {id:?}")))
    }

    fn choice(&self) -> Choice {
        match (self.router, self.no_router) {
            (true, _) => Choice::Yes,
            (_, true) => Choice::No,
            _ => Choice::Auto,
        }
    }
}

#[cfg(test)]
mod tests;

//! `lodestar completions SHELL`

use clap::CommandFactory as _;
use clap_complete::Shell;
use lodestar::control::api::Noun;

use crate::{args::Cli, client::Client, error::Result, exit_codes, noun, terminal::Terminal};

const EXAMPLES: &str = "\
bash, in ~/.bashrc:                  eval \"$(lodestar completions bash)\"
zsh, in ~/.zshrc:                    source <(lodestar completions zsh)
fish, in ~/.config/fish/config.fish: lodestar completions fish | source";

/// Write a completion script for a shell to standard output
///
/// The nouns of the modules that run at this moment are part of it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: ShellName,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ShellName {
    Bash,
    Zsh,
    Fish,
}

impl Completions {
    pub(crate) async fn run(self, client: &Client, terminal: &mut Terminal) -> Result<u8> {
        // Without the daemon the script has the fixed verbs, which is what a package installs.
        let nouns: Vec<Noun> = client.get("/v1/nouns").await.unwrap_or_default();
        let shell = match self.shell {
            ShellName::Bash => Shell::Bash,
            ShellName::Zsh => Shell::Zsh,
            ShellName::Fish => Shell::Fish,
        };
        let mut command = nouns.iter().fold(Cli::command(), noun::with_noun);
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command, "lodestar", &mut script);
        terminal.raw(&String::from_utf8_lossy(&script))?;
        Ok(exit_codes::DONE)
    }
}

//! `lodestar man`

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::Command;

use crate::{
    error::{CliError, Result},
    exit_codes,
    terminal::Terminal,
};

/// Write the manual: the main page to standard output, or all pages into a directory
#[derive(Debug, clap::Args)]
pub(crate) struct Man {
    /// The directory for all pages; it is made where it does not exist
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Man {
    pub(crate) fn run(self, mut command: Command, terminal: &mut Terminal) -> Result<u8> {
        command.build();
        let Some(directory) = self.out else {
            let page = page(&command, "lodestar")?;
            terminal.stream(&String::from_utf8_lossy(&page))?;
            return Ok(exit_codes::DONE);
        };
        fs::create_dir_all(&directory).map_err(|error| cannot_write(&directory, &error))?;
        let mut written = Vec::new();
        write_pages(&command, "lodestar", &directory, &mut written)?;
        if terminal.json {
            terminal.json_document(&written)?;
        } else {
            terminal.line(&format!("{} pages in {}", written.len(), directory.display()))?;
        }
        Ok(exit_codes::DONE)
    }
}

fn write_pages(
    command: &Command,
    name: &str,
    directory: &Path,
    written: &mut Vec<PathBuf>,
) -> Result<()> {
    let file = directory.join(format!("{name}.1"));
    fs::write(&file, page(command, name)?).map_err(|error| cannot_write(&file, &error))?;
    written.push(file);
    for verb in command.get_subcommands() {
        write_pages(verb, &format!("{name}-{}", verb.get_name()), directory, written)?;
    }
    Ok(())
}

fn page(command: &Command, name: &str) -> Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone().display_name(name.to_owned()))
        .title(name.to_uppercase())
        .render(&mut page)?;
    Ok(page)
}

fn cannot_write(path: &Path, error: &io::Error) -> CliError {
    CliError::failed(format!("cannot write {}: {error}", path.display()))
        .help("name a directory that you may write with --out")
}

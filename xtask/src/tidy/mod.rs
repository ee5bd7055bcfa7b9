//! `cargo xtask tidy`: the rules of the house, as far as a program can check them.

use anyhow::{Result, bail};

use crate::{process, workspace::Workspace};

mod circles;
mod docs;
mod errors;
mod imports;
mod records;
mod rooms;
mod text;

/// Description of a broken rule: the place, what is wrong, and the remedy.
pub(crate) type Problem = String;

/// Checks everything and prints each problem on a line.
///
/// # Errors
///
/// When a rule is broken.
pub(crate) fn run() -> Result<()> {
    let workspace = Workspace::read()?;
    let files = tracked(&workspace)?;
    let mut problems = Vec::new();
    imports::check(&workspace, &mut problems)?;
    circles::check(&workspace, &files, &mut problems)?;
    text::check(&workspace, &files, &mut problems)?;
    docs::check(&workspace, &files, &mut problems)?;
    errors::check(&workspace, &files, &mut problems)?;
    records::check(&workspace, &files, &mut problems)?;
    rooms::check(&workspace, &mut problems);
    problems.sort();
    for problem in &problems {
        eprintln!("{problem}");
    }
    match problems.len() {
        0 => {
            eprintln!("tidy: {} files, no rule broken", files.len());
            Ok(())
        }
        1 => bail!("tidy: one rule is broken"),
        count => bail!("tidy: {count} rules are broken"),
    }
}

/// Returns the files of the repository, relative to its root: what git tracks or would track.
fn tracked(workspace: &Workspace) -> Result<Vec<String>> {
    let mut list = std::process::Command::new("git");
    list.args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let list = process::capture(list.current_dir(&workspace.root))?;
    let exists = |file: &&str| workspace.root.join(file).is_file();
    Ok(list.lines().filter(exists).map(str::to_owned).collect())
}

//! `cargo xtask adr "Title"`: the next architecture decision record.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use crate::{process, workspace::Workspace};

/// Begin an architecture decision record.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Title of the decision, in a few words.
    title: String,
}

/// Writes the record from the template and prints its path.
pub(crate) fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::read()?;
    let today = process::capture(std::process::Command::new("date").arg("+%F"))?;
    let path = begin(&workspace.root.join("adr"), &args.title, today.trim())?;
    println!("{path}");
    Ok(())
}

fn begin(directory: &Path, title: &str, today: &str) -> Result<String> {
    let slug = slug(title);
    ensure!(!slug.is_empty(), "the title {title:?} has no letter; say what is decided");
    let number = 1 + last_number(directory)?;
    let template = directory.join("0000-template.md");
    let text = fs::read_to_string(&template)
        .with_context(|| format!("cannot read the template {}", template.display()))?
        .replace("NNNN. Title", &format!("{number:04}. {title}"))
        .replace("YYYY-MM-DD", today);
    let path = directory.join(format!("{number:04}-{slug}.md"));
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path.display().to_string())
}

fn last_number(directory: &Path) -> Result<u32> {
    let names = fs::read_dir(directory)
        .with_context(|| format!("cannot list {}", directory.display()))?
        .collect::<Result<Vec<_>, _>>()?;
    let numbers = names.iter().filter_map(|entry| number(&entry.file_name().to_string_lossy()));
    Ok(numbers.max().unwrap_or(0))
}

/// Returns the number at the beginning of a record's file name.
pub(crate) fn number(name: &str) -> Option<u32> {
    let (number, _) = name.strip_suffix(".md")?.split_once('-')?;
    if number.len() == 4 { number.parse().ok() } else { None }
}

fn slug(title: &str) -> String {
    let words = title.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_becomes_a_file_name() {
        let check = |title, expected| assert_eq!(slug(title), expected);
        check("Event ledger: our own format", "event-ledger-our-own-format");
        check("  A  ", "a");
        check("…", "");
    }

    #[test]
    fn numbers_go_on() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path();
        fs::write(path.join("0000-template.md"), "# NNNN. Title\n\nDate: YYYY-MM-DD\n")
            .expect("it is writable");
        fs::write(path.join("0041-old.md"), "").expect("it is writable");
        let new = begin(path, "A new one", "2026-11-21").expect("it is begun");
        assert!(new.ends_with("0042-a-new-one.md"), "{new}");
        let text = fs::read_to_string(new).expect("it is there");
        assert_eq!(text, "# 0042. A new one\n\nDate: 2026-11-21\n");
        begin(path, "?", "2026-11-21").expect_err("it says nothing");
    }
}

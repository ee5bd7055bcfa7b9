//! `lodestar modules verify`

use lodestar_api::Verified;
use module_sdk::Table;

use crate::{
    client::{Client, escaped},
    error::Result,
    exit_codes,
    terminal::Terminal,
};

/// Compare installed modules with what was installed: hash, signature, ABI, owner and mode
///
/// Exits with 4 when one of them is not as it was.
#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    /// The module; all that were installed without it
    #[arg(value_name = "MODULE")]
    name: Option<String>,
}

impl Verify {
    pub(crate) async fn run(self, client: &Client, terminal: &mut Terminal) -> Result<u8> {
        let query = self.name.map(|name| format!("?module={}", escaped(&name)));
        let path = format!("/v1/verify{}", query.unwrap_or_default());
        let verified: Vec<Verified> = client.get(&path).await?;
        if terminal.json {
            terminal.json_document(&verified)?;
        } else {
            terminal.table(&table(&verified))?;
        }
        let good = verified.iter().all(|module| module.ok);
        Ok(if good { exit_codes::DONE } else { exit_codes::REFUSED })
    }
}

fn table(verified: &[Verified]) -> Table {
    let mut table =
        Table::new(["MODULE", "VERSION", "INSTALLED", "HASH", "SIGNATURE", "ABI", "FILES"]);
    for module in verified {
        table.row([
            module.name.clone(),
            module.version.clone(),
            module.installed_at.get(..10).unwrap_or(&module.installed_at).to_owned(),
            module.hash.clone(),
            module.signature.clone(),
            module.abi.clone(),
            module.files.clone(),
        ]);
        let problem = |problem: &String| format!("{}: {problem}", module.name);
        table.notes.extend(module.problems.iter().map(problem));
    }
    if verified.is_empty() {
        table.notes.push("No module was installed with `lodestar modules install`.".to_owned());
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shows_what_is_wrong() {
        let verified: Vec<Verified> = serde_json::from_value(json!([{
            "name": "tiny", "version": "0.1.0", "sha256": "ab", "signer": null, "source": "/t",
            "installed_at": "2026-11-21T06:00:00Z", "hash": "modified", "signature": "unsigned",
            "abi": "not asked", "files": "ok", "ok": false,
            "problems": ["its library was modified"],
        }]))
        .expect("an answer");
        assert_eq!(
            crate::render::table(&table(&verified), 80, false),
            "\
MODULE  VERSION  INSTALLED   HASH      SIGNATURE  ABI        FILES
tiny    0.1.0    2026-11-21  modified  unsigned   not asked  ok

tiny: its library was modified
"
        );
    }
}

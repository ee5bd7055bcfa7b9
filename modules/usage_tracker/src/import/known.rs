//! `import-known`: what the command line asks before it sends files.

use module_sdk::{FileMark, Reply, Result};
use module_transcripts::Tool;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Names;
use crate::{UsageTracker, store::ImportedFile, transcripts::goes_on};

/// Tells which files have changed since they were imported. The command line asks it before it
/// sends them; there is no use for it by hand.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct KnownArgs {
    /// The files, by name, tool and state.
    files: Vec<KnownFile>,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub(crate) struct KnownFile {
    name: String,
    #[serde(default)]
    tool: Option<String>,
    /// Device, number on the device, size and time of the last change.
    #[serde(default)]
    #[schemars(with = "serde_json::Value")]
    mark: Option<FileMark>,
}

/// From where a file is sent: where its beginning is the same as it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct SentFrom {
    pub(super) from: u64,
    pub(super) head: Option<String>,
    pub(super) head_bytes: u64,
}

impl UsageTracker {
    pub(crate) fn import_known(&mut self, args: KnownArgs) -> Result<Reply> {
        let names = Names::new(self.host.clone(), self.anonymise, self.projects.clone());
        let imported = self.store().imported()?;
        let mut files: Vec<Option<SentFrom>> = Vec::with_capacity(args.files.len());
        for file in &args.files {
            let known = imported.find(&names.file_key(&file.name))?;
            files.push(from(file.tool.as_deref(), file.mark.as_ref(), known.as_ref()));
        }
        Reply::json(&serde_json::json!({ "files": files }))
    }
}

/// Returns from where a file is read; `None` where nothing of it is new.
pub(super) fn from(
    tool: Option<&str>,
    mark: Option<&FileMark>,
    known: Option<&ImportedFile>,
) -> Option<SentFrom> {
    let (Some(mark), Some(known)) = (mark, known) else { return Some(SentFrom::default()) };
    if tool.is_some_and(|tool| tool != known.tool) {
        return Some(SentFrom::default());
    }
    let tool = Tool::from_name(&known.tool);
    if *mark == known.mark {
        return None;
    }
    let is_longer = mark.device == known.mark.device
        && mark.inode == known.mark.inode
        && mark.bytes >= known.position;
    let reads_on = tool.is_some_and(goes_on) && known.head.is_some() && known.position > 0;
    Some(if is_longer && reads_on {
        SentFrom { from: known.position, head: known.head.clone(), head_bytes: known.head_bytes }
    } else {
        SentFrom::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: FileMark = FileMark { device: 1, inode: 2, bytes: 900, modified_ns: 5 };

    fn known(tool: Tool) -> ImportedFile {
        ImportedFile {
            key: [0; 16],
            tool: tool.name().to_owned(),
            mark: MARK,
            position: 800,
            line: 7,
            head: Some("abc".to_owned()),
            head_bytes: 900,
        }
    }

    #[test]
    fn files_are_sent_from_where_they_are_new() {
        let check = |tool: Tool, mark: FileMark, expected: Option<u64>| {
            let from = from(None, Some(&mark), Some(&known(tool)));
            assert_eq!(from.map(|from| from.from), expected, "{mark:?}");
        };
        check(Tool::ClaudeCode, MARK, None);
        check(Tool::ClaudeCode, FileMark { bytes: 1_000, ..MARK }, Some(800));
        check(Tool::ClaudeCode, FileMark { modified_ns: 6, ..MARK }, Some(800));
        // It shrank, it is another file, it is of a tool whose lines build on each other.
        check(Tool::ClaudeCode, FileMark { bytes: 700, ..MARK }, Some(0));
        check(Tool::ClaudeCode, FileMark { inode: 3, bytes: 1_000, ..MARK }, Some(0));
        check(Tool::Codex, FileMark { bytes: 1_000, ..MARK }, Some(0));
        check(Tool::Codex, MARK, None);
        let whole = Some(SentFrom::default());
        assert_eq!(from(None, Some(&MARK), None), whole);
        assert_eq!(from(None, None, Some(&known(Tool::Codex))), whole);
        assert_eq!(from(Some("codex"), Some(&MARK), Some(&known(Tool::ClaudeCode))), whole);
    }
}

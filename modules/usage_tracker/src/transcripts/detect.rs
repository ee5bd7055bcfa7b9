//! The tool that wrote a file, by the keys that are in it.

use memchr::memmem::find;
use module_transcripts::Tool;

/// Keys and words that only the files of one tool have, in the order in which they are looked for.
/// In a text that somebody wrote the closing quote has a backslash before it.
const MARKS: &[(Tool, &[&str])] = &[
    (Tool::Codex, &["\"session_meta\"", "\"payload\""]),
    (Tool::Codex, &["\"event_msg\"", "\"payload\""]),
    (Tool::Codex, &["\"turn_context\"", "\"payload\""]),
    (Tool::Amp, &["\"usageLedger\""]),
    (Tool::Droid, &["\"tokenUsage\""]),
    (Tool::Codebuddy, &["\"providerData\""]),
    (Tool::Qwen, &["\"usageMetadata\"", "\"sessionId\""]),
    (Tool::Gemini, &["\"projectHash\""]),
    (Tool::Gemini, &["\"$set\""]),
    (Tool::Gemini, &["\"tokens\"", "\"thoughts\""]),
    (Tool::Opencode, &["\"sessionID\"", "\"modelID\""]),
    (Tool::Opencode, &["\"providerID\"", "\"modelID\""]),
    (Tool::Aider, &["\"event\"", "\"properties\"", "\"user_id\""]),
    (Tool::Kimi, &["\"StatusUpdate\""]),
    (Tool::Copilot, &["\"attributes\"", "\"gen_ai.operation.name\""]),
    (Tool::ClaudeCode, &["\"sessionId\"", "\"type\""]),
    (Tool::ClaudeCode, &["\"leafUuid\""]),
    (Tool::Pi, &["\"message\"", "\"type\"", "\"cacheRead\""]),
    (Tool::Codebuff, &["\"variant\"", "\"metadata\""]),
    (Tool::Amp, &["\"messages\"", "\"cacheReadInputTokens\""]),
];

/// Returns the tool that wrote a file which begins so.
pub(crate) fn tool_of(begin: &[u8]) -> Option<Tool> {
    let has = |mark: &&str| find(begin, mark.as_bytes()).is_some();
    MARKS.iter().find(|(_, marks)| marks.iter().all(has)).map(|(tool, _)| *tool)
}

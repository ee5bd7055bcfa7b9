//! The tools, and the places of each.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use crate::{Holds, Place};

/// Patterns of names.
type Names = &'static [&'static str];

/// A tool that keeps transcripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tool {
    /// Claude Code.
    ClaudeCode,
    /// Codex.
    Codex,
    /// Gemini CLI.
    Gemini,
    /// opencode.
    Opencode,
    /// aider, whose log lies where its user says.
    Aider,
    /// Amp.
    Amp,
    /// CodeBuddy Code.
    Codebuddy,
    /// Codebuff.
    Codebuff,
    /// GitHub Copilot CLI, its OpenTelemetry files.
    Copilot,
    /// Cowork, of Claude Desktop.
    Cowork,
    /// Droid, of Factory.
    Droid,
    /// Goose.
    Goose,
    /// Hermes Agent.
    Hermes,
    /// Kilo CLI.
    Kilo,
    /// Kimi CLI.
    Kimi,
    /// OpenClaw.
    Openclaw,
    /// pi.
    Pi,
    /// Qwen Code.
    Qwen,
}

impl Tool {
    /// All tools, the most used ones first.
    pub const ALL: &'static [Self] = &[
        Self::ClaudeCode,
        Self::Codex,
        Self::Gemini,
        Self::Opencode,
        Self::Aider,
        Self::Amp,
        Self::Codebuddy,
        Self::Codebuff,
        Self::Copilot,
        Self::Cowork,
        Self::Droid,
        Self::Goose,
        Self::Hermes,
        Self::Kilo,
        Self::Kimi,
        Self::Openclaw,
        Self::Pi,
        Self::Qwen,
    ];

    /// Returns the name, as it is typed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClaudeCode => "claude-code",
            Self::Codex => "codex",
            Self::Gemini => "gemini",
            Self::Opencode => "opencode",
            Self::Aider => "aider",
            Self::Amp => "amp",
            Self::Codebuddy => "codebuddy",
            Self::Codebuff => "codebuff",
            Self::Copilot => "copilot",
            Self::Cowork => "cowork",
            Self::Droid => "droid",
            Self::Goose => "goose",
            Self::Hermes => "hermes",
            Self::Kilo => "kilo",
            Self::Kimi => "kimi",
            Self::Openclaw => "openclaw",
            Self::Pi => "pi",
            Self::Qwen => "qwen",
        }
    }

    /// Returns the tool of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|tool| tool.name() == name)
    }

    /// Returns where the transcripts of the tool may lie: as the variables of its environment say,
    /// otherwise below the home directory. Not all of these exist.
    pub fn places(
        self,
        home: Option<&Path>,
        variable: &dyn Fn(&str) -> Option<OsString>,
    ) -> Vec<Place> {
        let person = Person { home, variable };
        let files = |roots: Vec<PathBuf>, below: &str, names: Names| {
            self.at(roots, below, Holds::Files(names))
        };
        let databases =
            |roots: Vec<PathBuf>, names: Names| self.at(roots, "", Holds::Databases(names));
        match self {
            Self::ClaudeCode => files(person.claude(), "projects", &["*.jsonl"]),
            Self::Codex => {
                let roots = person.set_or("CODEX_HOME", |it| it.home(".codex"));
                let names = &["rollout-*.jsonl", "rollout-*.jsonl.zst"];
                let live = files(roots.clone(), "sessions", names);
                [live, files(roots, "archived_sessions", names)].concat()
            }
            Self::Gemini => {
                let roots = person.set_or("GEMINI_DATA_DIR", |it| it.home(".gemini/tmp"));
                files(roots, "", &["session-*.json", "session-*.jsonl"])
            }
            Self::Opencode => {
                let roots = person.set_or("OPENCODE_DATA_DIR", |it| it.data("opencode"));
                let rows = databases(roots.clone(), &["opencode.db", "opencode-*.db"]);
                [rows, files(roots, "storage/message", &["msg_*.json"])].concat()
            }
            Self::Aider => files(person.set("AIDER_ANALYTICS_LOG"), "", &["*.jsonl"]),
            Self::Amp => {
                let roots = person.set_or("AMP_DATA_DIR", |it| it.data("amp"));
                files(roots, "threads", &["T-*.json"])
            }
            Self::Codebuddy => {
                let roots = person.set_or("CODEBUDDY_DIR", |it| it.home(".codebuddy/projects"));
                files(roots, "", &["*.jsonl"])
            }
            Self::Codebuff => files(person.codebuff(), "projects", &["chat-messages.json"]),
            Self::Copilot => {
                let one = person.set("COPILOT_OTEL_FILE_EXPORTER_PATH");
                let all = files(person.home(".copilot/otel"), "", &["*.jsonl"]);
                [files(one, "", &["*.jsonl"]), all].concat()
            }
            Self::Cowork => files(person.cowork(), "", &["*.jsonl"]),
            Self::Droid => {
                let roots = person.set_or("DROID_SESSIONS_DIR", |it| it.home(".factory/sessions"));
                files(roots, "", &["*.settings.json"])
            }
            Self::Goose => databases(person.goose(), &["sessions.db"]),
            Self::Hermes => {
                databases(person.set_or("HERMES_HOME", |it| it.home(".hermes")), &["state.db"])
            }
            Self::Kilo => {
                databases(person.set_or("KILO_DATA_DIR", |it| it.data("kilo")), &["kilo.db"])
            }
            Self::Kimi => {
                let roots = person.set_or("KIMI_DATA_DIR", |it| it.home(".kimi"));
                files(roots, "sessions", &["wire.jsonl"])
            }
            Self::Openclaw => {
                let names = &["*.jsonl", "*.jsonl.deleted.*", "*.jsonl.reset.*"];
                files(person.openclaw(), "agents", names)
            }
            Self::Pi => {
                let roots = person.set_or("PI_AGENT_DIR", |it| it.home(".pi/agent/sessions"));
                files(roots, "", &["*.jsonl"])
            }
            Self::Qwen => {
                let roots = person.set_or("QWEN_DATA_DIR", |it| it.home(".qwen"));
                files(roots, "projects", &["*.jsonl"])
            }
        }
    }

    fn at(self, roots: Vec<PathBuf>, below: &str, holds: Holds) -> Vec<Place> {
        let path = |root: PathBuf| if below.is_empty() { root } else { root.join(below) };
        roots.into_iter().map(|root| Place { tool: self, path: path(root), holds }).collect()
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Home directory and environment of the person whose transcripts are looked for.
struct Person<'a> {
    home: Option<&'a Path>,
    variable: &'a dyn Fn(&str) -> Option<OsString>,
}

impl Person<'_> {
    /// Returns the paths in a variable, which separates them with commas.
    fn set(&self, name: &str) -> Vec<PathBuf> {
        let value = (self.variable)(name).unwrap_or_default();
        let paths = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        paths.filter(|path| !path.is_empty()).map(|path| OsStr::from_bytes(path).into()).collect()
    }

    /// Returns the paths in a variable, others where it has none.
    fn set_or(&self, name: &str, others: impl Fn(&Self) -> Vec<PathBuf>) -> Vec<PathBuf> {
        Some(self.set(name)).filter(|paths| !paths.is_empty()).unwrap_or_else(|| others(self))
    }

    /// Returns a path below the home directory, where there is one.
    fn home(&self, path: &str) -> Vec<PathBuf> {
        self.home.map(|home| home.join(path)).into_iter().collect()
    }

    /// Returns a folder of a program's data.
    fn data(&self, name: &str) -> Vec<PathBuf> {
        self.base("XDG_DATA_HOME", ".local/share", name)
    }

    /// Returns a folder of a program's configuration.
    fn config(&self, name: &str) -> Vec<PathBuf> {
        self.base("XDG_CONFIG_HOME", ".config", name)
    }

    /// Returns a folder below what a variable names; a relative path does not count there.
    fn base(&self, variable: &str, default: &str, name: &str) -> Vec<PathBuf> {
        let set = (self.variable)(variable).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = set.or_else(|| self.home.map(|home| home.join(default)));
        base.map(|base| base.join(name)).into_iter().collect()
    }

    fn claude(&self) -> Vec<PathBuf> {
        let both = |it: &Self| [it.config("claude"), it.home(".claude")].concat();
        self.set_or("CLAUDE_CONFIG_DIR", both)
    }

    fn codebuff(&self) -> Vec<PathBuf> {
        let editions = ["manicode", "manicode-dev", "manicode-staging"];
        let all = |it: &Self| editions.iter().flat_map(|name| it.config(name)).collect::<Vec<_>>();
        self.set_or("CODEBUFF_DATA_DIR", all)
    }

    fn cowork(&self) -> Vec<PathBuf> {
        let sessions = "Claude/local-agent-mode-sessions";
        let of_mac = format!("Library/Application Support/{sessions}");
        let both = |it: &Self| [it.config(sessions), it.home(&of_mac)].concat();
        self.set_or("COWORK_CONFIG_DIR", both)
    }

    fn goose(&self) -> Vec<PathBuf> {
        let root = self.set("GOOSE_PATH_ROOT");
        if !root.is_empty() {
            return root.into_iter().map(|root| root.join("data/sessions")).collect();
        }
        let of_mac = "Library/Application Support/goose/sessions";
        [self.data("goose/sessions"), self.data("Block/goose/sessions"), self.home(of_mac)].concat()
    }

    fn openclaw(&self) -> Vec<PathBuf> {
        let names = [".openclaw", ".clawdbot", ".moltbot", ".moldbot"];
        let all = |it: &Self| names.iter().flat_map(|name| it.home(name)).collect::<Vec<_>>();
        self.set_or("OPENCLAW_DIR", all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the places of a tool, with variables `NAME=VALUE`.
    fn places(tool: Tool, variables: &[(&str, &str)]) -> Vec<String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(it, _)| *it == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let places = tool.places(Some(Path::new("/h")), &variable);
        assert!(places.iter().all(|place| place.tool == tool), "{places:?}");
        places.iter().map(|place| place.path.display().to_string()).collect()
    }

    #[test]
    fn names_lead_back_to_their_tools() {
        for tool in Tool::ALL {
            assert_eq!(Tool::from_name(tool.name()), Some(*tool));
            assert_eq!(tool.to_string(), tool.name());
        }
        assert_eq!(Tool::from_name("all"), None);
        assert_eq!(Tool::from_name(""), None);
    }

    #[test]
    fn every_tool_has_its_places() {
        let mac = "/h/Library/Application Support";
        let cowork = format!("{mac}/Claude/local-agent-mode-sessions");
        let goose = format!("{mac}/goose/sessions");
        let expected: &[(Tool, &[&str])] = &[
            (Tool::ClaudeCode, &["/h/.config/claude/projects", "/h/.claude/projects"]),
            (Tool::Codex, &["/h/.codex/sessions", "/h/.codex/archived_sessions"]),
            (Tool::Gemini, &["/h/.gemini/tmp"]),
            (
                Tool::Opencode,
                &["/h/.local/share/opencode", "/h/.local/share/opencode/storage/message"],
            ),
            (Tool::Aider, &[]),
            (Tool::Amp, &["/h/.local/share/amp/threads"]),
            (Tool::Codebuddy, &["/h/.codebuddy/projects"]),
            (
                Tool::Codebuff,
                &[
                    "/h/.config/manicode/projects",
                    "/h/.config/manicode-dev/projects",
                    "/h/.config/manicode-staging/projects",
                ],
            ),
            (Tool::Copilot, &["/h/.copilot/otel"]),
            (Tool::Cowork, &["/h/.config/Claude/local-agent-mode-sessions", &cowork]),
            (Tool::Droid, &["/h/.factory/sessions"]),
            (
                Tool::Goose,
                &["/h/.local/share/goose/sessions", "/h/.local/share/Block/goose/sessions", &goose],
            ),
            (Tool::Hermes, &["/h/.hermes"]),
            (Tool::Kilo, &["/h/.local/share/kilo"]),
            (Tool::Kimi, &["/h/.kimi/sessions"]),
            (
                Tool::Openclaw,
                &[
                    "/h/.openclaw/agents",
                    "/h/.clawdbot/agents",
                    "/h/.moltbot/agents",
                    "/h/.moldbot/agents",
                ],
            ),
            (Tool::Pi, &["/h/.pi/agent/sessions"]),
            (Tool::Qwen, &["/h/.qwen/projects"]),
        ];
        assert_eq!(expected.len(), Tool::ALL.len());
        for (tool, expected) in expected {
            assert_eq!(places(*tool, &[]), *expected, "{tool}");
        }
    }

    #[test]
    fn variables_come_first() {
        let check = |tool, variable, below: &[&str]| {
            let expected: Vec<String> = ["/x", "rel/y"]
                .iter()
                .flat_map(|root| below.iter().map(move |below| format!("{root}{below}")))
                .collect();
            let mut found = places(tool, &[(variable, "/x, ,rel/y,")]);
            found.sort_by_key(|path| !path.starts_with("/x"));
            let mut expected = expected;
            expected.sort_by_key(|path| !path.starts_with("/x"));
            assert_eq!(found, expected, "{tool}");
            // A variable that is set to nothing is as good as none.
            assert_eq!(places(tool, &[(variable, " ,")]), places(tool, &[]), "{tool}");
        };
        check(Tool::ClaudeCode, "CLAUDE_CONFIG_DIR", &["/projects"]);
        check(Tool::Codex, "CODEX_HOME", &["/sessions", "/archived_sessions"]);
        check(Tool::Gemini, "GEMINI_DATA_DIR", &[""]);
        check(Tool::Opencode, "OPENCODE_DATA_DIR", &["", "/storage/message"]);
        check(Tool::Aider, "AIDER_ANALYTICS_LOG", &[""]);
        check(Tool::Amp, "AMP_DATA_DIR", &["/threads"]);
        check(Tool::Codebuddy, "CODEBUDDY_DIR", &[""]);
        check(Tool::Codebuff, "CODEBUFF_DATA_DIR", &["/projects"]);
        check(Tool::Cowork, "COWORK_CONFIG_DIR", &[""]);
        check(Tool::Droid, "DROID_SESSIONS_DIR", &[""]);
        check(Tool::Goose, "GOOSE_PATH_ROOT", &["/data/sessions"]);
        check(Tool::Hermes, "HERMES_HOME", &[""]);
        check(Tool::Kilo, "KILO_DATA_DIR", &[""]);
        check(Tool::Kimi, "KIMI_DATA_DIR", &["/sessions"]);
        check(Tool::Openclaw, "OPENCLAW_DIR", &["/agents"]);
        check(Tool::Pi, "PI_AGENT_DIR", &[""]);
        check(Tool::Qwen, "QWEN_DATA_DIR", &["/projects"]);
        let copilot = places(Tool::Copilot, &[("COPILOT_OTEL_FILE_EXPORTER_PATH", "/x/a.jsonl")]);
        assert_eq!(copilot, ["/x/a.jsonl", "/h/.copilot/otel"]);
    }

    #[test]
    fn base_folders_count_where_they_are_absolute() {
        let config = &[("XDG_CONFIG_HOME", "/c"), ("XDG_DATA_HOME", "/d")];
        let claude = places(Tool::ClaudeCode, config);
        assert_eq!(claude, ["/c/claude/projects", "/h/.claude/projects"]);
        assert_eq!(places(Tool::Kilo, config), ["/d/kilo"]);
        let relative = &[("XDG_DATA_HOME", "d")];
        assert_eq!(places(Tool::Kilo, relative), ["/h/.local/share/kilo"]);
    }

    #[test]
    fn without_a_home_only_variables_name_places() {
        for tool in Tool::ALL {
            assert_eq!(tool.places(None, &|_| None), [], "{tool}");
        }
        let set = |name: &str| (name == "CODEX_HOME").then(|| OsString::from("/x"));
        assert_eq!(Tool::Codex.places(None, &set).len(), 2);
    }
}

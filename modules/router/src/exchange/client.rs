//! The client of a request, as its headers tell.

use http::{HeaderMap, HeaderName};
use module_sdk::Host;

/// Tools by the beginning of their `User-Agent`, the longer ones first.
const TOOLS: [(&str, &str); 18] = [
    ("claude-cli", "claude-code"),
    ("claude-code", "claude-code"),
    ("codex_exec", "codex"),
    ("codex_cli_rs", "codex"),
    ("codex", "codex"),
    ("geminicli", "gemini-cli"),
    ("opencode", "opencode"),
    ("aider", "aider"),
    ("litellm", "litellm"),
    ("openai/python", "openai-python"),
    ("asyncopenai/python", "openai-python"),
    ("openai/js", "openai-node"),
    ("anthropic/python", "anthropic-python"),
    ("asyncanthropic/python", "anthropic-python"),
    ("anthropic/js", "anthropic-node"),
    ("ollama-python", "ollama-python"),
    ("ollama", "ollama"),
    ("curl", "curl"),
];

/// Headers in which tools name their session.
static SESSIONS: [HeaderName; 6] = [
    HeaderName::from_static("x-lodestar-session"),
    HeaderName::from_static("x-claude-code-session-id"),
    HeaderName::from_static("session-id"),
    HeaderName::from_static("session_id"),
    HeaderName::from_static("x-session-id"),
    HeaderName::from_static("x-session-affinity"),
];

/// Headers in which tools say that a sub-agent asks.
static SUB_AGENTS: [HeaderName; 2] =
    [HeaderName::from_static("x-lodestar-sub-agent"), HeaderName::from_static("x-openai-subagent")];

static TOOL: HeaderName = HeaderName::from_static("x-lodestar-client");
static PROJECT: HeaderName = HeaderName::from_static("x-lodestar-project");
static BRANCH: HeaderName = HeaderName::from_static("x-lodestar-branch");
static TRACE: HeaderName = HeaderName::from_static("traceparent");

/// Longest name that is taken from a header.
const LONGEST: usize = 128;

/// The client of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Client {
    /// Tool.
    pub tool: Option<String>,
    /// Version of the tool.
    pub version: Option<String>,
    /// Session, a pseudonym.
    pub session: Option<String>,
    /// Person, a pseudonym: the holder of the virtual key.
    pub user: Option<String>,
    /// Project.
    pub project: Option<String>,
    /// Branch of the project's repository.
    pub branch: Option<String>,
    /// `true` when a sub-agent of a coding tool asks.
    pub is_sub_agent: bool,
    /// `true` when nothing may be learnt from the request.
    pub forbids_learning: bool,
    /// Trace that the client is in, and its span.
    pub trace: Option<Trace>,
}

/// Place in a trace (W3C Trace Context).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trace {
    /// The trace, 32 hexadecimal digits.
    pub id: String,
    /// Span of the client, 16 hexadecimal digits.
    pub parent: String,
    /// Flags, 2 hexadecimal digits.
    pub flags: String,
}

impl Trace {
    fn read(header: &str) -> Option<Self> {
        let mut parts = header.trim().split('-');
        let (version, id) = (parts.next()?, parts.next()?);
        let (parent, flags) = (parts.next()?, parts.next()?);
        let is_hex = |text: &str, length: usize| {
            text.len() == length
                && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        };
        let is_valid = is_hex(version, 2)
            && version != "ff"
            && is_hex(id, 32)
            && is_hex(parent, 16)
            && is_hex(flags, 2)
            && id.bytes().any(|byte| byte != b'0')
            && parent.bytes().any(|byte| byte != b'0');
        is_valid.then(|| Self { id: id.into(), parent: parent.into(), flags: flags.into() })
    }

    /// Returns the header with another span.
    pub(crate) fn header(&self, span: &str) -> String {
        format!("00-{}-{span}-{}", self.id, self.flags)
    }
}

impl Client {
    /// Reads what the headers of a request tell.
    pub(crate) fn of(headers: &HeaderMap, host: &Host) -> Self {
        let agent = text(headers, &http::header::USER_AGENT).unwrap_or_default();
        let (tool, version) = tool(agent);
        let session = SESSIONS.iter().find_map(|name| text(headers, name));
        let named = |name: &HeaderName| text(headers, name).map(str::to_owned);
        Self {
            tool: named(&TOOL).or(tool),
            version,
            session: session.map(|session| host.pseudonym("session", session)),
            user: None,
            project: named(&PROJECT),
            branch: named(&BRANCH),
            is_sub_agent: SUB_AGENTS.iter().any(|name| headers.contains_key(name)),
            forbids_learning: forbids_learning(headers),
            trace: text(headers, &TRACE).and_then(Trace::read),
        }
    }
}

/// Header by which a client keeps a request from being learnt from.
const LEARN: HeaderName = HeaderName::from_static("x-lodestar-learn");

/// Returns whether a client says that nothing may be learnt from its request. A word that is not
/// known is taken for such a wish.
fn forbids_learning(headers: &HeaderMap) -> bool {
    headers.get_all(LEARN).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"on"))
}

/// Returns the text of a header that can be a name.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let text = std::str::from_utf8(headers.get(name)?.as_bytes()).ok()?.trim();
    let is_name = !text.is_empty() && text.len() <= LONGEST && !text.contains(char::is_control);
    is_name.then_some(text)
}

fn tool(agent: &str) -> (Option<String>, Option<String>) {
    let begins = |begin: &str| {
        let part = agent.as_bytes().get(..begin.len());
        part.is_some_and(|part| part.eq_ignore_ascii_case(begin.as_bytes()))
    };
    let Some((begin, name)) = TOOLS.iter().find(|(begin, _)| begins(begin)) else {
        return (None, None);
    };
    let rest = agent[begin.len()..].trim_start_matches(['/', ' ']);
    let version = rest.split([' ', '(', ';']).next().unwrap_or_default();
    let is_version = version.starts_with(|c: char| c.is_ascii_digit()) && version.len() <= 32;
    (Some((*name).to_owned()), is_version.then(|| version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_known_by_their_agents() {
        let check = |agent, name: Option<&str>, version: Option<&str>| {
            assert_eq!(tool(agent), (name.map(str::to_owned), version.map(str::to_owned)));
        };
        check("claude-cli/2.1.329 (external, cli)", Some("claude-code"), Some("2.1.329"));
        check("codex_cli_rs/0.169.0 (Debian 12)", Some("codex"), Some("0.169.0"));
        check("opencode/1.18.33", Some("opencode"), Some("1.18.33"));
        check("OpenAI/Python 2.20.0", Some("openai-python"), Some("2.20.0"));
        check("curl/8.1", Some("curl"), Some("8.1"));
        check("Mozilla/5.0", None, None);
        check("", None, None);
    }

    #[test]
    fn a_trace_is_read_and_goes_on() {
        let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let trace = Trace::read(header).expect("it is valid");
        assert_eq!(trace.header(&trace.parent), header);
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(Trace::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_client_keeps_its_request_from_being_learnt_from() {
        let check = |values: &[&'static str], expected: bool| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(LEARN, http::HeaderValue::from_static(value));
            }
            assert_eq!(forbids_learning(&headers), expected, "{values:?}");
        };
        check(&[], false);
        check(&["on"], false);
        check(&["ON"], false);
        check(&["off"], true);
        check(&["Off"], true);
        check(&["false"], true);
        check(&[""], true);
        check(&["on", "off"], true);
    }
}

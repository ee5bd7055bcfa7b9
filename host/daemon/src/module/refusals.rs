//! Reasons why the host refuses an event that a module may otherwise publish, with counters.

use std::sync::atomic::{AtomicU64, Ordering};

use module_sdk::{
    EventType as _,
    events::{LlmRequestContent, fits},
    manifest::Manifest,
};
use serde::{Deserialize, de::IgnoredAny};
use uuid::Uuid;

use lodestar_config::Privacy;

/// The longest origin of a relayed event, in bytes.
const MAX_ORIGIN_BYTES: usize = 256;

/// Reason why an event is refused. The text is for the author of the module and for the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Text of requests, which the operator does not want published at all.
    #[error(
        "the text of requests is not published: `privacy.full_logging` is off; set it to true, and \
         name the project in `privacy.full_logging_projects`"
    )]
    FullLoggingOff,
    /// Text of a project that did not opt in.
    #[error(
        "the text of requests of this project is not published; name it in \
         `privacy.full_logging_projects`"
    )]
    ProjectNotNamed,
    /// Text that does not name its project.
    #[error("the event is no `llm.request.content`: it names no project, or cannot be read")]
    NoContent,
    /// A relayed event from a module without the capability.
    #[error(
        "it may not publish events of others; write `relays = true` below [capabilities] in its \
         module.toml"
    )]
    NoRelay,
    /// A relayed event whose id could not be one of another daemon.
    #[error("a relayed event needs the UUIDv7 and the time that it has where it comes from")]
    NoIdOrTime,
    /// A relayed event whose origin could be taken for a module of this daemon.
    #[error(
        "the origin of a relayed event is `//NODE/lodestar/MODULE`: two slashes, a name, and a \
         path of letters, digits, `.`, `_`, `-` and `/`"
    )]
    BadOrigin,
    /// A relayed event whose payload is not JSON.
    #[error("the payload of a relayed event is no JSON")]
    NoJson,
}

impl Refusal {
    pub(crate) const ALL: [Self; 7] = [
        Self::FullLoggingOff,
        Self::ProjectNotNamed,
        Self::NoContent,
        Self::NoRelay,
        Self::NoIdOrTime,
        Self::BadOrigin,
        Self::NoJson,
    ];

    /// Returns the label in the metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::FullLoggingOff => "full_logging_off",
            Self::ProjectNotNamed => "project_not_named",
            Self::NoContent => "no_content",
            Self::NoRelay => "no_relay",
            Self::NoIdOrTime => "no_id_or_time",
            Self::BadOrigin => "bad_origin",
            Self::NoJson => "no_json",
        }
    }
}

/// Numbers of refused events of a module, by reason.
#[derive(Debug, Default)]
pub(crate) struct Refusals([AtomicU64; Refusal::ALL.len()]);

impl Refusals {
    /// Counts a refusal; returns whether it is the first of its kind.
    pub(crate) fn count(&self, refusal: Refusal) -> bool {
        self.0[refusal as usize].fetch_add(1, Ordering::Relaxed) == 0
    }

    /// Returns how often each reason was met.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (Refusal, u64)> {
        Refusal::ALL.into_iter().zip(self.0.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}

/// Refuses the text of requests, unless the operator wants it published and its project opted in.
pub(super) fn check_content(privacy: &Privacy, topic: &str, data: &[u8]) -> Result<(), Refusal> {
    #[derive(Deserialize)]
    struct Content {
        project: String,
    }
    if !fits(LlmRequestContent::TOPIC, topic) {
        return Ok(());
    }
    if !privacy.full_logging {
        return Err(Refusal::FullLoggingOff);
    }
    match serde_json::from_slice(data) {
        Ok(Content { project }) if privacy.full_logging_projects.contains(&project) => Ok(()),
        Ok(Content { project }) if !project.is_empty() => Err(Refusal::ProjectNotNamed),
        _ => Err(Refusal::NoContent),
    }
}

/// Refuses to relay an event that could not have been published elsewhere, or that could be taken
/// for one of this daemon.
pub(super) fn check_relay(
    manifest: &Manifest,
    relayed: &lodestar_abi::RelayedEvent<'_>,
) -> Result<(), Refusal> {
    if !manifest.capabilities.relays {
        return Err(Refusal::NoRelay);
    }
    let id = Uuid::from_bytes(relayed.id);
    let is_v7 = id.get_version_num() == 7 && id.get_variant() == uuid::Variant::RFC4122;
    if !is_v7 || relayed.event.time_ns == 0 {
        return Err(Refusal::NoIdOrTime);
    }
    if !is_origin(relayed.origin.as_str()) {
        return Err(Refusal::BadOrigin);
    }
    let payload = serde_json::from_slice::<IgnoredAny>(relayed.event.data.as_slice());
    payload.map(drop).map_err(|_| Refusal::NoJson)
}

fn is_origin(origin: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let rest = origin.strip_prefix("//").filter(|_| origin.len() <= MAX_ORIGIN_BYTES);
    let Some((node, path)) = rest.and_then(|rest| rest.split_once('/')) else { return false };
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(known);
    is_name(node) && path.split('/').all(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_needs_both_words_of_the_operator() {
        let check = |full_logging: bool, projects: &[&str], data: &str, expected| {
            let full_logging_projects = projects.iter().map(|&it| it.to_owned()).collect();
            let privacy = Privacy { anonymise: true, full_logging, full_logging_projects };
            let found = check_content(&privacy, "llm.request.content", data.as_bytes());
            assert_eq!(found, expected, "{full_logging} {projects:?} {data}");
            assert_eq!(check_content(&privacy, "llm.request.completed", data.as_bytes()), Ok(()));
        };
        let shop = r#"{"project": "shop", "request": []}"#;
        check(true, &["shop"], shop, Ok(()));
        check(true, &["a", "shop"], shop, Ok(()));
        check(false, &["shop"], shop, Err(Refusal::FullLoggingOff));
        check(true, &[], shop, Err(Refusal::ProjectNotNamed));
        check(true, &["Shop", "sho", "*"], shop, Err(Refusal::ProjectNotNamed));
        check(true, &[""], r#"{"project": "shop "}"#, Err(Refusal::ProjectNotNamed));
        for none in ["{}", r#"{"project": ""}"#, r#"{"project": null}"#, "shop", ""] {
            check(true, &["shop"], none, Err(Refusal::NoContent));
        }
        let twice = r#"{"project": "shop", "project": "bank"}"#;
        check(true, &["shop", "bank"], twice, Err(Refusal::NoContent));
    }

    #[test]
    fn an_origin_is_never_that_of_a_module_of_this_daemon() {
        for origin in ["//laptop-1/lodestar/ingest", "//a.b/x", "//n_1/lodestar/a/b"] {
            assert!(is_origin(origin), "{origin}");
        }
        let long = format!("//{}/x", "n".repeat(254));
        for origin in [
            "",
            "/lodestar/ingest",
            "//",
            "//node",
            "//node/",
            "///lodestar/ingest",
            "//node//ingest",
            "//node/a b",
            "//node/\u{1b}[2J",
            "//us er/x",
            "//u@node/x",
            "https://node/x",
            long.as_str(),
        ] {
            assert!(!is_origin(origin), "{origin}");
        }
    }

    #[test]
    fn reasons_are_counted_apart() {
        let refusals = Refusals::default();
        assert!(refusals.count(Refusal::NoRelay));
        assert!(!refusals.count(Refusal::NoRelay));
        let counted: Vec<_> = refusals.counts().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [(Refusal::NoRelay, 2)]);
        let words: std::collections::HashSet<_> = Refusal::ALL.map(Refusal::as_str).into();
        assert_eq!(words.len(), Refusal::ALL.len());
    }
}

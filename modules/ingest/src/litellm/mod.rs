//! LiteLLM's callback `generic_api`: `POST /api/v1/litellm`, with a list of its standard logs, one
//! log, or one a line. One that cannot be used costs itself only.

mod payload;

use std::{fmt, net::IpAddr, sync::Arc};

use axum::{
    Extension, Json,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::{
    Deserialize,
    de::{self, Deserializer, SeqAccess, Visitor},
};
use serde_json::{json, value::RawValue};

use crate::{
    app::{App, Told},
    json_text,
    lynex::Failure,
    report::Report,
    server::{Encoding, Ends, Share, read},
    sources::{Clock, Outcome, name, unnamed},
    stats::{Kind, kind_of},
};
use payload::Payload;

/// The most logs in one body. LiteLLM sends 512 at once by default.
const MAX_LOGS: usize = 10_000;

/// Memory that one log takes once it is read, in bytes.
const LOG_BYTES: usize = 4 * 1024;

/// Name of the mapper in the metrics, and of the source and signal in the statistics.
const LITELLM: &str = "litellm";

/// Handles `POST /api/v1/litellm` and `/generic_api`.
pub(crate) async fn logs(
    State(app): State<Arc<App>>,
    Extension(ends): Extension<Ends>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match receive(&app, ends.peer.ip(), &headers, body).await {
        Ok(taken) => taken.respond(),
        Err(failure) => {
            if let Some(reason) = failure.reason() {
                app.stats.records(LITELLM, refused_body(reason), 1);
            }
            failure.into_response()
        }
    }
}

fn refused_body(reason: String) -> Kind {
    let (source, record) = (unnamed(), "(body)".to_owned());
    Kind { source, signal: LITELLM, record, outcome: "refused", reason }
}

async fn receive(
    app: &Arc<App>,
    peer: IpAddr,
    headers: &HeaderMap,
    body: Body,
) -> Result<Taken, Failure> {
    let admitted = app.keys.admit(headers, peer)?;
    if Encoding::of(headers) != Some(Encoding::Json) && !is_lines(headers) {
        return Err(Failure::unsupported_media_type());
    }
    let around = Around {
        app: app.clone(),
        project: admitted
            .project
            .map(str::to_owned)
            .or_else(|| name(&app.stated_project(headers)?)),
        version: version(headers),
    };
    // What a log holds besides what is counted is text, which is not decoded.
    let (bytes, share) = read(app, headers, body, |_: &[u8], _: &mut Share| Ok(())).await?;
    // Texts of conversations are long, and other requests go on meanwhile.
    let reading = tokio::task::spawn_blocking(move || around.read(&bytes, share));
    let (mut logs, share) = reading.await.map_err(|_| Failure::unavailable())??;
    let reports = std::mem::take(&mut logs.reports);
    let accepted = reports.len();
    let told = Told { reports, ..Told::default() };
    app.publish(told).await.map_err(|_| Failure::unavailable())?;
    drop(share);
    for kind in logs.kinds {
        app.stats.records(LITELLM, kind, 1);
    }
    Ok(Taken { accepted, ignored: logs.ignored, refused: logs.refused, first: logs.first })
}

fn is_lines(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("application/x-ndjson"))
}

/// Returns the version of LiteLLM that sends.
fn version(headers: &HeaderMap) -> Option<String> {
    let agent = headers.get(header::USER_AGENT)?.to_str().ok()?;
    let version = agent.strip_prefix("litellm/")?.split_whitespace().next()?;
    name(version)
}

/// The context that all logs of a body share.
struct Around {
    app: Arc<App>,
    project: Option<String>,
    version: Option<String>,
}

/// The logs of a body.
#[derive(Debug, Default)]
struct Logs {
    reports: Vec<Report>,
    kinds: Vec<Kind>,
    ignored: usize,
    refused: usize,
    /// The first that was refused, and why.
    first: Option<String>,
}

impl Around {
    /// Reads and maps the logs of a body.
    fn read(&self, bytes: &Bytes, mut share: Share) -> Result<(Logs, Share), Failure> {
        let text = json_text::readable(bytes, &mut share)?;
        let elements = elements(&text)?;
        share.grow_to(bytes.len() + LOG_BYTES * elements.len())?;
        let now = u64::try_from(self.app.host.now().as_nanosecond()).unwrap_or(0);
        let mut logs = Logs::default();
        for (index, element) in elements.iter().enumerate() {
            // A list would be read as the fields of a log in their order.
            let log = Some(element.get()).filter(|log| log.starts_with('{'));
            let (record, outcome) = match log.map(serde_json::from_str::<Payload>) {
                Some(Ok(payload)) => (payload.record(), payload.map(self, Clock { now_ns: now })),
                _ => (unnamed(), payload::no_log()),
            };
            logs.add(index, record, outcome);
        }
        Ok((logs, share))
    }
}

impl Logs {
    fn add(&mut self, index: usize, record: String, outcome: Outcome) {
        self.kinds.push(kind_of(LITELLM, LITELLM, record, &outcome));
        match outcome {
            Outcome::Request(report) => self.reports.push(*report),
            Outcome::Refused(refusal) => {
                self.refused += 1;
                self.first.get_or_insert_with(|| format!("/{index}: {refusal}"));
            }
            _ => self.ignored += 1,
        }
    }
}

/// The outcome of a body, for its sender.
struct Taken {
    accepted: usize,
    ignored: usize,
    refused: usize,
    first: Option<String>,
}

impl Taken {
    fn respond(self) -> Response {
        let Self { accepted, ignored, refused, first } = self;
        let answer = json!({
            "accepted": accepted, "ignored": ignored, "refused": refused, "first_refused": first,
        });
        (StatusCode::OK, Json(answer)).into_response()
    }
}

/// Returns the elements of a list, or the values that follow each other.
fn elements(text: &str) -> Result<Vec<&RawValue>, Failure> {
    let elements = if text.trim_start().starts_with('[') {
        serde_json::from_str::<List<'_>>(text).map(|list| list.0)
    } else {
        let values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
        values.take(MAX_LOGS + 1).collect()
    };
    let elements = elements.map_err(|error| Failure::not_json(&error))?;
    if elements.len() > MAX_LOGS {
        let message = format!("holds more than {MAX_LOGS} logs; send at most so many at once");
        return Err(Failure::invalid("", message));
    }
    Ok(elements)
}

/// The elements of a list, as many as may be read and one more.
struct List<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for List<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements;
        impl<'de> Visitor<'de> for Elements {
            type Value = List<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<List<'de>, A::Error> {
                let mut elements = Vec::new();
                while elements.len() <= MAX_LOGS
                    && let Some(element) = list.next_element::<&RawValue>()?
                {
                    elements.push(element);
                }
                while list.next_element::<de::IgnoredAny>()?.is_some() {}
                Ok(List(elements))
            }
        }
        deserializer.deserialize_seq(Elements)
    }
}

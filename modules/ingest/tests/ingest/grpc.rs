//! OTLP over gRPC.

use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceResponse, metrics::v1::ExportMetricsServiceResponse,
    trace::v1::ExportTraceServiceResponse,
};
use prost::Message as _;
use serde_json::json;
use tonic::{Code, Status};

use crate::{
    bodies::*,
    caller::{Caller, LOGS, METRICS, TRACES},
    http::{Site, connect, request},
};

impl Site {
    fn caller(&self) -> Caller {
        Caller::new(self.bench.host().listener_address("grpc").expect("it listens"))
    }

    /// Returns the rows of what was received, without their reasons.
    fn sources(&mut self) -> Vec<String> {
        let reply = self.bench.command("sources", json!({"all": true})).expect("it answers");
        let rows = reply.data["rows"].as_array().expect("rows").iter();
        rows.map(|row| {
            let text = |field: &str| row[field].as_str().expect("a text");
            format!("{} {} {} {}", text("signal"), text("record"), text("outcome"), row["count"])
        })
        .collect()
    }
}

fn export(caller: &Caller, request_id: &str) -> Result<ExportLogsServiceResponse, Status> {
    caller.call(LOGS, claude_logs(vec![claude_request(now_ns(), request_id)]))
}

/// Returns a message behind its prefix.
fn framed(message: &impl prost::Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).expect("it is short").to_be_bytes();
    [&[0][..], &length, &message].concat()
}

#[test]
fn every_signal_is_taken_on_one_connection() {
    for gzip in [false, true] {
        let site = Site::plain();
        let caller = Caller { gzip, ..site.caller() };
        let answer = export(&caller, "req_1").expect("it is taken");
        assert_eq!(answer.partial_success, None);
        let spans = vec![chat_span((1, 1, 0), now_ns(), "msg_1", vec![])];
        let traces = traces("program", vec![("program.genai", spans)]);
        let answer: ExportTraceServiceResponse = caller.call(TRACES, traces).expect("it is taken");
        assert_eq!(answer.partial_success, None);
        let answer: ExportMetricsServiceResponse =
            caller.call(METRICS, claude_metrics()).expect("it is taken");
        assert_eq!(answer.partial_success, None);
        let requests = site.requests();
        assert_eq!(requests.len(), 2, "{requests:?}");
        assert_eq!(requests[0].dedupe_key, "anthropic:req_1");
        assert_eq!(requests[0].input_tokens, Some(1200));
        assert_eq!(requests[0].cost_nano_usd, Some(3_435_000));
        assert!(site.bench.host().emitted()[0].ledger);
    }
}

#[test]
fn one_call_over_both_protocols_counts_once() {
    let site = Site::plain();
    let message = claude_logs(vec![claude_request(now_ns(), "req_1")]);
    assert_eq!(site.post_protobuf("/v1/logs", &message).status, 200);
    let _: ExportLogsServiceResponse = site.caller().call(LOGS, message).expect("it is taken");
    assert_eq!((site.requests().len(), site.distinct_requests()), (2, 1));
}

#[test]
fn what_is_refused_is_said_and_the_rest_is_taken() {
    let site = Site::plain();
    let mut absurd = claude_request(now_ns(), "req_bad");
    absurd.attributes.retain(|attribute| attribute.key != "input_tokens");
    absurd.attributes.push(attr("input_tokens", -5));
    let message = claude_logs(vec![absurd, claude_request(now_ns(), "req_good")]);
    let answer: ExportLogsServiceResponse = site.caller().call(LOGS, message).expect("it is taken");
    let partial = answer.partial_success.expect("a part was refused");
    assert_eq!(partial.rejected_log_records, 1);
    assert!(partial.error_message.contains("input_tokens is negative"), "{partial:?}");
    assert_eq!(site.requests().len(), 1);
}

#[test]
fn what_the_host_does_not_take_may_come_again() {
    let site = Site::plain();
    let caller = site.caller();
    site.bench.host().refuse_events(Some("the disk is full"));
    let status = export(&caller, "req_1").expect_err("the ledger takes nothing");
    assert_eq!(status.code(), Code::Unavailable);
    let details = String::from_utf8_lossy(status.details()).into_owned();
    assert!(details.contains("type.googleapis.com/google.rpc.RetryInfo"), "{details}");
    assert_eq!(caller.call_raw("/grpc.health.v1.Health/Check", b"").expect("it answers"), [8, 2]);
    site.bench.host().refuse_events(None);
    export(&caller, "req_1").expect("it is taken");
    assert_eq!(caller.call_raw("/grpc.health.v1.Health/Check", b"").expect("it answers"), [8, 1]);
    assert_eq!(site.requests().len(), 1);
}

#[test]
fn a_message_beyond_the_bounds_is_refused_for_good() {
    let check = |config: serde_json::Value, gzip: bool, key: &str| {
        let mut site = Site::start(config);
        let caller = Caller { gzip, ..site.caller() };
        let zeros = vec![0; 100_000];
        let status = caller.call_raw(LOGS, &zeros).expect_err("it is too large");
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        assert!(status.message().contains(key), "{status:?}");
        assert_eq!(status.details(), b"", "it may not come again");
        assert_eq!(site.sources(), ["logs (body) refused 1"]);
        export(&Caller { gzip: true, ..caller }, "req_1").expect("the connection goes on");
    };
    check(json!({"max_body_bytes": 10_000}), false, "max_body_bytes");
    let inflated = json!({"max_body_bytes": 10_000, "max_inflated_bytes": 10_000});
    check(inflated, true, "max_inflated_bytes");
}

#[test]
fn a_bomb_is_refused_before_it_is_decoded() {
    let site = Site::start(json!({"max_decoded_bytes": 1_000_000}));
    // A list of empty messages: each takes two bytes here, and a hundred times that in memory.
    let bomb = [0x0a, 0x00].repeat(200_000);
    let caller = Caller { gzip: true, ..site.caller() };
    let status = caller.call_raw(LOGS, &bomb).expect_err("it is a bomb");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.message().contains("max_decoded_bytes"), "{status:?}");
}

#[test]
fn what_is_no_message_or_no_method_is_said_and_counted() {
    let mut site = Site::plain();
    let caller = site.caller();
    let status = caller.call_raw(LOGS, &[0x0a, 0x20, 0x01]).expect_err("it is cut");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("not valid OTLP protobuf"), "{status:?}");
    for path in ["/secret.Service/Export", "/opentelemetry.proto.collector.logs.v1.LogsService/No"]
    {
        let status = caller.call_raw(path, b"").expect_err("there is no such method");
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
        assert!(status.message().contains("LogsService"), "{status:?}");
    }
    let found = site.sources();
    assert_eq!(found, ["http (gRPC method) refused 2", "logs (body) refused 1"]);
    assert!(!site.everything_told().contains("secret"));
    let series = r#"lodestar_ingest_requests_total{"code":"3","endpoint":"LogsService"}"#;
    let metrics = site.bench.host().metrics();
    assert_eq!(metrics.get(series), Some(&1.0), "{metrics:?}");
}

#[test]
fn a_compression_that_is_not_known_is_said() {
    let site = Site::plain();
    let check = |encoding: Option<&str>, code: Code| {
        let mut caller = site.caller();
        let mut bytes = framed(&claude_logs(vec![]));
        bytes[0] = 1;
        let begun = caller.begin_encoded(LOGS, encoding);
        assert_eq!(begun.finish(&caller, &bytes), code as i32, "{encoding:?}");
    };
    check(Some("zstd"), Code::Unimplemented);
    check(None, Code::InvalidArgument);
    check(Some("gzip"), Code::InvalidArgument);
}

#[test]
fn web_pages_and_other_hosts_do_not_reach_it() {
    let site = Site::plain();
    let check = |caller: Caller, part: &str| {
        let status = export(&caller, "req_1").expect_err("it is refused");
        assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
        assert!(status.message().contains(part), "{status:?}");
    };
    let origin = |text: &str| text.parse().expect("an origin");
    check(
        Caller { origin: origin("http://evil.example:4317"), ..site.caller() },
        "ingest.allowed_hosts",
    );
    let page = vec![("origin", "https://evil.example")];
    check(Caller { metadata: page, ..site.caller() }, "ingest.allowed_origins");
    assert_eq!(site.requests(), []);
    let open = Site::start(json!({"allowed_hosts": ["collector.lan"]}));
    let named = Caller { origin: origin("http://collector.lan:4317"), ..open.caller() };
    export(&named, "req_1").expect("it is allowed");
}

#[test]
fn http_finds_itself_served_on_the_port_of_grpc() {
    let site = Site::plain();
    let address = site.bench.host().listener_address("grpc").expect("it listens");
    let body = claude_logs(vec![claude_request(now_ns(), "req_1")]).encode_to_vec();
    let protobuf = [("content-type", "application/x-protobuf")];
    let answer = request(&mut connect(address), "POST", "/v1/logs", &protobuf, &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(site.requests().len(), 1);
    // A look with a browser.
    let answer = request(&mut connect(address), "GET", "/", &[], b"");
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (404, Some("not_found")));
    let page = [("origin", "https://evil.example")];
    let answer = request(&mut connect(address), "POST", "/v1/logs", &page, &body);
    assert_eq!(answer.status, 403);
}

#[test]
fn a_project_may_be_named_in_the_metadata() {
    let site = Site::plain();
    let caller = Caller { metadata: vec![("x-lodestar-project", "shop")], ..site.caller() };
    export(&caller, "req_1").expect("it is taken");
    assert_eq!(site.requests()[0].project.as_deref(), Some("shop"));
}

#[test]
fn a_slow_call_is_given_up() {
    let site = Site::start(json!({"body_timeout_seconds": 1}));
    let mut caller = site.caller();
    for sent in [&b""[..], b"\0\0", b"\0\0\0\0\x09abc"] {
        let begun = caller.begin(LOGS);
        begun.bytes.send(sent.to_vec().into()).expect("it listens");
        assert_eq!(begun.status(&caller), Code::DeadlineExceeded as i32, "{sent:?}");
    }
    export(&caller, "req_1").expect("the connection goes on");
}

/// Begins a call, and returns once it is certainly under way: it then has the only permit.
fn under_way(caller: &mut Caller) -> crate::caller::Begun {
    let begun = caller.begin(LOGS);
    loop {
        match export(caller, "req_other") {
            Ok(_) => {}
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                return begun;
            }
        }
    }
}

#[test]
fn calls_at_once_are_bounded() {
    let site = Site::start(json!({"max_connections": 1}));
    let mut caller = site.caller();
    let begun = under_way(&mut caller);
    let message = framed(&claude_logs(vec![claude_request(now_ns(), "req_1")]));
    assert_eq!(begun.finish(&caller, &message), 0);
    export(&caller, "req_2").expect("there is room again");
}

#[test]
fn what_is_under_way_is_answered_at_the_stop() {
    let site = Site::start(json!({"max_connections": 1}));
    let host = site.bench.host().clone();
    let mut caller = site.caller();
    let begun = under_way(&mut caller);
    let before = host.emitted().len();
    let message = framed(&claude_logs(vec![claude_request(now_ns(), "req_1")]));
    std::thread::scope(|scope| {
        let client = scope.spawn(move || begun.finish(&caller, &message));
        site.bench.stop().expect("it stops");
        assert_eq!(client.join().expect("no panic"), 0);
    });
    assert_eq!(host.emitted().len(), before + 1);
}

#[test]
fn it_can_be_off() {
    let check = |enabled: bool| {
        let mut site = Site::start(json!({"grpc": {"enabled": enabled}}));
        assert_eq!(site.bench.health().status, module_sdk::HealthStatus::Ok);
        site.bench.advance(std::time::Duration::from_secs(10)).expect("it runs");
        let metrics = site.bench.host().metrics();
        assert_eq!(metrics.contains_key("lodestar_ingest_grpc_connections"), enabled);
    };
    check(true);
    check(false);
}

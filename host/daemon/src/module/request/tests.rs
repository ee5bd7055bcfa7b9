//! Tests of calls between modules, without modules: the test is both caller and target.

use std::sync::mpsc::{Receiver, Sender, channel};

use lodestar_abi::{ALL_CALLS, CallRequest, HostBox};
use lodestar_bus::{Bus, BusConfig};
use module_sdk::manifest::Manifest;

use super::*;
use crate::module::{Call, CommandCall, Entry, Grant, Known, Operate, ServiceContext, WINDOW};

const PATIENCE: Duration = Duration::from_secs(60);

/// A host on which modules call each other, with the calls that it received.
struct Calls {
    context: ServiceContext,
    requests: Receiver<ModuleRequest>,
    _directory: tempfile::TempDir,
}

/// Outcome of a call, frame by frame.
type Told = Receiver<Result<String, ModError>>;

/// A module that calls.
struct Caller {
    services: Arc<Services>,
    host: HostBox,
}

impl Calls {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let bus = Bus::open(BusConfig::default(), &directory.path().join("ledger"));
        let context = ServiceContext::alone(bus.expect("a new ledger"), directory.path());
        let context = context.expect("a new key");
        let (sender, requests) = channel();
        context.calls.serve(Box::new(move |request| drop(sender.send(request))));
        Self { context, requests, _directory: directory }
    }

    fn caller(&self, name: &str, capabilities: &str, operate: Operate) -> Caller {
        let text = format!(
            "[module]\nname = \"{name}\"\nversion = \"0.1.0\"\ndescription = \"d\"\n[abi]\n\
             epoch = 1\n[capabilities]\n{capabilities}\n"
        );
        let grant = Grant {
            manifest: Manifest::parse(&text).expect("it is valid"),
            data_dir: "/nowhere".into(),
            addresses: Default::default(),
            secrets: Default::default(),
            providers: Value::Null,
            operate,
        };
        let services = Services::new(self.context.clone(), Arc::new(Entry::new(name)), grant);
        Caller { host: services.to_abi(), services }
    }

    fn usual(&self) -> Caller {
        self.caller("a", "calls = [\"a.*\", \"b.*\"]", Operate::Allowed)
    }

    fn request(&self) -> ModuleRequest {
        self.requests.recv_timeout(PATIENCE).expect("a request arrives")
    }
}

struct Sink(Sender<Result<String, ModError>>);

impl ReplySink for Sink {
    fn frame(&self, frame: RSlice<'_, u8>) -> bool {
        self.0.send(Ok(String::from_utf8_lossy(&frame).into_owned())).is_ok()
    }

    fn finish(&self, result: RResult<(), ModError>) {
        drop(self.0.send(result.into_result().map(|()| "end".to_owned())));
    }
}

/// A caller that reads nothing until it is released.
struct Stuck(Mutex<Receiver<()>>);

impl ReplySink for Stuck {
    fn frame(&self, _: RSlice<'_, u8>) -> bool {
        lock(&self.0).recv().is_ok()
    }

    fn finish(&self, _: RResult<(), ModError>) {}
}

impl Caller {
    fn call(&self, number: u64, name: &str, times: (u64, u64)) -> Told {
        let (sender, told) = channel();
        let sink = ReplySink_TO::from_value(Sink(sender.clone()), TD_Opaque);
        if let RResult::RErr(error) = self.begin(number, name, times, sink) {
            drop(sender.send(Err(error)));
        }
        told
    }

    fn begin(
        &self,
        number: u64,
        name: &str,
        (ms, parent): (u64, u64),
        sink: ReplySinkBox,
    ) -> RResult<(), ModError> {
        let (target, command) = name.split_once('.').expect("a name");
        let request = CallRequest {
            number,
            target: target.into(),
            command: command.into(),
            arguments: RSlice::from_slice(b"{\"x\":1}"),
            deadline_ms: ms,
            parent,
            reserved: [0; 4],
        };
        self.host.call(request, sink)
    }
}

fn next(told: &Told) -> Result<String, ModError> {
    told.recv_timeout(PATIENCE).expect("something is told")
}

fn frame(told: &Told) -> String {
    next(told).unwrap_or_else(|error| panic!("{}", error.message))
}

fn check_failed(told: &Told, kind: u32, words: &str) {
    let error = next(told).expect_err("it fails");
    assert!(error.kind == kind && error.message.contains(words), "{error:?}");
}

#[test]
fn an_answer_comes_whole_and_once() {
    let calls = Calls::new();
    let caller = calls.usual();
    let told = caller.call(1, "b.c", (0, 0));
    let request = calls.request();
    assert_eq!((request.caller(), request.target(), request.command()), ("a", "b", "c"));
    let json: Value = serde_json::from_slice(&request.to_json()).expect("it is JSON");
    assert_eq!((&json["command"], &json["args"]), (&"c".into(), &json!({"x": 1})));
    let (sink, _) = request.sink();
    assert!(sink.frame(RSlice::from_slice(b"{\"reply\":{\"data\":7}}")));
    sink.finish(RResult::ROk(()));
    assert_eq!(frame(&told), "{\"reply\":{\"data\":7}}");
    assert_eq!(frame(&told), "end");
    assert!(!sink.frame(RSlice::from_slice(b"{\"reply\":{\"data\":8}}")), "it is over");
    drop(sink);
    assert!(told.recv().is_err(), "nothing more comes");
    assert_eq!(calls.context.calls.under_way(), 0);
}

#[test]
fn an_answer_in_parts_comes_in_order() {
    let calls = Calls::new();
    let caller = calls.usual();
    let told = caller.call(1, "b.c", (0, 0));
    let (sink, _) = calls.request().sink();
    for number in 0..100 {
        assert!(sink.frame(RSlice::from_slice(format!("{{\"chunk\":{number}}}").as_bytes())));
    }
    sink.frame(RSlice::from_slice(b"{\"reply\":{}}"));
    sink.finish(RResult::ROk(()));
    for number in 0..100 {
        assert_eq!(frame(&told), format!("{{\"chunk\":{number}}}"));
    }
    assert_eq!(frame(&told), "{\"reply\":{}}");
    assert_eq!(frame(&told), "end");
}

#[test]
fn a_caller_that_does_not_read_holds_the_target_no_longer_than_the_call() {
    let calls = Calls::new();
    let caller = calls.usual();
    let (let_go, stuck) = channel();
    let sink = ReplySink_TO::from_value(Stuck(Mutex::new(stuck)), TD_Opaque);
    assert!(caller.begin(1, "b.c", (200, 0), sink).is_ok());
    let (sink, _) = calls.request().sink();
    let sent = (0..100).take_while(|_| sink.frame(RSlice::from_slice(b"{\"chunk\":\"\"}"))).count();
    assert!(sent <= WINDOW, "{sent} were taken, and then it was over");
    drop(let_go);
}

#[test]
fn a_caller_that_takes_no_more_gets_the_end() {
    /// A caller that takes no frame.
    struct Full(Sender<()>);

    impl ReplySink for Full {
        fn frame(&self, _: RSlice<'_, u8>) -> bool {
            false
        }

        fn finish(&self, _: RResult<(), ModError>) {
            self.0.send(()).expect("the test goes on");
        }
    }

    let calls = Calls::new();
    let caller = calls.usual();
    let (sender, ended) = channel();
    let sink = ReplySink_TO::from_value(Full(sender), TD_Opaque);
    assert!(caller.begin(1, "b.c", (600_000, 0), sink).is_ok());
    let (sink, _) = calls.request().sink();
    sink.frame(RSlice::from_slice(b"{\"chunk\":\"\"}"));
    assert_eq!(ended.recv_timeout(PATIENCE), Ok(()));
    assert!(ended.recv().is_err(), "once");
}

#[test]
fn so_many_answers_come_in_parts_and_no_more() {
    let calls = Calls::new();
    let caller = calls.usual();
    let begin = |number: u64| {
        let told = caller.call(number, "b.c", (600_000, 0));
        let (sink, _) = calls.request().sink();
        let wanted = sink.frame(RSlice::from_slice(b"{\"chunk\":\"\"}"));
        (told, sink, wanted)
    };
    let streams: Vec<_> = (1..=256).map(begin).collect();
    assert!(streams.iter().all(|(told, _, wanted)| *wanted && next(told).is_ok()));
    let (told, _, wanted) = begin(257);
    assert!(!wanted);
    check_failed(&told, error_kind::UNAVAILABLE, "as many answers come in parts as may at once");
}

#[test]
fn where_there_is_no_thread_for_an_answer_the_caller_learns_why() {
    let calls = Calls::new();
    let caller = calls.usual();
    caller.services.acceptance.runs_without_library();
    let told = caller.call(1, "b.c", (600_000, 0));
    let (sink, _) = calls.request().sink();
    assert!(!sink.frame(RSlice::from_slice(b"{\"chunk\":\"\"}")));
    let words = "no thread can be started for its answer";
    check_failed(&told, error_kind::UNAVAILABLE, words);
    assert!(!sink.frame(RSlice::from_slice(b"{\"chunk\":\"\"}")), "it is over");
    drop(sink);
    assert!(told.recv().is_err(), "nothing more comes");
    assert_eq!(calls.context.calls.under_way(), 0);
}

#[test]
fn every_call_ends_whatever_becomes_of_it() {
    let calls = Calls::new();
    let caller = calls.usual();
    let late = caller.call(1, "b.c", (1, 0));
    check_failed(&late, error_kind::TIMED_OUT, "b.c did not answer a within 1 ms");
    let request = calls.request();
    assert!(request.call().is_over());
    let dropped = caller.call(2, "b.c", (0, 0));
    drop(calls.request().sink());
    check_failed(&dropped, error_kind::FAILED, "b.c gave no answer");
    let cancelled = caller.call(3, "b.c", (0, 0));
    caller.host.cancel_call(3);
    check_failed(&cancelled, error_kind::CANCELLED, "a gave up on the call");
    let left = [caller.call(4, "b.c", (0, 0)), caller.call(5, "b.c", (0, 0))];
    caller.services.close();
    left.iter().for_each(|told| check_failed(told, error_kind::UNAVAILABLE, "a gave up"));
    check_failed(&caller.call(6, "b.c", (0, 0)), error_kind::UNAVAILABLE, "has stopped");
    assert_eq!(calls.context.calls.under_way(), 0);
}

#[test]
fn what_the_target_met_is_not_the_callers() {
    let calls = Calls::new();
    let caller = calls.usual();
    let check = |kind: u32, expected: u32, words: &str| {
        let told = caller.call(1, "b.c", (0, 0));
        let (sink, panicked) = calls.request().sink();
        let place = "there".into();
        sink.finish(RResult::RErr(ModError { kind, message: "it met".into(), place }));
        check_failed(&told, expected, words);
        assert_eq!(panicked.get().is_some(), kind == error_kind::PANIC);
    };
    check(error_kind::PANIC, error_kind::FAILED, "b panicked in there: it met");
    check(error_kind::CONFIG, error_kind::FAILED, "it met");
    check(GONE, error_kind::UNAVAILABLE, "b: it met");
    check(error_kind::USAGE, error_kind::USAGE, "it met");
}

#[test]
fn a_call_on_behalf_of_another_has_what_is_left_of_its_time() {
    const HOUR_MS: u64 = 3_600_000;
    let calls = Calls::new();
    let (a, b) = (calls.usual(), calls.caller("b", "calls = [\"a.*\"]", Operate::Allowed));
    let first = a.call(1, "b.c", (HOUR_MS / 2, 0));
    let outer = calls.request();
    let _second = b.call(1, "a.d", (HOUR_MS, outer.call.facts.id));
    let nested = calls.request();
    assert_eq!(nested.call().deadline(), outer.call().deadline());
    let _third = a.call(2, "b.c", (HOUR_MS, nested.call.facts.id));
    assert_eq!(calls.request().call.facts.chain.len(), 3);
    // A number that another module was given leads nowhere.
    let _fourth = a.call(3, "b.c", (0, outer.call.facts.id));
    assert_eq!(calls.request().call.facts.chain.len(), 1);
    calls.context.calls.time_out(&outer.call);
    let words = "on the way b.c > a.d > b.c; these calls go in a circle";
    check_failed(&first, error_kind::TIMED_OUT, words);
}

#[test]
fn a_command_without_barrier_waits_for_no_event() {
    let calls = Calls::new();
    let entry = Entry::new("b");
    let inbox = calls.context.bus.subscribe("b", &["a.*".to_owned()]).expect("a new name");
    entry.calls.open(inbox.waker());
    assert!(entry.barrier("status").is_some(), "one that is not known waits");
    let text = "[module]\nname = \"b\"\nversion = \"0.1.0\"\ndescription = \"d\"\n[abi]\nepoch = 1";
    let described = json!({
        "sdk_version": "0.1.0", "subscriptions": [], "timers": [], "config_schema": {},
        "commands": [
            {"name": "status", "about": "", "args": {}, "streams": false},
            {"name": "peek", "about": "", "args": {}, "streams": false, "without_barrier": true},
        ],
    });
    entry.set_known(Arc::new(Known {
        manifest: Manifest::parse(text).expect("it is valid"),
        description: serde_json::from_value(described).expect("it is a description"),
        sha256: String::new(),
        sdk_version: String::new(),
        path: "/nowhere".into(),
        isolated: false,
    }));
    assert!(entry.barrier("status").is_some() && entry.barrier("peek").is_none());
}

#[test]
fn who_is_called_by_modules_still_answers_people() {
    let calls = Calls::new();
    let caller = calls.usual();
    let entry = Entry::new("b");
    let inbox = calls.context.bus.subscribe("b", &["a.*".to_owned()]).expect("a new name");
    entry.calls.open(inbox.waker());
    let push = |call: Option<Arc<ModuleCall>>| {
        let command = CommandCall {
            request: Vec::new(),
            sink: ReplySink_TO::from_value(Sink(channel().0), TD_Opaque),
            panicked: Arc::default(),
            after: None,
            patience: Instant::now(),
            call,
            files: None,
        };
        entry.calls.push(Call::Command(command)).is_ok()
    };
    for number in 1..=300 {
        drop(caller.call(number, "b.c", (600_000, 0)));
        assert!(push(Some(calls.request().call().clone())));
    }
    let taken = (0..300).take_while(|_| push(None)).count();
    assert_eq!(taken, 256, "so many commands of people may wait");
}

#[test]
fn nested_calls_have_an_end() {
    let calls = Calls::new();
    let caller = calls.caller("a", "calls = [\"a.*\"]", Operate::Allowed);
    let mut parent = 0;
    for number in 1..=16 {
        drop(caller.call(number, "a.b", (0, parent)));
        parent = calls.request().call.facts.id;
    }
    let beyond = caller.call(17, "a.b", (0, parent));
    check_failed(&beyond, error_kind::FAILED, "calls may be nested 16 deep");
}

#[test]
fn a_module_has_so_many_calls_under_way_and_no_more() {
    let calls = Calls::new();
    let caller = calls.usual();
    let told: Vec<Told> =
        (1..=16_384).map(|number| caller.call(number, "b.c", (600_000, 0))).collect();
    let beyond = caller.call(20_000, "b.c", (0, 0));
    check_failed(&beyond, error_kind::UNAVAILABLE, "16384 calls of a are under way");
    caller.host.cancel_call(1);
    check_failed(&told[0], error_kind::CANCELLED, "");
    // Its target has not let go of it, and it goes on taking room.
    let beyond = caller.call(20_001, "b.c", (0, 0));
    check_failed(&beyond, error_kind::UNAVAILABLE, "16384 calls of a are under way");
    check_failed(&caller.call(2, "b.c", (0, 0)), error_kind::FAILED, "the number 2 is under way");
    for _ in &told {
        let request = calls.request();
        request.answer(&Value::Null);
    }
    assert!(told[1..].iter().all(|told| next(told).is_ok()), "none is lost");
    check_failed(&caller.call(ALL_CALLS, "b.c", (0, 0)), error_kind::FAILED, "the number 0");
}

#[test]
fn refusals_say_what_to_write_where() {
    let calls = Calls::new();
    let check = |capabilities: &str, operate: Operate, name: &str, words: &str| {
        let caller = calls.caller("a", capabilities, operate);
        let told = caller.call(1, name, (0, 0));
        if words.is_empty() {
            assert_eq!(calls.request().target(), name.split('.').next().expect("a target"));
        } else {
            check_failed(&told, error_kind::REFUSED, words);
        }
    };
    let (may, unconfirmed) = (Operate::Allowed, Operate::Unconfirmed);
    check("", may, "b.c", "add \"b.c\" to `calls` under [capabilities] in its module.toml");
    check("calls = [\"b.c\"]", may, "b.d", "add \"b.d\"");
    check("calls = [\"b.c\"]", may, "b.c", "");
    check("calls = [\"b.*\"]", may, "b.c", "");
    check("calls = [\"b.*\"]", may, "bb.c", "add \"bb.c\"");
    check("calls = [\"host.modules.*\"]", may, "host.status", "add \"host.status\"");
    check("calls = [\"host.modules.*\"]", unconfirmed, "host.modules.list", "");
    let all = "calls = [\"host.*\"]";
    check(all, may, "host.modules.enable", "add `control = \"operate\"` under [capabilities]");
    let operate = format!("{all}\ncontrol = \"operate\"");
    check(
        &operate,
        unconfirmed,
        "host.modules.enable",
        "write `control: operate` into its section",
    );
    check(&operate, may, "host.modules.enable", "");
}

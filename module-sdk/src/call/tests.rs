//! Tests of calls from a module on the bench.

use std::{
    pin::pin,
    sync::mpsc,
    task::{Context, Waker},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    Call, Error, ErrorKind, Frame, Host, Job, Module, NoArgs, Reply, Result, Wiring, testing::Bench,
};

/// A module that passes on the answers of others.
struct Asker {
    host: Host,
}

impl Module for Asker {
    type Config = NoArgs;

    fn start(_: NoArgs, host: &Host) -> Result<Self> {
        Ok(Self { host: host.clone() })
    }

    fn wire(wiring: &mut Wiring<Self>) {
        wiring
            .stream("ask", Self::ask)
            .stream("copy", Self::copy)
            .command("ask_here", Self::ask_here)
            .command("poll_here", Self::poll_here)
            .command("give_up", Self::give_up)
            .without_barrier();
    }
}

impl Asker {
    fn summary(&self) -> Call<u64> {
        self.host.call("usage", "summary", &json!({"since": "7d"}))
    }

    fn ask(&mut self, _: NoArgs) -> Result<Job> {
        let summary = self.summary().within(Duration::from_secs(3));
        Ok(Job::new(move |_| Reply::json(&summary.wait()?)))
    }

    fn copy(&mut self, _: NoArgs) -> Result<Job> {
        let mut export = self.host.call_stream("usage", "export", &Value::Null);
        Ok(Job::new(move |output| {
            let mut chunks = 0;
            while let Some(frame) = export.wait_next() {
                match frame? {
                    Frame::Chunk(_) => chunks += 1,
                    Frame::Progress { done, total, unit } => output.progress(done, total, &unit)?,
                    Frame::Reply(reply) => return Reply::json(&json!([chunks, reply.data])),
                }
            }
            Err(Error::new("no answer"))
        }))
    }

    fn ask_here(&mut self, _: NoArgs) -> Result<Reply> {
        Reply::json(&self.summary().wait()?)
    }

    fn poll_here(&mut self, _: NoArgs) -> Result<Reply> {
        let mut call = pin!(self.summary());
        let polled = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        match polled {
            std::task::Poll::Ready(answer) => Reply::json(&answer?),
            std::task::Poll::Pending => Err(Error::new("it hangs")),
        }
    }

    /// Begins a call on another thread, and drops it.
    fn give_up(&mut self, _: NoArgs) -> Result<Reply> {
        let call = self.summary();
        let begun = std::thread::spawn(move || {
            let mut call = pin!(call);
            call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
        });
        Reply::json(&begun.join().unwrap_or(false))
    }
}

#[test]
fn only_what_says_so_goes_without_barrier() {
    let mut wiring = Wiring::<Asker>::new();
    Asker::wire(&mut wiring);
    let commands = wiring.commands.iter().map(|command| &command.description);
    let free = commands.filter(|it| it.without_barrier).map(|it| it.name.as_str());
    assert_eq!(free.collect::<Vec<_>>(), ["give_up"]);
}

fn bench() -> Bench<Asker> {
    Bench::start(json!({})).expect("it starts")
}

#[test]
fn the_answer_of_another_module_comes_back() {
    let mut bench = bench();
    bench.host().answer("usage", "summary", |args, _| Reply::json(&(args["since"] == "7d")));
    let error = bench.command("ask", json!({})).expect_err("a truth is no number");
    assert!(error.to_string().contains("the answer has another form"), "{error}");
    bench.host().answer("usage", "summary", |_, _| Reply::json(&7));
    assert_eq!(bench.command("ask", json!({})).expect("it answers").data, 7);
    let called = bench.host().called();
    let (first, last) = (&called[0], &called[1]);
    assert_eq!((first.target.as_str(), first.command.as_str()), ("usage", "summary"));
    assert_eq!((&first.arguments, first.deadline_ms), (&json!({"since": "7d"}), 3_000));
    assert!(first.number != 0 && first.number != last.number, "{called:?}");
    assert!(called.iter().all(|call| !call.cancelled), "{called:?}");
}

#[test]
fn what_goes_wrong_there_is_told_and_blames_nobody_here() {
    let mut bench = bench();
    let error = bench.command("ask", json!({})).expect_err("nobody answers");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    for (kind, expected) in [
        (ErrorKind::Panic, ErrorKind::Failed),
        (ErrorKind::Config, ErrorKind::Failed),
        (ErrorKind::Unavailable, ErrorKind::Unavailable),
        (ErrorKind::TimedOut, ErrorKind::TimedOut),
        (ErrorKind::Refused, ErrorKind::Refused),
    ] {
        bench.host().answer("usage", "summary", move |_, _| Err(Error::of(kind, "it is so")));
        let error = bench.command("ask", json!({})).expect_err("it fails");
        assert_eq!((error.kind(), error.to_string().as_str()), (expected, "it is so"));
    }
}

#[test]
fn the_modules_own_thread_does_not_wait() {
    let mut bench = bench();
    bench.host().answer("usage", "summary", |_, _| Reply::json(&7));
    for command in ["ask_here", "poll_here"] {
        let error = bench.command(command, json!({})).expect_err("it may not wait");
        assert!(error.to_string().contains("answer the command with a `Job`"), "{error}");
    }
    assert_eq!(bench.host().called(), [], "nothing was asked either");
}

#[test]
fn a_stream_comes_whole_and_in_order() {
    let mut bench = bench();
    bench.host().answer("usage", "export", |_, output| {
        use std::io::Write as _;
        for line in 0..100 {
            writeln!(output, "{line}")?;
            output.flush()?;
            output.progress(line, Some(100), "lines")?;
        }
        Reply::json(&"done")
    });
    let (_, reply) = bench.stream("copy", json!({})).expect("it answers");
    assert_eq!(reply.data, json!([100, "done"]));
}

#[test]
fn a_call_that_is_dropped_is_cancelled() {
    let mut bench = bench();
    let (release, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    bench.host().answer("usage", "summary", move |_, _| {
        let _ = wait.lock().expect("nobody panics").recv();
        Reply::json(&7)
    });
    assert_eq!(bench.command("give_up", json!({})).expect("it answers").data, true);
    let called = bench.host().called();
    assert!(called.len() == 1 && called[0].cancelled, "{called:?}");
    drop(release);
}

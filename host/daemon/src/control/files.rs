//! Files that a client sends with a command: from the body of its request into a pipe, whose other
//! end the module reads.

use std::os::fd::OwnedFd;

use axum::body::{Body, BodyDataStream, Bytes};
use futures_util::StreamExt as _;
use module_sdk::{ARGUMENTS_RECORD, MAX_RECORD};
use nix::fcntl::{FcntlArg, fcntl};
use serde_json::Value;
use tokio::{io::AsyncWriteExt as _, net::unix::pipe, sync::watch};

use crate::{
    module::{State, Transition},
    refusal::Refusal,
};

/// Length of the head of a record, in bytes.
const HEAD: usize = 5;

/// Size of the pipe, in bytes.
const PIPE: i32 = 1 << 20;

/// Reads the arguments, and begins to pass the files on. Returns the arguments and the end of the
/// pipe that the files come from. It ends when the module is to stop, which waits for whoever
/// reads.
///
/// # Errors
///
/// When the body does not begin with arguments, or no pipe can be had.
pub(super) async fn receive(
    body: Body,
    module: watch::Receiver<Transition>,
) -> Result<(Value, OwnedFd), Refusal> {
    let mut body = body.into_data_stream();
    let mut begin = Vec::new();
    while begin.len() < HEAD {
        begin.extend_from_slice(&more(&mut body).await?);
    }
    let length = u32::from_be_bytes([begin[1], begin[2], begin[3], begin[4]]) as usize;
    if begin[0] != ARGUMENTS_RECORD || length > MAX_RECORD {
        return Err(Refusal::invalid("the body does not begin with the arguments of the command"));
    }
    let end = HEAD + length;
    while begin.len() < end {
        begin.extend_from_slice(&more(&mut body).await?);
    }
    let args = serde_json::from_slice(&begin[HEAD..end])
        .map_err(|error| Refusal::invalid(format!("the arguments are no JSON: {error}")))?;
    let files = begin.split_off(end);
    let (sender, receiver) = pipe::pipe().map_err(no_pipe)?;
    // A wider pipe is less waiting. Where it may not be, the usual one does.
    let _ = fcntl(&sender, FcntlArg::F_SETPIPE_SZ(PIPE));
    // The module reads like from a file: it waits for what is not there yet.
    let receiver = receiver.into_blocking_fd().map_err(no_pipe)?;
    tokio::spawn(pass_on(files, body, sender, module));
    Ok((args, receiver))
}

/// Returns the next part of a body that is not at its end.
async fn more(body: &mut BodyDataStream) -> Result<Bytes, Refusal> {
    match body.next().await {
        Some(Ok(part)) => Ok(part),
        Some(Err(_)) | None => Err(Refusal::invalid("the body broke off")),
    }
}

/// Passes on what comes, until the module reads no more or stops. The rest is dropped: a client
/// that could not send it would not read the answer.
async fn pass_on(
    begin: Vec<u8>,
    mut body: BodyDataStream,
    sender: pipe::Sender,
    mut module: watch::Receiver<Transition>,
) {
    let draining = |transition: &Transition| transition.state == State::Draining;
    tokio::select! {
        () = copy(begin.into(), &mut body, sender) => {}
        _ = module.wait_for(draining) => {}
    }
    while more(&mut body).await.is_ok() {}
}

/// Copies a body into a pipe. At its end, and where the client is gone, the module sees the end of
/// the pipe.
async fn copy(mut part: Bytes, body: &mut BodyDataStream, mut pipe: pipe::Sender) {
    while pipe.write_all(&part).await.is_ok() {
        let Ok(next) = more(body).await else { return };
        part = next;
    }
}

fn no_pipe(error: std::io::Error) -> Refusal {
    Refusal::failed(format!("the files cannot be passed on: {error}"))
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read as _};

    use futures_util::stream;
    use serde_json::json;

    use super::*;

    fn running() -> Transition {
        let since = jiff::Timestamp::UNIX_EPOCH;
        Transition { state: State::Running, reason: String::new(), since }
    }

    fn begin(args: &str) -> Vec<u8> {
        let mut bytes = vec![ARGUMENTS_RECORD];
        bytes.extend_from_slice(&u32::try_from(args.len()).expect("it is short").to_be_bytes());
        bytes.extend_from_slice(args.as_bytes());
        bytes
    }

    #[tokio::test]
    async fn arguments_are_taken_out_and_the_rest_goes_on() {
        let (_told, module) = watch::channel(running());
        let mut bytes = begin("{\"a\":1}");
        let rest = vec![7; 300 << 10];
        bytes.extend_from_slice(&rest);
        let (args, files) = receive(Body::from(bytes), module).await.expect("it is whole");
        assert_eq!(args, json!({"a": 1}));
        let read = tokio::task::spawn_blocking(move || {
            let mut read = Vec::new();
            File::from(files).read_to_end(&mut read).map(|_| read)
        });
        assert_eq!(read.await.expect("no panic").expect("it is read"), rest);
    }

    #[tokio::test]
    async fn a_module_that_stops_waits_for_no_file() {
        let (told, module) = watch::channel(running());
        let (client, body) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
        let body = stream::unfold(body, |mut body| async move {
            let next = body.recv().await?;
            Some((next, body))
        });
        client.send(Ok(begin("{}").into())).await.expect("it is read");
        let (_, files) = receive(Body::from_stream(body), module).await.expect("it is whole");
        let read = tokio::task::spawn_blocking(move || {
            let mut read = Vec::new();
            File::from(files).read_to_end(&mut read).map(|_| read)
        });
        told.send_modify(|transition| transition.state = State::Draining);
        assert_eq!(read.await.expect("no panic").expect("it ends"), b"");
        drop(client);
    }

    #[tokio::test]
    async fn what_is_no_request_is_refused() {
        let (_told, module) = watch::channel(running());
        let mut long = vec![ARGUMENTS_RECORD];
        long.extend_from_slice(&u32::MAX.to_be_bytes());
        let cut = begin("{}").split_last().expect("it has some").1.to_vec();
        for (bytes, part) in [
            (Vec::new(), "broke off"),
            (b"Z\0\0\0\0".to_vec(), "does not begin with the arguments"),
            (long, "does not begin with the arguments"),
            (cut, "broke off"),
            (begin("{"), "no JSON"),
        ] {
            let received = receive(Body::from(bytes), module.clone()).await;
            let Refusal(problem) = received.expect_err(part);
            assert!(problem.detail.contains(part), "{}", problem.detail);
        }
    }
}

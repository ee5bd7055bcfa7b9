use std::os::fd::AsFd as _;

use super::*;
use crate::runner::wire::{HostRequest, RunnerRequest};

fn pair() -> (Writer, Reader) {
    let (left, right) = UnixStream::pair().expect("descriptors are left");
    (Writer::new(left), Reader::with_descriptors(right))
}

#[test]
fn the_time_of_a_call_holds_while_its_question_is_sent() {
    let (left, right) = UnixStream::pair().expect("descriptors are left");
    let (mut writer, mut reader) = (Writer::new(left), Reader::new(right));
    let soon = || Deadline::after(Duration::from_millis(20));
    let sent = writer.send_within(&vec![7_u8; 4 << 20], soon());
    assert!(matches!(sent, Err(ChannelError::TimedOut)), "nobody reads: {sent:?}");
    let answered = loop {
        // What was sent of it is no whole frame.
        if let Err(error) = reader.fill_within(soon()) {
            break error;
        }
    };
    assert!(matches!(answered, ChannelError::TimedOut), "nothing more comes: {answered}");
}

#[test]
fn messages_arrive_as_they_were_sent() {
    let (mut writer, mut reader) = pair();
    let large = vec![7; 3 << 20];
    let sender = std::thread::spawn(move || {
        for number in 0..100 {
            writer.send(&HostRequest::Record { handle: number, value: 0.5 }).expect("it is read");
        }
        writer.send(&RunnerRequest::Validate(&large)).expect("it is read");
        writer.send(&RunnerRequest::Timer(7)).expect("it is read");
    });
    for number in 0..100 {
        let HostRequest::Record { handle, .. } = reader.next().expect("a message") else {
            panic!("another message");
        };
        assert_eq!(handle, number);
    }
    let RunnerRequest::Validate(bytes) = reader.next().expect("a message") else {
        panic!("another")
    };
    assert_eq!((bytes.len(), bytes[0]), (3 << 20, 7));
    assert!(matches!(reader.next(), Ok(RunnerRequest::Timer(7))));
    sender.join().expect("no panic");
    assert!(matches!(reader.next::<RunnerRequest<'_>>(), Err(ChannelError::Closed)));
}

#[test]
fn a_descriptor_comes_with_its_message() {
    let (mut writer, mut reader) = pair();
    let file = tempfile::tempfile().expect("a temporary file");
    writer.send(&RunnerRequest::Timer(1)).expect("it fits");
    let soon = Deadline::after(Duration::from_secs(5));
    let second = RunnerRequest::Timer(2);
    writer.send_with(&second, file.as_fd(), soon).expect("it fits");
    assert!(matches!(reader.next(), Ok(RunnerRequest::Timer(1))));
    assert!(matches!(reader.next(), Ok(RunnerRequest::Timer(2))));
    assert!(reader.take_descriptor().is_some());
    assert!(reader.take_descriptor().is_none());
    writer.send_with(&second, file.as_fd(), soon).expect("it fits");
    let both = reader.next_with_descriptor();
    assert!(matches!(both, Ok((RunnerRequest::Timer(2), Some(_)))));
}

#[test]
fn nobody_waits_for_a_reader_that_does_not_read() {
    let (mut writer, _reader) = pair();
    let file = tempfile::tempfile().expect("a temporary file");
    let large = vec![7; 4 << 20];
    let soon = Deadline::after(Duration::from_millis(50));
    let sent = writer.send_with(&RunnerRequest::Validate(&large), file.as_fd(), soon);
    assert!(matches!(sent, Err(ChannelError::TimedOut)), "{sent:?}");
}

#[test]
fn garbage_is_told_from_messages() {
    let check = |bytes: &[u8], part: &str| {
        let (mut writer, mut reader) = pair();
        writer.stream.write_all(bytes).expect("it fits");
        drop(writer);
        let error = reader.next::<HostRequest<'_>>().expect_err("it is no message").to_string();
        assert!(error.contains(part), "{error}");
    };
    check(&[0xff; 64], "a frame of 4294967295 bytes");
    check(&[1, 0, 0, 0, 0xff], "no message");
    check(&[0, 0, 0, 0], "no message");
    check(&[9, 0, 0, 0, 3, 0, 0, 0], "closed");
    // A record with a byte behind it.
    let mut long = vec![11, 0, 0, 0, 3, 0];
    long.extend([0; 9]);
    check(&long, "too many");
}

use std::io::Cursor;

use super::*;

fn records(files: &[(&str, io::Result<&[u8]>)]) -> Vec<u8> {
    let bytes = files.iter().filter_map(|(_, content)| content.as_ref().ok()).map(|it| it.len());
    let bytes = bytes.sum::<usize>() as u64;
    let sum = FilesSum { files: files.len() as u64, bytes, unchanged: 2 };
    let mut writer = FilesWriter::new(Vec::new(), sum).expect("it is memory");
    for (name, content) in files {
        let content = content.as_ref().map_err(|error| io::Error::new(error.kind(), "no"));
        let head = FileHead::new(*name);
        writer.file(&head, content.map(|it| Cursor::new(*it))).expect("it is memory");
    }
    writer.finish().expect("it is memory")
}

fn read(records: &[u8]) -> Files {
    Files::new(Cursor::new(records.to_vec()))
}

#[test]
fn files_come_one_by_one_with_their_errors() {
    let large = vec![b'x'; 3 * PART + 7];
    let records = records(&[
        ("a", Ok(b"one".as_slice())),
        ("b", Err(io::ErrorKind::PermissionDenied.into())),
        ("empty", Ok(b"".as_slice())),
        ("large", Ok(large.as_slice())),
    ]);
    let mut files = read(&records);
    let sum = FilesSum { files: 4, bytes: 3 + large.len() as u64, unchanged: 2 };
    assert_eq!(files.sum().expect("it is told"), sum);
    let mut seen = Vec::new();
    while let Some(mut file) = files.next_file().expect("it goes on") {
        let mut content = Vec::new();
        let read = file.read_to_end(&mut content).map_err(|error| error.to_string());
        seen.push((file.name().to_owned(), read));
    }
    let seen: Vec<_> = seen.iter().map(|(name, read)| (name.as_str(), read.clone())).collect();
    let no = Err("no".to_owned());
    assert_eq!(seen, [("a", Ok(3)), ("b", no), ("empty", Ok(0)), ("large", Ok(large.len()))]);
    assert!(files.next_file().expect("it stays ended").is_none());
}

#[test]
fn a_file_may_be_left_unread() {
    let large = vec![b'x'; 2 * PART];
    let records = records(&[
        ("a", Ok(large.as_slice())),
        ("b", Err(io::ErrorKind::NotFound.into())),
        ("c", Ok(b"c".as_slice())),
    ]);
    let mut files = read(&records);
    let mut some = [0; 10];
    let mut first = files.next_file().expect("it goes on").expect("a file");
    first.read_exact(&mut some).expect("it is longer");
    let mut names = Vec::new();
    while let Some(file) = files.next_file().expect("it goes on") {
        names.push(file.name().to_owned());
    }
    assert_eq!(names, ["b", "c"]);
}

#[test]
fn what_breaks_off_is_no_end() {
    let whole = records(&[("a", Ok(b"content".as_slice()))]);
    let read_all = |records: &[u8]| -> Result<()> {
        let mut files = read(records);
        while let Some(mut file) = files.next_file()? {
            let mut content = Vec::new();
            if let Err(error) = file.read_to_end(&mut content) {
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
            }
        }
        Ok(())
    };
    read_all(&whole).expect("it is whole");
    for end in 0..whole.len() {
        let error = read_all(&whole[..end]).expect_err("it is cut");
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{end}: {error}");
    }
}

#[test]
fn records_out_of_order_are_refused() {
    for records in [&b"Z\0\0\0\0"[..], b"D\0\0\0\x01x", b"S\xff\xff\xff\xff"] {
        let mut files = read(records);
        let error = files.next_file().map(drop).expect_err("it is out of order");
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    }
    let mut within = records(&[]);
    within.truncate(within.len() - 5);
    within.extend_from_slice(b"D\0\0\0\x01x");
    let error = read(&within).next_file().map(drop).expect_err("content outside of a file");
    assert!(error.to_string().ends_with("a record of kind D"), "{error}");
}

#[test]
fn a_file_on_disk_has_its_size_and_time() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "four").expect("it is written");
    let about = std::fs::metadata(file.path()).expect("it is there");
    let mut writer = FilesWriter::new(Vec::new(), FilesSum::default()).expect("it is memory");
    let head = FileHead::of("f", &about);
    writer.file(&head, fs::File::open(file.path())).expect("it is memory");
    let mut files = read(&writer.finish().expect("it is memory"));
    let file = files.next_file().expect("it goes on").expect("a file");
    assert_eq!(file.size(), 4);
    let expected = Timestamp::try_from(about.modified().expect("a time")).expect("it fits");
    let modified = file.modified().expect("a time");
    assert_eq!(modified.as_millisecond(), expected.as_millisecond());
    let mark = file.mark().expect("a state");
    assert_eq!(*mark, FileMark::from(&about));
    assert_eq!((mark.bytes, i128::from(mark.modified_ns)), (4, expected.as_nanosecond()));
}

#[test]
fn what_is_known_of_a_file_comes_with_it() {
    let mark = FileMark { device: 7, inode: u64::MAX, bytes: 9, modified_ns: -3 };
    let head = FileHead {
        bytes: 9,
        tool: Some("codex".to_owned()),
        mark: Some(mark),
        from: 4,
        head: Some("ab".to_owned()),
        ..FileHead::new("a")
    };
    let mut writer = FilesWriter::new(Vec::new(), FilesSum::default()).expect("it is memory");
    writer.file(&head, Ok(b"tail\n".as_slice())).expect("it is memory");
    writer.file(&FileHead::new("-"), Ok(b"".as_slice())).expect("it is memory");
    let mut files = read(&writer.finish().expect("it is memory"));
    let mut file = files.next_file().expect("it goes on").expect("a file");
    assert_eq!((file.tool(), file.mark(), file.size()), (Some("codex"), Some(&mark), 9));
    assert_eq!((file.from(), file.head()), (4, Some("ab")));
    let mut content = String::new();
    file.read_to_string(&mut content).expect("it is read");
    assert_eq!(content, "tail\n");
    let file = files.next_file().expect("it goes on").expect("a file");
    assert_eq!((file.tool(), file.mark(), file.from(), file.head()), (None, None, 0, None));
}

#[test]
fn an_older_sender_is_understood() {
    let mut records = Vec::new();
    write(&mut records, record::SUM, b"{\"files\":1,\"bytes\":2}").expect("it is memory");
    let head = b"{\"name\":\"a\",\"bytes\":2,\"modified_ms\":5}";
    write(&mut records, record::FILE, head).expect("it is memory");
    write(&mut records, record::DATA, b"hi").expect("it is memory");
    write(&mut records, record::FILE_END, b"").expect("it is memory");
    write(&mut records, record::END, b"").expect("it is memory");
    let mut files = read(&records);
    let sum = FilesSum { files: 1, bytes: 2, unchanged: 0 };
    assert_eq!(files.sum().expect("it is told"), sum);
    let file = files.next_file().expect("it goes on").expect("a file");
    assert_eq!((file.name(), file.size(), file.from()), ("a", 2, 0));
    assert_eq!((file.tool(), file.mark(), file.head()), (None, None, None));
    assert!(files.next_file().expect("it goes on").is_none());
}

#[test]
fn a_slow_pipe_holds_nothing_back() {
    /// Bytes that have arrived at the reader, and those that wait to be sent.
    #[derive(Default)]
    struct Sent(Vec<u8>, Vec<u8>);
    impl Write for Sent {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            self.0.append(&mut self.1);
            Ok(())
        }
    }
    struct Slow;
    impl Read for Slow {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }
    let mut writer = FilesWriter::begin(Sent::default(), b"{}", FilesSum::default());
    let writer = writer.as_mut().expect("it is memory");
    let head = FileHead::new("-");
    writer.file(&head, Ok((&b"a line"[..]).chain(Slow))).expect("it is memory");
    let arrived = String::from_utf8_lossy(&writer.0.0).into_owned();
    assert!(arrived.starts_with('A') && arrived.ends_with("a line"), "{arrived:?}");
}

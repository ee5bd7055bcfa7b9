//! A small HTTP client: enough to send what the tools of developers send.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context as _, Result};

/// Time that a reply may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Answer of a server.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Sends a body to `http://address/path`.
///
/// # Errors
///
/// When the server is not reached or what it answers is no HTTP.
pub(crate) fn post(address: &str, path: &str, content_type: &str, body: &[u8]) -> Result<Answer> {
    exchange(address, path, content_type, body)
        .with_context(|| format!("cannot post to http://{address}{path}"))
}

fn exchange(address: &str, path: &str, content_type: &str, body: &[u8]) -> Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {content_type}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&String::from_utf8_lossy(&answer)).context("the answer is no HTTP")
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some(Answer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn sends_and_reads() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client comes");
            let mut request = [0; 1024];
            let count = stream.read(&mut request).expect("it sends");
            stream.write_all(b"HTTP/1.1 202 Accepted\r\n\r\nyes").expect("it listens");
            String::from_utf8_lossy(&request[..count]).into_owned()
        });
        let answer = post(&address, "/v1/logs", "text/plain", b"").expect("it answers");
        assert_eq!((answer.status, answer.body.as_str()), (202, "yes"));
        assert!(server.join().expect("it ends").starts_with("POST /v1/logs HTTP/1.1\r\n"));
    }

    #[test]
    fn refuses_what_is_no_http() {
        assert!(parse("SSH-2.0").is_none());
        assert!(parse("HTTP/1.1 abc\r\n\r\n").is_none());
    }
}

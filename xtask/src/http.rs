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
    head: String,
}

impl Answer {
    /// Returns the value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// Sends a body to `http://address/path`.
///
/// # Errors
///
/// When the server is not reached or what it answers is no HTTP.
pub(crate) fn post(address: &str, path: &str, content_type: &str, body: &[u8]) -> Result<Answer> {
    post_with(address, path, &[("Content-Type", content_type)], body)
}

/// Sends a body with headers to `http://address/path`.
///
/// # Errors
///
/// When the server is not reached or what it answers is no HTTP.
pub(crate) fn post_with(
    address: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer> {
    exchange(address, path, headers, body)
        .with_context(|| format!("cannot post to http://{address}{path}"))
}

fn exchange(address: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let fields: String =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\n{fields}Content-Length: {}\r\n\
         Connection: close\r\n\r\n",
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
    Some(Answer { status, body: body.to_owned(), head: head.to_owned() })
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
            let answer = b"HTTP/1.1 202 Accepted\r\nx-id: 7\r\n\r\nyes";
            stream.write_all(answer).expect("it listens");
            String::from_utf8_lossy(&request[..count]).into_owned()
        });
        let answer = post(&address, "/v1/logs", "text/plain", b"").expect("it answers");
        assert_eq!((answer.status, answer.body.as_str()), (202, "yes"));
        assert_eq!((answer.header("X-Id"), answer.header("x-other")), (Some("7"), None));
        let request = server.join().expect("it ends");
        assert!(request.starts_with("POST /v1/logs HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("\r\nContent-Type: text/plain\r\n"), "{request}");
    }

    #[test]
    fn refuses_what_is_no_http() {
        assert!(parse("SSH-2.0").is_none());
        assert!(parse("HTTP/1.1 abc\r\n\r\n").is_none());
    }
}

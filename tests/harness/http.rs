//! A small HTTP client for TCP and Unix sockets.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::Path,
};

use serde_json::Value;

use crate::PATIENCE;

/// Answer of a server.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The head, with its status line.
    pub head: String,
    /// The body, put together where it came in chunks.
    pub body: Vec<u8>,
}

impl Answer {
    /// Returns the body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Parses the body as JSON.
    ///
    /// # Panics
    ///
    /// When the body is no JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("the body is no JSON ({error}): {}", self.text()))
    }
}

/// Posts a body to a TCP address; `headers` are whole lines without their end.
///
/// # Errors
///
/// When the server is not reached or breaks off.
pub fn post(address: &str, path: &str, headers: &[&str], body: &[u8]) -> std::io::Result<Answer> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    exchange(stream, "POST", address, path, headers, body)
}

/// Gets a page from a TCP address.
///
/// # Errors
///
/// When the server is not reached or breaks off.
pub fn get(address: &str, path: &str) -> std::io::Result<Answer> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    exchange(stream, "GET", address, path, &[], b"")
}

/// Sends exactly these bytes to a TCP address and reads until the server closes.
///
/// # Errors
///
/// When the server is not reached or breaks off.
pub fn raw(address: &str, request: &str) -> std::io::Result<Answer> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    send(stream, request.as_bytes(), b"")
}

/// Sends exactly these bytes to a Unix socket and reads until the server closes.
///
/// # Errors
///
/// When the server is not reached or breaks off.
pub fn raw_unix(socket: &Path, request: &str) -> std::io::Result<Answer> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    send(stream, request.as_bytes(), b"")
}

/// Gets a page from a Unix socket.
///
/// # Errors
///
/// When the server is not reached or breaks off.
pub fn get_unix(socket: &Path, path: &str) -> std::io::Result<Answer> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    exchange(stream, "GET", "localhost", path, &[], b"")
}

fn exchange(
    stream: impl Read + Write,
    method: &str,
    host: &str,
    path: &str,
    headers: &[&str],
    body: &[u8],
) -> std::io::Result<Answer> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    send(stream, head.as_bytes(), body)
}

fn send(mut stream: impl Read + Write, head: &[u8], body: &[u8]) -> std::io::Result<Answer> {
    stream.write_all(head)?;
    // A server that refuses early closes its side; its answer is still there to be read.
    let sent = stream.write_all(body);
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    match parse(&answer) {
        Some(answer) => Ok(answer),
        None => {
            sent.and(read)?;
            Err(std::io::Error::other("the server closed the connection without an answer"))
        }
    }
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    let body = &bytes[end + 4..];
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunked(body)? } else { body.to_vec() };
    Some(Answer { status, head, body })
}

fn unchunked(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[..end]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(bytes.get(end + 2..end + 2 + size)?);
        bytes = bytes.get(end + 4 + size..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_and_in_chunks() {
        let check = |text: &str, status, body: &str| {
            let answer = parse(text.as_bytes()).expect("it is an answer");
            assert_eq!((answer.status, answer.text().as_str()), (status, body));
        };
        check("HTTP/1.1 204 No Content\r\n\r\n", 204, "");
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, "hi");
        let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(&format!("{chunks}2\r\nhi\r\n3;x=y\r\n ho\r\n0\r\n\r\n"), 200, "hi ho");
        assert!(parse(b"SSH-2.0").is_none());
        assert!(parse(format!("{chunks}5\r\nhi").as_bytes()).is_none());
    }
}

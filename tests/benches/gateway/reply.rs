//! Reading of an HTTP answer, as little as a client has to.

/// An answer as it arrives.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    bytes: Vec<u8>,
    /// Length of the head, once it is there.
    head: Option<usize>,
    /// Length that the head states; `None` for chunks.
    length: Option<usize>,
}

impl Reply {
    /// Takes bytes; returns `true` where the answer is whole.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> bool {
        self.bytes.extend_from_slice(bytes);
        if self.head.is_none() {
            let end = self.bytes.windows(4).position(|window| window == b"\r\n\r\n");
            let Some(end) = end else { return false };
            self.head = Some(end + 4);
            let head = String::from_utf8_lossy(&self.bytes[..end]).to_ascii_lowercase();
            let field = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            self.length = field.and_then(|value| value.trim().parse().ok());
        }
        match (self.head, self.length) {
            (Some(head), Some(length)) => self.bytes.len() >= head + length,
            _ => self.bytes.ends_with(b"\r\n0\r\n\r\n"),
        }
    }

    /// Returns whether a part of the body has arrived.
    pub(crate) fn has_body(&self) -> bool {
        self.head.is_some_and(|head| self.bytes.len() > head)
    }

    /// Returns the status; 0 while there is none.
    pub(crate) fn status(&self) -> u16 {
        let status = self.bytes.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
        status.and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }

    /// Returns the whole answer as text, for messages.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// Returns the body, put together where it came in chunks.
    pub(crate) fn body(&self) -> String {
        let mut rest = &self.bytes[self.head.unwrap_or(self.bytes.len())..];
        if self.length.is_some() {
            return String::from_utf8_lossy(rest).into_owned();
        }
        let mut body = Vec::new();
        while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
            let size = std::str::from_utf8(&rest[..end]).unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).unwrap_or(0);
            let chunk = rest.get(end + 2..).unwrap_or_default();
            body.extend_from_slice(&chunk[..size.min(chunk.len())]);
            match chunk.get(size + 2..) {
                Some(more) if size > 0 => rest = more,
                _ => break,
            }
        }
        String::from_utf8_lossy(&body).into_owned()
    }

    /// Forgets the answer, and keeps its memory.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.head = None;
        self.length = None;
    }
}

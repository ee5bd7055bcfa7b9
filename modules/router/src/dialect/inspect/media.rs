//! Images, sound and files in a request.

use memchr::memmem;

/// Tokens that an image is taken for.
pub(super) const TOKENS_OF_MEDIA: u64 = 1600;

/// Shortest string that is taken for an encoded image, in bytes.
const SHORTEST_MEDIA: usize = 2048;

/// Returns the bytes of encoded images, sound and files, and their number.
pub(super) fn media_bytes(text: &str) -> (usize, u64) {
    let (mut bytes, mut number) = (0, 0);
    let mut from = 0;
    let is_code = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    // What is encoded has no space and no quote for long.
    while let Some(at) = memchr::memchr2(b'"', b',', &text.as_bytes()[from..]) {
        let start = from + at + 1;
        let length = text.as_bytes()[start..].iter().take_while(|byte| is_code(byte)).count();
        if length >= SHORTEST_MEDIA {
            bytes += length;
            number += 1;
        }
        from = start + length;
    }
    (bytes, number)
}

/// Returns whether a message holds an image, sound or a file.
pub(super) fn holds_media(message: &str) -> bool {
    ["image_url", "image", "input_image", "input_audio", "document", "file", "input_file"]
        .iter()
        .any(|kind| is_type_in(message, kind))
        || ["\"inlineData\"", "\"inline_data\"", "\"fileData\""].iter().any(|key| {
            memmem::find_iter(message.as_bytes(), key.as_bytes())
                .any(|at| message[at + key.len()..].trim_start().starts_with(':'))
        })
        || memmem::find_iter(message.as_bytes(), b"\"images\"").any(|at| {
            let after = message[at + 8..].trim_start().strip_prefix(':').map(str::trim_start);
            let inside = after.and_then(|after| after.strip_prefix('[')).map(str::trim_start);
            inside.is_some_and(|inside| inside.starts_with('"'))
        })
}

/// Returns whether `"type": "KIND"` stands in a piece of JSON. In a text its quotes are escaped.
pub(super) fn is_type_in(json: &str, kind: &str) -> bool {
    let mut value = String::with_capacity(kind.len() + 2);
    value.extend(['"']);
    value.push_str(kind);
    value.push('"');
    memmem::find_iter(json.as_bytes(), value.as_bytes()).any(|at| {
        let before = json[..at].trim_end().strip_suffix(':').map(str::trim_end);
        before.is_some_and(|before| before.ends_with("\"type\""))
    })
}

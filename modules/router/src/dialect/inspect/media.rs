//! Images, sound and files in a request.

use std::sync::LazyLock;

use memchr::memmem::Finder;

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

/// Types of parts that are an image, sound or a file.
const MEDIA: [&str; 7] =
    ["document", "file", "image", "image_url", "input_audio", "input_file", "input_image"];

/// A searched-for text, prepared once: messages are long and many.
type Needle = LazyLock<Finder<'static>>;

static TYPE: Needle = LazyLock::new(|| Finder::new("\"type\""));
static INLINE: Needle = LazyLock::new(|| Finder::new("\"inline"));
static FILE_DATA: Needle = LazyLock::new(|| Finder::new("\"fileData\""));
static IMAGES: Needle = LazyLock::new(|| Finder::new("\"images\""));

/// Returns whether a message holds an image, sound or a file.
pub(super) fn holds_media(message: &str) -> bool {
    types(message).any(|kind| MEDIA.contains(&kind))
        || after(message, &INLINE).any(|rest| {
            let rest = rest.strip_prefix("Data\"").or_else(|| rest.strip_prefix("_data\""));
            rest.is_some_and(|rest| rest.trim_start().starts_with(':'))
        })
        || after(message, &FILE_DATA).any(|rest| rest.trim_start().starts_with(':'))
        || after(message, &IMAGES).any(|rest| {
            let list = rest.trim_start().strip_prefix(':').map(str::trim_start);
            let inside = list.and_then(|list| list.strip_prefix('[')).map(str::trim_start);
            inside.is_some_and(|inside| inside.starts_with('"'))
        })
}

/// Returns whether `"type": "KIND"` stands in a piece of JSON. In a text its quotes are escaped.
pub(super) fn is_type_in(json: &str, kind: &str) -> bool {
    types(json).any(|it| it == kind)
}

/// Returns the values of `type` in a piece of JSON, as they are written.
fn types(json: &str) -> impl Iterator<Item = &str> {
    after(json, &TYPE).filter_map(|rest| {
        let value = rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
        value.split('"').next()
    })
}

/// Returns what follows each place of a text.
fn after<'a>(text: &'a str, needle: &'static Needle) -> impl Iterator<Item = &'a str> {
    let length = needle.needle().len();
    needle.find_iter(text.as_bytes()).map(move |at| &text[at + length..])
}

//! Single values of JSON, written as protobuf.

use std::borrow::Cow;

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use super::{
    json::unescaped,
    refused::{Fit, Misfit},
    rewrite::Rewrite,
    schema::{Field, Kind, Width},
    wire,
};

/// Decoder of base64 with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A value that is no list and no object.
#[derive(Debug)]
pub(super) enum Token<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
    Text(Cow<'a, str>),
    /// A list or an object.
    Compound,
}

impl<'a> Token<'a> {
    /// Returns the kind and content of a value that is valid JSON.
    pub(super) fn of(raw: &'a str) -> Self {
        match raw.as_bytes().first() {
            Some(b'n') => Self::Null,
            Some(b't') => Self::Bool(true),
            Some(b'f') => Self::Bool(false),
            Some(b'"') => text(raw).map_or(Self::Compound, Self::Text),
            Some(b'[' | b'{') | None => Self::Compound,
            Some(_) => Self::Number(raw),
        }
    }

    /// Returns the value as a text.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(text) => Some(text),
            Self::Bool(true) => Some("true"),
            Self::Bool(false) => Some("false"),
            Self::Null | Self::Compound => None,
        }
    }

    fn is_text(&self) -> bool {
        matches!(self, Self::Text(_))
    }
}

fn text(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { unescaped(raw).map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// More bytes than the name of any field has.
const NAME: usize = 1000;

/// Returns the name of a field; `None` for a name longer than that of any field.
pub(super) fn name(raw: &str) -> Option<Cow<'_, str>> {
    if raw.len() > NAME { None } else { text(raw) }
}

/// Returns the name of a field from its content between the quotes.
pub(super) fn unquoted_name(inner: &str) -> Option<Cow<'_, str>> {
    match inner.contains('\\') {
        _ if inner.len() > NAME => None,
        true => unescaped(&format!("\"{inner}\"")).map(Cow::Owned),
        false => Some(Cow::Borrowed(inner)),
    }
}

/// Writes a value of a field, with the tag of `tag`.
pub(super) fn put(
    to: &mut Rewrite<'_>,
    field: &Field,
    tag: Option<&Field>,
    token: &Token<'_>,
) -> Fit {
    let written = match field.kind {
        Kind::Message(_) => return Err(Misfit::new("must be an object")),
        Kind::Text => return put_bytes(to, tag, field_text(token)?.as_bytes()),
        Kind::Bytes => return put_bytes(to, tag, &bytes(field, token)?),
        kind => number(to, kind, token),
    };
    let bytes = match written {
        // A time that is none is no reason to refuse: that of receipt stands in its place.
        Err(_) if field.name.ends_with("unix_nano") => return Ok(()),
        written => written?,
    };
    if let Some(tag) = tag {
        to.tag(tag, field.kind.wire_type());
    }
    match bytes {
        Written::Varint(number) => wire::put_varint(number, &mut to.bytes),
        Written::Four(bytes) => to.bytes.extend_from_slice(&bytes),
        Written::Eight(bytes) => to.bytes.extend_from_slice(&bytes),
    }
    Ok(())
}

fn put_bytes(to: &mut Rewrite<'_>, tag: Option<&Field>, bytes: &[u8]) -> Fit {
    if let Some(tag) = tag {
        to.tag(tag, 2);
    }
    to.delimited(bytes);
    Ok(())
}

fn field_text<'t>(token: &'t Token<'_>) -> Result<&'t str, Misfit> {
    match token {
        Token::Text(text) => Ok(text),
        Token::Null => Ok(""),
        _ => Err(Misfit::new("must be a text")),
    }
}

fn bytes(field: &Field, token: &Token<'_>) -> Result<Vec<u8>, Misfit> {
    let text = field_text(token)?;
    // The one thing in which OTLP/JSON differs from protobuf's mapping.
    if field.name.ends_with("trace_id") || field.name.ends_with("span_id") {
        return hexadecimal(text).ok_or(Misfit::new("must be hexadecimal"));
    }
    let text = text.replace('-', "+").replace('_', "/");
    BASE64.decode(text).map_err(|_| Misfit::new("must be base64"))
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let byte = |at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(byte).collect()
}

/// A number as it stands on the wire.
enum Written {
    Varint(u64),
    Four([u8; 4]),
    Eight([u8; 8]),
}

fn number(to: &Rewrite<'_>, kind: Kind, token: &Token<'_>) -> Result<Written, Misfit> {
    use Width::{Eight, Four};
    Ok(match kind {
        Kind::Bool => Written::Varint(boolean(token)?.into()),
        Kind::Enum(of) => match token {
            Token::Text(word) if integer(token).is_err() => {
                // A word of a later version is as good as none.
                Written::Varint(sign_extended(to.schema.word(of, word).unwrap_or(0).into()))
            }
            _ => Written::Varint(sign_extended(narrow::<i32>(token)?.into())),
        },
        Kind::Signed(Four) => Written::Varint(sign_extended(narrow::<i32>(token)?.into())),
        Kind::Signed(Eight) => Written::Varint(sign_extended(narrow(token)?)),
        Kind::Unsigned(Four) => Written::Varint(narrow::<u32>(token)?.into()),
        Kind::Unsigned(Eight) => Written::Varint(narrow(token)?),
        Kind::Zigzag(Four) => Written::Varint(zigzag(narrow::<i32>(token)?.into())),
        Kind::Zigzag(Eight) => Written::Varint(zigzag(narrow(token)?)),
        Kind::Fixed(Four) => Written::Four(narrow::<u32>(token)?.to_le_bytes()),
        Kind::Fixed(Eight) => Written::Eight(narrow::<u64>(token)?.to_le_bytes()),
        Kind::SignedFixed(Four) => Written::Four(narrow::<i32>(token)?.to_le_bytes()),
        Kind::SignedFixed(Eight) => Written::Eight(narrow::<i64>(token)?.to_le_bytes()),
        #[expect(clippy::cast_possible_truncation, reason = "a float is the nearest number")]
        Kind::Float(Four) => Written::Four((float(token)? as f32).to_le_bytes()),
        Kind::Float(Eight) => Written::Eight(float(token)?.to_le_bytes()),
        Kind::Message(_) | Kind::Text | Kind::Bytes => return Err(Misfit::new("is no number")),
    })
}

fn boolean(token: &Token<'_>) -> Result<bool, Misfit> {
    match token {
        Token::Null => Ok(false),
        Token::Bool(value) => Ok(*value),
        _ => match token.text() {
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            _ => Err(Misfit::new("must be true or false")),
        },
    }
}

/// Returns a whole number, also from the forms `1e3` and `1.0`, and from text.
fn integer(token: &Token<'_>) -> Result<i128, Misfit> {
    const NO_INTEGER: Misfit = Misfit::new("must be a whole number");
    /// Bound below which every whole number in JSON's own form is converted exactly.
    const EXACT: f64 = 1e30;
    let text = match token {
        Token::Null => return Ok(0),
        Token::Number(text) => *text,
        Token::Text(text) if text.bytes().all(|byte| b"+-.eE0123456789".contains(&byte)) => {
            text.as_ref()
        }
        _ => return Err(NO_INTEGER),
    };
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let number: f64 = text.parse().map_err(|_| NO_INTEGER)?;
    #[expect(clippy::cast_possible_truncation, reason = "it is whole and within the range")]
    let whole = |number: f64| number as i128;
    let is_whole = number.fract() == 0.0 && number.abs() < EXACT;
    is_whole.then(|| whole(number)).ok_or(NO_INTEGER)
}

fn narrow<N: TryFrom<i128>>(token: &Token<'_>) -> Result<N, Misfit> {
    N::try_from(integer(token)?).map_err(|_| Misfit::new("is out of range"))
}

fn float(token: &Token<'_>) -> Result<f64, Misfit> {
    let text = token.text().unwrap_or("0");
    match text {
        "NaN" if token.is_text() => Ok(f64::NAN),
        "Infinity" if token.is_text() => Ok(f64::INFINITY),
        "-Infinity" if token.is_text() => Ok(f64::NEG_INFINITY),
        _ if text.bytes().all(|byte| b"+-.eE0123456789".contains(&byte)) => {
            text.parse().map_err(|_| Misfit::new("must be a number"))
        }
        _ => Err(Misfit::new("must be a number")),
    }
}

#[expect(clippy::cast_sign_loss, reason = "that is how protobuf writes it")]
const fn sign_extended(number: i64) -> u64 {
    number as u64
}

#[expect(clippy::cast_sign_loss, reason = "that is how protobuf writes it")]
const fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}

//! The encodings of a body.

use axum::http::{HeaderMap, header};

/// The encoding of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Protobuf,
    Json,
}

impl Encoding {
    /// Returns the encoding of a request; `None` for another or no content type.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let stated = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        match stated.split(';').next()?.trim().to_ascii_lowercase().as_str() {
            "application/x-protobuf" | "application/protobuf" => Some(Self::Protobuf),
            "application/json" => Some(Self::Json),
            _ => None,
        }
    }

    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_may_have_parameters() {
        let check = |stated: &str, expected: Option<Encoding>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, stated.parse().expect("a header"));
            assert_eq!(Encoding::of(&headers), expected, "{stated}");
        };
        check("application/json; charset=utf-8", Some(Encoding::Json));
        check("Application/X-Protobuf", Some(Encoding::Protobuf));
        check("text/plain", None);
        check("application/grpc", None);
    }
}

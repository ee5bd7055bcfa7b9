//! Content encodings that a provider used though none was asked for.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use flate2::write::GzDecoder;
use http::HeaderValue;

use super::LARGEST_ANSWER;

/// Reason why a body cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    /// An encoding that is not known.
    #[error("its answer is compressed in a way that was not asked for and is not known")]
    Unknown,
    /// Bytes that are not what the encoding says.
    #[error("its compressed answer is damaged")]
    Damaged,
    /// A body beyond the limit.
    #[error("its answer is larger than 64 MiB when inflated")]
    TooLarge,
}

/// Decoder of one body.
pub(crate) enum Decoder {
    /// As it came.
    Identity,
    /// gzip, as it comes.
    Gzip(Box<GzDecoder<Vec<u8>>>, usize),
    /// zstd, decoded at the end.
    Zstd(Vec<u8>),
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Identity => "Identity",
            Self::Gzip(..) => "Gzip",
            Self::Zstd(_) => "Zstd",
        })
    }
}

impl Decoder {
    /// Returns the decoder for a `Content-Encoding`.
    pub(crate) fn of(encoding: Option<&HeaderValue>) -> Result<Self, DecodeError> {
        let encoding = encoding.map_or("", |value| value.to_str().unwrap_or("?"));
        match encoding.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip(Box::new(GzDecoder::new(Vec::new())), 0)),
            "zstd" => Ok(Self::Zstd(Vec::new())),
            _ => Err(DecodeError::Unknown),
        }
    }

    /// Returns the bytes that are kept until they can be read.
    pub(crate) fn held(&self) -> usize {
        match self {
            Self::Identity | Self::Gzip(..) => 0,
            Self::Zstd(whole) => whole.len(),
        }
    }

    /// Takes a piece, and returns what can be read so far.
    pub(crate) fn push(&mut self, piece: Bytes) -> Result<Bytes, DecodeError> {
        match self {
            Self::Identity => Ok(piece),
            Self::Gzip(decoder, total) => {
                let before = *total;
                // A little at a time: a thousandth of it may be all that came.
                for part in piece.chunks(4096) {
                    decoder.write_all(part).map_err(|_| DecodeError::Damaged)?;
                    decoder.flush().map_err(|_| DecodeError::Damaged)?;
                    *total = before + decoder.get_ref().len();
                    if *total > LARGEST_ANSWER {
                        return Err(DecodeError::TooLarge);
                    }
                }
                Ok(std::mem::take(decoder.get_mut()).into())
            }
            Self::Zstd(whole) => {
                whole.extend_from_slice(&piece);
                if whole.len() > LARGEST_ANSWER {
                    return Err(DecodeError::TooLarge);
                }
                Ok(Bytes::new())
            }
        }
    }

    /// Returns what is left at the end.
    pub(crate) fn finish(&mut self) -> Result<Bytes, DecodeError> {
        match std::mem::replace(self, Self::Identity) {
            Self::Identity => Ok(Bytes::new()),
            Self::Gzip(decoder, _) => {
                (*decoder).finish().map(Bytes::from).map_err(|_| DecodeError::Damaged)
            }
            Self::Zstd(whole) if whole.is_empty() => Ok(Bytes::new()),
            Self::Zstd(whole) => {
                let decoder = ruzstd::decoding::StreamingDecoder::new(whole.as_slice());
                let mut decoder = decoder.map_err(|_| DecodeError::Damaged)?;
                let mut read = Vec::new();
                let limit = LARGEST_ANSWER as u64 + 1;
                let taken = decoder.by_ref().take(limit).read_to_end(&mut read);
                taken.map_err(|_| DecodeError::Damaged)?;
                if read.len() > LARGEST_ANSWER {
                    return Err(DecodeError::TooLarge);
                }
                Ok(read.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(encoding: &str, body: &[u8], size: usize) -> Result<Vec<u8>, DecodeError> {
        let mut decoder = Decoder::of(Some(&HeaderValue::from_str(encoding).expect("ASCII")))?;
        let mut read = Vec::new();
        for piece in body.chunks(size) {
            read.extend_from_slice(&decoder.push(Bytes::copy_from_slice(piece))?);
        }
        read.extend_from_slice(&decoder.finish()?);
        Ok(read)
    }

    #[test]
    fn bodies_are_read_in_whatever_pieces_they_come() {
        let text = b"data: one\n\ndata: two\n\n".repeat(50);
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&text).expect("memory");
        let gzip = encoder.finish().expect("memory");
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        let zstd = ruzstd::encoding::compress_to_vec(text.as_slice(), level);
        for size in [1, 7, 10_000] {
            assert_eq!(decoded("gzip", &gzip, size).as_deref(), Ok(text.as_slice()));
            assert_eq!(decoded("zstd", &zstd, size).as_deref(), Ok(text.as_slice()));
            assert_eq!(decoded("identity", &text, size).as_deref(), Ok(text.as_slice()));
        }
        assert_eq!(decoded("gzip", &gzip[..gzip.len() / 2], 10), Err(DecodeError::Damaged));
        assert_eq!(decoded("gzip", b"<html>", 10), Err(DecodeError::Damaged));
        assert_eq!(decoded("zstd", b"<html>", 10), Err(DecodeError::Damaged));
        assert_eq!(decoded("br", b"x", 10), Err(DecodeError::Unknown));
    }

    #[test]
    fn a_bomb_is_refused() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let zeros = vec![0; 1024 * 1024];
        (0..65).for_each(|_| encoder.write_all(&zeros).expect("memory"));
        let gzip = encoder.finish().expect("memory");
        assert_eq!(decoded("gzip", &gzip, 4096), Err(DecodeError::TooLarge));
    }
}

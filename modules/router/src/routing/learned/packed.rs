//! Features as they are kept with their labels: numbers in a row, from which no text can be read.

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{
    sample::{COUNTED, Sample, WORDS},
    saved::SavedError,
};

/// Unit of the values of hashed features, which lie between 0 and 1.
const UNIT: f32 = 65_535.0;

impl Sample {
    /// Returns the features as text.
    pub(crate) fn pack(&self) -> String {
        let mut bytes = Vec::with_capacity(8 + 4 * self.slots.len() + 4 * COUNTED);
        for len in [self.slots.len(), self.words.len()] {
            bytes.extend(u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
        }
        for (slot, value) in self.slots.iter().zip(&self.values) {
            bytes.extend(slot.to_le_bytes());
            bytes.extend(((value * UNIT).round().clamp(0.0, UNIT) as u16).to_le_bytes());
        }
        self.words.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
        self.counted.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        BASE64_STANDARD.encode(bytes)
    }

    /// Reads features that [`pack`](Self::pack) wrote.
    ///
    /// # Errors
    ///
    /// When they are not whole.
    pub(crate) fn unpack(text: &str) -> Result<Self, SavedError> {
        let bytes = BASE64_STANDARD.decode(text).map_err(|_| SavedError::Damaged)?;
        let mut rest = &*bytes;
        let mut take = |len: usize| {
            let (taken, left) = rest.split_at_checked(len).ok_or(SavedError::Damaged)?;
            rest = left;
            Ok::<&[u8], SavedError>(taken)
        };
        let number = |bytes: &[u8]| -> Result<usize, SavedError> {
            let bytes: [u8; 4] = bytes.try_into().map_err(|_| SavedError::Damaged)?;
            Ok(u32::from_le_bytes(bytes) as usize)
        };
        let (slots, words) = (number(take(4)?)?, number(take(4)?)?);
        let pairs = take(slots.checked_mul(4).ok_or(SavedError::Damaged)?)?;
        let seen = take(words.checked_mul(2).ok_or(SavedError::Damaged)?)?;
        let counts = take(4 * COUNTED)?;
        if !rest.is_empty() {
            return Err(SavedError::Damaged);
        }
        let short = |bytes: &[u8]| u16::from_le_bytes([bytes[0], bytes[1]]);
        let words: Box<[u16]> = seen.chunks_exact(2).map(short).collect();
        let counted: Vec<f32> = counts
            .chunks_exact(4)
            .map(|it| f32::from_le_bytes([it[0], it[1], it[2], it[3]]))
            .collect();
        let is_whole = words.iter().all(|word| usize::from(*word) < WORDS)
            && counted.iter().all(|value| value.is_finite());
        match counted.try_into() {
            Ok(counted) if is_whole => Ok(Self {
                slots: pairs.chunks_exact(4).map(short).collect(),
                values: pairs.chunks_exact(4).map(|it| f32::from(short(&it[2..])) / UNIT).collect(),
                counted,
                words,
            }),
            _ => Err(SavedError::Damaged),
        }
    }
}

//! Knowledge as it is kept across a restart: weights, and scores with their labels. No
//! text can be read from it.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use super::{
    Learned, State,
    model::{Model, Side, Spread},
    outcomes::Outcomes,
    sample::{COUNTED, SLOTS, WORDS},
};

/// Meaning of the weights: other features have other weights.
pub(crate) const VERSION: u32 = 1;

/// State of [`Learned`] on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Saved {
    version: u32,
    labels: u64,
    local: SavedSide,
    paid: SavedSide,
    /// Logarithms of the squares, eight to an octave.
    squares: String,
    counted_squares: Vec<f32>,
    bias_squares: f32,
    count: f32,
    means: Vec<f32>,
    deviations: Vec<f32>,
    words: String,
    outcomes: Outcomes,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct SavedSide {
    /// Weights of one byte each, in units of `unit`.
    hashed: String,
    unit: f32,
    counted: Vec<f32>,
    bias: f32,
}

/// Reason for which a saved state is not taken up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SavedError {
    /// Another version wrote it.
    #[error("was learned by another version; it is learned anew")]
    Version,
    /// It is not whole.
    #[error("is damaged; it is learned anew")]
    Damaged,
}

impl Learned {
    /// Returns what was learned, to be saved.
    pub(crate) fn save(&self) -> Saved {
        let state = self.read();
        let model = &state.model;
        let squares: Vec<u8> = model.squares.iter().map(|square| to_octaves(*square)).collect();
        Saved {
            version: VERSION,
            labels: state.labels,
            local: SavedSide::of(&model.local),
            paid: SavedSide::of(&model.paid),
            squares: BASE64_STANDARD.encode(squares),
            counted_squares: model.counted_squares.to_vec(),
            bias_squares: model.bias_squares,
            count: model.spread.count,
            means: model.spread.means.to_vec(),
            deviations: model.spread.squares.to_vec(),
            words: BASE64_STANDARD.encode(&state.words),
            outcomes: state.outcomes.clone(),
        }
    }

    /// Takes up what was saved.
    ///
    /// # Errors
    ///
    /// [`SavedError`] where it cannot be; then nothing is changed.
    pub(crate) fn restore(&self, saved: &Saved) -> Result<(), SavedError> {
        if saved.version != VERSION {
            return Err(SavedError::Version);
        }
        let squares = bytes(&saved.squares, SLOTS)?;
        let model = Model {
            local: saved.local.side()?,
            paid: saved.paid.side()?,
            squares: squares.iter().map(|octaves| of_octaves(*octaves)).collect(),
            counted_squares: array(&saved.counted_squares)?,
            bias_squares: finite(saved.bias_squares)?,
            spread: Spread {
                count: finite(saved.count)?,
                means: array(&saved.means)?,
                squares: array(&saved.deviations)?,
            },
        };
        let words = bytes(&saved.words, WORDS)?;
        let mut state = self.write();
        let bounds = saved.outcomes.bounds(state.keep_quality);
        *state = State {
            model,
            words: words.into(),
            outcomes: saved.outcomes.clone(),
            labels: saved.labels,
            bounds,
            keep_quality: state.keep_quality,
        };
        Ok(())
    }
}

impl SavedSide {
    fn of(side: &Side) -> Self {
        let largest = side.hashed.iter().fold(0.0_f32, |most, weight| most.max(weight.abs()));
        let unit = (largest / 127.0).max(f32::MIN_POSITIVE);
        let hashed: Vec<u8> =
            side.hashed.iter().map(|weight| ((weight / unit).round() as i8) as u8).collect();
        Self {
            hashed: BASE64_STANDARD.encode(hashed),
            unit,
            counted: side.counted.to_vec(),
            bias: side.bias,
        }
    }

    fn side(&self) -> Result<Side, SavedError> {
        let unit = finite(self.unit)?;
        let hashed = bytes(&self.hashed, SLOTS)?;
        Ok(Side {
            hashed: hashed.iter().map(|byte| f32::from(*byte as i8) * unit).collect(),
            counted: array(&self.counted)?,
            bias: finite(self.bias)?,
        })
    }
}

fn to_octaves(square: f32) -> u8 {
    if square <= 0.0 { 0 } else { (square.log2() * 8.0 + 160.0).round().clamp(1.0, 255.0) as u8 }
}

fn of_octaves(octaves: u8) -> f32 {
    if octaves == 0 { 0.0 } else { f32::exp2((f32::from(octaves) - 160.0) / 8.0) }
}

fn bytes(text: &str, len: usize) -> Result<Vec<u8>, SavedError> {
    let bytes = BASE64_STANDARD.decode(text).map_err(|_| SavedError::Damaged)?;
    if bytes.len() == len { Ok(bytes) } else { Err(SavedError::Damaged) }
}

fn array(values: &[f32]) -> Result<[f32; COUNTED], SavedError> {
    let array: [f32; COUNTED] = values.try_into().map_err(|_| SavedError::Damaged)?;
    if array.iter().all(|value| value.is_finite()) { Ok(array) } else { Err(SavedError::Damaged) }
}

fn finite(value: f32) -> Result<f32, SavedError> {
    if value.is_finite() { Ok(value) } else { Err(SavedError::Damaged) }
}

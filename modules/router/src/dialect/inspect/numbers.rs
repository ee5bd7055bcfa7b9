//! Numbers of a request, as far as they are ones.

use serde::{Deserialize as _, Deserializer};
use serde_json::value::RawValue;

/// Reads a number of tokens or answers. What is none, as `-1`, is for the provider to judge: some
/// take it for no limit.
pub(super) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let number = serde_json::from_str::<f64>(<&RawValue>::deserialize(deserializer)?.get());
    #[expect(clippy::cast_possible_truncation, reason = "within the range")]
    #[expect(clippy::cast_sign_loss, reason = "within the range")]
    let whole = |number: f64| number as u32;
    let is_whole = |it: &f64| it.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(it);
    Ok(number.ok().filter(is_whole).map(whole))
}

/// Reads a temperature. What is no number is none that gives the same answer again.
pub(super) fn temperature<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<f64>, D::Error> {
    let raw = <&RawValue>::deserialize(deserializer)?.get();
    Ok(serde_json::from_str::<Option<f64>>(raw).unwrap_or(Some(1.0)))
}

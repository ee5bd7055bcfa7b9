//! Datasets: built of examples by filters, split, and named by the hash of their lines.
//!
//! A dataset lies in `datasets/ID` of the module's data directory: `train.jsonl` and `eval.jsonl`
//! with canonical lines in order, `preference.jsonl` with pairs where there are some, `meta.jsonl`
//! with what is known of each line (which is never trained on), and the card, `README.md`.

pub mod build;
pub mod card;
pub mod diff;
pub mod export;
pub mod files;
pub mod line;
#[cfg(test)]
pub(crate) mod sample;
pub mod split;
pub mod summary;

//! Quality of examples: which answers are good enough to learn from, and why others are not.
//!
//! An ordered funnel of small filters ([`Funnel`]). Each drop has a reason; what is kept is without
//! secrets, and personal data in it has become placeholders. Nothing here reads or writes a file.
//! See [adr/0086](../../../../adr/0086-which-answers-are-good-enough-to-learn-from.md).

mod config;
mod decontamination;
mod duplicates;
mod filter;
mod funnel;
mod judge;
mod language;
mod length;
mod minhash;
mod near;
mod outcome;
mod personal;
mod repetition;
mod secrets;
mod terms;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod text;

pub use config::{Config, ConfigError, Repetition};
pub use decontamination::Decontamination;
pub use funnel::{Funnel, Kept, Outcome, Step};
pub use judge::JudgeConfig;
pub use near::near_duplicates;
pub use outcome::refuses;

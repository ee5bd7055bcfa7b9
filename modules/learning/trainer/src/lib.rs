//! `lodestar-trainer`: trains a LoRA of a small language model, in a process of its own.
//!
//! The contract of the process is in its README; this library is what its program is made of.

pub mod adapter;
pub mod base;
pub mod chat;
pub mod checkpoint;
pub mod convert;
pub mod evaluate;
pub mod events;
pub mod examples;
pub mod failure;
mod files;
pub mod inspect;
pub mod job;
pub mod model;
mod ops;
pub mod optimiser;
pub mod parity;
pub mod predict;
pub mod random;
pub mod serve;
pub mod tiny;
pub mod train;

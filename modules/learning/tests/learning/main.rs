//! The module on the bench, reached as the daemon reaches it.

mod advice;
mod building;
mod capturing;
mod common;
mod consenting;
mod experimenting;
mod forgetting;
mod gating;
mod importing;
mod invented;
mod judging;
mod labelling;
mod serving;
mod trainers;
mod versions;

//! The module on the bench, reached as the daemon reaches it.

mod building;
mod capturing;
mod common;
mod consenting;
mod forgetting;
mod importing;
mod invented;
mod versions;

//! The commands of the module.

mod compare;
pub(crate) mod explain;
mod feedback;
mod route;
mod savings;
mod shown;
mod status;
mod targets;
mod test_provider;

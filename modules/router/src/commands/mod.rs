//! The commands of the module.

mod compare;
mod experiments;
pub(crate) mod explain;
mod feedback;
mod policy;
mod route;
mod savings;
mod shown;
mod status;
mod targets;
mod test_provider;

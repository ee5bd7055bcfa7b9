//! The name of a module in a path of the API.

use std::{collections::HashMap, sync::Arc};

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};
use lodestar_config::valid_section_name;

use super::modules::unknown;
use crate::{refusal::Refusal, supervisor::Daemon};

/// A valid name of a module, which leads to no file of another kind. Any other text is refused as
/// an unknown module.
pub(super) struct ModuleName(pub(super) String);

impl FromRequestParts<Arc<Daemon>> for ModuleName {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        daemon: &Arc<Daemon>,
    ) -> Result<Self, Self::Rejection> {
        let path = Path::<HashMap<String, String>>::from_request_parts(parts, daemon).await;
        let Path(mut path) = path.map_err(|error| Refusal::invalid(error.to_string()))?;
        let name = path.remove("name").unwrap_or_default();
        if valid_section_name(&name) { Ok(Self(name)) } else { Err(unknown(daemon, &name)) }
    }
}

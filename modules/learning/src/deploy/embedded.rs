//! The server that comes with Lodestar: it speaks as `llama-server` does, and takes adapters while
//! it runs.

use std::time::Duration;

use serde_json::json;

use super::{Adapter, DeployError, Server, WORK};

/// Loads the adapter into the server, which compares the digest itself.
pub(super) async fn install(server: &Server, adapter: &Adapter) -> Result<String, DeployError> {
    let body = json!({"name": adapter.version, "path": adapter.file, "sha256": adapter.sha256});
    server.post("/lora-adapters/load", &body, WORK).await?;
    Ok(adapter.model())
}

/// Opens versions to everybody, and closes all others.
pub(super) async fn open(
    server: &Server,
    versions: &[String],
    within: Duration,
) -> Result<(), DeployError> {
    let body = json!({"names": versions});
    server.post("/lora-adapters/open", &body, within).await.map(drop)
}

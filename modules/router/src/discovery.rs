//! Looks from time to time which models the providers have.

use std::{sync::Arc, time::Duration};

use module_sdk::Result;

use crate::{app::App, config::seconds};

/// Pause before a provider that did not say is asked again, at first.
const SOON: Duration = Duration::from_secs(2);

/// Starts one task for each provider. A task ends with the module's runtime.
pub(crate) fn start(app: &Arc<App>) -> Result<()> {
    for provider in app.targets.providers.values() {
        let (weak, provider) = (Arc::downgrade(app), provider.clone());
        let looking = async move {
            let mut pause = SOON;
            loop {
                let Some(app) = weak.upgrade() else { return };
                let regular = seconds(app.config.discovery_seconds);
                match app.targets.discover(&app.pool, &provider).await {
                    Ok(changed) => {
                        if changed {
                            let provider = &provider.id;
                            tracing::info!(%provider, "the models of a provider are known");
                        }
                        pause = regular;
                    }
                    Err(error) => {
                        if pause == SOON {
                            tracing::warn!(
                                provider = %provider.id, %error,
                                "a provider did not say which models it has"
                            );
                        }
                        pause = (pause * 2).min(regular.max(SOON));
                    }
                }
                drop(app);
                tokio::time::sleep(pause).await;
            }
        };
        // It is never waited for.
        drop(app.host.spawn(looking)?);
    }
    Ok(())
}

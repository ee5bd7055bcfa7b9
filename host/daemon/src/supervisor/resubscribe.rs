//! Restoration of the modules' subscriptions after the event ledger lost their cursors.

use std::collections::BTreeSet;

use super::{Daemon, status::manifest_of};
use lodestar_library as library;

/// Subscribes every module that has run before and is unknown to the bus, where the bus has lost
/// the cursors of the modules. The events for a module that stays disabled, or cannot start, are
/// then kept and counted as before. A module that never ran is left out, since no events wait for
/// it.
pub fn resubscribe(daemon: &Daemon) {
    let bus = &daemon.context.bus;
    if !bus.redelivers() {
        return;
    }
    let config = daemon.config();
    let mut names: BTreeSet<String> =
        config.modules.iter().map(|section| section.name.clone()).collect();
    names.extend(library::list(&daemon.places.module_path).into_iter().map(|it| it.name));
    for counters in bus.counters() {
        names.remove(&counters.module);
    }
    for name in names.iter().filter(|name| has_run(daemon, name)) {
        let Some(manifest) = manifest_of(daemon, name) else {
            tracing::warn!(
                module = name,
                "its place in the event ledger was lost, and without its module.toml nobody \
                 knows what it waits for: it is counted once it runs"
            );
            continue;
        };
        // Closed at once: the place stays.
        if let Err(error) = bus.subscribe(name, &manifest.bus.consumes) {
            tracing::error!(module = name, %error, "cannot restore its place");
        }
    }
}

/// Returns whether a module was ever given a data directory.
fn has_run(daemon: &Daemon, module: &str) -> bool {
    daemon.histories.decisions(module).has_data_dir || daemon.data_dir(module).is_dir()
}

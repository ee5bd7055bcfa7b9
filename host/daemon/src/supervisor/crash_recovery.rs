//! Crash recovery: the decision about a module that crashed the daemon.

use lodestar_library as library;
use lodestar_platform::Trouble;

use super::{Daemon, Refused, history::Probation, packages::package_of, requests::short};
use crate::crash::CrashReport;

/// Acts on the crash report of the last run: the module that crashed the daemon goes back to the
/// generation before, if it was on probation, or runs in a process of its own from now on.
pub fn act_on_crash(daemon: &Daemon, crash_report: &CrashReport) {
    if crash_report.for_want_of_memory {
        return daemon.noted.note("memory", Some(no_memory(crash_report)));
    }
    let config = daemon.config();
    let Some(section) = config.modules.iter().find(|section| crash_report.is(&section.name)) else {
        return tracing::error!(?crash_report, "a module that is gone ended the daemon");
    };
    let name = &section.name;
    let what = format!("it ended the daemon by {}", crash_report.means);
    let now = jiff::Timestamp::now().as_second();
    let mut then = String::new();
    // One that crashed while it started has not taken over yet: the probation that is noted is
    // that of the generation before it.
    let on_path = package_of(daemon, section).and_then(|package| library::hash(&package));
    daemon.histories.decide(name, |decisions| {
        let runs_from_path = decisions.refused.is_none();
        let is_its_own = |probation: &Probation| {
            now < probation.until_s
                && (!runs_from_path || on_path.as_ref().is_none_or(|it| *it == probation.sha256))
        };
        match decisions.probation.take().filter(is_its_own) {
            Some(probation) => {
                then = format!("{} is back", short(&probation.previous));
                decisions.refused = Some(Refused {
                    sha256: probation.sha256,
                    instead: probation.previous,
                    reason: what.clone(),
                });
            }
            None => {
                then = "it starts in a process of its own".to_owned();
                decisions.isolated = Some(what.clone());
            }
        }
    });
    tracing::error!(module = name, what, then, "the daemon crashed when it last ran");
    daemon.histories.record(name, "crashed", format!("{what}; {then}"));
}

/// Returns the warning of a crash for want of memory, for which no module is blamed.
fn no_memory(CrashReport { name, means, .. }: &CrashReport) -> Trouble {
    let message = format!(
        "lodestard ended by {means} when it last ran, on the thread of {name}: it found no memory \
         within the limit of its process (`ulimit -v`, `ulimit -d`), and no module is blamed"
    );
    let remedy = "run `ulimit -v unlimited` and `ulimit -d unlimited` where lodestard is started, \
                  or set LimitAS=infinity and LimitDATA=infinity in its unit; what a module takes \
                  is shown by `lodestar top`, and `isolation: process` with `limits.memory_bytes` \
                  holds it";
    (message, remedy.to_owned())
}

//! What follows from a crash of the daemon, for the module that caused it.

use super::{Refused, Supervisor, requests::short};
use crate::crash::Culprit;

impl Supervisor {
    /// Acts on the note that the run before left: the module that ended the daemon goes back to the
    /// generation before, if it was on probation, or runs in a process of its own from now on.
    pub fn blame(&self, culprit: &Culprit) {
        let config = self.daemon.config();
        let Some(section) = config.modules.iter().find(|section| culprit.is(&section.name)) else {
            return tracing::error!(?culprit, "a module that is gone ended the daemon");
        };
        let name = &section.name;
        let what = format!("it ended the daemon by {}", culprit.means);
        let now = jiff::Timestamp::now().as_second();
        let mut then = String::new();
        self.daemon.stories.decide(name, |standing| {
            match standing.probation.take().filter(|probation| now < probation.until_s) {
                Some(probation) => {
                    then = format!("{} is back", short(&probation.former));
                    standing.refused = Some(Refused {
                        sha256: probation.sha256,
                        instead: probation.former,
                        reason: what.clone(),
                    });
                }
                None => {
                    then = "it starts in a process of its own".to_owned();
                    standing.isolated = Some(what.clone());
                }
            }
        });
        tracing::error!(module = name, what, then, "the daemon crashed when it last ran");
        self.daemon.stories.tell(name, "crashed", format!("{what}; {then}"));
    }
}

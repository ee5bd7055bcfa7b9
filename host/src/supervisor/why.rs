//! Why a module is as it is, and what can be done about it.

use super::{Daemon, requests::short};
use crate::{control::api::Why, library, module::State};

impl Daemon {
    /// The story of a module; `None` when nobody knows it.
    #[must_use]
    pub fn why(&self, name: &str) -> Option<Why> {
        let story = self.stories.read(name);
        let Some(entry) = self.entry(name) else {
            let installed = library::find(&self.places.module_path, name).is_some();
            return (installed || !story.is_empty()).then(|| Why {
                module: name.to_owned(),
                state: if installed { State::Disabled } else { State::Absent }.to_string(),
                reason: "it is not in the configuration".to_owned(),
                since: story.last().map_or_else(String::new, |chapter| chapter.at.clone()),
                advice: vec![format!("lodestar modules enable {name}")],
                story,
            });
        };
        let transition = entry.transition();
        Some(Why {
            module: name.to_owned(),
            state: transition.state.to_string(),
            reason: transition.reason,
            since: format!("{:.3}", transition.since),
            advice: self.advice(name, transition.state),
            story,
        })
    }

    fn advice(&self, name: &str, state: State) -> Vec<String> {
        let standing = self.stories.standing(name);
        let mut advice = Vec::new();
        let mut say = |text: String| advice.push(text);
        match state {
            State::Quarantined => {
                say(format!("lodestar modules logs {name}      # what it said before"));
                say(format!("lodestar modules rollback {name}  # the generation before it"));
                say(format!("lodestar modules enable {name}    # lift the quarantine, try again"));
            }
            State::Failed | State::Incompatible => {
                say(format!("lodestar modules logs {name}      # what it said before"));
                say(format!("lodestar modules reload {name}    # try again"));
            }
            State::Stalled => {
                say("restart lodestard: a call that does not return cannot be ended from outside; \
                 with `isolation: process` the daemon ends it by itself"
                    .to_owned())
            }
            State::Disabled => say(format!("lodestar modules enable {name}")),
            State::Absent => say(self.where_looked(name)),
            _ => {}
        }
        if let Some(reason) = standing.isolated {
            say(format!(
                "it runs in a process of its own since {reason}; to put it back into the daemon: \
                 lodestar modules enable {name}"
            ));
        }
        if let Some(refused) = standing.refused {
            say(format!(
                "the library {} on the module path is passed over ({}); replace it, or try it \
                 again with: lodestar modules reload {name}",
                short(&refused.sha256),
                refused.reason
            ));
        }
        advice
    }
}

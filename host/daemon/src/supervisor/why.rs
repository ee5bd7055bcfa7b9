//! Answer of `modules why`: the state of a module, its history, and advice.

use lodestar_api::Why;
use lodestar_library::{self as library, Package, install::MODIFIED};

use super::{
    Daemon,
    packages::{package_of, where_looked},
    requests::short,
};
use crate::module::{State, Transition};

/// Returns the state, history and advice for a module; `None` for an unknown one.
#[must_use]
pub fn why(daemon: &Daemon, name: &str) -> Option<Why> {
    let history = daemon.histories.read(name);
    let Some(entry) = daemon.modules.entry(name) else {
        let installed = library::find(&daemon.places.module_path, name).is_some();
        return (installed || !history.is_empty()).then(|| Why {
            module: name.to_owned(),
            state: if installed { State::Disabled } else { State::Absent }.to_string(),
            reason: "it is not in the configuration".to_owned(),
            since: history.last().map_or_else(String::new, |entry| entry.at.clone()),
            advice: vec![format!("lodestar modules enable {name}")],
            history,
        });
    };
    let transition = entry.transition();
    Some(Why {
        module: name.to_owned(),
        state: transition.state.to_string(),
        since: format!("{:.3}", transition.since),
        advice: advice(daemon, name, &transition),
        reason: transition.reason,
        history,
    })
}

fn advice(daemon: &Daemon, name: &str, transition: &Transition) -> Vec<String> {
    let mut advice = remedies(daemon, name, transition);
    let decisions = daemon.histories.decisions(name);
    let mut say = |text: String| advice.push(text);
    if let Some(reason) = decisions.isolated {
        say(format!(
            "it runs in a process of its own since {reason}; to put it back into the daemon: \
             lodestar modules enable {name}"
        ));
    }
    if let Some(refused) = decisions.refused {
        say(format!(
            "the library {} on the module path is passed over ({}); replace it, or try it \
             again with: lodestar modules reload {name}",
            short(&refused.sha256),
            refused.reason
        ));
    }
    advice
}

/// Returns advice for the state of a module.
fn remedies(daemon: &Daemon, name: &str, transition: &Transition) -> Vec<String> {
    let mut remedies = Vec::new();
    let mut say = |text: String| remedies.push(text);
    match transition.state {
        State::Quarantined => {
            say(format!("lodestar modules logs {name}      # what it said before"));
            if has_earlier_generation(daemon, name) {
                say(format!("lodestar modules rollback {name}  # the generation before it"));
            }
            say(format!("lodestar modules enable {name}    # once its reason is mended"));
        }
        State::Failed | State::Incompatible if transition.reason.contains(MODIFIED) => {
            say(format!("lodestar modules verify {name}    # what is not as it was installed"));
            say("lodestar modules install PATH   # put it right".to_owned());
        }
        State::Failed | State::Incompatible => {
            say(format!("lodestar modules logs {name}      # what it said before"));
            say(format!("lodestar modules enable {name}    # once its reason is mended"));
        }
        State::Stalled => {
            say("restart lodestard: a call that does not return cannot be ended from outside; \
             with `isolation: process` the daemon ends it by itself"
                .to_owned())
        }
        State::Disabled => say(format!("lodestar modules enable {name}")),
        State::Absent => say(where_looked(daemon, name)),
        _ => {}
    }
    remedies
}

/// Returns whether there is a generation that a rollback could go back to.
fn has_earlier_generation(daemon: &Daemon, name: &str) -> bool {
    let ran =
        daemon.modules.entry(name).and_then(|entry| entry.known()).map(|it| it.sha256.clone());
    let lies_there = || {
        let config = daemon.config();
        library::hash(&package_of(daemon, config.module(name)?)?)
    };
    let ran = ran.or_else(lies_there);
    let hash = |package: &Package| {
        package.directory.file_name().map(|name| name.to_string_lossy().into_owned())
    };
    library::kept_generations(&daemon.places.state_dir, name).iter().any(|kept| hash(kept) != ran)
}

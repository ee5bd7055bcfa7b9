//! Planning: compares the desired with the observed state and returns the actions between them.
//! Nothing here reads, starts or waits.

use std::collections::BTreeMap;

use lodestar_config::ModuleSection;

use super::supervised::{Generation, Phase, Supervised};

/// Desired state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Desired<'a> {
    /// Sections of the configuration, in their order.
    pub(super) sections: &'a [ModuleSection],
    /// True while the daemon ends.
    pub(super) ends: bool,
}

/// Observed state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Observed<'a> {
    pub(super) modules: &'a BTreeMap<String, Supervised>,
}

/// A step towards the desired state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Start of a module that has no thread.
    Start(String),
    /// Stop of a module.
    Stop(String),
    /// Takeover by a new generation.
    Reload(String, Cause),
    /// End of the message about a section that a module refused and that is gone.
    ForgetRefusal(String),
    /// Second look at the library, once the generation that is being loaded runs.
    LookAgain(String),
    /// New attempt at a module that was given up.
    TryAgain(String),
    /// Display of a module as disabled, or as absent.
    ShowDisabled(String),
    /// Removal from the table of a module whose section is gone.
    Forget(String),
}

/// Reasons for a reload that nobody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Its section changed.
    Section,
    /// Its library changed.
    Library,
}

/// A library that was found in its place and differs from the one found before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Library {
    /// A library that proved bad before.
    Bad,
    /// The library that runs.
    Runs,
    /// Any other library.
    Other,
}

/// Ways to fulfil a request for a module to run with the library in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Takeover by a new generation.
    Reload,
    /// Start, as soon as a generation that stops has ended.
    Start,
}

/// Returns the actions that are due, in their order: those for modules whose section is gone come
/// first. When the daemon ends, modules stop from the last to the first.
pub(super) fn plan(desired: &Desired<'_>, observed: &Observed<'_>) -> Vec<Action> {
    let phase = |name: &str| observed.modules.get(name).map_or(&Phase::Off, Supervised::phase);
    if desired.ends {
        let sections = desired.sections.iter().rev();
        let alive = sections.filter(|section| is_alive(phase(&section.name)));
        return alive.map(|section| Action::Stop(section.name.clone())).collect();
    }
    let is_in_file = |name: &str| desired.sections.iter().any(|section| section.name == name);
    let gone = observed.modules.iter().filter(|(name, _)| !is_in_file(name));
    let gone = gone.map(|(name, module)| match is_alive(module.phase()) {
        true => Action::Stop(name.clone()),
        false => Action::Forget(name.clone()),
    });
    let steps = desired.sections.iter().filter_map(|section| step(section, phase(&section.name)));
    gone.chain(steps).collect()
}

/// Returns the step that brings a module to what its section asks for.
fn step(section: &ModuleSection, phase: &Phase) -> Option<Action> {
    let name = || section.name.clone();
    if !section.enabled {
        return Some(match is_alive(phase) {
            true => Action::Stop(name()),
            false => Action::ShowDisabled(name()),
        });
    }
    match phase {
        Phase::Off => Some(Action::Start(name())),
        Phase::GivenUp(tried) => (tried != section).then(|| Action::Start(name())),
        // A later section is taken up when it runs or has ended.
        Phase::Starting(_) | Phase::Stopping(..) => None,
        Phase::Reloading(generation, reload) if generation.section != *section => {
            let covered = reload.covers(section) || is_refused(generation, section);
            (!covered).then(|| Action::Reload(name(), Cause::Section))
        }
        Phase::Running(generation) if generation.section != *section => {
            let refused = is_refused(generation, section);
            (!refused).then(|| Action::Reload(name(), Cause::Section))
        }
        Phase::Running(generation) | Phase::Reloading(generation, _) => {
            let is_over = generation.refused.is_some() && !is_refused(generation, section);
            is_over.then(|| Action::ForgetRefusal(name()))
        }
    }
}

/// Returns the action that a changed library of an enabled module calls for.
pub(super) fn on_library(module: &str, phase: &Phase, library: Library) -> Option<Action> {
    let module = module.to_owned();
    match (phase, library) {
        // Which bytes its thread has read is known when it runs.
        (Phase::Starting(_), _) => Some(Action::LookAgain(module)),
        (Phase::Reloading(generation, _), _) if !generation.has_run => {
            Some(Action::LookAgain(module))
        }
        (_, Library::Bad) => None,
        (Phase::Off | Phase::GivenUp(_), _) => Some(Action::TryAgain(module)),
        // It starts with what lies there then.
        (Phase::Stopping(_, None), _) => None,
        (
            Phase::Running(generation)
            | Phase::Reloading(generation, _)
            | Phase::Stopping(generation, _),
            Library::Runs,
        ) => {
            // A section that was refused for what it says stays refused.
            let of_library = generation.refused.as_ref().is_none_or(|it| *it == generation.section);
            of_library.then_some(Action::ForgetRefusal(module))
        }
        // Whoever asked for the one that waits need not hear that another one came first.
        (Phase::Reloading(_, reload), Library::Other) if reload.loads_again() => None,
        (_, Library::Other) => Some(Action::Reload(module, Cause::Library)),
    }
}

/// Returns the way to fulfil a request for a module to run with the library in its place.
pub(super) const fn on_request(phase: &Phase) -> Way {
    match phase {
        Phase::Off | Phase::GivenUp(_) | Phase::Stopping(_, None) => Way::Start,
        Phase::Starting(_)
        | Phase::Running(_)
        | Phase::Reloading(..)
        | Phase::Stopping(_, Some(_)) => Way::Reload,
    }
}

const fn is_alive(phase: &Phase) -> bool {
    !matches!(phase, Phase::Off | Phase::GivenUp(_))
}

fn is_refused(generation: &Generation, section: &ModuleSection) -> bool {
    generation.refused.as_ref() == Some(section)
}

#[cfg(test)]
mod tests;

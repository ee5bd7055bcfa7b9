//! Queue of changes of the configuration: one is judged at a time, the others wait.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use lodestar_api::{Operation, Problem};
use lodestar_config::{Config, ConfigError, ConfigErrors};
use tokio::sync::oneshot;

use super::{
    Operations, Pending, removals::Removal, section_edits::Edited, transactions::Transaction,
};
use crate::{
    install_lock::InstallLock,
    request::{Actor, Request},
};

/// Time that a judgement may take: several times what the modules have for their answers.
pub(super) const JUDGE_DEADLINE: Duration = Duration::from_secs(30);

/// Reasons to read the file again.
#[derive(Debug)]
pub(super) enum Change {
    /// The file was saved, or SIGHUP came.
    Saved { hang_up: bool },
    /// A client or a module asks for a change.
    Asked(Request, Asker),
}

/// A client or a module that waits for an answer.
#[derive(Debug)]
pub(super) struct Asker {
    pub(super) actor: Actor,
    pub(super) answer: oneshot::Sender<Result<Operation, Problem>>,
}

impl Asker {
    pub(super) fn tell(self, operations: &Operations, result: Result<Operation, Problem>) {
        let result = result.map(|operation| operations.note_actor(operation, &self.actor));
        // An error means that the client is gone.
        let _ = self.answer.send(result);
    }
}

/// Work that waits for the verdict on a file.
#[derive(Debug)]
pub(super) enum Then {
    /// Nobody waits for the verdict: errors are logged.
    Log { hang_up: bool },
    /// Somebody waits for the verdict: the rest of the request, then the answer.
    Answer(Asker, Step),
}

/// The rest of a request, once the file is applied or refused.
#[derive(Debug)]
pub(super) enum Step {
    /// End of the operation that had the file read.
    Reloaded(Pending),
    /// Wait for a module that was enabled or disabled to reach that state.
    Switched { module: String, enabled: bool, edited: Option<Edited> },
    /// Reload of a module that runs; it decides whether the install of its new build is committed.
    Activated(Transaction),
    /// Start of a module that was installed while it did not run, where it is enabled. `added`
    /// tells where its section was added to the file.
    Installed { install_lock: InstallLock, added: Option<String> },
    /// Removal of the files of a module.
    Removed(Removal),
}

/// Outcome of the first part of a request.
#[derive(Debug)]
pub(super) enum Begun {
    /// An operation is under way, or has ended already.
    Operation(Operation),
    /// The file is to be read first; the step follows.
    Reads(Step),
}

/// A file that modules are asked about at this moment.
#[derive(Debug)]
struct Judging {
    after: Config,
    then: Then,
    number: u64,
    begun: Instant,
    /// True when there is a newer save: what the modules refuse is in the file no more.
    superseded: bool,
}

/// Verdict on a file: the configuration, or the errors of the sections that were refused.
pub(super) type Verdict = Result<Config, ConfigErrors>;

/// Changes under way.
#[derive(Debug, Default)]
pub(super) struct Changes {
    judging: Option<Judging>,
    waiting: VecDeque<Change>,
    number: u64,
}

impl Changes {
    /// Begins to judge a file. Returns the number that its verdict is to carry.
    pub(super) fn judge(&mut self, after: Config, then: Then) -> u64 {
        debug_assert!(self.judging.is_none(), "one file is judged at a time");
        self.number += 1;
        let (number, begun) = (self.number, Instant::now());
        self.judging = Some(Judging { after, then, number, begun, superseded: false });
        number
    }

    pub(super) const fn is_judging(&self) -> bool {
        self.judging.is_some()
    }

    /// Queues a change behind the verdict that is awaited. `on_disk` is the text of the file now:
    /// where it differs from the text that is judged, that one is superseded, unless somebody waits
    /// for the verdict on it. It is judged to its end all the same, and applied where it is good:
    /// saves that come faster than verdicts do not keep each other from being applied.
    pub(super) fn wait(&mut self, change: Change, on_disk: Option<&str>) {
        let Some(judging) = &mut self.judging else { return self.waiting.push_back(change) };
        if let Change::Saved { hang_up } = change {
            let is_judged = on_disk == Some(&judging.after.text);
            if matches!(judging.then, Then::Log { .. }) {
                if is_judged && !hang_up {
                    return;
                }
                judging.superseded = true;
            }
            if let Some(Change::Saved { hang_up: before }) = self.waiting.back_mut() {
                *before |= hang_up;
                return;
            }
        }
        self.waiting.push_back(change);
    }

    /// Ends the judgement with this number. Returns `None` where its verdict is not wanted any
    /// more.
    pub(super) fn judged(
        &mut self,
        number: u64,
        refusals: Vec<ConfigError>,
    ) -> Option<(Then, Verdict)> {
        let judging = self.judging.take_if(|judging| judging.number == number)?;
        let verdict = ConfigErrors::or(refusals, judging.after);
        let is_wanted = verdict.is_ok() || !judging.superseded;
        is_wanted.then_some((judging.then, verdict))
    }

    /// Gives up a judgement that takes too long. Its verdict is not wanted any more when it comes.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<Then> {
        let is_late =
            |judging: &mut Judging| now.saturating_duration_since(judging.begun) >= JUDGE_DEADLINE;
        self.judging.take_if(is_late).map(|judging| judging.then)
    }

    /// Returns the next change that may begin.
    pub(super) fn next(&mut self) -> Option<Change> {
        if self.is_judging() { None } else { self.waiting.pop_front() }
    }

    /// Drops all changes. Returns the one that was judged, and those that waited.
    pub(super) fn give_up(&mut self) -> (Option<Then>, VecDeque<Change>) {
        let then = self.judging.take().map(|judging| judging.then);
        (then, std::mem::take(&mut self.waiting))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use lodestar_config::Layers;

    use super::*;

    fn config(text: &str) -> Config {
        let parsed = Config::parse(text, Path::new("modules.yaml"), &Layers::default());
        parsed.expect("it is valid")
    }

    fn log() -> Then {
        Then::Log { hang_up: false }
    }

    fn asker() -> Asker {
        Asker { actor: Actor::TokenHolder, answer: oneshot::channel().0 }
    }

    const SAVED: Change = Change::Saved { hang_up: false };
    const FIRST: &str = "modules: {a: {}}";
    const LATER: &str = "modules: {b: {}}";

    fn refusal() -> Vec<ConfigError> {
        vec![ConfigError::of_file(Path::new("modules.yaml"), "no".to_owned(), "save it again")]
    }

    #[test]
    fn a_later_save_makes_errors_of_the_one_that_is_judged_pointless() {
        for (hang_up, on_disk, superseded) in
            [(false, FIRST, false), (false, LATER, true), (true, FIRST, true)]
        {
            for refusals in [Vec::new(), refusal()] {
                let is_good = refusals.is_empty();
                let mut changes = Changes::default();
                let number = changes.judge(config(FIRST), log());
                changes.wait(Change::Saved { hang_up }, Some(on_disk));
                assert!(changes.next().is_none(), "one at a time");
                let judged = changes.judged(number, refusals).map(|(_, verdict)| verdict.is_ok());
                let expected = (is_good || !superseded).then_some(is_good);
                assert_eq!(judged, expected, "{on_disk}");
                assert_eq!(changes.next().is_some(), superseded, "{on_disk}");
            }
        }
    }

    #[test]
    fn saves_that_come_faster_than_verdicts_are_applied() {
        let mut changes = Changes::default();
        let texts = [FIRST, LATER, FIRST, LATER];
        for (text, later) in texts.into_iter().zip(texts.into_iter().skip(1)) {
            let number = changes.judge(config(text), log());
            changes.wait(SAVED, Some("modules: {}"));
            changes.wait(SAVED, Some(later));
            let judged = changes.judged(number, Vec::new());
            let Some((_, Ok(after))) = judged else { panic!("it is good: {judged:?}") };
            assert_eq!(after.text, text);
            assert!(matches!(changes.next(), Some(Change::Saved { .. })), "the newest is next");
            assert!(changes.next().is_none(), "and the only one");
        }
    }

    #[test]
    fn a_judgement_that_hangs_is_given_up_and_the_next_one_begins() {
        let mut changes = Changes::default();
        let number = changes.judge(config(FIRST), log());
        changes.wait(SAVED, Some(LATER));
        let begun = Instant::now();
        assert!(changes.overdue(begun).is_none(), "it may still come");
        assert!(changes.overdue(begun + JUDGE_DEADLINE).is_some());
        assert!(changes.judged(number, Vec::new()).is_none(), "it comes too late");
        assert!(matches!(changes.next(), Some(Change::Saved { .. })));
        assert!(changes.overdue(begun + JUDGE_DEADLINE).is_none(), "once");
    }

    #[test]
    fn who_waits_for_a_verdict_gets_it_and_what_came_later_comes_later() {
        let mut changes = Changes::default();
        let pending = Operations::default().begin("reload_config", None);
        let then = Then::Answer(asker(), Step::Reloaded(pending));
        let number = changes.judge(config(FIRST), then);
        changes.wait(SAVED, Some(LATER));
        changes.wait(Change::Saved { hang_up: true }, Some(LATER));
        changes.wait(Change::Asked(Request::ReloadConfig, asker()), None);
        assert!(changes.judged(number + 1, Vec::new()).is_none(), "of another file");
        let judged = changes.judged(number, refusal());
        assert!(matches!(judged, Some((Then::Answer(..), Err(_)))), "somebody waits for it");
        assert!(matches!(changes.next(), Some(Change::Saved { hang_up: true })));
        assert!(matches!(changes.next(), Some(Change::Asked(..))));
        assert!(changes.next().is_none());
    }

    #[test]
    fn nothing_is_left_when_all_is_given_up() {
        let mut changes = Changes::default();
        let number = changes.judge(config(FIRST), log());
        changes.wait(Change::Asked(Request::ReloadConfig, asker()), None);
        let (then, waiting) = changes.give_up();
        assert!(then.is_some() && waiting.len() == 1);
        assert!(changes.judged(number, Vec::new()).is_none() && changes.next().is_none());
    }
}

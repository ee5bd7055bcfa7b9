//! Figures of the requests of models: sums and response times over sliding windows, of everything
//! together and of each model, provider and project.
//!
//! Windows are counted in time that has really passed, so that a clock that is set moves none. They
//! take bounded room whatever is sent: as many names as [`MOST`] says, the rest together as
//! `other`.

mod report;
pub(crate) mod ring;
mod sample;
mod scope;
mod snapshot;

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use module_sdk::events::ModelName;

pub use report::CHECK;
pub use sample::{Outcome, Sample};
pub use snapshot::Kept;

use crate::{
    metric::{
        FIRST_TOKEN, Metric, OPERATION_DURATION, REQUEST_COST, REQUEST_ERROR_RATIO, REQUEST_ERRORS,
        REQUEST_TOKENS, REQUESTS,
    },
    monitor::Requests,
    reading::{Component, Series},
    rule::Function,
    text,
    time::Moment,
};
use scope::{Kind, Scope};

/// Time for which single minutes and response times are kept, in milliseconds.
pub const MINUTES_MS: u64 = 70 * 60_000;
/// Time for which sums of five minutes are kept, in milliseconds.
const FIVES_MS: u64 = 7 * 3_600_000;
/// Time for which sums of an hour are kept, in milliseconds: the longest that a rule may look at.
pub const HOURS_MS: u64 = 4 * 86_400_000;

/// Names of each kind that are told apart. Those that come later share `other`, until one of these
/// has been silent for as long as minutes are kept.
pub const MOST: [(&str, usize); 3] = [("model", 200), ("provider", 50), ("project", 200)];

/// Requests that are remembered, so that one that is reported twice counts once: by the tool and by
/// the router, or again after a crash.
const REMEMBERED: usize = 50_000;

/// Sliding windows of requests.
#[derive(Debug)]
pub struct Windows {
    all: Scope,
    models: Group,
    providers: Group,
    projects: Group,
    seen: Seen,
    /// Count of what was taken, by which answers are known to be out of date.
    version: u64,
    answers: RefCell<HashMap<Question, Answer>>,
}

/// Metric, function and time in milliseconds.
type Question = (&'static str, Function, u64);

/// Values of all scopes, with the state for which they hold.
#[derive(Debug)]
struct Answer {
    version: u64,
    touched: (i64, i64),
    values: Arc<[(Arc<Series>, f64)]>,
}

impl Default for Windows {
    fn default() -> Self {
        let [models, providers, projects] = [Kind::Model, Kind::Provider, Kind::Project];
        Self {
            all: Scope::new(Kind::All, ""),
            models: Group::new(models),
            providers: Group::new(providers),
            projects: Group::new(projects),
            seen: Seen::default(),
            version: 0,
            answers: RefCell::default(),
        }
    }
}

impl Windows {
    /// Returns whether a request is reported for the first time, as far as is remembered. A request
    /// without a key always is.
    pub fn is_new(&mut self, dedupe_key: &str) -> bool {
        dedupe_key.is_empty() || self.seen.insert(dedupe_key)
    }

    /// Takes a request that ended milliseconds ago. One that ended in the future ended now, and
    /// one that is older than what is kept changes nothing.
    pub fn take(&mut self, sample: &Sample<'_>, age_ms: i64, now: Moment) {
        let now_ms = steady(now);
        let at_ms = now_ms.saturating_sub(age_ms.max(0));
        if age_ms > steady_ms(HOURS_MS) {
            return;
        }
        self.version += 1;
        self.all.take(sample, at_ms, now_ms);
        let named = [
            (&mut self.models, sample.model),
            (&mut self.providers, sample.provider),
            (&mut self.projects, sample.project),
        ];
        for (group, name) in named {
            if let Some(name) = name {
                group.of(name, now_ms).take(sample, at_ms, now_ms);
            }
        }
    }

    /// Takes over the names under which the checks report models, so that both speak of one
    /// component, however its name is spelt.
    pub fn join<'a>(&mut self, components: impl Iterator<Item = &'a Component>) {
        let mut names: BTreeMap<String, &Component> = BTreeMap::new();
        for component in components {
            if let Some(name) = component.strip_prefix("model.") {
                names.entry(key(Kind::Model, name)).or_insert(component);
            }
        }
        for (key, component) in names {
            if let Some(scope) = self.models.scopes.get_mut(&key)
                && scope.component() != component
            {
                scope.rename(component);
                self.version += 1;
            }
        }
    }

    /// Forgets names of which nothing is kept any more.
    fn forget(&mut self, now_ms: i64) {
        self.all.forget(now_ms);
        for group in [&mut self.models, &mut self.providers, &mut self.projects] {
            group.scopes.values_mut().chain(&mut group.other).for_each(|it| it.forget(now_ms));
            group.scopes.retain(|_, scope| !scope.is_empty());
            group.other.take_if(|other| other.is_empty());
        }
    }

    /// Returns everything that is counted apart.
    fn scopes(&self) -> impl Iterator<Item = &Scope> {
        let groups = [&self.models, &self.providers, &self.projects].into_iter();
        let named = groups.flat_map(|group| group.scopes.values().chain(&group.other));
        [&self.all].into_iter().chain(named)
    }
}

impl Requests for Windows {
    fn each(
        &self,
        metric: &'static Metric,
        function: Function,
        over_ms: u64,
        now: Moment,
    ) -> Arc<[(Arc<Series>, f64)]> {
        let Some(measure) = Measure::of(metric).filter(|_| !self.all.is_empty()) else {
            return Arc::default();
        };
        let now_ms = steady(now);
        let touched = self.all.touched(steady_ms(over_ms), now_ms);
        let mut answers = self.answers.borrow_mut();
        let question = (metric.name, function, over_ms);
        if let Some(answer) = answers.get(&question)
            && (answer.version, answer.touched) == (self.version, touched)
        {
            return answer.values.clone();
        }
        let values: Arc<[_]> = self
            .scopes()
            .filter_map(|scope| {
                let value = scope.value(measure, function, steady_ms(over_ms), now_ms)?;
                Some((scope.series(measure).clone(), value))
            })
            .collect();
        let answer = Answer { version: self.version, touched, values: values.clone() };
        answers.insert(question, answer);
        values
    }
}

/// Figure of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    Requests,
    Errors,
    ErrorRatio,
    Duration,
    FirstToken,
    Cost,
    Tokens,
}

impl Measure {
    const ALL: [(Self, &'static Metric); 7] = [
        (Self::Requests, &REQUESTS),
        (Self::Errors, &REQUEST_ERRORS),
        (Self::ErrorRatio, &REQUEST_ERROR_RATIO),
        (Self::Duration, &OPERATION_DURATION),
        (Self::FirstToken, &FIRST_TOKEN),
        (Self::Cost, &REQUEST_COST),
        (Self::Tokens, &REQUEST_TOKENS),
    ];

    fn of(metric: &Metric) -> Option<Self> {
        let found = Self::ALL.iter().find(|(_, known)| known.name == metric.name);
        found.map(|(measure, _)| *measure)
    }
}

/// Returns the functions that a metric of requests can be asked for, the usual one first.
#[must_use]
pub fn functions(metric: &Metric) -> &'static [Function] {
    use Function::{Avg, Count, Max, P50, P95, P99, Sum};

    match Measure::of(metric) {
        Some(Measure::Requests) => &[Count],
        Some(Measure::Errors) => &[Sum],
        Some(Measure::ErrorRatio) => &[Avg],
        Some(Measure::Duration | Measure::FirstToken) => &[P95, P50, P99, Avg, Max, Count],
        Some(Measure::Cost | Measure::Tokens) => &[Sum, Avg, Max, Count],
        None => &[],
    }
}

/// Returns the longest time, in milliseconds, over which a function can be asked for.
#[must_use]
pub const fn longest_ms(function: Function) -> u64 {
    match function {
        Function::P50 | Function::P95 | Function::P99 => MINUTES_MS,
        _ => HOURS_MS,
    }
}

/// Scopes of one kind by what tells their names apart.
#[derive(Debug)]
struct Group {
    kind: Kind,
    most: usize,
    scopes: HashMap<String, Scope>,
    other: Option<Scope>,
}

impl Group {
    fn new(kind: Kind) -> Self {
        let most = MOST.iter().find(|(name, _)| *name == kind.as_str());
        let most = most.map_or(0, |(_, most)| *most);
        Self { kind, most, scopes: HashMap::new(), other: None }
    }

    /// Returns the scope of a name, or that of all others where there is no room for it.
    fn of(&mut self, name: &str, now_ms: i64) -> &mut Scope {
        let key = key(self.kind, name);
        if !self.scopes.contains_key(&key) {
            if self.scopes.len() >= self.most && !self.make_room(now_ms) {
                let other = &mut self.other;
                return other.get_or_insert_with(|| Scope::new(self.kind, "other"));
            }
            self.scopes.insert(key.clone(), Scope::new(self.kind, &text::visible(name)));
        }
        self.scopes.get_mut(&key).expect("it was there, or was put there now")
    }

    /// Forgets the name that has been silent the longest, where it has been so for long enough.
    fn make_room(&mut self, now_ms: i64) -> bool {
        let quietest = self.scopes.iter().min_by_key(|(_, scope)| scope.last_ms());
        let quietest = quietest
            .filter(|(_, scope)| now_ms - scope.last_ms() > steady_ms(MINUTES_MS))
            .map(|(key, _)| key.clone());
        quietest.is_some_and(|key| self.scopes.remove(&key).is_some())
    }
}

/// Returns what tells a name apart from others: models have many spellings.
fn key(kind: Kind, name: &str) -> String {
    let key = match kind {
        Kind::Model => ModelName::of(name).model().to_owned(),
        _ => String::new(),
    };
    if key.is_empty() { text::visible(name) } else { text::visible(&key) }
}

/// Keys of the latest requests, as hashes.
#[derive(Debug, Default)]
struct Seen {
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Seen {
    fn insert(&mut self, key: &str) -> bool {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};

        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let hash = hasher.finish();
        if !self.known.insert(hash) {
            return false;
        }
        self.order.push_back(hash);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

/// Returns the time that has really passed, as a number that may be counted back from.
pub(crate) fn steady(now: Moment) -> i64 {
    steady_ms(now.steady_ms)
}

pub(crate) fn steady_ms(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;

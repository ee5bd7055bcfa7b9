//! The policy: names, rules, a strategy, fallbacks, in this order.

mod bounds;
mod checks;

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use jiff::Timestamp;
use module_sdk::{Result, Usd};
use serde_json::json;

use super::{
    Decision, Offer, Reason, Refusal, Request,
    experiment::ExperimentOptions,
    fit::{self, Fit, Limits},
    hedge::HedgeOptions,
    learned::Learned,
    name_list::Names,
    names,
    options::{RoutingOptions, StrategyName},
    rule::Rule,
    running::RunningExperiments,
    sorted::Sorted,
    strategy::{self, Case, Ranking, Strategy, Tier},
};
use bounds::{Bounds, Trial};

use crate::target::{Availability, TargetName, TargetView};

/// Model that leaves the choice to the router.
const AUTO: &str = "auto";

/// Policy that decides which target answers a request.
#[derive(Debug)]
pub(crate) struct Policy {
    aliases: BTreeMap<String, Names>,
    rules: Vec<Rule>,
    strategies: HashMap<&'static str, Box<dyn Strategy>>,
    strategy: StrategyName,
    models: Names,
    fallbacks: BTreeMap<String, Names>,
    experiments: Vec<ExperimentOptions>,
    /// Experiments that were begun by a command.
    pub(crate) running: RunningExperiments,
    small: Names,
    local_in_flight: u32,
    expected_output_tokens: u64,
    hedge: HedgeOptions,
}

/// Targets that may answer, and how one of them is chosen.
struct Pool {
    rule: String,
    strategy: StrategyName,
    names: Vec<TargetName>,
    /// `true` when a person named the targets.
    is_named: bool,
    /// `true` when a rule names them.
    is_of_rule: bool,
    /// Hedging, where a rule says how.
    hedge: Option<HedgeOptions>,
}

impl Policy {
    /// Makes a policy that decides by what is in `learned` where it is to.
    ///
    /// # Errors
    ///
    /// The first key of the configuration that cannot be used.
    pub(crate) fn new(options: &RoutingOptions, learned: &Learned) -> Result<Self> {
        let rules = options.rules.iter().enumerate().map(|(index, rule)| Rule::new(index, rule));
        let strategies =
            StrategyName::ALL.map(|it| (it.as_str(), strategy::of(it, options, learned)));
        let policy = Self {
            aliases: options.aliases.clone(),
            rules: rules.collect::<Result<_>>()?,
            strategies: HashMap::from(strategies),
            strategy: options.strategy,
            models: options.models.clone(),
            fallbacks: options.fallbacks.clone(),
            experiments: options.experiments.clone(),
            running: RunningExperiments::default(),
            small: options.tiers.small.clone(),
            local_in_flight: options.local_in_flight,
            expected_output_tokens: options.expected_output_tokens,
            hedge: options.hedge,
        };
        policy.check()?;
        Ok(policy)
    }

    /// Returns the names of the aliases.
    pub(crate) fn aliases(&self) -> impl Iterator<Item = &str> {
        self.aliases.keys().map(String::as_str)
    }

    /// Returns names with the aliases among them replaced.
    fn expanded<'a>(&'a self, names: &'a Names) -> Box<dyn Iterator<Item = &'a str> + 'a> {
        Box::new(names.iter().flat_map(|name| match self.aliases.get(name) {
            Some(names) => self.expanded(names),
            None => Box::new(std::iter::once(name)),
        }))
    }

    /// Decides which targets answer a request, and in which order they are tried.
    ///
    /// # Errors
    ///
    /// [`Refusal`] where no target can answer it.
    pub(crate) fn decide(
        &self,
        request: &Request<'_>,
        offer: &Offer<'_>,
        now: Timestamp,
    ) -> Result<Decision, Refusal> {
        let asked = names::bare(&request.inspected.model);
        let asked = if asked.is_empty() { AUTO } else { asked };
        let written = Names(vec![asked.to_owned()]);
        let asked_for: Vec<&str> = self.expanded(&written).collect();
        let is_auto = asked_for.iter().any(|name| auto(name).is_some());
        let running = self.running.current();
        let begun = running.iter().filter(|it| it.goes_on(now)).map(|it| &it.options);
        let tried =
            self.experiments.iter().chain(begun).find_map(|experiment| {
                Some((experiment, experiment.side(request, asked, is_auto)?))
            });
        let usual = self.pool(request, asked, (&asked_for, is_auto), offer, now);
        let bounds = Bounds { policy: self, pool: usual.as_ref().ok(), request, offer };
        let trial = tried.and_then(|(experiment, side)| bounds.trial(experiment, side));
        let shadow = trial.as_ref().and_then(|trial| bounds.shadow(trial));
        let variant = trial.as_ref().map(Trial::name);
        let has_stand_in = trial.as_ref().is_some_and(Trial::has_stand_in);
        let (pool, stand_in) = match trial.and_then(|trial| trial.pool) {
            Some(pool) => (pool, usual.ok().filter(|_| has_stand_in)),
            None => (usual?, None),
        };
        let mut sorted = Sorted::default();
        for name in &pool.names {
            self.look_at(name, pool.is_named, request, offer, &mut sorted);
        }
        let case = Case { request, choices: &sorted.able };
        let mut ranking = self.strategies[pool.strategy.as_str()].rank(&case);
        self.stick(&mut ranking, &case);
        let ranked = ranking.order.iter().map(|index| &sorted.able[*index].view.name);
        let mut order: Vec<TargetName> = ranked.cloned().collect();
        let second = ranking.second.map(|index| sorted.able[index].view.name.clone());
        let first = order.first().or(pool.names.first()).cloned();
        // Where the answer is checked, the second one is asked when it does not count.
        let mut head = order.len().min(if ranking.is_checked { 2 } else { 1 });
        if let Some(stand_in) = &stand_in {
            order.extend(self.usual_order(stand_in, request, offer, &mut sorted));
            head = order.len();
        }
        if let Some(first) = first {
            let mut fallbacks = self.fallbacks_of(&first, request, offer, &mut sorted);
            fallbacks.retain(|name| !order[..head].contains(name));
            let mut rest = order.split_off(head);
            rest.retain(|name| !fallbacks.contains(name));
            order.extend(fallbacks);
            order.extend(rest);
        }
        order.append(&mut sorted.later);
        if order.is_empty() {
            return Err(refused(asked, &pool, sorted, request));
        }
        // To ask the same model again says nothing.
        let shadow = shadow.filter(|name| order.first() != Some(name));
        let mut reasons = ranking.reasons;
        if let Some(tier) = ranking.tier {
            let value = tier.as_str().into();
            reasons.push(Reason { name: "tier".to_owned(), value, weight: 0.0 });
        }
        if self.rules.iter().any(Rule::asks_for_budget) {
            let left = request.budget_left_nano_usd.map(|nano| json!(Usd::from_nano(nano)));
            let value = left.unwrap_or_else(|| "unknown".into());
            reasons.push(Reason { name: "budget_left_usd".to_owned(), value, weight: 0.0 });
        }
        Ok(Decision {
            order,
            is_checked: ranking.is_checked,
            second,
            hedge: pool.hedge.unwrap_or(self.hedge),
            variant,
            shadow,
            rule: pool.rule,
            strategy: pool.strategy.as_str(),
            score: ranking.score,
            reasons,
            candidates: sorted.candidates,
        })
    }

    /// Returns the targets that would answer without an experiment and that were not looked at.
    fn usual_order(
        &self,
        pool: &Pool,
        request: &Request<'_>,
        offer: &Offer<'_>,
        sorted: &mut Sorted<'_>,
    ) -> Vec<TargetName> {
        let mut beside = Sorted::default();
        for name in pool.names.iter().filter(|name| !sorted.has_seen(name)) {
            self.look_at(name, pool.is_named, request, offer, &mut beside);
        }
        let case = Case { request, choices: &beside.able };
        let ranking = self.strategies[pool.strategy.as_str()].rank(&case);
        let ranked = ranking.order.iter().map(|index| beside.able[*index].view.name.clone());
        let order = ranked.collect();
        sorted.later.append(&mut beside.later);
        sorted.candidates.append(&mut beside.candidates);
        order
    }

    /// Returns the targets that the client or a rule names, or all where they leave the choice.
    fn pool(
        &self,
        request: &Request<'_>,
        asked: &str,
        (asked_for, is_auto): (&[&str], bool),
        offer: &Offer<'_>,
        now: Timestamp,
    ) -> Result<Pool, Refusal> {
        let rule = self.rules.iter().find(|rule| rule.is_for(request, asked, is_auto, now));
        if let Some(rule) = rule {
            let wanted: Vec<&str> = if rule.targets.is_empty() {
                asked_for.to_vec()
            } else {
                self.expanded(&rule.targets).collect()
            };
            let mut pool = self.named(rule.name.clone(), &wanted, request, offer)?;
            pool.is_of_rule = pool.is_named && !rule.targets.is_empty();
            if let Some(strategy) = rule.strategy {
                pool.strategy = strategy;
            }
            pool.hedge = rule.hedge;
            return Ok(pool);
        }
        let name = match (is_auto, self.aliases.contains_key(asked)) {
            (_, true) => "alias",
            (true, false) => "default",
            (false, false) => "model",
        };
        self.named(name.to_owned(), asked_for, request, offer)
    }

    fn named(
        &self,
        rule: String,
        wanted: &[&str],
        request: &Request<'_>,
        offer: &Offer<'_>,
    ) -> Result<Pool, Refusal> {
        if let [name] = wanted
            && let Some(level) = auto(name)
        {
            let Some(level) = level else {
                let near = Some("auto:balanced".to_owned());
                return Err(Refusal::UnknownModel { model: (*name).to_owned(), near });
            };
            let strategy = match level {
                Level::Cheap => StrategyName::Cheapest,
                Level::Balanced => self.strategy,
                Level::Best => StrategyName::Best,
            };
            let views = offer.targets.iter().map(|view| &view.name);
            let is_in = |name: &&TargetName| {
                self.models.is_empty() || self.models.iter().any(|it| names::is_of(it, name))
            };
            let names: Vec<TargetName> = views.filter(is_in).cloned().collect();
            if names.is_empty() {
                return Err(Refusal::NothingOffered);
            }
            return Ok(Pool {
                rule,
                strategy,
                names,
                is_named: false,
                is_of_rule: false,
                hedge: None,
            });
        }
        let mut found: Vec<TargetName> = Vec::new();
        let mut first_refusal = None;
        for name in wanted {
            match names::targets(name, request.dialect, offer) {
                Ok(names) => {
                    found.extend(
                        names.into_iter().filter(|it| !found.contains(it)).collect::<Vec<_>>(),
                    );
                }
                Err(refusal) => first_refusal = first_refusal.or(Some(refusal)),
            }
        }
        // Of several names that a rule lists, one may be of a provider that is not there today.
        if found.is_empty() {
            let model = || wanted.first().copied().unwrap_or_default().to_owned();
            return Err(first_refusal
                .unwrap_or_else(|| Refusal::UnknownModel { model: model(), near: None }));
        }
        // One name that several providers have: the cheapest of them.
        let strategy = if wanted.len() == 1 { StrategyName::Cheapest } else { StrategyName::Fixed };
        Ok(Pool { rule, strategy, names: found, is_named: true, is_of_rule: false, hedge: None })
    }

    /// Looks at a target, and sorts it by whether it can answer.
    fn look_at<'a>(
        &self,
        name: &TargetName,
        is_named: bool,
        request: &Request<'_>,
        offer: &Offer<'a>,
        sorted: &mut Sorted<'a>,
    ) {
        let view = offer.view(name).map(Cow::Borrowed);
        let Some(view) = view.or_else(|| unseen(name, offer).map(Cow::Owned)) else { return };
        let cost = self.cost(&view, request);
        let limits = Limits { local_in_flight: self.local_in_flight, is_named };
        let fit = if fit::is_allowed(request.allowed_models, name) {
            fit::of(&view, cost, request, limits)
        } else {
            Fit::Unable("is not allowed for the key".into())
        };
        sorted.add(view, cost, fit);
    }

    /// Returns whether a target that somebody names can answer now.
    fn can(&self, name: &TargetName, request: &Request<'_>, offer: &Offer<'_>) -> bool {
        let view = offer.view(name).map(Cow::Borrowed);
        let view = view.or_else(|| unseen(name, offer).map(Cow::Owned));
        let limits = Limits { local_in_flight: self.local_in_flight, is_named: true };
        view.is_some_and(|view| fit::of(&view, None, request, limits) == Fit::Able)
    }

    /// Returns the cost of the answer of a target, where its price is known.
    fn cost(&self, view: &TargetView, request: &Request<'_>) -> Option<i64> {
        if view.is_local {
            return Some(0);
        }
        let sticky = request.sticky.filter(|sticky| *sticky.target == view.name);
        let cached = sticky.map_or(0, |sticky| sticky.cached_tokens);
        self.estimate(view, request, cached)
    }

    fn estimate(&self, view: &TargetView, request: &Request<'_>, cached: u64) -> Option<i64> {
        let input = request.inspected.estimated_tokens;
        let most = request.inspected.max_tokens.map_or(u64::MAX, u64::from);
        let output = most.min(self.expected_output_tokens);
        request.prices.estimate(&view.name, input, output, cached.min(input))
    }

    /// Keeps a session at its target, unless it needs a better one, or moving costs less although
    /// the prompt cache is lost.
    fn stick(&self, ranking: &mut Ranking, case: &Case<'_>) {
        let Some(sticky) = case.request.sticky else { return };
        let is_it = |index: &usize| case.choices[*index].view.name == *sticky.target;
        let Some(place) = ranking.order.iter().position(is_it) else { return };
        if place == 0 || ranking.is_checked {
            return;
        }
        let (stays, moves) = (&case.choices[ranking.order[place]], &case.choices[ranking.order[0]]);
        if ranking.tier.is_some_and(|tier| tier > Tier::Small) && self.is_small(&stays.view) {
            return;
        }
        let lost = self
            .estimate(&stays.view, case.request, 0)
            .zip(stays.cost)
            .map_or(0, |(cold, warm)| cold.saturating_sub(warm).max(0));
        let is_cheaper = moves
            .cost
            .zip(stays.cost)
            .is_some_and(|(moving, staying)| moving.saturating_add(lost) < staying);
        if ranking.weighs_cost && is_cheaper {
            return;
        }
        let index = ranking.order.remove(place);
        ranking.order.insert(0, index);
        let reason = Reason { name: "session".to_owned(), value: "stays".into(), weight: 0.0 };
        ranking.reasons.insert(0, reason);
    }

    fn is_small(&self, view: &TargetView) -> bool {
        if self.small.is_empty() {
            return view.is_local;
        }
        self.small.iter().any(|pattern| names::is_of(pattern, &view.name))
    }

    /// Returns the targets that are asked where `first` fails and that can answer.
    fn fallbacks_of<'a>(
        &self,
        first: &TargetName,
        request: &Request<'_>,
        offer: &Offer<'a>,
        sorted: &mut Sorted<'a>,
    ) -> Vec<TargetName> {
        let patterns = self.fallbacks.iter().filter(|(pattern, _)| names::is_of(pattern, first));
        let Some((_, chain)) = patterns.max_by_key(|(pattern, _)| pattern.len()) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for name in self.expanded(chain) {
            for target in names::targets(name, request.dialect, offer).unwrap_or_default() {
                if target == *first || found.contains(&target) {
                    continue;
                }
                if !sorted.has_seen(&target) {
                    self.look_at(&target, false, request, offer, sorted);
                }
                if sorted.is_able(&target) {
                    found.push(target);
                }
            }
        }
        found
    }
}

/// Level of the router's own choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Cheap,
    Balanced,
    Best,
}

/// Returns the level that a name means where it leaves the choice to the router; the inner `None`
/// is a level that there is not.
fn auto(name: &str) -> Option<Option<Level>> {
    let level = match name.split_at_checked(AUTO.len())? {
        (auto, "") if auto.eq_ignore_ascii_case(AUTO) => return Some(Some(Level::Balanced)),
        (auto, rest) if auto.eq_ignore_ascii_case(AUTO) => rest.strip_prefix(':')?,
        _ => return None,
    };
    Some(match level {
        "cheap" => Some(Level::Cheap),
        // Ollama's clients add the tag.
        "balanced" | "latest" => Some(Level::Balanced),
        "best" => Some(Level::Best),
        _ => None,
    })
}

/// Returns the state of a model that its provider has not listed: nothing is known of it.
fn unseen(name: &TargetName, offer: &Offer<'_>) -> Option<TargetView> {
    let provider = offer.provider(&name.provider)?;
    Some(TargetView {
        name: TargetName { provider: Arc::clone(&provider.id), model: Arc::clone(&name.model) },
        api: provider.api,
        is_local: provider.is_local,
        availability: Availability::Up,
        context_tokens: None,
        tools: None,
        images: None,
        latency_p50_ms: None,
        ttft_p50_ms: None,
        in_flight: 0,
        is_loaded: None,
    })
}

fn refused(asked: &str, pool: &Pool, sorted: Sorted<'_>, request: &Request<'_>) -> Refusal {
    if pool.names.iter().all(|name| !fit::is_allowed(request.allowed_models, name)) {
        return Refusal::NotAllowed { model: asked.to_owned() };
    }
    Refusal::Unfit { candidates: sorted.candidates }
}

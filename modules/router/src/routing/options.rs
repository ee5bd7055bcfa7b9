//! Configuration of routing.

use std::collections::BTreeMap;

use module_sdk::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    experiment::{ExperimentOptions, ShadowOptions},
    hedge::HedgeOptions,
    learned::Learned,
    name_list::Names,
    policy::Policy,
    rule::RuleOptions,
};

/// Settings of routing: the models that answer, and how they are chosen.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RoutingOptions {
    /// Further names of models: `fast: auto:cheap`, `sonnet: anthropic/claude-sonnet-4-5`.
    pub aliases: BTreeMap<String, Names>,
    /// Rules in their order: the first that is for a request decides.
    pub rules: Vec<RuleOptions>,
    /// Strategy of `auto` where no rule decides.
    pub strategy: StrategyName,
    /// Patterns of the models that `auto` chooses among. Default: all.
    pub models: Names,
    /// Models by what they can do, for the strategies that weigh that.
    pub tiers: Tiers,
    /// Models that are asked where the chosen one fails, by the pattern of the chosen one; `"*"` is
    /// for all. The longest pattern counts.
    pub fallbacks: BTreeMap<String, Names>,
    /// Shares of the strategy `weighted`, by pattern.
    pub weights: BTreeMap<String, f64>,
    /// Most requests under way at a local model before `auto` looks elsewhere.
    #[schemars(range(min = 1, max = 1000))]
    pub local_in_flight: u32,
    /// Tokens of an answer where the request sets no limit, for estimates of its cost.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub expected_output_tokens: u64,
    /// Experiments: shares of sessions that get other models. The first that a request takes part
    /// in counts; it goes before the rules.
    pub experiments: Vec<ExperimentOptions>,
    /// Settings of the requests that experiments ask beside the answers (`shadow`).
    pub shadows: ShadowOptions,
    /// Hedging: the next model in line is asked too where one is slow to begin. Off by default.
    pub hedge: HedgeOptions,
    /// Settings of `heuristic`.
    pub heuristic: HeuristicOptions,
    /// Settings of `cascade`.
    pub cascade: CascadeOptions,
    /// Settings of `learned`.
    pub learned: LearnedOptions,
}

/// A strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StrategyName {
    /// The first that can, in the order that is written.
    Fixed,
    /// The one whose answer costs least.
    Cheapest,
    /// The one that answered fastest so far.
    Fastest,
    /// By chance, in shares.
    Weighted,
    /// By what the person's last words look like.
    Heuristic,
    /// A local model first, whose answer is checked.
    Cascade,
    /// By what was learned from answers that were judged here.
    Learned,
    /// The most able one.
    Best,
}

/// Models by what they can do. In a tier the first that can answers.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tiers {
    /// Patterns of models for what is easy. Default: the local ones.
    pub small: Names,
    /// Patterns of models for the most. Default: those that are not local, the cheapest first.
    pub middle: Names,
    /// Patterns of models for what is hard. Default: those that are not local, the dearest first.
    pub best: Names,
}

/// Settings of `heuristic`. Its score is between 0, easy, and 1, hard.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HeuristicOptions {
    /// Score below which the small tier answers.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub small_below: f64,
    /// Score above which the best tier answers.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub best_above: f64,
}

/// Settings of `cascade`.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CascadeOptions {
    /// Second answer that the first is compared with, where answers can be compared.
    pub second: SecondAnswer,
}

/// Source of a second answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SecondAnswer {
    /// Another local model, or the same again where there is no other.
    Model,
    /// The same model again.
    Sample,
    /// None: only the form of the answer is checked.
    Never,
}

/// Settings of `learned`.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LearnedOptions {
    /// Quality to keep: the share of the paid model's right answers.
    #[schemars(range(min = 0.5, max = 1.0))]
    pub keep_quality: f64,
    /// Judged answers before it decides; until then `heuristic` does.
    #[schemars(range(min = 50, max = 1_000_000))]
    pub least_labels: u32,
}

impl Default for RoutingOptions {
    fn default() -> Self {
        Self {
            aliases: BTreeMap::new(),
            rules: Vec::new(),
            strategy: StrategyName::Heuristic,
            models: Names::default(),
            tiers: Tiers::default(),
            fallbacks: BTreeMap::new(),
            weights: BTreeMap::new(),
            local_in_flight: 4,
            expected_output_tokens: 500,
            experiments: Vec::new(),
            shadows: ShadowOptions::default(),
            hedge: HedgeOptions::default(),
            heuristic: HeuristicOptions::default(),
            cascade: CascadeOptions::default(),
            learned: LearnedOptions::default(),
        }
    }
}

impl Default for HeuristicOptions {
    fn default() -> Self {
        Self { small_below: 0.4, best_above: 0.8 }
    }
}

impl Default for CascadeOptions {
    fn default() -> Self {
        Self { second: SecondAnswer::Model }
    }
}

impl Default for LearnedOptions {
    fn default() -> Self {
        Self { keep_quality: 0.95, least_labels: 200 }
    }
}

impl StrategyName {
    /// Every strategy.
    pub(super) const ALL: [Self; 8] = [
        Self::Fixed,
        Self::Cheapest,
        Self::Fastest,
        Self::Weighted,
        Self::Heuristic,
        Self::Cascade,
        Self::Learned,
        Self::Best,
    ];

    /// Returns its name in the configuration and in explanations.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Cheapest => "cheapest",
            Self::Fastest => "fastest",
            Self::Weighted => "weighted",
            Self::Heuristic => "heuristic",
            Self::Cascade => "cascade",
            Self::Learned => "learned",
            Self::Best => "best",
        }
    }
}

impl RoutingOptions {
    /// Returns whether some strategy learns from judged answers, or makes them.
    pub(crate) fn learns(&self) -> bool {
        let learns = |name| matches!(name, StrategyName::Learned | StrategyName::Cascade);
        learns(self.strategy) || self.rules.iter().filter_map(|rule| rule.strategy).any(learns)
    }

    /// Checks what the types cannot express.
    ///
    /// # Errors
    ///
    /// The first key that cannot be used.
    pub(crate) fn check(&self) -> Result<()> {
        let within = |key: &str, value: f64, from: f64, to: f64| {
            if (from..=to).contains(&value) {
                return Ok(());
            }
            Err(Error::config_at(key, format!("must be from {from} to {to}")))
        };
        let HeuristicOptions { small_below, best_above } = self.heuristic;
        within("heuristic.small_below", small_below, 0.0, 1.0)?;
        within("heuristic.best_above", best_above, small_below, 1.0)?;
        within("learned.keep_quality", self.learned.keep_quality, 0.5, 1.0)?;
        within("learned.least_labels", f64::from(self.learned.least_labels), 50.0, 1e6)?;
        within("local_in_flight", f64::from(self.local_in_flight), 1.0, 1000.0)?;
        within("shadows.in_flight", f64::from(self.shadows.in_flight), 1.0, 100.0)?;
        if self.shadows.usd_per_day.nano() < 0 {
            return Err(Error::config_at("shadows.usd_per_day", "must not be negative"));
        }
        within("expected_output_tokens", self.expected_output_tokens as f64, 1.0, 1e6)?;
        self.hedge.check("hedge")?;
        for (pattern, weight) in &self.weights {
            within(&format!("weights.{pattern}"), *weight, 0.0, 1e9)?;
        }
        Policy::new(self, &Learned::default()).map(drop)
    }
}

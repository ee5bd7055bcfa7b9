//! Bounds of experiments.

use super::{Policy, Pool};
use crate::{
    routing::{
        Offer, Request,
        experiment::{Allotment, ExperimentOptions, Side},
        fit,
        name_list::Names,
        names,
        options::StrategyName,
    },
    target::TargetName,
};

/// Bounds of the experiments that a request takes part in.
///
/// An experiment goes before the rules, but sends a request to nobody who was not to have it: what
/// is kept at local models stays there, what a rule gives to some providers goes to no other one,
/// and what a key may not ask is not asked for it.
pub(super) struct Bounds<'a> {
    pub(super) policy: &'a Policy,
    /// Targets without the experiment; `None` where there are none.
    pub(super) pool: Option<&'a Pool>,
    pub(super) request: &'a Request<'a>,
    pub(super) offer: &'a Offer<'a>,
}

/// Part of a request in an experiment.
pub(super) struct Trial<'a> {
    experiment: &'a ExperimentOptions,
    side: Side,
    /// Targets of the variant, where the request gets it.
    pub(super) pool: Option<Pool>,
}

impl Trial<'_> {
    /// Returns the name of the experiment and the side.
    pub(super) fn name(&self) -> String {
        format!("{}:{}", self.experiment.name, self.side.as_str())
    }

    /// Returns whether what would answer without the experiment stands in for the variant.
    pub(super) fn has_stand_in(&self) -> bool {
        self.pool.is_some() && self.experiment.allotment == Allotment::All
    }
}

impl Bounds<'_> {
    /// Returns the part that a request has in an experiment; `None` where it has none, since it
    /// may not get the variant: who gets what all others get is no variant.
    pub(super) fn trial<'a>(
        &self,
        experiment: &'a ExperimentOptions,
        side: Side,
    ) -> Option<Trial<'a>> {
        let trial = |pool| Some(Trial { experiment, side, pool });
        if experiment.targets.is_empty() {
            return trial(None);
        }
        match (experiment.allotment, side) {
            (Allotment::Halves, Side::Control) => trial(None),
            (Allotment::Halves, Side::Variant) => trial(Some(self.variant(experiment)?)),
            (Allotment::All, side) => {
                self.pool?;
                let mut pool = self.variant(experiment)?;
                pool.names.retain(|name| !self.is_beyond_budget(name));
                if pool.names.is_empty() {
                    return None;
                }
                trial(Some(pool).filter(|_| side == Side::Variant))
            }
        }
    }

    /// Returns the targets of an experiment's variant; `None` where none of them may have the
    /// request.
    fn variant(&self, experiment: &ExperimentOptions) -> Option<Pool> {
        let wanted: Vec<&str> = self.policy.expanded(&experiment.targets).collect();
        let named = self.policy.named("experiment".to_owned(), &wanted, self.request, self.offer);
        let mut pool = named.ok()?;
        pool.names.retain(|name| self.hold(name));
        pool.strategy = StrategyName::Fixed;
        Some(pool).filter(|pool| !pool.names.is_empty())
    }

    fn is_beyond_budget(&self, name: &TargetName) -> bool {
        self.offer.view(name).is_some_and(|view| {
            let cost = self.policy.cost(view, self.request);
            fit::beyond_budget(view, cost, self.request).is_some()
        })
    }

    /// Returns the target that an experiment asks beside the answer.
    pub(super) fn shadow(&self, trial: &Trial<'_>) -> Option<TargetName> {
        let shadow = trial.experiment.shadow.as_ref();
        let name = shadow.filter(|_| trial.side == Side::Control)?;
        let written = Names(vec![name.clone()]);
        let names = self.policy.expanded(&written);
        let mut targets = names.flat_map(|name| {
            names::targets(name, self.request.dialect, self.offer).unwrap_or_default()
        });
        targets.find(|name| self.hold(name) && self.policy.can(name, self.request, self.offer))
    }

    /// Returns whether a target may have the request.
    fn hold(&self, name: &TargetName) -> bool {
        let is_local =
            |name: &TargetName| self.offer.provider(&name.provider).is_some_and(|it| it.is_local);
        if !fit::is_allowed(self.request.allowed_models, name) {
            return false;
        }
        let Some(pool) = self.pool.filter(|_| !is_local(name)) else { return true };
        let is_free = !pool.is_named && self.policy.models.is_empty();
        let stays_home = !is_free && pool.names.iter().all(is_local);
        let is_of_same = |it: &TargetName| it.provider == name.provider;
        !stays_home && (!pool.is_of_rule || pool.names.iter().any(is_of_same))
    }
}

//! Bounds of experiments.

use super::{Policy, Pool};
use crate::{
    routing::{
        Offer, Request,
        experiment::{ExperimentOptions, Side},
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

impl Bounds<'_> {
    /// Returns the targets of an experiment's variant; `None` on the other side, and where none of
    /// them may have the request.
    pub(super) fn variant(&self, experiment: &ExperimentOptions, side: Side) -> Option<Pool> {
        if side == Side::Control || experiment.targets.is_empty() {
            return None;
        }
        let wanted: Vec<&str> = self.policy.expanded(&experiment.targets).collect();
        let named = self.policy.named("experiment".to_owned(), &wanted, self.request, self.offer);
        let mut pool = named.ok()?;
        pool.names.retain(|name| self.hold(name));
        pool.strategy = StrategyName::Fixed;
        Some(pool).filter(|pool| !pool.names.is_empty())
    }

    /// Returns the target that an experiment asks beside the answer.
    pub(super) fn shadow(&self, experiment: &ExperimentOptions, side: Side) -> Option<TargetName> {
        let name = experiment.shadow.as_ref().filter(|_| side == Side::Control)?;
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

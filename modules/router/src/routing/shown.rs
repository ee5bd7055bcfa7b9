//! A decision as `lodestar router route` and `POST /v1/decision` show it.

use module_sdk::Usd;
use serde::{
    Serialize, Serializer,
    ser::{SerializeSeq, SerializeStruct},
};

use super::{Candidate, Decision, HedgeOptions};
use crate::target::TargetName;

impl Serialize for Decision {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (first, fallbacks) = match self.order.split_first() {
            Some((first, fallbacks)) => (Some(first), fallbacks),
            None => (None, &[] as &[TargetName]),
        };
        let mut shown = serializer.serialize_struct("Decision", 13)?;
        shown.serialize_field("model", &first.map(|name| &*name.model))?;
        shown.serialize_field("provider", &first.map(|name| &*name.provider))?;
        shown.serialize_field("rule", &self.rule)?;
        shown.serialize_field("strategy", self.strategy)?;
        shown.serialize_field("score", &self.score)?;
        shown.serialize_field("reasons", &self.reasons)?;
        shown.serialize_field("candidates", &self.candidates)?;
        shown.serialize_field("fallbacks", &Shown(fallbacks))?;
        shown.serialize_field("checked", &self.is_checked)?;
        let second = self.second.as_ref().map(ToString::to_string);
        shown.serialize_field("compared_with", &second)?;
        shown.serialize_field("hedge", &self.shown_hedge())?;
        shown.serialize_field("variant", &self.variant)?;
        shown.serialize_field("shadow", &self.shadow.as_ref().map(ToString::to_string))?;
        shown.end()
    }
}

/// Hedging of a request.
#[derive(Serialize)]
struct ShownHedge<'a> {
    #[serde(flatten)]
    options: &'a HedgeOptions,
    /// Models that are asked too, in this order, but for one that has to be loaded first.
    models: Shown<'a>,
}

impl Decision {
    /// Returns the models that are asked beside one that is slow to begin; none where there is no
    /// other one.
    pub(crate) fn hedges(&self) -> &[TargetName] {
        // One whose answer is checked is asked alone, before the others.
        let alone = usize::from(self.is_checked);
        let others = self.order.get(alone + 1..).unwrap_or_default();
        let most = if self.hedge.is_on() { usize::from(self.hedge.most) } else { 0 };
        &others[..most.min(others.len())]
    }

    fn shown_hedge(&self) -> Option<ShownHedge<'_>> {
        let hedges = self.hedges();
        (!hedges.is_empty()).then_some(ShownHedge { options: &self.hedge, models: Shown(hedges) })
    }
}

/// Targets, each as `provider/model`.
struct Shown<'a>(&'a [TargetName]);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut names = serializer.serialize_seq(Some(self.0.len()))?;
        for name in self.0 {
            names.serialize_element(&name.to_string())?;
        }
        names.end()
    }
}

impl Serialize for Candidate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut shown = serializer.serialize_struct("Candidate", 5)?;
        shown.serialize_field("model", &*self.target.model)?;
        shown.serialize_field("provider", &*self.target.provider)?;
        shown.serialize_field("allowed", &self.is_allowed)?;
        shown.serialize_field("reason", &self.reason)?;
        let cost = self.estimated_cost_nano_usd.map(Usd::from_nano);
        shown.serialize_field("estimated_cost_usd", &cost)?;
        shown.end()
    }
}

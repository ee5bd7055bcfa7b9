//! Consent, and the terms of the model that answered.

use super::filter::{Candidate, Filter, Reason, Work, each};
use crate::example::LicenceClass;

/// Filter for examples that people agreed to.
pub(super) struct Consent;

impl Filter for Consent {
    fn name(&self) -> &'static str {
        "consent"
    }

    fn judge(&self, candidates: &mut [Candidate], work: &mut Work<'_>) -> Vec<Option<Reason>> {
        each(candidates, work, |example| example.consent.is_none().then_some("no_consent"))
    }
}

/// Filter for answers of models whose terms allow to learn from them.
pub(super) struct Licence;

impl Filter for Licence {
    fn name(&self) -> &'static str {
        "licence"
    }

    fn judge(&self, candidates: &mut [Candidate], work: &mut Work<'_>) -> Vec<Option<Reason>> {
        each(candidates, work, |example| match example.licence {
            LicenceClass::Own | LicenceClass::OpenWeights => None,
            _ if example.attested => None,
            LicenceClass::Restricted => Some("licence_restricted"),
            LicenceClass::Unknown => Some("licence_unknown"),
        })
    }
}

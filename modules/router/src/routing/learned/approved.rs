//! A policy that was learned from some labels and approved by a person. It stays as it is.

use serde::{Deserialize, Serialize};

use super::{
    Label, Learned, Opinion, State,
    outcomes::Bounds,
    sample::Sample,
    saved::{Saved, SavedError},
};

/// A policy as it is kept and approved. No text can be read from it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyFile {
    /// Version of the features that its weights are of.
    pub features: u32,
    /// Share of the paid model's right answers that it keeps.
    pub promise: f64,
    /// Number of labels that it was learned from.
    pub labels: u64,
    /// The weights.
    pub knowledge: Saved,
}

/// A policy that decides.
#[derive(Debug, Clone)]
pub(crate) struct Approved {
    /// SHA-256 of its file.
    pub digest: String,
    /// Share of the paid model's right answers that it keeps.
    pub promise: f64,
    state: State,
}

/// Reason for which a policy cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PolicyError {
    /// Another file than the one that was approved.
    #[error("is another file than the one that was approved")]
    Digest,
    /// No policy.
    #[error("is no policy of a router")]
    Form,
    /// Weights that cannot be used.
    #[error("{0}")]
    Saved(#[from] SavedError),
    /// Too few labels for a bound.
    #[error("was learned from too few answers of local models to decide")]
    TooFew,
}

/// A policy that was trained, and what it says of requests that it did not learn from.
#[derive(Debug)]
pub(crate) struct Trained {
    /// Its file.
    pub file: String,
    /// The policy, read again from its file.
    pub policy: Approved,
}

impl Approved {
    /// Reads a policy, if it is the one with this digest.
    ///
    /// # Errors
    ///
    /// When it is another one, or cannot be used.
    pub(crate) fn read(text: &str, digest: &str) -> Result<Self, PolicyError> {
        if digest_of(text) != digest {
            return Err(PolicyError::Digest);
        }
        let file: PolicyFile = serde_json::from_str(text).map_err(|_| PolicyError::Form)?;
        if !(0.5..=1.0).contains(&file.promise) {
            return Err(PolicyError::Form);
        }
        let learned = Learned::default();
        learned.restore(&file.knowledge)?;
        learned.keep(file.promise);
        let state = learned.read().clone();
        if state.bounds.is_none() {
            return Err(PolicyError::TooFew);
        }
        Ok(Self { digest: digest.to_owned(), promise: file.promise, state })
    }

    /// Learns a policy from labels in their order.
    ///
    /// # Errors
    ///
    /// When they are too few.
    pub(crate) fn train(labels: &[(Sample, Label)], promise: f64) -> Result<Trained, PolicyError> {
        let learned = Learned::default();
        learned.keep(promise);
        for (sample, label) in labels {
            learned.learn(sample, *label);
        }
        let file = PolicyFile {
            features: super::saved::VERSION,
            promise,
            labels: learned.labels(),
            knowledge: learned.save(),
        };
        let file = serde_json::to_string(&file).map_err(|_| PolicyError::Form)?;
        // What is approved is what is in the file, with its weights of one byte.
        let policy = Self::read(&file, &digest_of(&file))?;
        Ok(Trained { file, policy })
    }

    /// Returns the opinion about a request.
    pub(crate) fn opinion(&self, sample: &Sample) -> Opinion {
        // A policy without bounds is not read.
        let bounds = self.state.bounds.unwrap_or(Bounds { score: 0.0, strangeness: 0.0 });
        self.state.opinion(sample, bounds)
    }

    /// Returns for each of some requests whether the local model would do under another promise.
    pub(crate) fn local_at(&self, promise: f64, samples: &[Sample]) -> Vec<bool> {
        let bounds = self.state.outcomes.bounds(promise);
        let is_enough = |sample: &Sample| {
            bounds.is_some_and(|bounds| self.state.opinion(sample, bounds).is_local_enough)
        };
        samples.iter().map(is_enough).collect()
    }
}

/// Returns the SHA-256 of a text in hexadecimal digits.
pub(crate) fn digest_of(text: &str) -> String {
    use sha2::{Digest as _, Sha256};
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

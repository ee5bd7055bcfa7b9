//! Reasons for which a client is refused before its request is looked at.

use module_sdk::jiff::Timestamp;

/// Refusal of a client, in no particular dialect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyFault {
    /// No key was given, and this client needs one.
    #[error(
        "no key was given; send one as `Authorization: Bearer lk_…` or `x-api-key: lk_…` \
         (`lodestar router keys create NAME` makes one)"
    )]
    NoKey,
    /// A key was given that is none of this router.
    #[error("the key is not known here; `lodestar router keys list` shows the keys")]
    WrongKey,
    /// The key has expired, or was rotated and its grace is over.
    #[error("the key `{name}` expired at {at}; `lodestar router keys rotate {name}` renews it")]
    Expired {
        /// Name of the key.
        name: String,
        /// End of its time.
        at: Timestamp,
    },
    /// The key was revoked.
    #[error("the key `{name}` was revoked at {at}")]
    Revoked {
        /// Name of the key.
        name: String,
        /// Time of the revocation.
        at: Timestamp,
    },
    /// The key may not use the model.
    #[error("the key `{name}` may not use the model `{model}`; {}", remedy(near, allowed))]
    ModelNotAllowed {
        /// Name of the key.
        name: String,
        /// Model that was asked for.
        model: String,
        /// Model that may be used and whose name is near.
        near: Option<String>,
        /// Patterns of the models that may be used.
        allowed: Vec<String>,
    },
    /// The key may use certain models, and the request has a second way to name one.
    #[error(
        "the key `{name}` is for certain models, so `{field}` is not taken; name one by `model`"
    )]
    NamesModels {
        /// Name of the key.
        name: String,
        /// Field of the request.
        field: &'static str,
    },
}

fn remedy(near: &Option<String>, allowed: &[String]) -> String {
    match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("it may use {}", allowed.join(", ")),
    }
}

impl KeyFault {
    /// Returns the HTTP status of the refusal.
    pub(crate) const fn status(&self) -> u16 {
        match self {
            Self::NoKey | Self::WrongKey | Self::Expired { .. } | Self::Revoked { .. } => 401,
            Self::ModelNotAllowed { .. } | Self::NamesModels { .. } => 403,
        }
    }

    /// Returns the name of the refusal in errors and events.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::NoKey => "no_key",
            Self::WrongKey => "wrong_key",
            Self::Expired { .. } => "key_expired",
            Self::Revoked { .. } => "key_revoked",
            Self::ModelNotAllowed { .. } | Self::NamesModels { .. } => "model_not_allowed",
        }
    }
}

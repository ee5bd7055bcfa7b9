//! The actor of a request to the control API.

use std::convert::Infallible;

use axum::{extract::FromRequestParts, http::request::Parts};

use super::Peer;
use crate::request::Actor;

impl<S: Sync> FromRequestParts<S> for Actor {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        // Over TCP nobody is known but by the token.
        let peer = parts.extensions.get::<Peer>();
        Ok(peer.map_or(Self::TokenHolder, |peer| Self::User(peer.user)))
    }
}

//! Sum of all attempts of one request, settled when the last of them has ended.

use std::sync::{Mutex, PoisonError};

use module_sdk::events::LlmRequestCompleted;

use crate::{
    keys::Identity,
    limits::{Actual, Estimate, Limits, Reservation},
};

/// Sum of the attempts of one request. Dropped, it settles the reservation of the request.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    reservation: Reservation,
    /// Reservations for targets that cost more than the first one, or are asked beside it.
    further: Vec<Reservation>,
    /// Money that is reserved, in nano-USD.
    reserved_nano_usd: u64,
    tokens: Sum,
    nano_usd: Sum,
    is_sent: bool,
    /// Those whose budgets the request counts for.
    charged: Option<Charged>,
}

/// Those whose budgets a request counts for.
#[derive(Debug)]
struct Charged {
    limits: Limits,
    identity: Identity,
    project: Option<String>,
}

/// A sum of which some parts may not be known.
#[derive(Debug, Default)]
struct Sum {
    known: u64,
    is_partial: bool,
}

impl Sum {
    fn add(&mut self, part: Option<u64>) {
        match part {
            Some(part) => self.known = self.known.saturating_add(part),
            None => self.is_partial = true,
        }
    }

    fn known(&self) -> Option<u64> {
        (!self.is_partial).then_some(self.known)
    }
}

impl Tally {
    /// Creates the sum of a request with its reservation.
    pub(crate) fn new(reservation: Reservation, reserved_nano_usd: u64) -> Self {
        let state = State { reservation, reserved_nano_usd, ..State::default() };
        Self { state: Mutex::new(state) }
    }

    /// Counts what is used for the budgets of a key, a project and all.
    pub(crate) fn charged_to(
        self,
        limits: Limits,
        identity: Identity,
        project: Option<String>,
    ) -> Self {
        let charged = Some(Charged { limits, identity, project });
        self.state.lock().unwrap_or_else(PoisonError::into_inner).charged = charged;
        self
    }

    /// Returns the money that is reserved, in nano-USD.
    pub(crate) fn reserved_nano_usd(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).reserved_nano_usd
    }

    /// Adds a reservation for a target that costs more, or is asked beside another one.
    pub(crate) fn reserve_more(&self, reservation: Reservation, nano_usd: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.further.push(reservation);
        state.reserved_nano_usd = state.reserved_nano_usd.saturating_add(nano_usd);
    }

    /// Notes that a provider is asked.
    pub(crate) fn sent(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.is_sent = true;
        state.reservation.sent();
    }

    /// Adds an attempt. One that failed before anything was written used nothing.
    pub(crate) fn add(&self, attempt: &LlmRequestCompleted, has_used: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !has_used {
            return;
        }
        let tokens = attempt.input_tokens.zip(attempt.output_tokens);
        let tokens = tokens.map(|(input, output)| input.saturating_add(output));
        // Embeddings write nothing.
        state.tokens.add(tokens.or(attempt.input_tokens));
        state.nano_usd.add(attempt.cost_nano_usd.and_then(|cost| u64::try_from(cost).ok()));
    }

    /// Adds an attempt of which nobody knows what it used: it counts as what was reserved for it.
    pub(crate) fn add_reserved(&self, reserved: Estimate) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.tokens.add(Some(reserved.tokens));
        state.nano_usd.add(reserved.nano_usd);
    }

    /// Settles a request that was answered without asking anybody.
    pub(crate) fn settle_free(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.reservation.settle(Actual { tokens: Some(0), nano_usd: Some(0) });
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if state.is_sent {
            if let Some(Charged { limits, identity, project }) = &state.charged {
                let spent = i64::try_from(state.nano_usd.known).unwrap_or(i64::MAX);
                limits.spent(identity, project.as_deref(), spent);
            }
            let actual = Actual { tokens: state.tokens.known(), nano_usd: state.nano_usd.known() };
            // The first one settles all; what is not known stays reserved in all of them.
            state.reservation.settle(actual);
            let nothing_more =
                Actual { tokens: actual.tokens.map(|_| 0), nano_usd: actual.nano_usd.map(|_| 0) };
            state.further.iter_mut().for_each(|further| further.settle(nothing_more));
        }
    }
}

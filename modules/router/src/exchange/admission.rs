//! Admission of a request: its key, and room for it within the limits.

use std::{net::IpAddr, sync::Arc};

use http::HeaderMap;
use module_prices::Tokens;

use super::{Plan, tally::Tally};
use crate::{
    app::App,
    dialect::fault::{Fault, FaultKind},
    keys::{self, Identity, KeyFault, Peer},
    limits::{BudgetAction, Estimate, LimitHit},
    target::Target,
};

/// Tokens of an answer where the request sets no limit.
const EXPECTED_OUTPUT: u64 = 1024;

/// Finds out who asks.
pub(crate) fn identify(
    app: &App,
    headers: &HeaderMap,
    query: Option<&str>,
    peer: Option<IpAddr>,
) -> Result<Identity, Fault> {
    let presented = keys::presented(headers, query);
    let Some(address) = peer else {
        // A socket without addresses is of this machine.
        return Ok(Identity::Anonymous);
    };
    let peer = Peer { address, is_forwarded: keys::is_forwarded(headers) };
    app.ring.identify(presented, peer, app.host.now()).map_err(|refused| fault_of_key(&refused))
}

pub(super) fn fault_of_key(refused: &KeyFault) -> Fault {
    let kind =
        if refused.status() == 403 { FaultKind::Permission } else { FaultKind::Authentication };
    Fault::new(kind, refused.to_string()).coded(refused.code())
}

/// Reserves what a request may need. Where only money is short and the operator says so, targets
/// that cost nothing are left.
pub(super) async fn reserve(app: &Arc<App>, plan: &mut Plan) -> Result<(), Fault> {
    let first = plan.decision.order.first().and_then(|name| app.targets.get_or_add(name));
    let output = plan.max_tokens.map_or(EXPECTED_OUTPUT, u64::from);
    let tokens = plan.estimated_tokens.saturating_add(output);
    let nano_usd = first.as_ref().and_then(|target| estimate(plan, target).nano_usd);
    let estimate = Estimate { requests: 1, tokens, nano_usd };
    let project = plan.client.project.as_deref();
    match app.limits.reserve(&plan.identity, project, estimate).await {
        Ok(reservation) => {
            let reserved = estimate.nano_usd.unwrap_or(0);
            plan.tally = Arc::new(charged(app, plan, Tally::new(reservation, reserved)));
            Ok(())
        }
        Err(hit) if hit.action == BudgetAction::Reroute && hit.is_about_money() => {
            let is_free = |name: &crate::target::TargetName| {
                app.targets.get(name).is_some_and(|target| target.is_local())
            };
            let decision = Arc::make_mut(&mut plan.decision);
            decision.order.retain(is_free);
            decision.second.take_if(|name| !is_free(name));
            decision.is_checked &= decision.order.len() > 1;
            if decision.order.is_empty() {
                return Err(fault_of_limit(&hit));
            }
            "budget".clone_into(&mut decision.rule);
            // The place was that of the paid target.
            plan.lookup = None;
            let free = Estimate { nano_usd: Some(0), ..estimate };
            let reserved = app.limits.reserve(&plan.identity, project, free).await;
            let reservation = reserved.map_err(|hit| fault_of_limit(&hit))?;
            plan.tally = Arc::new(charged(app, plan, Tally::new(reservation, 0)));
            Ok(())
        }
        Err(hit) => Err(fault_of_limit(&hit)),
    }
}

fn charged(app: &App, plan: &Plan, tally: Tally) -> Tally {
    tally.charged_to(app.limits.clone(), plan.identity.clone(), plan.client.project.clone())
}

/// Returns what an answer of a target may use, beside what the request counts for.
pub(super) fn estimate(plan: &Plan, target: &Target) -> Estimate {
    let output = plan.max_tokens.map_or(EXPECTED_OUTPUT, u64::from);
    let input = plan.estimated_tokens;
    let tokens = Tokens { input, output, ..Tokens::default() };
    let cost = target.price.as_ref().map(|price| price.cost(&tokens));
    Estimate {
        requests: 0,
        tokens: input.saturating_add(output),
        nano_usd: cost.and_then(|cost| u64::try_from(cost).ok()),
    }
}

/// Reserves what a target may use that is asked beside another one: both may have to be paid.
pub(super) async fn reserve_beside(app: &App, plan: &Plan, target: &Target) -> Result<(), Fault> {
    let estimate = estimate(plan, target);
    let project = plan.client.project.as_deref();
    let reserved = app.limits.reserve(&plan.identity, project, estimate).await;
    let reservation = reserved.map_err(|hit| fault_of_limit(&hit))?;
    plan.tally.reserve_more(reservation, estimate.nano_usd.unwrap_or(0));
    Ok(())
}

/// Reserves what a target may cost more than those before it.
pub(super) async fn reserve_more(app: &App, plan: &Plan, target: &Target) -> Result<(), Fault> {
    if target.is_local() {
        return Ok(());
    }
    let more = estimate(plan, target)
        .nano_usd
        .map(|cost| cost.saturating_sub(plan.tally.reserved_nano_usd()));
    if more == Some(0) {
        return Ok(());
    }
    let estimate = Estimate { requests: 0, tokens: 0, nano_usd: more };
    let project = plan.client.project.as_deref();
    let reserved = app.limits.reserve(&plan.identity, project, estimate).await;
    let reservation = reserved.map_err(|hit| fault_of_limit(&hit))?;
    plan.tally.reserve_more(reservation, more.unwrap_or(0));
    Ok(())
}

/// Reserves a request that asks for no answer.
pub(super) async fn reserve_small(app: &App, plan: &mut Plan) -> Result<(), Fault> {
    let estimate = Estimate { requests: 1, tokens: 0, nano_usd: Some(0) };
    let project = plan.client.project.as_deref();
    let reserved = app.limits.reserve(&plan.identity, project, estimate).await;
    let mut reservation = reserved.map_err(|hit| fault_of_limit(&hit))?;
    reservation.settle(crate::limits::Actual { tokens: Some(0), nano_usd: Some(0) });
    Ok(())
}

fn fault_of_limit(hit: &LimitHit) -> Fault {
    let kind = match hit.status() {
        403 => FaultKind::Permission,
        _ if hit.is_about_money() => FaultKind::Budget,
        _ => FaultKind::RateLimited,
    };
    let mut fault = Fault::new(kind, hit.to_string()).coded(hit.code());
    fault.retry_after = hit.retry_after;
    fault
}

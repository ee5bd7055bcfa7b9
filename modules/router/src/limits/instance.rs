//! One instance of the router: its counts, and its link to the others.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use module_sdk::{Error, Host, Result, jiff::Timestamp};

use super::{
    Amounts, BudgetAction, Estimate, HitReason, LATE, Limit, LimitHit, LimitOptions, LimitsState,
    Quantity, Reservation, STATE, Scope, Unpriced,
    ledger::{self, Entry, Full, Ledger, Party},
    reservation::Open,
    shared::{self, Told},
};
use crate::{keys::Identity, redis_link::RedisLink};

/// Time within which the next generation writes its first state.
const TAKING_OVER: Duration = Duration::from_secs(60);

/// The counts of this instance of the router, and its link to the others.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) options: LimitOptions,
    pub(super) ledger: Mutex<Ledger>,
    pub(super) link: Option<RedisLink>,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) host: Host,
    /// Time at which the counts went to the next generation.
    pub(super) handed_over_at: Mutex<Option<Timestamp>>,
}

impl Instance {
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the counts back where the next generation never came: it was to start, and failed.
    pub(super) fn is_left_alone(&self) -> bool {
        let at = *self.handed_over_at.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = at.map(|at| self.host.now().duration_since(at).unsigned_abs());
        if waited.is_none_or(|waited| waited < TAKING_OVER) {
            return false;
        }
        let state: Option<LimitsState> = self.host.load_state(STATE).ok().flatten();
        let is_alone = state.is_none_or(|state| state.generation <= self.host.generation());
        if is_alone {
            self.ledger().take_back();
        }
        is_alone
    }

    /// Returns those whose limits hold for a request, without those who have none.
    pub(super) fn parties(&self, identity: &Identity, project: Option<&str>) -> Vec<Party> {
        let options = &self.options;
        let of_key = match identity {
            Identity::Anonymous => (&options.anonymous, "", "anonymous"),
            Identity::Key(key) => (&key.limits, &*key.name, &*key.id),
        };
        let of_project = project.and_then(|name| Some((name, options.projects.get(name)?)));
        let mut parties = Vec::new();
        if !of_key.0.is_unlimited() {
            let (allowance, name, id) = of_key;
            let scope = Scope::Key(id.into());
            parties.push(Party { scope, name: name.into(), allowance: *allowance });
        }
        if let Some((name, allowance)) = of_project.filter(|(_, it)| !it.is_unlimited()) {
            let scope = Scope::Project(name.into());
            parties.push(Party { scope, name: name.into(), allowance: *allowance });
        }
        if !options.all.is_unlimited() {
            parties.push(Party { scope: Scope::All, name: "".into(), allowance: options.all });
        }
        parties
    }

    /// Refuses what costs something where a budget is exceeded.
    pub(super) fn ask_budgets(
        &self,
        identity: &Identity,
        project: Option<&str>,
        estimate: Estimate,
        now: Timestamp,
    ) -> Result<(), LimitHit> {
        let ledger = self.ledger();
        if estimate.nano_usd == Some(0) || ledger.budgets.is_empty() {
            return Ok(());
        }
        let name = identity.key().map_or("", |key| &*key.name);
        let scopes = scopes(identity, project);
        let Some((index, retry_after)) = ledger.budgets.exceeded(&scopes, now) else {
            return Ok(());
        };
        Err(LimitHit {
            scope: scopes[index].clone(),
            name: name.to_owned(),
            reason: HitReason::Budget,
            retry_after,
            action: self.options.budget_action,
        })
    }

    /// Returns what is left of the tightest budget that a request counts for, in nano-USD; `None`
    /// where there is none, or nothing is known of it.
    pub(super) fn budget_left(&self, identity: &Identity, project: Option<&str>) -> Option<i64> {
        let (now, parties) = (self.host.now(), self.parties(identity, project));
        let mut ledger = self.ledger();
        let told = if ledger.budgets.is_empty() {
            None
        } else {
            ledger.budgets.left(&scopes(identity, project), now)
        };
        ledger.money_left(&parties, now).into_iter().chain(told).min()
    }

    pub(super) fn amounts(
        &self,
        parties: &[Party],
        estimate: Estimate,
    ) -> Result<Amounts, LimitHit> {
        let Estimate { requests, tokens, nano_usd } = estimate;
        if nano_usd.is_none() && self.options.unpriced == Unpriced::Refuse {
            let money = |limit: &Limit| limit.quantity == Quantity::NanoUsd;
            for (index, party) in parties.iter().enumerate() {
                if let Some(limit) = party.allowance.limits().find(money) {
                    let reason = HitReason::Unpriced { limit };
                    return Err(self.hit(parties, Full { party: index, reason, retry_after: None }));
                }
            }
        }
        Ok(Amounts { requests, tokens, nano_usd: nano_usd.unwrap_or(0) })
    }

    fn hit(&self, parties: &[Party], full: Full) -> LimitHit {
        let party = &parties[full.party];
        let mut hit = LimitHit {
            scope: party.scope.clone(),
            name: party.name.to_string(),
            reason: full.reason,
            retry_after: full.retry_after,
            action: BudgetAction::Stop,
        };
        if hit.is_about_money() {
            hit.action = self.options.budget_action;
        }
        hit
    }

    pub(super) fn reserve_alone(
        self: &Arc<Self>,
        parties: &[Party],
        amounts: Amounts,
        now: Timestamp,
    ) -> Result<Reservation, LimitHit> {
        let instances = u64::from(self.options.instances);
        let mut ledger = self.ledger();
        let entries = ledger.entries(parties, amounts, now);
        let checked = ledger.check(parties, &entries, instances, now);
        checked.map_err(|full| self.hit(parties, full))?;
        ledger.add(parties, &entries, self.link.is_some());
        Ok(self.reservation(parties, entries, false))
    }

    pub(super) async fn reserve_shared(
        self: Arc<Self>,
        link: &RedisLink,
        parties: &[Party],
        amounts: Amounts,
        now: Timestamp,
    ) -> Result<Reservation, LimitHit> {
        let (entries, calendar) = {
            let mut ledger = self.ledger();
            (ledger.entries(parties, amounts, now), ledger.calendar(now))
        };
        let scopes: Vec<Scope> = parties.iter().map(|party| party.scope.clone()).collect();
        match shared::reserve(link, &scopes, &entries, &calendar).await {
            Ok(Told::Counted(counts)) => {
                let mut ledger = self.ledger();
                for (entry, (count, window)) in entries.iter().zip(counts) {
                    ledger.take_over(&scopes[entry.party], entry, count, window);
                }
                drop(ledger);
                Ok(self.reservation(parties, entries, true))
            }
            Ok(Told::Full { entry, used, wait }) => {
                Err(self.hit(parties, ledger::full(&entries[entry], used, wait)))
            }
            Err(_) => self.reserve_alone(parties, amounts, now),
        }
    }

    fn reservation(
        self: &Arc<Self>,
        parties: &[Party],
        entries: Vec<Entry>,
        is_shared: bool,
    ) -> Reservation {
        let scopes = parties.iter().map(|party| party.scope.clone()).collect();
        Reservation::new(Open { limits: self.clone(), scopes, entries, is_shared, is_sent: false })
    }

    /// Changes counts by what was used more, or less, than reserved.
    pub(super) fn change(
        self: &Arc<Self>,
        scopes: Arc<[Scope]>,
        changes: Vec<(Entry, i64)>,
        is_shared: bool,
    ) {
        let is_unsent = self.link.is_some() && !is_shared;
        let calendar = {
            let mut ledger = self.ledger();
            for (entry, change) in &changes {
                ledger.change(&scopes[entry.party], entry, *change, is_unsent);
            }
            ledger.calendar(self.host.now())
        };
        let Some(link) = self.link.clone().filter(|_| is_shared) else { return };
        let limits = self.clone();
        self.runtime.spawn(async move {
            if shared::settle(&link, &scopes, &changes, &calendar).await.is_err() {
                let mut ledger = limits.ledger();
                for (entry, change) in &changes {
                    ledger.note_unsent(&scopes[entry.party], entry, *change);
                }
            }
        });
    }

    /// Takes over what former generations settled after their hand-over.
    pub(super) fn take_late(&self) -> Result<()> {
        let folder = match std::fs::read_dir(self.host.data_dir()) {
            Ok(folder) => folder,
            Err(error) => return Err(Error::unavailable(error.to_string())),
        };
        for file in folder.flatten() {
            let name = file.file_name();
            let Some(name) = name.to_str().and_then(|name| name.strip_suffix(".json")) else {
                continue;
            };
            if !name.starts_with(LATE) {
                continue;
            }
            let late = self.host.load_state(name);
            // Removed first: to lose it is better than to count it again and again.
            std::fs::remove_file(file.path())
                .map_err(|error| Error::unavailable(error.to_string()))?;
            match late {
                Ok(late) => self.ledger().add_late(late.unwrap_or_default()),
                Err(error) => tracing::warn!(%error, "what was settled late is not counted"),
            }
        }
        Ok(())
    }
}

/// Returns all whose budgets a request counts for.
pub(super) fn scopes(identity: &Identity, project: Option<&str>) -> Vec<Scope> {
    let key = Scope::Key(identity.id().into());
    let project = project.map(|name| Scope::Project(name.into()));
    [key].into_iter().chain(project).chain([Scope::All]).collect()
}

//! Names of models as clients and rules write them, and the targets that they mean.

use std::{borrow::Cow, sync::Arc};

use module_sdk::{ProviderApi, nearest};

use super::{Offer, Refusal};
use crate::{
    dialect::Dialect,
    glob,
    target::{TargetName, TargetView},
};

/// Returns a model's name without what clients append for themselves: Claude Code writes
/// `claude-sonnet-4-5[1m]` where it wants a context of a million tokens.
pub(super) fn bare(model: &str) -> &str {
    let model = model.trim();
    match model.split_at_checked(model.len().saturating_sub(4)) {
        Some((name, end)) if end.eq_ignore_ascii_case("[1m]") => name,
        _ => model,
    }
}

/// Returns the targets that a name means, the one to be preferred first.
///
/// `provider/model` is taken at its word: the provider says itself whether it has the model. A
/// plain name means the providers that have it, or those whose models are not known and that speak
/// the client's dialect.
///
/// # Errors
///
/// [`Refusal::UnknownModel`] with the nearest name.
pub(super) fn targets(
    name: &str,
    dialect: Dialect,
    offer: &Offer<'_>,
) -> Result<Vec<TargetName>, Refusal> {
    if glob::is_pattern(name) {
        return Ok(of_pattern(name, offer));
    }
    if let Some(target) = outright(name, offer) {
        return Ok(vec![target]);
    }
    let mut found = of_plain(name, offer, is_model);
    if found.is_empty() {
        found = undated(name, offer);
    }
    if found.is_empty() {
        found = unlisted(name, dialect, offer);
    }
    if found.is_empty() {
        return Err(unknown(name, offer));
    }
    Ok(found)
}

/// Returns the targets whose name, or whose model's name, fits a pattern.
fn of_pattern(pattern: &str, offer: &Offer<'_>) -> Vec<TargetName> {
    let views = offer.targets.iter().map(|view| &view.name);
    views.filter(|name| is_of(pattern, name)).cloned().collect()
}

/// Returns whether a target's name, or its model's name, fits a pattern.
pub(crate) fn is_of(pattern: &str, name: &TargetName) -> bool {
    let whole = match pattern.split_once('/') {
        Some((provider, model)) => {
            glob::fits(provider, &name.provider) && glob::fits(model, &name.model)
        }
        None => false,
    };
    whole || glob::fits(pattern, &name.model)
}

/// Returns the target of `provider/model`, where the part before the first slash is a provider.
fn outright(name: &str, offer: &Offer<'_>) -> Option<TargetName> {
    let (provider, model) = name.split_once('/')?;
    let provider = offer.provider(provider)?;
    if model.is_empty() {
        return None;
    }
    let of_provider = |view: &&TargetView| view.name.provider == provider.id;
    let views = || offer.targets.iter().filter(of_provider);
    let known =
        views().find(|view| is_model(model, view)).or_else(|| latest_edition(model, views()));
    Some(known.map_or_else(
        || TargetName { provider: Arc::clone(&provider.id), model: model.into() },
        |view| view.name.clone(),
    ))
}

fn of_plain(
    name: &str,
    offer: &Offer<'_>,
    is_it: impl Fn(&str, &TargetView) -> bool,
) -> Vec<TargetName> {
    let views = offer.targets.iter().filter(|view| is_it(name, view));
    views.map(|view| view.name.clone()).collect()
}

/// Returns whether a target's model has this name. Ollama means `:latest` where no tag is said.
fn is_model(asked: &str, view: &TargetView) -> bool {
    let model = &*view.name.model;
    if model.eq_ignore_ascii_case(asked) {
        return true;
    }
    view.api == ProviderApi::Ollama && with_tag(model).eq_ignore_ascii_case(&with_tag(asked))
}

fn with_tag(model: &str) -> Cow<'_, str> {
    let last = model.rsplit('/').next().unwrap_or(model);
    if last.contains(':') { model.into() } else { format!("{model}:latest").into() }
}

/// Returns the newest editions of a model that is asked for without a date, one of each provider.
fn undated(name: &str, offer: &Offer<'_>) -> Vec<TargetName> {
    let of_provider = |id: &Arc<str>| {
        latest_edition(name, offer.targets.iter().filter(|view| view.name.provider == *id))
    };
    let editions = offer.providers.iter().filter_map(|provider| of_provider(&provider.id));
    editions.map(|view| view.name.clone()).collect()
}

fn latest_edition<'a>(
    asked: &str,
    views: impl Iterator<Item = &'a TargetView>,
) -> Option<&'a TargetView> {
    let asked = asked.strip_suffix("-latest").unwrap_or(asked);
    let dated = views.filter(|view| {
        without_date(&view.name.model).is_some_and(|model| model.eq_ignore_ascii_case(asked))
    });
    dated.max_by(|a, b| a.name.model.cmp(&b.name.model))
}

/// Returns the name of a model without the date at its end: `-20250929`, `-2024-08-06`.
fn without_date(model: &str) -> Option<&str> {
    ["-20dddddd", "-20dd-dd-dd"].iter().find_map(|form| {
        let (name, date) = model.split_at_checked(model.len().checked_sub(form.len())?)?;
        let fits = |(form, byte): (u8, u8)| {
            if form == b'd' { byte.is_ascii_digit() } else { form == byte }
        };
        (!name.is_empty() && form.bytes().zip(date.bytes()).all(fits)).then_some(name)
    })
}

/// Returns the model at each provider whose models are not known and that speaks the dialect.
fn unlisted(name: &str, dialect: Dialect, offer: &Offer<'_>) -> Vec<TargetName> {
    let providers = offer.providers.iter();
    let fitting = providers.filter(|provider| !provider.is_listed && dialect.is_of(provider.api));
    fitting
        .map(|provider| TargetName { provider: Arc::clone(&provider.id), model: name.into() })
        .collect()
}

fn unknown(name: &str, offer: &Offer<'_>) -> Refusal {
    if offer.targets.is_empty() {
        return Refusal::NothingOffered;
    }
    let models = offer.targets.iter().map(|view| &*view.name.model);
    let near = nearest(name, models).map(str::to_owned).or_else(|| {
        let whole: Vec<String> = offer.targets.iter().map(|view| view.name.to_string()).collect();
        nearest(name, whole.iter().map(String::as_str)).map(str::to_owned)
    });
    Refusal::UnknownModel { model: name.to_owned(), near }
}

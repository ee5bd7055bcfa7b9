//! Rules: which requests they are for, and where those go.

use std::collections::BTreeMap;

use jiff::{Timestamp, civil::Time};
use module_sdk::{Error, Result, Usd, Zone};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::glob;

use super::{HedgeOptions, Request, name_list::Names, options::StrategyName};

/// Rule: the requests that it is for, and the models or the strategy that these get.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RuleOptions {
    /// Name, as explanations show it. Default: `rule 1`, `rule 2`, …
    pub name: Option<String>,
    /// Requests that it is for; all of the conditions must be fulfilled.
    pub when: When,
    /// Model that answers, or models, the first that can: `provider/model`, a model's name, an
    /// alias, a pattern such as `home/*`, or `auto:cheap`.
    #[serde(rename = "use")]
    pub targets: Names,
    /// Strategy that chooses among the models. Default: `fixed` where `use` names models.
    pub strategy: Option<StrategyName>,
    /// Hedging of these requests, instead of `routing.hedge`: `{}` asks nobody twice.
    pub hedge: Option<HedgeOptions>,
}

/// Conditions of a rule. In all patterns `*` stands for anything.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct When {
    /// Pattern of the model's name as the client writes it. A rule without it is only for
    /// requests that leave the choice to the router (`auto`).
    pub model: Names,
    /// Patterns of headers by name.
    pub header: BTreeMap<String, String>,
    /// Pattern of the virtual key's name.
    pub key: Names,
    /// Pattern of the project.
    pub project: Names,
    /// Pattern of the program that asks.
    pub client: Names,
    /// More tokens of input than this, as estimated.
    pub tokens_above: Option<u64>,
    /// Fewer tokens of input than this, as estimated.
    pub tokens_below: Option<u64>,
    /// `true` for requests that offer tools, `false` for those that offer none.
    pub tools: Option<bool>,
    /// `true` for requests with images or files, `false` for those without.
    pub images: Option<bool>,
    /// `true` for requests of sub-agents of coding tools, `false` for all others.
    pub sub_agent: Option<bool>,
    /// Hours of the day, such as `22:00-06:00`.
    pub hours: Option<String>,
    /// Time zone of the hours, such as `Europe/Vienna`. Default: that of the system.
    pub zone: Zone,
    /// Less than this is left of the tightest budget: of the limits of the key, the project and
    /// all in US dollars per day and month, and of budgets that other modules tell of. Where
    /// nothing is known the rule is for no request.
    pub budget_left_below_usd: Option<Usd>,
}

/// Rule, checked.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: String,
    when: When,
    hours: Option<(Time, Time)>,
    pub(super) targets: Names,
    pub(super) strategy: Option<StrategyName>,
    pub(super) hedge: Option<HedgeOptions>,
}

impl Rule {
    /// Checks a rule; `index` counts from 0.
    pub(super) fn new(index: usize, options: &RuleOptions) -> Result<Self> {
        let key = |key: &str| format!("rules[{index}].{key}");
        if options.targets.is_empty() && options.strategy.is_none() && options.hedge.is_none() {
            return Err(Error::config_at(format!("rules[{index}]"), "says nothing to do")
                .hint("give it `use`, `strategy` or `hedge`"));
        }
        options.hedge.map_or(Ok(()), |hedge| hedge.check(&key("hedge")))?;
        let hours = options.when.hours.as_deref().map(|text| {
            hours(text).ok_or_else(|| {
                Error::config_at(key("when.hours"), "are no hours").hint("write `22:00-06:00`")
            })
        });
        for name in options.when.header.keys() {
            if http::HeaderName::try_from(name.as_str()).is_err() {
                return Err(Error::config_at(
                    key("when.header"),
                    format!("{name:?} is no name of a header"),
                ));
            }
        }
        Ok(Self {
            name: options.name.clone().unwrap_or_else(|| format!("rule {}", index + 1)),
            when: options.when.clone(),
            hours: hours.transpose()?,
            targets: options.targets.clone(),
            strategy: options.strategy,
            hedge: options.hedge,
        })
    }

    /// Returns whether the rule asks what is left of the budget.
    pub(super) const fn asks_for_budget(&self) -> bool {
        self.when.budget_left_below_usd.is_some()
    }

    /// Returns whether the rule is for this request. `asked` is the model that the client names;
    /// `is_auto` says that it leaves the choice to the router.
    pub(super) fn is_for(
        &self,
        request: &Request<'_>,
        asked: &str,
        is_auto: bool,
        now: Timestamp,
    ) -> bool {
        let When { model, header, key, project, client, .. } = &self.when;
        let inspected = request.inspected;
        let fits = |patterns: &Names, text: Option<&str>| {
            patterns.is_empty()
                || text.is_some_and(|text| patterns.iter().any(|it| glob::fits(it, text)))
        };
        let is = |wanted: Option<bool>, is: bool| wanted.is_none_or(|wanted| wanted == is);
        let tokens = inspected.estimated_tokens;
        (is_auto || !model.is_empty())
            && fits(model, Some(asked))
            && header.iter().all(|(name, pattern)| has_header(request, name, pattern))
            && fits(key, request.key)
            && fits(project, request.project)
            && fits(client, request.client)
            && self.when.tokens_above.is_none_or(|limit| tokens > limit)
            && self.when.tokens_below.is_none_or(|limit| tokens < limit)
            && is(self.when.tools, inspected.tools > 0)
            && is(self.when.images, inspected.has_images)
            && is(self.when.sub_agent, request.is_sub_agent)
            && self.hours.is_none_or(|hours| is_within(hours, now, &self.when.zone))
            && self.when.budget_left_below_usd.is_none_or(|limit| {
                request.budget_left_nano_usd.is_some_and(|left| left < limit.nano())
            })
    }
}

fn has_header(request: &Request<'_>, name: &str, pattern: &str) -> bool {
    let mut values = request.headers.get_all(name).iter();
    values.any(|value| value.to_str().is_ok_and(|value| glob::fits(pattern, value)))
}

/// Reads `22:00-06:00`; two equal times are the whole day.
fn hours(text: &str) -> Option<(Time, Time)> {
    let (from, to) = text.split_once('-')?;
    let time = |text: &str| {
        let text = text.trim();
        let is_clock = text.len() == 5 && text.as_bytes()[2] == b':';
        if text == "24:00" {
            Some(Time::midnight())
        } else {
            text.parse().ok().filter(|_| is_clock)
        }
    };
    Some((time(from)?, time(to)?))
}

fn is_within((from, to): (Time, Time), now: Timestamp, zone: &Zone) -> bool {
    let time = now.to_zoned(zone.time_zone().clone()).time();
    if from < to { from <= time && time < to } else { from <= time || time < to }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_may_go_over_midnight() {
        let check = |text: &str, now: &str, expected: bool| {
            let zone = jiff::tz::TimeZone::get("Europe/Vienna").expect("it is built in").into();
            let hours = hours(text).expect("they are hours");
            let now = now.parse().expect("a time");
            assert_eq!(is_within(hours, now, &zone), expected, "{text} {now}");
        };
        // Vienna is an hour ahead in November.
        check("22:00-06:00", "2026-11-30T21:00:00Z", true);
        check("22:00-06:00", "2026-11-30T20:59:59Z", false);
        check("22:00-06:00", "2026-11-30T04:59:59Z", true);
        check("22:00-06:00", "2026-11-30T05:00:00Z", false);
        check("08:00-18:00", "2026-11-30T07:00:00Z", true);
        check("08:00-24:00", "2026-11-30T22:59:00Z", true);
        check("08:00-24:00", "2026-11-30T23:00:00Z", false);
        for text in ["", "22:00", "22-06", "25:00-06:00", "22:00-", "8:00-9:00"] {
            assert!(super::hours(text).is_none(), "{text}");
        }
    }
}

//! Models of a provider: those that are named, and for a local one those that it has.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use module_sdk::{Provider, events::ModelName, human};

use super::judge::LoadedModel;
use crate::{
    metric::{MODEL_UP, MODEL_VRAM},
    reading::{Component, Found, Report, Series},
    text,
};

/// Models of a provider that are watched at most.
const MODELS: usize = 50;

/// Models of a provider.
#[derive(Debug)]
pub(super) struct Models {
    provider: Arc<str>,
    /// `true` where the models that it lists are watched, and not only those that are named.
    takes_listed: bool,
    known: Vec<Model>,
    /// Models beyond the limit.
    left_out: usize,
}

#[derive(Debug)]
struct Model {
    name: String,
    spelling: String,
    component: Component,
    is_named: bool,
    /// `false` where the provider lists its models and not this one.
    is_listed: bool,
    loaded: Option<Loaded>,
    up: Arc<Series>,
    vram: Arc<Series>,
}

#[derive(Debug, Clone, Copy)]
struct Loaded {
    bytes: u64,
    vram_bytes: u64,
}

/// State of a provider, as far as its models depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// It answers, and its models can be asked.
    Up,
    /// It does not answer.
    Down,
    /// It answers, and refuses the key.
    Refused,
    /// It answers, and wants a key that is not there.
    NoKey,
    /// It has not answered yet.
    Undecided,
}

impl Models {
    pub(super) fn new(provider: &Provider, shown: &Arc<str>) -> Self {
        let mut models = Self {
            provider: shown.clone(),
            takes_listed: provider.local,
            known: Vec::new(),
            left_out: provider.models.len().saturating_sub(MODELS),
        };
        let named: Vec<Model> =
            provider.models.iter().take(MODELS).map(|name| models.model(name, true)).collect();
        models.known = named;
        models
    }

    fn model(&self, name: &str, is_named: bool) -> Model {
        let shown = text::visible(name);
        let component: Component = format!("model.{shown}").into();
        let series = |metric| Series::new(metric, &component, [&self.provider, &shown]);
        Model {
            name: name.to_owned(),
            spelling: spelling(name),
            is_named,
            is_listed: true,
            loaded: None,
            up: series(&MODEL_UP),
            vram: series(&MODEL_VRAM),
            component,
        }
    }

    /// Takes the models that the provider lists.
    pub(super) fn list(&mut self, listed: &[String]) {
        let exact: BTreeSet<&str> = listed.iter().map(String::as_str).collect();
        let spelled: BTreeSet<String> = listed.iter().map(|name| spelling(name)).collect();
        self.known.retain(|model| model.is_named || exact.contains(model.name.as_str()));
        for model in &mut self.known {
            model.is_listed = spelled.contains(&model.spelling);
        }
        if !self.takes_listed {
            return;
        }
        let names: BTreeSet<&str> = self.known.iter().map(|model| model.name.as_str()).collect();
        let named: BTreeSet<&str> = self
            .known
            .iter()
            .filter(|model| model.is_named)
            .map(|model| model.spelling.as_str())
            .collect();
        let is_new = |name: &&str| !names.contains(name) && !named.contains(&*spelling(name));
        let new: Vec<&str> = exact.into_iter().filter(is_new).collect();
        let room = MODELS - self.known.len();
        self.left_out = new.len().saturating_sub(room);
        let new: Vec<Model> =
            new.into_iter().take(room).map(|name| self.model(name, false)).collect();
        self.known.extend(new);
    }

    /// Takes the models that the provider has loaded; none where it does not say.
    pub(super) fn load(&mut self, loaded: &[LoadedModel]) {
        let by_name: BTreeMap<String, &LoadedModel> =
            loaded.iter().map(|loaded| (spelling(&loaded.name), loaded)).collect();
        for model in &mut self.known {
            model.loaded = by_name
                .get(&model.spelling)
                .map(|loaded| Loaded { bytes: loaded.size, vram_bytes: loaded.size_vram });
        }
    }

    /// Returns how many models are not watched.
    pub(super) const fn left_out(&self) -> usize {
        self.left_out
    }

    /// Adds the models; returns how many can be asked, and of how many that is known.
    pub(super) fn report(&self, asked: Asked, report: &mut Report) -> (u32, u32) {
        let (mut up, mut known) = (0, 0);
        for model in &self.known {
            let is_up = match asked {
                Asked::Undecided => {
                    let message = format!("{} has not answered yet", self.provider);
                    report.found.push(Found::unknown(&model.component, message));
                    continue;
                }
                Asked::NoKey => {
                    let message = format!("{} tells its models only with a key", self.provider);
                    report.found.push(Found::unknown(&model.component, message));
                    continue;
                }
                Asked::Up => model.is_listed,
                Asked::Down | Asked::Refused => false,
            };
            known += 1;
            up += u32::from(is_up);
            let found = Found::present(&model.component, &model.up);
            report.found.push(found.saying(self.message(model, asked)));
            report.read(&model.up, f64::from(u8::from(is_up)));
            #[expect(clippy::cast_precision_loss, reason = "a model has less than 2^53 bytes")]
            if let (Asked::Up, Some(loaded)) = (asked, model.loaded) {
                report.read(&model.vram, loaded.vram_bytes as f64);
            }
        }
        (up, known)
    }

    fn message(&self, model: &Model, asked: Asked) -> String {
        match (asked, model.loaded) {
            (Asked::Down, _) => format!("{} is down", self.provider),
            (Asked::Refused, _) => format!("{} refuses the key", self.provider),
            _ if !model.is_listed => format!("{} does not list it", self.provider),
            (_, Some(Loaded { bytes, vram_bytes })) if vram_bytes < bytes => format!(
                "loaded: {} of {} in the GPU's memory, the rest runs on the processor",
                human::bytes(vram_bytes),
                human::bytes(bytes)
            ),
            (_, Some(Loaded { vram_bytes, .. })) => {
                format!("loaded: {} in the GPU's memory", human::bytes(vram_bytes))
            }
            _ => String::new(),
        }
    }
}

/// Returns the spelling that all names of a model have in common: those with a date or a path, and
/// those of Ollama without the tag that goes without saying.
fn spelling(name: &str) -> String {
    ModelName::of(name.strip_suffix(":latest").unwrap_or(name)).model().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;
    use crate::reading::Presence;

    fn models(local: bool, named: &[&str]) -> Models {
        let provider = json!({
            "api": "openai", "base_url": "http://a", "local": local, "models": named,
        });
        Models::new(&from_value(provider).expect("a provider"), &"a".into())
    }

    fn listed(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn values(models: &Models, asked: Asked) -> Vec<(String, f64)> {
        let mut report = Report::default();
        models.report(asked, &mut report);
        let readings = report.readings.iter();
        readings.map(|it| (it.series.labels[1].to_string(), it.value)).collect()
    }

    #[test]
    fn a_named_model_that_is_not_listed_is_down() {
        let mut models = models(false, &["claude-sonnet-4-5", "llama3.2", "gone"]);
        assert_eq!(values(&models, Asked::Up).iter().filter(|(_, up)| *up == 1.0).count(), 3);
        models.list(&listed(&["claude-sonnet-4-5-20250929", "llama3.2:latest", "other"]));
        let expected = [("claude-sonnet-4-5", 1.0), ("llama3.2", 1.0), ("gone", 0.0)]
            .map(|(name, up)| (name.to_owned(), up));
        assert_eq!(values(&models, Asked::Up), expected);
        assert!(values(&models, Asked::Down).iter().all(|(_, up)| *up == 0.0));
        assert!(values(&models, Asked::Undecided).is_empty());
        let mut report = Report::default();
        assert_eq!(models.report(Asked::Up, &mut report), (2, 3));
        assert_eq!(report.found[2].message, "a does not list it");
    }

    #[test]
    fn a_local_provider_shows_what_it_has_within_bounds() {
        let mut models = models(true, &["named"]);
        let ten_thousand: Vec<String> = (0..10_000).map(|number| format!("m{number}")).collect();
        models.list(&ten_thousand);
        assert_eq!(values(&models, Asked::Up).len(), 50);
        assert_eq!(models.left_out(), 10_000 - 49);
        models.list(&listed(&["named", "m1"]));
        assert_eq!(values(&models, Asked::Up).len(), 2, "what it has no more is gone");
        assert_eq!(models.left_out(), 0);
    }

    #[test]
    fn names_are_shown_harmless() {
        let mut models = models(true, &[]);
        models.list(&listed(&["\u{1b}[31mred\n"]));
        let mut report = Report::default();
        models.report(Asked::Up, &mut report);
        assert_eq!(&*report.found[0].component, "model.\\u{1b}[31mred\\u{a}");
        assert_eq!(report.found[0].presence, Presence::Present);
    }

    #[test]
    fn what_is_loaded_says_where() {
        let mut models = models(true, &["qwen3:8b"]);
        let loaded =
            |size, size_vram| vec![LoadedModel { name: "qwen3:8b".to_owned(), size, size_vram }];
        let message = |models: &Models| {
            let mut report = Report::default();
            models.report(Asked::Up, &mut report);
            report.found[0].message.clone()
        };
        models.load(&loaded(3_000_000_000, 3_000_000_000));
        assert_eq!(message(&models), "loaded: 2.79 GiB in the GPU's memory");
        models.load(&loaded(3_000_000_000, 1_000_000_000));
        assert!(
            message(&models).contains("the rest runs on the processor"),
            "{}",
            message(&models)
        );
        models.load(&[]);
        assert_eq!(message(&models), "");
    }
}

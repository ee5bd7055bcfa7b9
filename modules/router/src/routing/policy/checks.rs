//! Checks of the names in a configuration.

use module_sdk::{Error, Result};

use super::{Policy, auto};
use crate::{
    dialect::Dialect,
    routing::{Offer, Refusal, experiment::ExperimentOptions, name_list::Names, names},
};

/// Aliases that may stand for one another before a circle is suspected.
const MOST_ALIASES: usize = 16;

impl Policy {
    /// Checks names that the types cannot express.
    pub(super) fn check(&self) -> Result<()> {
        for (alias, names) in &self.aliases {
            let key = format!("aliases.{alias}");
            if names.is_empty() {
                return Err(Error::config_at(key, "stands for nothing"));
            }
            if auto(alias).is_some() {
                return Err(Error::config_at(key, "means the router's own choice already"));
            }
            self.check_names(&key, names)?;
        }
        for (index, rule) in self.rules.iter().enumerate() {
            self.check_names(&format!("rules[{index}].use"), &rule.targets)?;
        }
        self.check_experiments()?;
        for (pattern, names) in &self.fallbacks {
            let key = format!("fallbacks.{pattern}");
            self.check_names(&key, names)?;
            if self.expanded(names).any(|name| auto(name).is_some()) {
                return Err(Error::config_at(key, "must name models, not `auto`"));
            }
        }
        Ok(())
    }

    fn check_experiments(&self) -> Result<()> {
        for (index, experiment) in self.experiments.iter().enumerate() {
            experiment.check(index)?;
            self.check_targets(experiment)
                .map_err(|error| error.below(&format!("experiments[{index}]")))?;
        }
        Ok(())
    }

    /// Checks an experiment that a command begins.
    ///
    /// # Errors
    ///
    /// The first part of it that cannot be used.
    pub(crate) fn check_experiment(&self, experiment: &ExperimentOptions) -> Result<()> {
        experiment.check_itself()?;
        self.check_targets(experiment)
    }

    /// Returns the refusal of the first model of an experiment that no provider has.
    pub(crate) fn missing(
        &self,
        experiment: &ExperimentOptions,
        offer: &Offer<'_>,
    ) -> Option<Refusal> {
        let shadow = Names(experiment.shadow.iter().cloned().collect());
        let mut names = self.expanded(&experiment.targets).chain(self.expanded(&shadow));
        names.find_map(|name| names::targets(name, Dialect::Chat, offer).err())
    }

    fn check_targets(&self, experiment: &ExperimentOptions) -> Result<()> {
        self.check_names("use", &experiment.targets)?;
        let is_auto = |names: &Names| self.expanded(names).any(|name| auto(name).is_some());
        if is_auto(&experiment.targets) {
            return Err(Error::config_at("use", "must name models, not `auto`"));
        }
        if let Some(shadow) = &experiment.shadow {
            let names = Names(vec![shadow.clone()]);
            self.check_names("shadow", &names)?;
            if is_auto(&names) {
                return Err(Error::config_at("shadow", "must name a model, not `auto`"));
            }
        }
        Ok(())
    }

    fn check_names(&self, key: &str, names: &Names) -> Result<()> {
        let mut count = 0;
        let mut autos = 0;
        for name in names.iter() {
            if !self.ends(name, MOST_ALIASES) {
                return Err(Error::config_at(key, format!("{name:?} stands for itself")));
            }
        }
        for name in self.expanded(names) {
            count += 1;
            if name.trim().is_empty() {
                return Err(Error::config_at(key, "holds an empty name"));
            }
            match auto(name) {
                Some(None) => {
                    return Err(Error::config_at(key, format!("{name:?} is no choice"))
                        .hint("write `auto`, `auto:cheap`, `auto:balanced` or `auto:best`"));
                }
                Some(Some(_)) => autos += 1,
                None => {}
            }
        }
        if autos > 0 && count > 1 {
            return Err(Error::config_at(key, "mixes `auto` with models")
                .hint("let it stand alone, or name the models"));
        }
        Ok(())
    }

    fn ends(&self, name: &str, left: usize) -> bool {
        let Some(names) = self.aliases.get(name) else { return true };
        left > 0 && names.iter().all(|name| self.ends(name, left - 1))
    }
}

//! Checks of the names in a configuration.

use module_sdk::{Error, Result};

use super::{Policy, auto};
use crate::routing::name_list::Names;

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
            let key = format!("experiments[{index}].use");
            self.check_names(&key, &experiment.targets)?;
            let is_auto = |names: &Names| self.expanded(names).any(|name| auto(name).is_some());
            if is_auto(&experiment.targets) {
                return Err(Error::config_at(key, "must name models, not `auto`"));
            }
            if let Some(shadow) = &experiment.shadow {
                let (key, names) =
                    (format!("experiments[{index}].shadow"), Names(vec![shadow.clone()]));
                self.check_names(&key, &names)?;
                if is_auto(&names) {
                    return Err(Error::config_at(key, "must name a model, not `auto`"));
                }
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

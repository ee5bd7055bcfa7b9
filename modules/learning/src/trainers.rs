//! The trainers that can be named.

use module_sdk::{Error, Result};

use crate::{
    run::{self, Custom, Embedded, Python, Strategy, Trainer},
    setup::Environments,
};

/// Programs that train.
#[derive(Debug, Clone)]
pub(crate) struct Trainers {
    /// The one that comes with Lodestar.
    pub embedded: Embedded,
    /// The operator's own.
    pub command: Option<Custom>,
    /// Environments of those in Python.
    pub environments: Environments,
}

impl Trainers {
    /// Returns the trainer of this name.
    ///
    /// # Errors
    ///
    /// When there is none, or the operator named no program for it.
    pub(crate) fn named(&self, name: &str) -> Result<Box<dyn Trainer>> {
        match (name, &self.command) {
            ("embedded", _) => Ok(Box::new(self.embedded.clone())),
            ("command", Some(custom)) => Ok(Box::new(custom.clone())),
            ("command", None) => Err(Error::usage("no command is configured")
                .hint("set `trainer.command` in the section of learning")),
            _ => {
                match Strategy::named(name) {
                    Some(strategy) => Ok(Box::new(self.python(strategy))),
                    None => Err(Error::usage(format!("there is no trainer {name:?}"))
                        .near(name, Self::names())),
                }
            }
        }
    }

    fn python(&self, strategy: Strategy) -> Python {
        let interpreter = match strategy {
            Strategy::Fake => run::in_path(self.embedded.path.as_deref(), "python3"),
            _ => self.environments.interpreter(strategy),
        };
        Python { strategy, interpreter, converter: self.embedded.clone() }
    }

    /// Returns the names of all trainers.
    fn names() -> impl Iterator<Item = &'static str> {
        ["embedded", "command"].into_iter().chain(Strategy::ALL.iter().map(|it| it.as_str()))
    }
}

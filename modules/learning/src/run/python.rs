//! Trainers in Python: programs of the module, written into the folder of each attempt and run by
//! the interpreter of an environment that `lodestar learning setup` makes.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use super::{Embedded, Launch, RunError, Trainer, trainer::is_program};
use crate::registry::named;

named! {
    /// A way of training in Python.
    Strategy {
        /// TRL's supervised trainer.
        Trl = "trl",
        /// A loop of our own on torch, transformers and peft.
        PeftPlain = "peft-plain",
        /// Unsloth's kernels, on an NVIDIA card.
        Unsloth = "unsloth",
        /// LLaMA-Factory.
        LlamaFactory = "llama-factory",
        /// A program that learns nothing.
        Fake = "fake",
    }
}

/// The programs, by the names of their files. None has the name of a package.
const PROGRAMS: [(&str, &str); 8] = [
    ("lodestar_contract.py", include_str!("../../trainers/lodestar_contract.py")),
    ("lodestar_fake.py", include_str!("../../trainers/lodestar_fake.py")),
    ("lodestar_llama_factory.py", include_str!("../../trainers/lodestar_llama_factory.py")),
    ("lodestar_peft.py", include_str!("../../trainers/lodestar_peft.py")),
    ("lodestar_sft.py", include_str!("../../trainers/lodestar_sft.py")),
    ("lodestar_torch.py", include_str!("../../trainers/lodestar_torch.py")),
    ("lodestar_trl.py", include_str!("../../trainers/lodestar_trl.py")),
    ("lodestar_unsloth.py", include_str!("../../trainers/lodestar_unsloth.py")),
];

/// Folder of the programs within that of an attempt.
const FOLDER: &str = "program";

impl Strategy {
    /// Returns the file of its program.
    const fn program(self) -> &'static str {
        match self {
            Self::Trl => "lodestar_trl.py",
            Self::PeftPlain => "lodestar_peft.py",
            Self::Unsloth => "lodestar_unsloth.py",
            Self::LlamaFactory => "lodestar_llama_factory.py",
            Self::Fake => "lodestar_fake.py",
        }
    }

    /// Returns the exact versions of the packages that it needs; none where it needs no packages.
    #[must_use]
    pub const fn requirements(self) -> Option<&'static str> {
        match self {
            Self::Trl => Some(include_str!("../../trainers/trl.txt")),
            Self::PeftPlain => Some(include_str!("../../trainers/peft-plain.txt")),
            Self::Unsloth => Some(include_str!("../../trainers/unsloth.txt")),
            Self::LlamaFactory => Some(include_str!("../../trainers/llama-factory.txt")),
            Self::Fake => None,
        }
    }

    /// Returns the second number of the newest Python that its packages are made for; the oldest is
    /// 3.11.
    #[must_use]
    pub const fn newest_python(self) -> u32 {
        match self {
            Self::LlamaFactory => 12,
            _ => 13,
        }
    }

    /// Returns whether it computes on a graphics card where there is one.
    #[must_use]
    pub const fn uses_card(self) -> bool {
        !matches!(self, Self::Fake)
    }

    /// Returns whether it computes the examples of a batch one by one, so that the memory does not
    /// depend on their number.
    #[must_use]
    pub const fn computes_one_by_one(self) -> bool {
        matches!(self, Self::PeftPlain)
    }
}

/// A trainer in Python.
#[derive(Debug, Clone)]
pub struct Python {
    /// Way of training.
    pub strategy: Strategy,
    /// Interpreter; none where there is no environment, or no Python.
    pub interpreter: Option<PathBuf>,
    /// The trainer that comes with Lodestar, which converts adapters.
    pub converter: Embedded,
}

impl Python {
    fn interpreter(&self) -> Result<PathBuf, RunError> {
        let found = self.interpreter.clone().filter(|it| is_program(it));
        found.ok_or(match self.strategy {
            Strategy::Fake => RunError::NoPython,
            strategy => RunError::NoEnvironment { strategy: strategy.as_str() },
        })
    }
}

impl Trainer for Python {
    fn name(&self) -> &'static str {
        self.strategy.as_str()
    }

    fn launch(&self, job: &Path) -> Result<Launch, RunError> {
        let interpreter = self.interpreter()?;
        let folder = job.parent().unwrap_or(Path::new("/")).join(FOLDER);
        let program = folder.join(self.strategy.program());
        // No variables and no folders of a user, and no files beside the programs.
        let words = ["-u", "-E", "-s", "-B"].into_iter().map(OsString::from);
        let job = [program.into_os_string(), job.into(), "--converter".into()];
        let args = words.chain(job).chain([self.converter.find()?.into_os_string()]).collect();
        Ok(Launch { program: interpreter, args })
    }

    fn prepare(&self, folder: &Path) -> io::Result<()> {
        let folder = folder.join(FOLDER);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        for (name, text) in PROGRAMS {
            fs::write(folder.join(name), text)?;
        }
        Ok(())
    }

    fn has_plain_messages(&self) -> bool {
        // The programs tell sentences of their own, never those of a library.
        true
    }
}

/// Finds a program in the folders of a `PATH`, of which relative ones are passed over.
#[must_use]
pub fn in_path(path: Option<&OsStr>, name: &str) -> Option<PathBuf> {
    let folders = path.into_iter().flat_map(std::env::split_paths);
    let mut programs = folders.filter(|it| it.is_absolute()).map(|folder| folder.join(name));
    programs.find(|program| is_program(program))
}

#[cfg(test)]
mod contract;
#[cfg(test)]
mod tests;

//! Trainers: programs that get a job and tell of it in lines of JSON.

use std::{
    ffi::OsString,
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::RunError;

/// Name of the trainer's program that comes with Lodestar.
pub const EMBEDDED: &str = "lodestar-trainer";

/// A program with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The program; no shell reads it.
    pub program: PathBuf,
    /// Its arguments, the job among them.
    pub args: Vec<OsString>,
}

/// A way of training.
pub trait Trainer: Send + Sync {
    /// Returns the name, as it stands in the configuration and in lists.
    fn name(&self) -> &'static str;

    /// Returns the program for a job.
    ///
    /// # Errors
    ///
    /// Returns an error with the remedy when the program is not there.
    fn launch(&self, job: &Path) -> Result<Launch, RunError>;

    /// Returns the program that writes which tokens it expects into a file, for a job whose output
    /// folder has the adapter; none where the trainer has no such program.
    ///
    /// # Errors
    ///
    /// Returns an error with the remedy when the program is not there.
    fn parity(&self, _job: &Path, _out: &Path) -> Result<Option<Launch>, RunError> {
        Ok(None)
    }

    /// Checks that a run can begin, before anything is noted of it.
    ///
    /// # Errors
    ///
    /// Returns an error with the remedy when something is missing.
    fn check(&self) -> Result<(), RunError> {
        self.launch(Path::new("/job.json")).map(drop)
    }

    /// Writes what the program needs beside the job into the folder of an attempt.
    ///
    /// # Errors
    ///
    /// Returns an error when a file cannot be written.
    fn prepare(&self, _folder: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Returns whether its messages never hold text of examples, so that they can be shown.
    fn has_plain_messages(&self) -> bool;
}

/// The trainer that comes with Lodestar.
#[derive(Debug, Clone, Default)]
pub struct Embedded {
    /// The program, if the operator names it.
    pub program: Option<PathBuf>,
    /// Folders in which it is looked for: that of the module's library, and that of the daemon.
    pub folders: Vec<PathBuf>,
    /// Value of `PATH`, which is looked at last.
    pub path: Option<OsString>,
}

impl Embedded {
    /// Finds the program.
    ///
    /// # Errors
    ///
    /// Returns an error that names each place when it is nowhere.
    pub fn find(&self) -> Result<PathBuf, RunError> {
        if let Some(program) = &self.program {
            let is_there = program.is_absolute() && is_program(program);
            let looked = || RunError::NoTrainer { looked: program.display().to_string() };
            return is_there.then(|| program.clone()).ok_or_else(looked);
        }
        let path = self.path.iter().flat_map(std::env::split_paths);
        // A relative folder would depend on where the daemon was started.
        let folders = self.folders.iter().cloned().chain(path).filter(|it| it.is_absolute());
        let programs: Vec<PathBuf> = folders.map(|folder| folder.join(EMBEDDED)).collect();
        let looked = || {
            let all: Vec<String> = programs.iter().map(|it| it.display().to_string()).collect();
            RunError::NoTrainer { looked: all.join(", ") }
        };
        programs.iter().find(|program| is_program(program)).cloned().ok_or_else(looked)
    }
}

impl Trainer for Embedded {
    fn name(&self) -> &'static str {
        "embedded"
    }

    fn launch(&self, job: &Path) -> Result<Launch, RunError> {
        Ok(Launch { program: self.find()?, args: vec![job.into()] })
    }

    fn parity(&self, job: &Path, out: &Path) -> Result<Option<Launch>, RunError> {
        let args = vec!["parity".into(), job.into(), out.into()];
        Ok(Some(Launch { program: self.find()?, args }))
    }

    fn has_plain_messages(&self) -> bool {
        true
    }
}

/// A program of the operator's own that keeps the contract.
#[derive(Debug, Clone)]
pub struct Custom {
    /// The program.
    pub program: PathBuf,
    /// Its arguments; the path of the job is added to them.
    pub args: Vec<String>,
}

impl Trainer for Custom {
    fn name(&self) -> &'static str {
        "command"
    }

    fn launch(&self, job: &Path) -> Result<Launch, RunError> {
        if !self.program.is_absolute() || !is_program(&self.program) {
            return Err(RunError::NoTrainer { looked: self.program.display().to_string() });
        }
        let args = self.args.iter().map(OsString::from).chain([job.into()]).collect();
        Ok(Launch { program: self.program.clone(), args })
    }

    fn has_plain_messages(&self) -> bool {
        false
    }
}

pub(super) fn is_program(path: &Path) -> bool {
    let metadata = path.metadata();
    metadata.is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_embedded_trainer_is_found_in_its_order() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let folder = |name: &str| {
            let folder = directory.path().join(name);
            fs::create_dir(&folder).expect("it is made");
            folder
        };
        let [library, daemon, path] = ["library", "daemon", "path"].map(folder);
        let mut trainer = Embedded {
            program: None,
            folders: vec![library.clone(), "relative".into(), daemon.clone()],
            path: Some(path.clone().into_os_string()),
        };
        let error = trainer.find().expect_err("it is nowhere").to_string();
        assert!(error.contains("library/lodestar-trainer"), "{error}");
        for folder in [path, daemon, library] {
            let program = folder.join(EMBEDDED);
            fs::write(&program, "#!/bin/sh\n").expect("it is written");
            // What cannot be run is no program.
            assert_ne!(trainer.find().ok().as_ref(), Some(&program));
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is set");
            assert_eq!(trainer.find().expect("it is found"), program);
        }
        trainer.program = Some("lodestar-trainer".into());
        trainer.launch(Path::new("job.json")).expect_err("a whole path is needed");
        assert!(trainer.has_plain_messages());
    }

    #[test]
    fn a_command_gets_the_job_last() {
        let trainer = Custom { program: "/bin/sh".into(), args: vec!["-x".to_owned()] };
        let launch = trainer.launch(Path::new("/tmp/job.json")).expect("it is there");
        assert_eq!(launch.args, ["-x", "/tmp/job.json"]);
        assert!(!trainer.has_plain_messages());
        let trainer = Custom { program: "/nowhere".into(), args: Vec::new() };
        trainer.launch(Path::new("job")).expect_err("it is not there");
    }
}

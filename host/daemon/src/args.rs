//! The arguments of `lodestard`, and the default paths.

use std::{
    env,
    path::{Path, PathBuf},
};

use clap::Parser;

use lodestar_platform::file_trust::Accepted;

/// Loads the modules that the configuration names and runs them.
#[derive(Debug, Clone, Parser)]
#[command(name = "lodestard", version, about, disable_help_subcommand = true)]
pub struct Args {
    /// The configuration file [default: /etc/lodestar/modules.yaml, for a person
    /// ~/.lodestar/modules.yaml]; written with comments where there is none
    #[arg(long, env = "LODESTAR_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The directory for the data of the daemon and its modules [default: /var/lib/lodestar, for a
    /// person ~/.lodestar]
    #[arg(long, env = "LODESTAR_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// The directories in which modules are looked for, separated by colons; the modules of the
    /// state directory come last [default: beside the program, then /usr/lib/lodestar/modules]
    #[arg(long, env = "LODESTAR_MODULE_PATH", value_name = "DIR[:DIR…]")]
    pub module_path: Option<String>,

    /// The control socket [default: /run/lodestar/control.sock, for a person
    /// $XDG_RUNTIME_DIR/lodestar/control.sock]
    #[arg(long, env = "LODESTAR_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// Others who may write the files that decide what runs, where a volume cannot be mended:
    /// owner:USER, group:GROUP or everyone, by name or number; `lodestar doctor` warns of it
    #[arg(long, env = "LODESTAR_TRUST_FILES", value_name = "WHO[,WHO…]")]
    pub trust_files: Option<Accepted>,

    /// Set one key of a module, over file and environment: usage_tracker.retention_days=30
    #[arg(long = "set", value_name = "MODULE.KEY=VALUE")]
    pub overrides: Vec<String>,

    /// Validate the configuration, the modules' sections included, and exit
    #[arg(long)]
    pub check: bool,

    /// With --check: print the result as JSON
    #[arg(long, requires = "check")]
    pub json: bool,

    /// Describe one library and exit: the daemon runs this in a process of its own
    #[arg(long, hide = true, value_name = "DIR")]
    pub describe: Option<PathBuf>,

    /// With --describe: the module's name, where the folder has another
    #[arg(long, hide = true, value_name = "NAME", requires = "describe")]
    pub named: Option<String>,

    /// With --describe: hold the library to its own files, its data directory this one
    #[arg(long, hide = true, value_name = "DIR", requires = "describe")]
    pub confined_to: Option<PathBuf>,

    /// With --describe: end with this process, which asked
    #[arg(long, hide = true, value_name = "PID", requires = "describe")]
    pub asked_by: Option<u32>,

    /// Run one module with `isolation: process`: the daemon starts this
    #[arg(long, hide = true, value_name = "MODULE")]
    pub runner: Option<String>,

    /// Make every check of one library, print each as a line of JSON, and exit: `lodestar modules
    /// check` runs this in a process of its own
    #[arg(long, hide = true, value_name = "FILE")]
    pub examine: Option<PathBuf>,

    /// End when the process ends that started this one: the private daemon of `lodestar modules
    /// dev` leaves nothing behind
    #[arg(long, hide = true)]
    pub end_with_parent: bool,
}

/// Paths that the daemon uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The configuration file.
    pub config: PathBuf,
    /// The state directory.
    pub state_dir: PathBuf,
    /// Directories in which modules are looked for, in order.
    pub module_path: Vec<PathBuf>,
    /// The control socket.
    pub socket: PathBuf,
}

impl Args {
    /// Returns the paths, with defaults for those that the arguments leave open.
    #[must_use]
    pub fn places(&self) -> Places {
        let system = is_service();
        let home = home();
        let state_dir = self.state_dir.clone().unwrap_or_else(|| {
            if system { "/var/lib/lodestar".into() } else { home.join(".lodestar") }
        });
        let config = self.config.clone().unwrap_or_else(|| {
            if system {
                "/etc/lodestar/modules.yaml".into()
            } else {
                state_dir.join("modules.yaml")
            }
        });
        let socket = self.socket.clone().unwrap_or_else(|| {
            if system { "/run/lodestar/control.sock".into() } else { person_socket(&home) }
        });
        let mut module_path = match &self.module_path {
            Some(list) => list.split(':').filter(|part| !part.is_empty()).map(Into::into).collect(),
            None => default_module_path(),
        };
        module_path.push(state_dir.join("modules"));
        let module_path = module_path.into_iter().map(absolute).collect();
        Places { config: absolute(config), state_dir: absolute(state_dir), module_path, socket }
    }
}

/// Returns the path from the root, so that what is shown means the same to a reader elsewhere. The
/// socket's path stays as it is: it has room for some hundred bytes only.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// Returns the path of a person's control socket.
#[must_use]
pub fn person_socket(home: &Path) -> PathBuf {
    match env::var_os("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty()) {
        Some(directory) => PathBuf::from(directory).join("lodestar/control.sock"),
        None => home.join(".lodestar/control.sock"),
    }
}

/// Returns whether systemd runs this as a system service: it then gives it a state directory.
fn is_service() -> bool {
    env::var("STATE_DIRECTORY").is_ok_and(|directory| directory == "/var/lib/lodestar")
}

fn home() -> PathBuf {
    env::home_dir().unwrap_or_else(|| PathBuf::from("/"))
}

/// Returns the default module path; a build is staged with `bin/../modules`.
fn default_module_path() -> Vec<PathBuf> {
    let mut path = Vec::new();
    if let Ok(program) = env::current_exe()
        && let Some(staged) = program.parent().and_then(Path::parent)
        && staged.join("modules").is_dir()
    {
        path.push(staged.join("modules"));
    }
    path.push("/usr/lib/lodestar/modules".into());
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_come_first() {
        let args = Args::parse_from([
            "lodestard",
            "--config=/c/modules.yaml",
            "--state-dir=/s",
            "--module-path=/a::/b",
            "--socket=/run/x.sock",
        ]);
        let places = args.places();
        assert_eq!(places.config, Path::new("/c/modules.yaml"));
        assert_eq!(places.module_path, ["/a", "/b", "/s/modules"].map(PathBuf::from));
        assert_eq!(places.socket, Path::new("/run/x.sock"));
    }

    #[test]
    fn paths_begin_at_the_root() {
        let here = env::current_dir().expect("there is one");
        let args = Args::parse_from(["lodestard", "--config=c.yaml", "--state-dir=./s"]);
        let places = args.places();
        assert_eq!(places.config, here.join("c.yaml"));
        assert_eq!(places.state_dir, here.join("s"));
        assert_eq!(places.module_path.last(), Some(&here.join("s/modules")));
    }

    #[test]
    fn the_configuration_lies_in_the_state_directory_of_a_person() {
        let args = Args::parse_from(["lodestard", "--state-dir=/s"]);
        assert_eq!(args.places().config, Path::new("/s/modules.yaml"));
    }
}

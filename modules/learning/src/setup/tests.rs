use std::{
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use super::*;

/// A `uv` that makes what the real one makes, and notes what it was asked.
const UV: &str = r#"#!/bin/sh
here=$(dirname "$0")
echo "$*" >> "$here/asked"
env >> "$here/env"
case "$1" in
  venv)
    for last; do case "$last" in */environments/trl) mkdir -p "$last/bin" "$last/lib"
      cp /bin/sh "$last/bin/python";; esac; done ;;
  pip)
    [ -e "$here/fails" ] && { echo "no wheel of torch" >&2; exit 2; }
    [ -e "$here/hangs" ] && exec sleep 1000
    [ -e "$here/talks" ] && while :; do echo "fetching" >&2; done
    head -c 3000000 /dev/zero > "$here/package" ;;
esac
"#;

struct Desk {
    folder: tempfile::TempDir,
    environments: Environments,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let uv = folder.path().join("uv");
        fs::write(&uv, UV).expect("it is written");
        fs::set_permissions(&uv, fs::Permissions::from_mode(0o755)).expect("it is set");
        let environments = Environments::within(&folder.path().join("data"));
        Self { folder, environments }
    }

    fn make(&self, go_on: &mut dyn FnMut(u64) -> bool) -> Result<(), SetupError> {
        self.make_within(Duration::from_secs(600), go_on)
    }

    fn make_within(
        &self,
        time: Duration,
        go_on: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(), SetupError> {
        let python = Interpreter { path: "/bin/sh".into(), version: "3.12.1".to_owned() };
        let uv = self.folder.path().join("uv");
        let environments = &self.environments;
        let (strategy, until) = (Strategy::Trl, Instant::now() + time);
        make(&Making { environments, strategy, uv: &uv, python: &python, now: 7, until }, go_on)
    }

    fn state(&self) -> EnvironmentState {
        self.environments.state(Strategy::Trl)
    }

    fn put(&self, name: &str) {
        fs::write(self.folder.path().join(name), "").expect("it is written");
    }
}

#[test]
fn an_environment_is_made_once_all_of_it_is_there() {
    let desk = Desk::new();
    assert_eq!(desk.state(), EnvironmentState::Missing);
    assert_eq!(desk.environments.interpreter(Strategy::Trl), None);
    desk.put("fails");
    let error = desk.make(&mut |_| true).expect_err("uv fails").to_string();
    assert_eq!(error, "uv could not install the packages: no wheel of torch");
    assert_eq!(desk.state(), EnvironmentState::Unfinished);
    fs::remove_file(desk.folder.path().join("fails")).expect("it is there");
    desk.make(&mut |_| true).expect("it is made");
    assert_eq!(desk.state(), EnvironmentState::Ready);
    let python = desk.environments.interpreter(Strategy::Trl).expect("it is ready");
    assert!(python.ends_with("environments/trl/bin/python"), "{python:?}");
    let made = desk.environments.made(Strategy::Trl).expect("it is noted");
    assert_eq!((made.python.as_str(), made.at), ("3.12.1", 7));
    // The versions are those of the module, each with its hash, and nothing is built here.
    let asked = fs::read_to_string(desk.folder.path().join("asked")).expect("it was asked");
    assert!(asked.contains("--require-hashes --only-binary :all:"), "{asked}");
    let lock = desk.environments.folder.join("trl.txt");
    assert_eq!(fs::read_to_string(lock).ok().as_deref(), Strategy::Trl.requirements());
    // No key of the daemon reaches it.
    let environment = fs::read_to_string(desk.folder.path().join("env")).expect("it is there");
    let known = |line: &&str| {
        let name = line.split('=').next().unwrap_or_default();
        name.starts_with("UV_")
            || ["PATH", "LANG", "HOME", "PWD", "OLDPWD", "SHLVL", "_"].contains(&name)
            || name.to_lowercase().ends_with("_proxy")
            || name.starts_with("SSL_CERT")
    };
    assert_eq!(environment.lines().find(|line| !known(line)), None);
}

#[test]
fn an_environment_of_other_versions_is_made_again() {
    let desk = Desk::new();
    desk.make(&mut |_| true).expect("it is made");
    let file = desk.environments.of(Strategy::Trl).join(MADE);
    let made = Made { requirements: "older".to_owned(), python: "3.12.0".to_owned(), at: 1 };
    fs::write(&file, serde_json::to_vec(&made).expect("it is JSON")).expect("it is written");
    assert_eq!(desk.state(), EnvironmentState::Outdated);
    desk.make(&mut |_| true).expect("it is made again");
    assert_eq!(desk.state(), EnvironmentState::Ready);
    fs::remove_file(python(&desk.environments.of(Strategy::Trl))).expect("it is there");
    assert_eq!(desk.state(), EnvironmentState::Unfinished);
    fs::write(file, "half").expect("it is written");
    assert_eq!(desk.state(), EnvironmentState::Unfinished);
}

#[test]
fn a_setup_can_be_cut_off_and_goes_alone() {
    let desk = Desk::new();
    desk.put("hangs");
    let error = desk.make(&mut |_| false).expect_err("nobody waits for it");
    assert!(matches!(error, SetupError::CutOff), "{error}");
    assert_eq!(desk.state(), EnvironmentState::Unfinished);
    let lock = fs::File::create(desk.environments.folder.join(".lock")).expect("it is opened");
    lock.try_lock().expect("the one before is over");
    let error = desk.make(&mut |_| true).expect_err("another one goes on");
    assert!(matches!(error, SetupError::Busy), "{error}");
}

#[test]
fn a_uv_that_never_stops_talking_is_cut_off_and_has_its_time() {
    let desk = Desk::new();
    desk.put("talks");
    let error = desk.make(&mut |_| false).expect_err("nobody waits for it");
    assert!(matches!(error, SetupError::CutOff), "{error}");
    let error = desk.make_within(Duration::ZERO, &mut |_| true).expect_err("it takes too long");
    assert!(matches!(error, SetupError::Late), "{error}");
}

#[test]
fn what_is_missing_is_named_with_its_remedy() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let error = find_uv(Some("".as_ref()), None).expect_err("it is nowhere").to_string();
    assert!(error.contains("pip install uv"), "{error}");
    let bin = folder.path().join(".local/bin");
    fs::create_dir_all(&bin).expect("it is made");
    let program = |name: &str, text: &str| {
        let path = bin.join(name);
        fs::write(&path, text).expect("it is written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is set");
        path
    };
    let uv = program("uv", "#!/bin/sh\n");
    let home = Some(folder.path().as_os_str());
    assert_eq!(find_uv(Some("".as_ref()), home).expect("it is at home"), uv);

    let path = Some(bin.as_os_str());
    let error = find_python(None, path, 13).expect_err("there is none").to_string();
    assert!(error.contains("apt install python3"), "{error}");
    let old = program("python3", "#!/bin/sh\necho 3.9.2\n");
    let error = find_python(None, path, 13).expect_err("it is too old").to_string();
    assert!(error.contains("python3 is 3.9.2"), "{error}");
    let new = program("python3.13", "#!/bin/sh\necho 3.13.0\n");
    let found = find_python(None, path, 13).expect("it is there");
    assert_eq!((found.path, found.version.as_str()), (new, "3.13.0"));
    let error = find_python(None, path, 12).expect_err("it is too new").to_string();
    assert!(error.starts_with("there is no Python from 3.11 to 3.12 ("), "{error}");
    find_python(Some(&old), path, 13).expect_err("the one that is named counts");
    let odd = program("python3.12", "#!/bin/sh\nexit 1\n");
    let error = find_python(Some(&odd), path, 13).expect_err("it fails").to_string();
    assert!(error.contains("does not tell its version"), "{error}");
}

#[test]
fn sizes_stand_in_the_requirements() {
    for strategy in Strategy::ALL.iter().filter(|it| it.requirements().is_some()) {
        let (fetched, kept) = sizes(*strategy);
        assert!((2_000_000_000..5_000_000_000).contains(&fetched), "{strategy}: {fetched}");
        assert!((5_000_000_000..8_000_000_000).contains(&kept), "{strategy}: {kept}");
    }
    assert_eq!(sizes(Strategy::Fake), (0, 0));
    assert!(free_bytes(Path::new("/nowhere/at/all")).is_some_and(|free| free > 0));
}

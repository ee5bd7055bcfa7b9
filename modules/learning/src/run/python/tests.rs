use std::process::Command;

use super::*;
use crate::run::EMBEDDED;

fn python(strategy: Strategy, interpreter: Option<PathBuf>, converter: &Path) -> Python {
    let program = Some(converter.to_owned());
    Python { strategy, interpreter, converter: Embedded { program, ..Embedded::default() } }
}

#[test]
fn an_environment_that_is_missing_is_named_with_its_remedy() {
    let shell = Path::new("/bin/sh");
    for strategy in Strategy::ALL {
        for interpreter in [None, Some("/nowhere/bin/python".into())] {
            let error = python(*strategy, interpreter, shell).check().expect_err("it is missing");
            let words = match strategy {
                Strategy::Fake => "apt install python3".to_owned(),
                _ => format!("lodestar learning setup {strategy}"),
            };
            assert!(error.to_string().contains(&words), "{error}");
        }
        // And the program that converts what they wrote.
        let trainer = python(*strategy, Some(shell.into()), Path::new("/nowhere/trainer"));
        let error = trainer.check().expect_err("it is missing").to_string();
        assert!(error.contains("/nowhere/trainer"), "{error}");
    }
}

#[test]
fn the_programs_lie_beside_the_job() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    for strategy in Strategy::ALL {
        let shell = Path::new("/bin/sh");
        let trainer = python(*strategy, Some(shell.into()), shell);
        trainer.prepare(folder.path()).expect("they are written");
        let launch = trainer.launch(&folder.path().join("job.json")).expect("all is there");
        assert_eq!(launch.program, shell);
        assert_eq!(launch.args[..4], ["-u", "-E", "-s", "-B"]);
        assert!(Path::new(&launch.args[4]).is_file(), "{:?}", launch.args);
        assert_eq!(launch.args[6..], ["--converter", "/bin/sh"]);
        assert_eq!(trainer.name(), strategy.as_str());
    }
}

#[test]
fn the_programs_are_python() {
    let path = std::env::var_os("PATH");
    let Some(python3) = in_path(path.as_deref(), "python3") else {
        // A machine without Python trains by the embedded trainer.
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary directory");
    let trainer = python(Strategy::Fake, None, Path::new("/bin/sh"));
    trainer.prepare(folder.path()).expect("they are written");
    let programs = PROGRAMS.map(|(name, _)| folder.path().join(FOLDER).join(name));
    let done = Command::new(python3).args(["-m", "py_compile"]).args(programs).output();
    let done = done.expect("it starts");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn requirements_are_exact_and_hashed() {
    for strategy in Strategy::ALL {
        let Some(text) = strategy.requirements() else {
            assert_eq!(*strategy, Strategy::Fake);
            continue;
        };
        let mut lines = text.lines().filter(|line| !line.starts_with('#')).peekable();
        let mut packages = 0;
        while let Some(line) = lines.next() {
            let (name, _) = line.split_once("==").expect("an exact version");
            assert!(!name.is_empty() && line.ends_with('\\'), "{line}");
            let is_hash = |line: &&str| line.starts_with("    --hash=sha256:");
            let mut hashes = 0;
            while lines.next_if(is_hash).is_some() {
                hashes += 1;
            }
            assert!(hashes > 0, "{strategy}: {line} has no hash");
            packages += 1;
        }
        assert!(packages > 40, "{strategy} has {packages} packages");
    }
}

#[test]
fn programs_are_found_in_whole_folders_of_the_path() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = std::env::join_paths([Path::new("bin"), folder.path(), Path::new("/bin")]);
    let path = path.expect("it is one");
    assert_eq!(in_path(Some(&path), EMBEDDED), None);
    assert_eq!(in_path(Some(&path), "sh"), Some("/bin/sh".into()));
    assert_eq!(in_path(None, "sh"), None);
}

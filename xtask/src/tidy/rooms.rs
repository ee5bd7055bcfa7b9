//! The rules for what every module brings along, under one name.

use std::fs;

use super::Problem;
use crate::workspace::{Package, Workspace};

/// Names of the files of a module.
const FILES: [&str; 4] = ["README.md", "CHANGELOG.md", "config.yaml", "module.toml"];

pub(super) fn check(workspace: &Workspace, problems: &mut Vec<Problem>) {
    for module in workspace.modules() {
        check_module(&workspace.relative(&module.directory).to_string(), module, problems);
    }
}

fn check_module(room: &str, module: &Package, problems: &mut Vec<Problem>) {
    for file in FILES {
        if !module.directory.join(file).is_file() {
            problems.push(format!("{room}: {file} is missing; every module has one"));
        }
    }
    let folder = module.directory.file_name().unwrap_or_default().to_string_lossy();
    let mut same = |what: &str, name: Option<&str>| {
        if name != Some(&*folder) {
            let name = name.unwrap_or("none");
            problems.push(format!("{room}: the {what} is named {name}; name it {folder}"));
        }
    };
    same("package", Some(&module.name));
    same("library", module.library.as_deref());
    if let Ok(text) = fs::read_to_string(module.directory.join("module.toml")) {
        let manifest = text.parse::<toml::Table>().unwrap_or_default();
        let name = manifest.get("module").and_then(|section| section.get("name"));
        same("module in module.toml", name.and_then(toml::Value::as_str));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_whole_and_has_one_name() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let room = directory.path().join("meter");
        fs::create_dir(&room).expect("it is writable");
        for file in FILES {
            fs::write(room.join(file), "[module]\nname = \"meter\"\n").expect("it is writable");
        }
        let mut module = Package {
            name: "meter".into(),
            directory: room.clone(),
            library: Some("meter".into()),
            benches: Vec::new(),
            ours: Vec::new(),
        };
        let problems = |module: &Package| {
            let mut problems = Vec::new();
            check_module("modules/meter", module, &mut problems);
            problems
        };
        assert_eq!(problems(&module), [""; 0]);
        module.library = Some("metre".into());
        fs::remove_file(room.join("README.md")).expect("it was there");
        fs::write(room.join("module.toml"), "[module]\n").expect("it is writable");
        assert_eq!(problems(&module).len(), 3, "{:?}", problems(&module));
    }
}

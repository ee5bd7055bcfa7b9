//! Installation of a module into a directory of modules: whole, or not at all.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use lodestar_library::{self as library, MAX_LIBRARY, Package, manifest_of};
use lodestar_platform::files;
use module_sdk::manifest::Manifest;

use crate::error::{CliError, Result};

/// Names of the files that are installed beside a library, where they exist.
const BESIDE: [&str; 2] = ["module.toml", "config.yaml"];

/// Installs a built library, and the files of [`BESIDE`] from the module's folder, into `modules`.
/// The library comes last, by renaming: a reader at that moment sees the old one or the new one.
///
/// # Errors
///
/// When `modules` cannot be written to.
pub(crate) fn install(name: &str, library: &Path, sources: &Path, modules: &Path) -> Result<()> {
    let place = || -> io::Result<()> {
        let folder = modules.join(name);
        fs::create_dir_all(&folder)?;
        for file in BESIDE.iter().filter(|file| sources.join(file).is_file()) {
            replace(&sources.join(file), &folder.join(file), 0o644)?;
        }
        replace(library, &folder.join(format!("lib{name}.so")), 0o755)
    };
    place().map_err(|error| {
        CliError::failed(format!("cannot install {name} in {}: {error}", modules.display()))
            .help("run this as the daemon's user, or without --running in a daemon of its own")
    })
}

/// Copies an installed module into `modules` and returns its manifest.
///
/// # Errors
///
/// When there is none of that name.
pub(crate) fn copy_installed(name: &str, modules: &Path) -> Result<Manifest> {
    let Some(package) = installed(name) else {
        return Err(CliError::failed(format!("no module {name} is installed here"))
            .help("--with names a module that lies beside lodestard or in ~/.lodestar/modules"));
    };
    let library = package.library_path();
    let embedded = embedded(&package).ok_or_else(|| {
        CliError::refused(format!("{} has no manifest in it", library.display()))
            .help(format!("`lodestar modules check {}` says what it is", library.display()))
    })?;
    install(name, &library, &package.directory, modules)?;
    Ok(embedded)
}

/// Returns the manifest in the library of an installed module, as the daemon sees it.
pub(crate) fn embedded(package: &Package) -> Option<Manifest> {
    manifest_of(&files::read(&package.library_path(), MAX_LIBRARY).ok()?)
}

/// Reads the manifest in a module's folder.
///
/// # Errors
///
/// When there is none, or it is not valid.
pub(crate) fn manifest(folder: &Path) -> Result<Manifest> {
    let path = folder.join("module.toml");
    let text = files::read_text(&path).map_err(|error| {
        CliError::failed(format!("cannot read {}: {error}", path.display()))
            .help("name the folder of a module; `lodestar modules new` makes one")
    })?;
    Manifest::parse(&text)
        .map_err(|error| CliError::refused(format!("{}: {error}", folder.display())))
}

fn replace(from: &Path, to: &Path, mode: u32) -> io::Result<()> {
    let new = to.with_extension("new");
    fs::copy(from, &new)?;
    // Whatever the sources' modes are: what others may write is refused.
    fs::set_permissions(&new, fs::Permissions::from_mode(mode))?;
    fs::rename(new, to)
}

/// Finds a module that is installed here, on the daemon's module path or beside `lodestard`.
pub(crate) fn installed(name: &str) -> Option<library::Package> {
    library::find(&module_path(), name)
}

/// Returns the manifests of all modules that are installed here.
pub(crate) fn all_installed() -> Vec<Manifest> {
    let packages = library::list(&module_path()).into_iter();
    packages.filter_map(|package| embedded(&package)).collect()
}

/// Returns the directories in which a daemon that is started here would look for modules.
fn module_path() -> Vec<PathBuf> {
    let mut places = vec![PathBuf::from("/usr/lib/lodestar/modules")];
    if let Ok(program) = super::lodestard()
        && let Some(staged) = program.parent().and_then(Path::parent)
    {
        places.insert(0, staged.join("modules"));
    }
    if let Some(path) = std::env::var_os("LODESTAR_MODULE_PATH") {
        places.splice(0..0, std::env::split_paths(&path));
    }
    places.extend(std::env::home_dir().map(|home| home.join(".lodestar/modules")));
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_replaced_and_not_overwritten() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let (library, modules) = (root.path().join("built.so"), root.path().join("modules"));
        fs::write(root.path().join("config.yaml"), "a: 1\n").expect("it is writable");
        fs::write(&library, "one").expect("it is writable");
        fs::set_permissions(&library, fs::Permissions::from_mode(0o666)).expect("it is ours");
        install("tiny", &library, root.path(), &modules).expect("it is writable");
        let installed = modules.join("tiny/libtiny.so");
        let held = fs::File::open(&installed).expect("it is there");
        fs::write(&library, "two").expect("it is writable");
        install("tiny", &library, root.path(), &modules).expect("it is writable");
        assert_eq!(io::read_to_string(held).expect("it is whole"), "one");
        assert_eq!(fs::read_to_string(&installed).expect("it is there"), "two");
        let mode = fs::metadata(&installed).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        assert!(modules.join("tiny/config.yaml").is_file());
        assert_eq!(fs::read_dir(modules.join("tiny")).expect("it is there").count(), 2);
    }
}

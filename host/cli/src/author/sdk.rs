//! The SDK that a new module is built against.

use std::path::{Path, PathBuf};

use lodestar_platform::files;

use crate::error::{CliError, Result};

const PACKAGE: &str = "name = \"lodestar-module-sdk\"";

/// Source of the SDK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sdk {
    /// A folder with the SDK.
    Folder(PathBuf),
    /// A version of the SDK from a registry.
    Version(String),
}

impl Sdk {
    /// Finds the SDK that was asked for: a folder, a version, or else the SDK of the checkout that
    /// this program was built in or that the shell stands in, or else the version of this build.
    ///
    /// # Errors
    ///
    /// When `asked` is neither a version nor a folder with the SDK in it.
    pub(crate) fn find(asked: Option<&str>) -> Result<Self> {
        let Some(asked) = asked else {
            let program = std::env::current_exe().ok();
            let here = std::env::current_dir().ok();
            let found = [program, here].into_iter().flatten().find_map(|place| above(&place));
            return Ok(found.map_or_else(
                || Self::Version(env!("CARGO_PKG_VERSION").to_owned()),
                Self::Folder,
            ));
        };
        if is_version(asked) {
            return Ok(Self::Version(asked.to_owned()));
        }
        let folder = Path::new(asked);
        let places = [folder.to_owned(), folder.join("module-sdk")];
        let found = places.iter().find(|place| is_sdk(place)).and_then(|it| it.canonicalize().ok());
        found.map(Self::Folder).ok_or_else(|| {
            CliError::usage(format!("--sdk {asked} is no version, and no SDK lies there"))
                .help("name a version such as 0.1.0, or a checkout of Lodestar")
        })
    }

    /// Returns the path of the `Cargo.lock` that the SDK was tested with.
    pub(crate) fn lock(&self) -> Option<PathBuf> {
        let Self::Folder(folder) = self else { return None };
        let locks = [folder.join("Cargo.lock"), folder.parent()?.join("Cargo.lock")];
        locks.into_iter().find(|lock| lock.is_file())
    }

    /// Returns the dependency as it stands in `Cargo.toml`, without the braces around it.
    pub(crate) fn dependency(&self) -> String {
        match self {
            Self::Folder(folder) => {
                // The string forms of TOML and of JSON are one for what a path consists of.
                let text = serde_json::Value::from(folder.display().to_string());
                format!("path = {text}")
            }
            Self::Version(version) => format!("version = \"{version}\""),
        }
    }
}

/// Finds the SDK of the checkout that a path lies in.
fn above(place: &Path) -> Option<PathBuf> {
    place.ancestors().map(|folder| folder.join("module-sdk")).find(|folder| is_sdk(folder))
}

fn is_sdk(folder: &Path) -> bool {
    files::read_text(&folder.join("Cargo.toml")).is_ok_and(|text| text.contains(PACKAGE))
}

fn is_version(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    (1..=3).contains(&parts.len())
        && parts.iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_versions_from_folders() {
        let check = |text, expected| assert_eq!(is_version(text), expected, "{text}");
        check("0.1.0", true);
        check("1", true);
        check("", false);
        check("1.", false);
        check("1.2.3.4", false);
        check("../lodestar", false);
        check("^1", false);
    }

    #[test]
    fn finds_the_sdk() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let root = root.canonicalize().expect("this checkout");
        let expected = Sdk::Folder(root.join("module-sdk"));
        for asked in ["", "module-sdk"] {
            let asked = root.join(asked).display().to_string();
            assert_eq!(Sdk::find(Some(&asked)).expect("it lies there"), expected);
        }
        assert_eq!(expected.lock(), Some(root.join("Cargo.lock")));
        assert_eq!(above(&root.join("target/stage/bin")), Some(root.join("module-sdk")));
        let error = Sdk::find(Some("/proc")).expect_err("there is none");
        assert_eq!(error.failure().map(|failure| failure.exit), Some(2));
    }

    #[test]
    fn quotes_a_path() {
        let check = |sdk: Sdk, expected| assert_eq!(sdk.dependency(), expected);
        check(Sdk::Folder("/a \"b\"".into()), r#"path = "/a \"b\"""#);
        check(Sdk::Version("0.1".into()), "version = \"0.1\"");
    }
}

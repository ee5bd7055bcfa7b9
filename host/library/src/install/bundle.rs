//! The files of a module as one package, which the command line sends and the daemon unpacks.

use lodestar_api::Problem;

use super::{archive, refused};

/// Largest size of a package, unpacked, in bytes.
pub const MAX_BUNDLE: u64 = 160 * MIB;

const MIB: u64 = 1024 * 1024;

/// A module's files, each whole and within its limit. Its manifest is in the library.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bundle {
    /// The module's name, from the name of the library's file.
    pub name: String,
    /// The library, `lib<name>.so`.
    pub library: Vec<u8>,
    /// The library's signature, `lib<name>.so.minisig`.
    pub signature: Option<Vec<u8>>,
    /// `config.yaml`, the module's defaults.
    pub config: Option<Vec<u8>>,
    /// The signature of the defaults, `config.yaml.minisig`.
    pub config_signature: Option<Vec<u8>>,
}

/// Kind of a file of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Library(String),
    Signature,
    Config,
    ConfigSignature,
}

impl Part {
    /// Returns the kind of a file with this name; `None` for one that is not installed.
    pub(super) fn named(file: &str) -> Option<Self> {
        let stem = |text: &str, end: &str| {
            let name = text.strip_prefix("lib")?.strip_suffix(end)?;
            module_sdk::manifest::valid_name(name).then(|| name.to_owned())
        };
        match file {
            "config.yaml" => Some(Self::Config),
            "config.yaml.minisig" => Some(Self::ConfigSignature),
            _ => stem(file, ".so")
                .map(Self::Library)
                .or_else(|| stem(file, ".so.minisig").map(|_| Self::Signature)),
        }
    }

    /// Returns the name of the file.
    pub(super) fn file(&self, module: &str) -> String {
        match self {
            Self::Library(name) => format!("lib{name}.so"),
            Self::Signature => format!("lib{module}.so.minisig"),
            Self::Config => "config.yaml".to_owned(),
            Self::ConfigSignature => "config.yaml.minisig".to_owned(),
        }
    }

    /// Returns the largest size of the file, in bytes.
    pub(super) const fn limit(&self) -> u64 {
        match self {
            // The largest of ours has 12 MiB; one with debug information ten times that.
            Self::Library(_) => 128 * MIB,
            Self::Config => 256 * 1024,
            Self::Signature | Self::ConfigSignature => 8 * 1024,
        }
    }
}

impl Bundle {
    /// Unpacks a package that [`to_archive`](Self::to_archive) or `tar` made.
    ///
    /// # Errors
    ///
    /// When it holds anything but plain files within their limits, or not exactly one library.
    pub fn from_archive(reader: impl std::io::Read) -> Result<Self, Problem> {
        archive::read(reader)
    }

    /// Returns the package as a `tar` archive.
    ///
    /// # Errors
    ///
    /// Only when memory cannot be written to.
    pub fn to_archive(&self) -> std::io::Result<Vec<u8>> {
        archive::write(&self.files())
    }

    /// Returns the files with their names.
    pub(super) fn files(&self) -> Vec<(String, &[u8])> {
        let parts = [
            (Part::Library(self.name.clone()), Some(self.library.as_slice())),
            (Part::Signature, self.signature.as_deref()),
            (Part::Config, self.config.as_deref()),
            (Part::ConfigSignature, self.config_signature.as_deref()),
        ];
        let there = parts.into_iter().filter_map(|(part, bytes)| Some((part, bytes?)));
        there.map(|(part, bytes)| (part.file(&self.name), bytes)).collect()
    }

    /// Adds a file; a second one of its kind is refused.
    pub(super) fn add(&mut self, part: Part, bytes: Vec<u8>) -> Result<(), Problem> {
        let taken = match part {
            Part::Library(name) => {
                let taken = !self.name.is_empty();
                (self.name, self.library) = (name, bytes);
                taken
            }
            Part::Signature => self.signature.replace(bytes).is_some(),
            Part::Config => self.config.replace(bytes).is_some(),
            Part::ConfigSignature => self.config_signature.replace(bytes).is_some(),
        };
        if taken {
            let what = "the package holds two files of the same kind";
            return Err(refused(what, "a package is one lib<name>.so and the files beside it"));
        }
        Ok(())
    }

    /// Returns the bundle, when it holds a library.
    pub(super) fn whole(self) -> Result<Self, Problem> {
        if self.name.is_empty() {
            let what = "the package holds no library lib<name>.so";
            return Err(refused(what, "build the module as a cdylib and name its .so or folder"));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_files_of_a_package() {
        let check = |name: &str, expected: Option<Part>| assert_eq!(Part::named(name), expected);
        check("libtiny.so", Some(Part::Library("tiny".to_owned())));
        check("libtiny.so.minisig", Some(Part::Signature));
        check("config.yaml", Some(Part::Config));
        check("config.yaml.minisig", Some(Part::ConfigSignature));
        for other in ["module.toml", "README.md", "tiny.so", "lib.so", "libTiny.so", "libx.so.1"] {
            check(other, None);
        }
    }

    #[test]
    fn survives_the_way() {
        let bundle = Bundle {
            name: "tiny".to_owned(),
            library: b"library".to_vec(),
            signature: Some(b"signature".to_vec()),
            config: Some(b"a: 1\n".to_vec()),
            config_signature: None,
        };
        let archive = bundle.to_archive().expect("memory is there");
        assert_eq!(Bundle::from_archive(archive.as_slice()).expect("it is whole"), bundle);
    }
}

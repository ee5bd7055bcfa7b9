//! Signatures of publishers, and the keys that the operator trusts.

use std::{
    fs,
    path::{Path, PathBuf},
};

use lodestar_api::Problem;
use lodestar_platform::{
    file_trust::{self, Also},
    files,
};
use minisign_verify::{Error, PublicKey, Signature};

use super::{
    Bundle,
    error::{KeyError, SignatureError},
    refused,
};

/// Set of the trusted keys: `trusted_keys/*.pub` beside `modules.yaml`, where the operator writes
/// and a service only reads.
#[derive(Debug, Default)]
pub struct Keys {
    directory: PathBuf,
    keys: Vec<Key>,
    /// Reasons for which files there hold no key that may be trusted, one for each.
    pub passed_over: Vec<String>,
}

#[derive(Debug)]
struct Key {
    name: String,
    key: PublicKey,
    text: String,
}

/// Signer of a file: a trusted key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The name of the key's file, without `.pub`.
    pub by: String,
    /// The key, base64.
    pub key: String,
}

impl Keys {
    /// Reads the keys that belong to a configuration file.
    #[must_use]
    pub fn beside(config: &Path) -> Self {
        let directory = config.parent().unwrap_or_else(|| Path::new("")).join("trusted_keys");
        let mut keys = Self { directory, ..Self::default() };
        if let Some(exposed) = file_trust::on_the_way(&keys.directory, Also::OwnGroup) {
            keys.passed_over.push(format!("{exposed}; {}", exposed.remedy()));
            return keys;
        }
        let entries = fs::read_dir(&keys.directory).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths.iter().filter(|path| path.extension().is_some_and(|it| it == "pub")) {
            match read(path) {
                Ok(key) => keys.keys.push(key),
                Err(reason) => keys.passed_over.push(format!("{} {reason}", path.display())),
            }
        }
        keys
    }

    /// Checks the signature of these bytes and returns its signer; `None` where there is no
    /// signature by a trusted key.
    ///
    /// # Errors
    ///
    /// When the signature is damaged, or a trusted key signed other bytes.
    pub fn check(
        &self,
        bytes: &[u8],
        signature: Option<&[u8]>,
    ) -> Result<Option<Signed>, SignatureError> {
        let Some(signature) = signature else { return Ok(None) };
        let signature = std::str::from_utf8(signature)
            .ok()
            .and_then(|text| Signature::decode(text).ok())
            .ok_or(SignatureError::Damaged)?;
        for Key { name, key, text } in &self.keys {
            return match key.verify(bytes, &signature, false) {
                Ok(()) => Ok(Some(Signed { by: name.clone(), key: text.clone() })),
                Err(Error::UnexpectedKeyId) => continue,
                Err(Error::UnsupportedLegacyMode) => Err(SignatureError::OldKind),
                Err(_) => Err(SignatureError::OtherBytes(name.clone())),
            };
        }
        Ok(None)
    }

    /// Checks the signatures of a package, of the library and of the defaults beside it, and
    /// returns their signer.
    ///
    /// # Errors
    ///
    /// When a signature is not of these bytes, or covers the library and not its defaults.
    pub fn signer(&self, bundle: &Bundle) -> Result<Option<Signed>, Problem> {
        let again = "get the module from its publisher again; do not install this one";
        let bad = |file: &str, reason: SignatureError| {
            refused(format!("{file} of {}: {reason}", bundle.name), again)
        };
        let signed = self
            .check(&bundle.library, bundle.signature.as_deref())
            .map_err(|reason| bad("the library", reason))?;
        let Some(config) = bundle.config.as_deref().filter(|_| signed.is_some()) else {
            return Ok(signed);
        };
        let defaults = self
            .check(config, bundle.config_signature.as_deref())
            .map_err(|reason| bad("config.yaml", reason))?;
        if defaults.as_ref() != signed.as_ref() {
            let what = format!("the library of {} is signed, its config.yaml is not", bundle.name);
            return Err(refused(what, "ask its publisher for config.yaml.minisig by the same key"));
        }
        Ok(signed)
    }

    /// Returns whether this key is trusted now.
    #[must_use]
    pub fn trusts(&self, key: &str) -> bool {
        self.keys.iter().any(|known| known.text == key)
    }

    /// Returns the directory that keys are read from.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Reads a key, and refuses one that others can write: they could sign for its owner.
fn read(path: &Path) -> Result<Key, KeyError> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_file() {
        return Err(KeyError::NoFile);
    }
    if let Some(stranger) = file_trust::of(path, &metadata, Also::Nobody) {
        return Err(KeyError::Open(stranger));
    }
    let text = files::read_text(path)?;
    let line = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    let key = PublicKey::from_base64(line).map_err(|_| KeyError::NoKey)?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Key { name, key, text: line.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn sign(pair: &minisign::KeyPair, bytes: &[u8]) -> Vec<u8> {
        let signed = minisign::sign(None, &pair.sk, bytes, None, None);
        signed.expect("it signs").into_string().into_bytes()
    }

    #[test]
    fn tells_who_signed() {
        let directory = tempfile::tempdir().expect("a directory");
        let config = directory.path().join("modules.yaml");
        let folder = directory.path().join("trusted_keys");
        fs::create_dir(&folder).expect("it is new");
        let [acme, other] = [(), ()].map(|()| {
            minisign::KeyPair::generate_unencrypted_keypair().expect("there is randomness")
        });
        let text = acme.pk.to_box().expect("a box").into_string();
        fs::write(folder.join("acme.pub"), text).expect("it is writable");
        fs::write(folder.join("noise.pub"), "no key").expect("it is writable");
        fs::write(folder.join("open.pub"), "open").expect("it is writable");
        let open = fs::Permissions::from_mode(0o666);
        fs::set_permissions(folder.join("open.pub"), open).expect("it is ours");
        let keys = Keys::beside(&config);
        assert_eq!(keys.passed_over.len(), 2, "{:?}", keys.passed_over);
        let by = |signature: Option<&[u8]>| {
            keys.check(b"bytes", signature).map(|signed| signed.map(|signed| signed.by))
        };
        assert_eq!(by(None), Ok(None));
        assert_eq!(by(Some(&sign(&acme, b"bytes"))), Ok(Some("acme".to_owned())));
        assert_eq!(by(Some(&sign(&other, b"bytes"))), Ok(None));
        let swapped = Err(SignatureError::OtherBytes("acme".to_owned()));
        assert_eq!(by(Some(&sign(&acme, b"other"))), swapped);
        assert_eq!(by(Some(b"noise")), Err(SignatureError::Damaged));
        assert!(keys.trusts(&acme.pk.to_base64()) && !keys.trusts(&other.pk.to_base64()));

        let mut bundle = Bundle {
            name: "tiny".to_owned(),
            library: b"bytes".to_vec(),
            signature: Some(sign(&acme, b"bytes")),
            config: Some(b"a: 1".to_vec()),
            config_signature: None,
        };
        let problem = keys.signer(&bundle).expect_err("the defaults are not signed");
        assert!(problem.detail.contains("config.yaml is not"), "{}", problem.detail);
        bundle.config_signature = Some(sign(&acme, b"a: 1"));
        assert_eq!(keys.signer(&bundle).expect("it is signed").expect("it is").by, "acme");
        bundle.config_signature = Some(sign(&acme, b"a: 2"));
        assert!(keys.signer(&bundle).is_err());
    }
}

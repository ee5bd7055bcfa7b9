//! Build information of a module, as plain bytes in a section of its file.

use core::fmt;

/// The first bytes of every [`BuildInfo`].
pub const BUILD_INFO_MAGIC: [u8; 16] = *b"lodestar-module\0";

/// Build information of a module, read from the file before the library is mapped: nothing here
/// needs relocation or code.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildInfo {
    /// [`BUILD_INFO_MAGIC`].
    pub magic: [u8; 16],
    /// The ABI epoch that the module was built for.
    pub epoch: u32,
    /// The size of this record in bytes.
    pub size: u32,
    /// The version of the SDK, padded with zeros.
    pub sdk_version: [u8; 24],
    /// 1 if a panic unwinds, 0 if it aborts.
    pub panic_unwind: u8,
    /// Reserved, zero.
    pub reserved: [u8; 15],
}

/// Reason for bytes not being a [`BuildInfo`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildInfoError {
    /// Fewer bytes than the record has.
    Short,
    /// Another magic.
    Magic,
}

impl fmt::Display for BuildInfoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short => "the build record is too short",
            Self::Magic => "the build record does not begin with the magic of a Lodestar module",
        })
    }
}

impl core::error::Error for BuildInfoError {}

impl BuildInfo {
    /// Returns the record of the crate that is being compiled.
    ///
    /// # Panics
    ///
    /// Panics at compile time if `sdk_version` has more than 24 bytes.
    #[must_use]
    pub const fn current(sdk_version: &str) -> Self {
        let text = sdk_version.as_bytes();
        let mut version = [0; 24];
        let mut at = 0;
        while at < text.len() {
            version[at] = text[at];
            at += 1;
        }
        Self {
            magic: BUILD_INFO_MAGIC,
            epoch: crate::EPOCH,
            size: size_of::<Self>() as u32,
            sdk_version: version,
            panic_unwind: cfg!(panic = "unwind") as u8,
            reserved: [0; 15],
        }
    }

    /// Reads a record from the bytes of the section.
    ///
    /// # Errors
    ///
    /// Returns an error if the bytes are too few or do not begin with the magic.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BuildInfoError> {
        let (magic, rest) = bytes.split_first_chunk::<16>().ok_or(BuildInfoError::Short)?;
        if *magic != BUILD_INFO_MAGIC {
            return Err(BuildInfoError::Magic);
        }
        let (epoch, rest) = rest.split_first_chunk::<4>().ok_or(BuildInfoError::Short)?;
        let (size, rest) = rest.split_first_chunk::<4>().ok_or(BuildInfoError::Short)?;
        let (sdk_version, rest) = rest.split_first_chunk::<24>().ok_or(BuildInfoError::Short)?;
        let (panic_unwind, _) = rest.split_first().ok_or(BuildInfoError::Short)?;
        Ok(Self {
            magic: *magic,
            epoch: u32::from_ne_bytes(*epoch),
            size: u32::from_ne_bytes(*size),
            sdk_version: *sdk_version,
            panic_unwind: *panic_unwind,
            reserved: [0; 15],
        })
    }

    /// Returns the version of the SDK as text.
    #[must_use]
    pub fn sdk_version(&self) -> String {
        let end = self.sdk_version.iter().position(|byte| *byte == 0).unwrap_or(24);
        String::from_utf8_lossy(&self.sdk_version[..end]).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(info: &BuildInfo) -> Vec<u8> {
        let mut bytes = info.magic.to_vec();
        bytes.extend(info.epoch.to_ne_bytes());
        bytes.extend(info.size.to_ne_bytes());
        bytes.extend(info.sdk_version);
        bytes.push(info.panic_unwind);
        bytes.extend(info.reserved);
        bytes
    }

    #[test]
    fn reads_back_what_it_wrote() {
        let info = BuildInfo::current("0.1.0");
        assert_eq!(bytes_of(&info).len(), size_of::<BuildInfo>());
        assert_eq!(BuildInfo::from_bytes(&bytes_of(&info)), Ok(info));
        assert_eq!(info.sdk_version(), "0.1.0");
    }

    #[test]
    fn refuses_what_is_none() {
        assert_eq!(BuildInfo::from_bytes(b"short"), Err(BuildInfoError::Short));
        assert_eq!(BuildInfo::from_bytes(&[0; 64]), Err(BuildInfoError::Magic));
        assert_eq!(BuildInfo::from_bytes(&BUILD_INFO_MAGIC), Err(BuildInfoError::Short));
    }
}

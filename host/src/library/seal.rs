//! A copy of a library that nobody can change any more.

use std::{
    ffi::CString,
    fs::File,
    io::Write as _,
    os::fd::{AsRawFd as _, OwnedFd},
};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    io::Errno,
};

/// A sealed memory file. Its path is unique as long as it lives, which the dynamic linker needs:
/// it takes a path that it knows for the library that it has.
#[derive(Debug)]
pub(super) struct SealedCopy {
    file: OwnedFd,
}

impl SealedCopy {
    pub(super) fn new(name: &str, bytes: &[u8]) -> Result<Self, Errno> {
        let name = CString::new(format!("lodestar-{name}")).unwrap_or_default();
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Kernels before 6.3 do not know the flag and need none.
        let file = match memfd_create(&name, flags | MemfdFlags::EXEC) {
            Err(Errno::INVAL) => memfd_create(&name, flags)?,
            other => other?,
        };
        let mut file = File::from(file);
        file.write_all(bytes).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        let file = OwnedFd::from(file);
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
        fcntl_add_seals(&file, seals)?;
        Ok(Self { file })
    }

    /// The path to map it by.
    pub(super) fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.file.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_can_change_the_copy() {
        let copy = SealedCopy::new("tiny", b"the bytes").expect("memory is there");
        assert_eq!(std::fs::read(copy.path()).expect("it is readable"), b"the bytes");
        assert!(std::fs::write(copy.path(), b"evil").is_err());
        assert!(rustix::fs::ftruncate(&copy.file, 0).is_err());
        assert_eq!(std::fs::read(copy.path()).expect("it is readable"), b"the bytes");
    }
}

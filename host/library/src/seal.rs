//! A copy of a library that nobody can change any more.

use std::{
    ffi::CString,
    fs::File,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use memmap2::Mmap;
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create},
    io::Errno,
};

/// Seals of a copy: nothing of it changes, the seals included.
const SEALS: SealFlags =
    SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::WRITE).union(SealFlags::SEAL);

/// A sealed memory file. Its path is unique as long as it lives, which the dynamic linker needs:
/// it takes a path that it knows for the library that it has.
#[derive(Debug)]
pub(super) struct SealedCopy {
    file: OwnedFd,
}

impl SealedCopy {
    /// Creates a memory file to write the copy to.
    pub(super) fn draft(name: &str) -> Result<File, Errno> {
        let name = CString::new(format!("lodestar-{name}")).unwrap_or_default();
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Kernels before 6.3 do not know the flag and need none.
        let file = match memfd_create(&name, flags | MemfdFlags::EXEC) {
            Err(Errno::INVAL) => memfd_create(&name, flags)?,
            other => other?,
        };
        Ok(File::from(file))
    }

    /// Seals the draft: nothing of what was written can be changed any more.
    pub(super) fn seal(draft: File) -> Result<Self, Errno> {
        let file = OwnedFd::from(draft);
        fcntl_add_seals(&file, SEALS)?;
        Ok(Self { file })
    }

    /// Takes over a copy that another process has sealed.
    pub(super) fn adopt(file: OwnedFd) -> Result<Self, Errno> {
        let seals = fcntl_get_seals(&file)?;
        if seals.contains(SEALS) { Ok(Self { file }) } else { Err(Errno::PERM) }
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Maps the bytes of the copy.
    pub(super) fn bytes(&self) -> io::Result<Mmap> {
        // SAFETY: it is sealed: nobody can change it or make it shorter.
        #[expect(unsafe_code, reason = "other memory files could change below the slice")]
        unsafe {
            Mmap::map(&self.file)
        }
    }

    /// Returns the path to map the copy by.
    pub(super) fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.file.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn copy(bytes: &[u8]) -> SealedCopy {
        let mut draft = SealedCopy::draft("tiny").expect("memory is there");
        draft.write_all(bytes).expect("memory is there");
        SealedCopy::seal(draft).expect("it is a memory file")
    }

    #[test]
    fn only_what_is_sealed_is_taken_over() {
        let copy = copy(b"the bytes");
        let again = copy.file.try_clone().expect("descriptors are left");
        assert!(SealedCopy::adopt(again).is_ok());
        let open = memfd_create("open", MemfdFlags::ALLOW_SEALING).expect("memory is there");
        assert_eq!(SealedCopy::adopt(open).expect_err("it can change"), Errno::PERM);
    }

    #[test]
    fn nobody_can_change_the_copy() {
        let copy = copy(b"the bytes");
        assert_eq!(std::fs::read(copy.path()).expect("it is readable"), b"the bytes");
        assert_eq!(&*copy.bytes().expect("it can be mapped"), b"the bytes");
        assert!(std::fs::write(copy.path(), b"evil").is_err());
        assert!(rustix::fs::ftruncate(&copy.file, 0).is_err());
        assert_eq!(std::fs::read(copy.path()).expect("it is readable"), b"the bytes");
    }
}

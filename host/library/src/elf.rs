//! The checks that a file must pass before the dynamic linker may see it.
//!
//! `dlopen` of a truncated library ends the process with SIGBUS, and constructors run before any
//! symbol can be looked up, so everything that can be read from the file is checked first.

use std::fmt;

use lodestar_abi::{
    BUILD_INFO_SECTION, MANIFEST_SECTION, abi_stable::library::ROOT_MODULE_LOADER_NAME,
};
use object::{
    Endianness, elf,
    read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _, SectionHeader as _},
};

type Header = elf::FileHeader64<Endianness>;
type Entry = elf::Dyn64<Endianness>;

/// Names of the shared libraries that a module may need: those of the C library, which every
/// process has.
const ALLOWED: [&str; 8] = [
    "libc.so.6",
    "libm.so.6",
    "libgcc_s.so.1",
    "libpthread.so.0",
    "libdl.so.2",
    "librt.so.1",
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
];

const DF_STATIC_TLS: u64 = 0x10;

#[cfg(target_arch = "x86_64")]
const MACHINE: (u16, &str) = (elf::EM_X86_64.0, "x86-64");
#[cfg(target_arch = "aarch64")]
const MACHINE: (u16, &str) = (elf::EM_AARCH64.0, "aarch64");

/// Reason for which a file is no library that may be mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ElfError {
    /// The file is empty.
    Empty,
    /// The file does not begin as an ELF file does.
    NoElf,
    /// The file ends too early or points outside of itself.
    Truncated(String),
    /// The file is for another machine.
    Machine(u16),
    /// The file is a program, an object file or 32-bit.
    NoLibrary,
    /// The file needs a shared library that is not part of the C library.
    Needs(String),
    /// The file has a search path for libraries.
    SearchPath,
    /// The file asks for static thread-local storage, of which a process has little.
    StaticTls,
    /// The file lacks the section or symbol by which a module is recognised.
    NoModule(&'static str),
}

impl fmt::Display for ElfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "is empty; build the module again"),
            Self::NoElf => write!(f, "is no ELF library; build the module as a cdylib"),
            Self::Truncated(what) => {
                write!(f, "is truncated or damaged ({what}); copy or build it again")
            }
            Self::Machine(number) => write!(
                f,
                "is built for another machine (ELF machine {number}); build it for {}",
                MACHINE.1
            ),
            Self::NoLibrary => {
                write!(f, "is no 64-bit shared library; build the module as a cdylib")
            }
            Self::Needs(library) => write!(
                f,
                "needs the shared library {library}; link it statically, modules may only need \
                 the C library"
            ),
            Self::SearchPath => {
                write!(f, "brings a library search path (RPATH); build it without one")
            }
            Self::StaticTls => write!(
                f,
                "asks for static thread-local storage; do not set a global allocator or link with \
                 the initial-exec model"
            ),
            Self::NoModule(what) => write!(
                f,
                "has no {what}, so it is no Lodestar module; build it as a cdylib with \
                 module_sdk::export!"
            ),
        }
    }
}

/// The parts of a library that are read without mapping it.
#[derive(Debug)]
pub(super) struct Contents<'a> {
    pub(super) build_info: &'a [u8],
    pub(super) manifest: &'a [u8],
}

pub(super) fn check(bytes: &[u8]) -> Result<Contents<'_>, ElfError> {
    let header = check_header(bytes)?;
    let endian = header.endian().map_err(truncated)?;
    check_segments(header, endian, bytes)?;
    check_dynamic(header, endian, bytes)?;
    let sections = header.sections(endian, bytes).map_err(truncated)?;
    let section = |name: &'static str| {
        let (_, section) =
            sections.section_by_name(endian, name.as_bytes()).ok_or(ElfError::NoModule(name))?;
        section.data(endian, bytes).map_err(truncated)
    };
    let build_info = section(BUILD_INFO_SECTION)?;
    let manifest = section(MANIFEST_SECTION)?;
    let symbols = sections.symbols(endian, bytes, elf::SHT_DYNSYM).map_err(truncated)?;
    let exported = symbols.iter().any(|symbol| {
        use object::read::elf::Sym as _;
        symbol.name(endian, symbols.strings()) == Ok(ROOT_MODULE_LOADER_NAME.as_bytes())
            && !symbol.is_undefined(endian)
    });
    if !exported {
        return Err(ElfError::NoModule("entry symbol"));
    }
    Ok(Contents { build_info, manifest })
}

fn check_header(bytes: &[u8]) -> Result<&Header, ElfError> {
    if bytes.is_empty() {
        return Err(ElfError::Empty);
    }
    if !bytes.starts_with(&elf::ELFMAG) {
        return Err(ElfError::NoElf);
    }
    if bytes.len() < size_of::<Header>() {
        return Err(ElfError::Truncated("the header is not whole".to_owned()));
    }
    let header = Header::parse(bytes).map_err(|_| ElfError::NoLibrary)?;
    let endian = header.endian().map_err(|_| ElfError::NoLibrary)?;
    let machine: u16 = header.e_machine(endian).0;
    if machine != MACHINE.0 {
        return Err(ElfError::Machine(machine));
    }
    if header.e_type(endian) != elf::ET_DYN {
        return Err(ElfError::NoLibrary);
    }
    Ok(header)
}

fn check_segments(header: &Header, endian: Endianness, bytes: &[u8]) -> Result<(), ElfError> {
    let length = bytes.len() as u64;
    for segment in header.program_headers(endian, bytes).map_err(truncated)? {
        let (offset, size) = segment.file_range(endian);
        let end = offset.checked_add(size);
        if end.is_none_or(|end| end > length) {
            let end = end.unwrap_or(u64::MAX);
            let what = format!("a segment ends at byte {end}, the file at byte {length}");
            return Err(ElfError::Truncated(what));
        }
    }
    Ok(())
}

/// Checks what the dynamic linker acts on. It reads the segments, so that a section header that
/// leads elsewhere does not matter.
fn check_dynamic(header: &Header, endian: Endianness, bytes: &[u8]) -> Result<(), ElfError> {
    let segments = header.program_headers(endian, bytes).map_err(truncated)?;
    let mapped = |address: u64, size: u64| {
        let loaded = segments.iter().filter(|it| it.p_type(endian) == elf::PT_LOAD);
        loaded.filter_map(|it| it.data_range(endian, bytes, address, size).ok()?).next()
    };
    let nowhere = |what: &str| ElfError::Truncated(format!("its {what} is not in it"));
    let Some(dynamic) = segments.iter().find(|it| it.p_type(endian) == elf::PT_DYNAMIC) else {
        return Err(ElfError::NoLibrary);
    };
    let (address, size) = (dynamic.p_vaddr(endian), dynamic.p_filesz(endian));
    let table = mapped(address, size).ok_or_else(|| nowhere("dynamic section"))?;
    let count = table.len() / size_of::<Entry>();
    let (entries, _) = object::pod::slice_from_bytes::<Entry>(table, count)
        .map_err(|()| nowhere("dynamic section"))?;
    let entries = || entries.iter().take_while(|entry| entry.tag(endian) != elf::DT_NULL);
    let value = |tag| entries().find(|it| it.tag(endian) == tag).map(|it| it.val(endian));
    let strings = value(elf::DT_STRTAB).zip(value(elf::DT_STRSZ));
    let strings = strings.and_then(|(address, size)| mapped(address, size));
    let strings = strings.ok_or_else(|| nowhere("table of names"))?;
    for entry in entries() {
        let (tag, value) = (entry.tag(endian), entry.val(endian));
        if tag == elf::DT_RPATH || tag == elf::DT_RUNPATH {
            return Err(ElfError::SearchPath);
        }
        if tag == elf::DT_FLAGS && value & DF_STATIC_TLS != 0 {
            return Err(ElfError::StaticTls);
        }
        if tag == elf::DT_NEEDED {
            let name = usize::try_from(value).ok().and_then(|at| strings.get(at..));
            let name = name.and_then(|rest| rest.split(|byte| *byte == 0).next());
            let name = String::from_utf8_lossy(name.ok_or_else(|| nowhere("need"))?).into_owned();
            if !ALLOWED.contains(&name.as_str()) {
                return Err(ElfError::Needs(name));
            }
        }
    }
    Ok(())
}

fn truncated(error: object::read::Error) -> ElfError {
    ElfError::Truncated(error.to_string())
}

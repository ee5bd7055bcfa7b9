//! Libraries that are broken in one way, made from good ones.

/// The magic at the beginning of the build record of a module.
const MAGIC: &[u8; 16] = b"lodestar-module\0";
/// Offsets of the epoch and the panic strategy in that record.
const EPOCH_AT: usize = 16;
const PANIC_AT: usize = 48;

/// Returns the library with another ABI epoch in its build record.
#[must_use]
pub fn with_epoch(mut library: Vec<u8>, epoch: u32) -> Vec<u8> {
    let at = build_record(&library) + EPOCH_AT;
    library[at..at + 4].copy_from_slice(&epoch.to_ne_bytes());
    library
}

/// Returns the library with a build record that says that a panic aborts.
#[must_use]
pub fn with_abort_panic(mut library: Vec<u8>) -> Vec<u8> {
    let at = build_record(&library) + PANIC_AT;
    assert_eq!(library[at], 1, "the library was built with unwinding panics");
    library[at] = 0;
    library
}

/// Returns the library of a module that overlaps with its successor, as one that hands over.
#[must_use]
pub fn with_handover(library: Vec<u8>) -> Vec<u8> {
    with_text(library, b"mode = \"overlap\"", b"mode=\"handover\" ")
}

/// Returns the library with one text of its manifest in place of another that is as long.
#[must_use]
pub fn with_text(mut library: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len(), "nothing may move");
    let mut replaced = 0;
    while let Some(at) = find(&library, from) {
        library[at..at + to.len()].copy_from_slice(to);
        replaced += 1;
    }
    assert!(replaced > 0, "the manifest is in the library");
    library
}

/// Returns the library with another name in place of the symbol that the host looks for.
#[must_use]
pub fn without_entry(mut library: Vec<u8>) -> Vec<u8> {
    let symbol = b"_1as_0lib_1header_0root_bmodule_bloader\0";
    let mut replaced = 0;
    while let Some(at) = find(&library, symbol) {
        library[at] = b'X';
        replaced += 1;
    }
    assert!(replaced > 0, "the library exports the symbol");
    library
}

/// Returns the library with another library that it needs in place of the C library.
#[must_use]
pub fn with_needed(mut library: Vec<u8>) -> Vec<u8> {
    let at = find(&library, b"\0libc.so.6\0").expect("it needs the C library");
    library[at + 4] = b'q';
    library
}

/// Returns the library of [`with_needed`] with section headers that lead to a clean copy of its
/// names: the dynamic linker does not look at them.
#[must_use]
pub fn with_hidden_needed(library: Vec<u8>) -> Vec<u8> {
    // e_shoff; sh_type, sh_offset and sh_size of a section header of 64 bytes (elf(5)).
    const STRINGS: u32 = 3;
    let number = |bytes: &[u8], at: usize| {
        let bytes = bytes[at..at + 8].try_into().expect("eight of them");
        usize::try_from(u64::from_le_bytes(bytes)).expect("it fits")
    };
    let mut hidden = with_needed(library.clone());
    let headers = number(&library, 0x28);
    let needed = find(&library, b"\0libc.so.6\0").expect("it needs the C library");
    for header in (headers..library.len() - 63).step_by(64) {
        let (offset, size) = (number(&library, header + 0x18), number(&library, header + 0x20));
        let holds = offset <= needed && needed < offset.saturating_add(size);
        if library[header + 4..header + 8] == STRINGS.to_le_bytes() && holds {
            let copy = hidden.len() as u64;
            hidden[header + 0x18..header + 0x20].copy_from_slice(&copy.to_le_bytes());
            hidden.extend_from_slice(&library[offset..offset + size]);
        }
    }
    assert!(hidden.len() > library.len(), "it has such a section");
    hidden
}

/// Returns the library as if for another machine (AArch64, or x86-64 on AArch64).
#[must_use]
pub fn of_another_machine(mut library: Vec<u8>) -> Vec<u8> {
    // e_machine, a 16-bit number at offset 18: 62 is EM_X86_64, 183 is EM_AARCH64.
    let other: u16 = if library[18] == 62 { 183 } else { 62 };
    library[18..20].copy_from_slice(&other.to_le_bytes());
    library
}

/// Returns the library with one part of its embedded manifest written otherwise, filled up with
/// spaces.
#[must_use]
pub fn with_manifest(mut library: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    let at = find(&library, from.as_bytes()).expect("its manifest says so");
    let to = format!("{to:width$}", width = from.len());
    library[at..at + from.len()].copy_from_slice(to.as_bytes());
    library
}

/// Returns the first `bytes` of the library.
#[must_use]
pub fn truncated(mut library: Vec<u8>, bytes: usize) -> Vec<u8> {
    assert!(bytes < library.len(), "nothing would be cut off");
    library.truncate(bytes);
    library
}

fn build_record(library: &[u8]) -> usize {
    // The magic may stand in the code of other libraries as well; a record begins with it and
    // holds the size of itself, 64, after the epoch.
    let mut from = 0;
    while let Some(at) = find(&library[from..], MAGIC) {
        let record = from + at;
        if library.get(record + 20..record + 24) == Some(&64_u32.to_ne_bytes()) {
            return record;
        }
        from = record + 1;
    }
    panic!("the library has no build record");
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_the_record_and_nothing_else() {
        let mut library = vec![9; 40];
        library.extend(MAGIC);
        library.extend(1_u32.to_ne_bytes());
        library.extend(64_u32.to_ne_bytes());
        library.extend([0; 24]);
        library.push(1);
        library.extend([0; 15]);
        let older = with_epoch(library.clone(), 0);
        let differing = older.iter().zip(&library).filter(|(a, b)| a != b).count();
        assert_eq!(differing, 1);
        assert_eq!(with_abort_panic(library.clone())[40 + PANIC_AT], 0);
        assert_eq!(with_handover(b"[\nmode = \"overlap\"\n".to_vec()), b"[\nmode=\"handover\" \n");
    }
}

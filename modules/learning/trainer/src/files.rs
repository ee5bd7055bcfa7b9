//! Files that are whole or not there.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
};

use crate::failure::{Failure, Result};

/// Writes a file under another name, brings it to the disk, and gives it its name.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |error: std::io::Error| Failure::file("write", path, &error);
    let folder = path.parent().ok_or_else(|| Failure::other("a file lies nowhere"))?;
    fs::create_dir_all(folder).map_err(failed)?;
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    let part = Path::new(&name);
    let written = File::create(part)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(part, path))
        .and_then(|()| File::open(folder)?.sync_all());
    if written.is_err() && part.exists() {
        // The first failure is the one to tell.
        drop(fs::remove_file(part));
    }
    written.map_err(failed)
}

/// Returns numbers as bytes, the lowest first.
pub(crate) fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|it| it.to_le_bytes()).collect()
}

/// Returns the numbers of bytes.
pub(crate) fn numbers_of(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|it| f32::from_le_bytes([it[0], it[1], it[2], it[3]])).collect()
}

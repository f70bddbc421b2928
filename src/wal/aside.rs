//! Keeps what is given up of a damaged log.

use std::io;

use super::segment::{self, path};
use crate::error::{Error, Result};
use crate::storage::{FileMode, StorageBackend, StorageFile};

/// Bytes that are copied at once, and those of which a part that cannot be read is left out.
const STRIDE: usize = 1 << 20;
const SECTOR: usize = 4096;

/// Copies the segments from `first` on into `directory`, and makes that durable. What cannot be read is left
/// out. What an earlier attempt copied is copied again.
pub(crate) fn keep_aside(backend: &dyn StorageBackend, first: u64, directory: &str) -> Result<()> {
    let failed = |error| Error::io("keeping what is damaged of the log", error).in_file(directory);
    backend.create_directory(directory).map_err(failed)?;
    for id in segment::list(backend)?.into_iter().filter(|&id| id >= first) {
        let from = path(id);
        let to = format!("{directory}/{}", from.rsplit('/').next().unwrap_or(&from));
        copy(backend, &from, &to).map_err(failed)?;
    }
    backend.sync_directory(directory).and_then(|()| backend.sync_directory("")).map_err(failed)
}

fn copy(backend: &dyn StorageBackend, from: &str, to: &str) -> io::Result<()> {
    match backend.remove(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let source = backend.open(from, FileMode::Read)?;
    let target = backend.open(to, FileMode::Create)?;
    let len = source.len()?;
    target.set_len(len)?;
    let mut buffer = vec![0; STRIDE];
    let mut offset = 0;
    while offset < len {
        let part = &mut buffer[..(len - offset).min(STRIDE as u64) as usize];
        read_what_can_be(&*source, part, offset);
        // A segment is mostly zeros where nothing was appended yet.
        if part.iter().any(|&byte| byte != 0) {
            target.write_at(part, offset)?;
        }
        offset += part.len() as u64;
    }
    target.sync()
}

/// Reads, with zeros where that fails.
fn read_what_can_be(file: &dyn StorageFile, buffer: &mut [u8], offset: u64) {
    if file.read_at(buffer, offset).is_ok() {
        return;
    }
    let mut at = offset;
    for sector in buffer.chunks_mut(SECTOR) {
        if file.read_at(sector, at).is_err() {
            sector.fill(0);
        }
        at += sector.len() as u64;
    }
}

//! Directories of the operating system: made, synced, and told apart.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Creates `path` and what is missing above it, and gives what it created, the topmost first. What is created
/// above it is made durable.
pub(super) fn create_directories(path: &Path) -> io::Result<Vec<PathBuf>> {
    if path.is_dir() {
        return Ok(Vec::new());
    }
    let mut created = Vec::new();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.is_dir());
    if let Some(parent) = parent {
        created = create_directories(parent)?;
        if let Some(above) = parent.parent() {
            sync_directory(above)?;
        }
    }
    #[cfg_attr(not(unix), allow(unused_mut, reason = "there is no mode to set"))]
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
        outcome => {
            outcome?;
            created.push(path.to_owned());
        }
    }
    Ok(created)
}

pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    match open_directory(path)? {
        Some(opened) => sync_opened(&opened?),
        None => Ok(()),
    }
}

pub(super) fn sync_opened(directory: &File) -> io::Result<()> {
    // What it lacks at this point is no refusal any more.
    directory.sync_all().map_err(|error| match error.kind() {
        ErrorKind::OutOfMemory => io::Error::other(error),
        _ => error,
    })
}

/// A directory, opened to be synced; within, why it could not be for the moment. `None` where that is not
/// possible.
#[cfg(unix)]
pub(super) fn open_directory(path: &Path) -> io::Result<Option<io::Result<File>>> {
    match File::open(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Err(error),
        opened => Ok(Some(opened)),
    }
}

/// Directories cannot be opened as files here, and their entries are the business of the file system's own
/// log.
#[cfg(not(unix))]
pub(super) fn open_directory(_path: &Path) -> io::Result<Option<io::Result<File>>> {
    Ok(None)
}

/// Whether `directory` is what stands at `path`.
#[cfg(unix)]
pub(super) fn is_at(directory: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;

    let (Ok(kept), Ok(there)) = (directory.metadata(), std::fs::metadata(path)) else { return false };
    (kept.dev(), kept.ino()) == (there.dev(), there.ino())
}

#[cfg(not(unix))]
pub(super) fn is_at(_directory: &File, _path: &Path) -> bool {
    false
}

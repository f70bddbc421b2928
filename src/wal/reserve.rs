//! What the log keeps for a full disk: files whose room is reserved, each of which becomes a segment by being
//! renamed.
//!
//! On a full disk nothing can be created, so without them a database could not even be opened there, and no
//! deletion could be logged. They stand beside the segments under names of their own, which recovery does not
//! look at. What one holds is bound to the id of a segment that is gone, so that nothing of it reads as a
//! record of the next.

use super::segment::{DIRECTORY, SegmentFile};
use crate::error::Result;
use crate::storage::{FileMode, StorageBackend};
use crate::sync::Arc;

const PREFIX: &str = "reserve-";

/// A file that is kept for later, and under which path.
pub(super) struct Kept {
    pub(super) path: String,
    pub(super) body: Arc<SegmentFile>,
}

/// The files that are there, and how many there are to be.
#[derive(Default)]
pub(super) struct Reserve {
    files: Vec<Kept>,
    wanted: usize,
    /// Of each that is made.
    bytes: u64,
    /// Of each at least.
    least: u64,
    /// The disk had no room for the last that was to be made.
    pub(super) is_refused: bool,
}

impl Reserve {
    /// What is in the directory of the `wanted` files of `bytes` each. Files of less than `least` bytes, or
    /// whose room is not reserved, are removed, as are those that are too many.
    pub(super) fn find(backend: &dyn StorageBackend, wanted: usize, bytes: u64, least: u64) -> Self {
        let mut reserve = Self { files: Vec::new(), wanted, bytes, least, is_refused: false };
        let names = backend.list(DIRECTORY).unwrap_or_default();
        for path in
            names.iter().filter(|name| number(name).is_some()).map(|name| format!("{DIRECTORY}/{name}"))
        {
            let opened = backend.open(&path, FileMode::Write).and_then(|file| Ok((file.len()?, file)));
            let Ok((len, file)) = opened else { continue };
            if len >= least && reserve.is_short() && file.allocate(0, len).is_ok() {
                reserve.files.push(Kept { path, body: Arc::new(SegmentFile::new(file, None, len)) });
            } else {
                // It does no harm if it stays.
                let _ = backend.remove(&path);
            }
        }
        reserve
    }

    /// Whether there are fewer files than there are to be.
    pub(super) fn is_short(&self) -> bool {
        self.files.len() < self.wanted
    }

    /// Bytes of each file that is made.
    pub(super) fn bytes_of_each(&self) -> u64 {
        self.bytes
    }

    /// Bytes of all files.
    pub(super) fn bytes_in_all(&self) -> u64 {
        self.files.iter().map(|kept| kept.body.len).sum()
    }

    /// Whether a file of `len` bytes can take the place of one that is missing: a small one only where there
    /// is no room for another, since others would take its room.
    pub(super) fn lacks(&self, len: u64) -> bool {
        let least = if self.is_refused { self.least } else { self.bytes };
        self.is_short() && (least..=2 * self.bytes).contains(&len)
    }

    /// A path for one more.
    pub(super) fn free_path(&self) -> String {
        let path = |number: usize| format!("{DIRECTORY}/{PREFIX}{number}");
        let is_free = |path: &String| self.files.iter().all(|kept| kept.path != *path);
        (0..=self.files.len()).map(path).find(is_free).expect("one more number than files")
    }

    pub(super) fn add(&mut self, kept: Kept) {
        self.files.push(kept);
    }

    /// Takes the smallest that holds `len` bytes.
    pub(super) fn take(&mut self, len: u64) -> Option<Kept> {
        let fitting = self.files.iter().enumerate().filter(|(_, kept)| kept.body.len >= len);
        let (index, _) = fitting.min_by_key(|(_, kept)| kept.body.len)?;
        Some(self.files.swap_remove(index))
    }
}

/// The number in the name of a file of the reserve.
fn number(name: &str) -> Option<usize> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

/// The room that merges of what the log holds will need.
pub(crate) trait Room: std::fmt::Debug + Send + Sync {
    /// Called before a segment takes records that need room when they are merged, with the weight of the log
    /// that there is then. A refusal says that there is too little.
    fn keep(&self, weight: u64) -> Result<()>;

    /// Whether the disk has little room left beside what merges of so much, and of what the reserve is for,
    /// take.
    fn is_tight(&self, weight: u64) -> bool;

    /// Makes good what was taken of what is kept for a full disk. Says whether it is whole.
    fn fill(&self) -> bool;
}

/// There is always room.
#[cfg(any(test, fuzzing))]
#[derive(Debug)]
pub(super) struct AlwaysRoom;

#[cfg(any(test, fuzzing))]
impl Room for AlwaysRoom {
    fn keep(&self, _weight: u64) -> Result<()> {
        Ok(())
    }

    fn is_tight(&self, _weight: u64) -> bool {
        false
    }

    fn fill(&self) -> bool {
        true
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    #[test]
    fn a_small_file_serves_where_there_is_no_room_for_another() {
        let mut reserve = Reserve::find(&MemoryStorage::new(), 2, 64 << 10, 16 << 10);
        assert!(reserve.lacks(64 << 10) && !reserve.lacks(16 << 10));
        reserve.is_refused = true;
        assert!(reserve.lacks(16 << 10) && !reserve.lacks(8 << 10));
    }
}

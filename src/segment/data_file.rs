//! What all families share of the data file.

use super::space::{EXTENTS_START, SpaceMap};
use crate::error::{Error, ErrorKind};
use crate::storage::FileHandlePool;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicBool, Ordering};

/// The data file: its descriptors, the size of its pages, and which of its extents are used.
pub(crate) struct DataFile {
    pool: Arc<FileHandlePool>,
    page_size: usize,
    space: SpaceMap,
    /// Whether the file may be somebody else's by now.
    is_given_up: AtomicBool,
}

impl DataFile {
    pub(crate) fn new(pool: FileHandlePool, page_size: usize, space: SpaceMap) -> Arc<Self> {
        Arc::new(Self { pool: Arc::new(pool), page_size, space, is_given_up: AtomicBool::new(false) })
    }

    /// The database is about to be closed: readers may read on, but not all that they read need be there.
    pub(crate) fn give_up(&self) {
        self.is_given_up.store(true, Ordering::SeqCst);
    }

    /// What a reader is told of `error`: of pages that are not what they were, whether whoever had the file
    /// after this database is the cause.
    pub(super) fn judge_reading(&self, error: Error) -> Error {
        let is_other = matches!(error.kind(), ErrorKind::Corruption | ErrorKind::NewerFormat);
        if is_other && self.is_given_up.load(Ordering::SeqCst) {
            return error.into_stale();
        }
        error
    }

    /// The descriptors.
    pub(crate) fn pool(&self) -> &Arc<FileHandlePool> {
        &self.pool
    }

    /// Bytes of a page.
    pub(crate) fn page_size(&self) -> usize {
        self.page_size
    }

    /// The extents.
    pub(crate) fn space(&self) -> &SpaceMap {
        &self.space
    }

    /// The byte at which a file page starts.
    pub(crate) fn offset(&self, file_page: u64) -> u64 {
        EXTENTS_START + file_page * self.page_size as u64
    }
}

impl std::fmt::Debug for DataFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataFile").field("page_size", &self.page_size).finish_non_exhaustive()
    }
}

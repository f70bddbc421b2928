//! What all families share of the data file.

use super::space::{EXTENTS_START, SpaceMap};
use crate::storage::FileHandlePool;
use crate::sync::Arc;

/// The data file: its descriptors, the size of its pages, and which of its extents are used.
pub(crate) struct DataFile {
    pool: Arc<FileHandlePool>,
    page_size: usize,
    space: SpaceMap,
}

impl DataFile {
    pub(crate) fn new(pool: FileHandlePool, page_size: usize, space: SpaceMap) -> Arc<Self> {
        Arc::new(Self { pool: Arc::new(pool), page_size, space })
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

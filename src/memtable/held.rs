//! Bytes of a memtable that are held without a copy.

use std::ops::Deref;
use std::ptr::NonNull;

use super::table::Memtable;
use crate::sync::Arc;

/// Bytes that stand in a memtable, which this keeps.
#[derive(Clone)]
pub(crate) struct HeldBytes {
    bytes: NonNull<[u8]>,
    _table: Arc<Memtable>,
}

// SAFETY: it is a shared reference into a memtable that is itself `Send + Sync`, and kept by the `Arc` beside it.
unsafe impl Send for HeldBytes {}
// SAFETY: as above; nothing is changed through it.
unsafe impl Sync for HeldBytes {}

impl Memtable {
    /// The value of `key` that [`get`](Self::get) gives at the same sequence number, held for as long as the result lives.
    pub(crate) fn hold(
        self: &Arc<Self>,
        found: impl for<'m> FnOnce(&'m Self) -> Option<&'m [u8]>,
    ) -> Option<HeldBytes> {
        let bytes = NonNull::from(found(self)?);
        Some(HeldBytes { bytes, _table: Arc::clone(self) })
    }
}

impl Deref for HeldBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the bytes were borrowed from the memtable (or are static); entries never change and are freed only with it
        // (invariants 1 and 2 of the folder), and `_table` keeps it.
        unsafe { self.bytes.as_ref() }
    }
}

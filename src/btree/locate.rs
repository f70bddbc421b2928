//! Where a fault was found.

use super::node::Fault;
use crate::error::Error;
use crate::page::PagePointer;
use crate::segment::PartitionedStorageBackend;

/// Says where the node is that `fault` was found in.
#[cold]
pub(super) fn locate(store: &PartitionedStorageBackend, pointer: PagePointer, fault: Fault) -> Error {
    let error = fault.error().of_family(store.family().0).on_page(pointer.page.0);
    match store.file_offset(pointer.page) {
        Some(offset) => error.at_offset(offset),
        None => error,
    }
}

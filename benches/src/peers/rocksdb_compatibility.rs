//! Symbols that the `rocksdb` crate refers to and an older installed library does not have.
//!
//! The crate is written for the newest RocksDB; distributions ship older ones. All functions that
//! the benchmarks call have been in the library for years, but the destructors of some types are
//! linked in with the types that may own them. Those are defined here, for the linker alone: an
//! object to destroy can only come from a constructor that the old library lacks as well.

use std::ffi::c_void;

/// Stands in for the destructor of write buffer managers, which RocksDB 7 does not export.
#[unsafe(no_mangle)]
extern "C" fn rocksdb_write_buffer_manager_destroy(_manager: *mut c_void) {
    unreachable!("a write buffer manager was destroyed, and none can have been created");
}

/// Makes sure that the linker has met the definitions above before it needs them.
pub fn provide_missing_symbols() {
    std::hint::black_box(rocksdb_write_buffer_manager_destroy as extern "C" fn(*mut c_void));
}

//! LevelDB's C interface (`leveldb/c.h`), as far as the benchmarks need it.
//!
//! The crates that bind LevelDB build a copy of their own, of years ago; this links the library that the
//! system has installed.

use std::ffi::{c_char, c_int, c_void};

macro_rules! opaque {
    ($($name:ident)*) => {
        $(
            #[repr(C)]
            pub(super) struct $name {
                _private: [u8; 0],
            }
        )*
    };
}

opaque!(Database Options ReadOptions WriteOptions WriteBatch Iterator Snapshot Cache FilterPolicy);

#[link(name = "leveldb")]
unsafe extern "C" {
    pub(super) fn leveldb_open(
        options: *const Options,
        name: *const c_char,
        error: *mut *mut c_char,
    ) -> *mut Database;
    pub(super) fn leveldb_close(database: *mut Database);
    pub(super) fn leveldb_put(
        database: *mut Database,
        options: *const WriteOptions,
        key: *const c_char,
        key_len: usize,
        value: *const c_char,
        value_len: usize,
        error: *mut *mut c_char,
    );
    pub(super) fn leveldb_write(
        database: *mut Database,
        options: *const WriteOptions,
        batch: *mut WriteBatch,
        error: *mut *mut c_char,
    );
    pub(super) fn leveldb_get(
        database: *mut Database,
        options: *const ReadOptions,
        key: *const c_char,
        key_len: usize,
        value_len: *mut usize,
        error: *mut *mut c_char,
    ) -> *mut c_char;
    pub(super) fn leveldb_create_iterator(
        database: *mut Database,
        options: *const ReadOptions,
    ) -> *mut Iterator;
    pub(super) fn leveldb_create_snapshot(database: *mut Database) -> *const Snapshot;
    pub(super) fn leveldb_release_snapshot(database: *mut Database, snapshot: *const Snapshot);
    pub(super) fn leveldb_property_value(database: *mut Database, name: *const c_char) -> *mut c_char;
    pub(super) fn leveldb_compact_range(
        database: *mut Database,
        start: *const c_char,
        start_len: usize,
        limit: *const c_char,
        limit_len: usize,
    );

    pub(super) fn leveldb_iter_destroy(iterator: *mut Iterator);
    pub(super) fn leveldb_iter_valid(iterator: *const Iterator) -> u8;
    pub(super) fn leveldb_iter_seek_to_last(iterator: *mut Iterator);
    pub(super) fn leveldb_iter_seek(iterator: *mut Iterator, key: *const c_char, key_len: usize);
    pub(super) fn leveldb_iter_next(iterator: *mut Iterator);
    pub(super) fn leveldb_iter_prev(iterator: *mut Iterator);
    pub(super) fn leveldb_iter_key(iterator: *const Iterator, len: *mut usize) -> *const c_char;
    pub(super) fn leveldb_iter_value(iterator: *const Iterator, len: *mut usize) -> *const c_char;
    pub(super) fn leveldb_iter_get_error(iterator: *const Iterator, error: *mut *mut c_char);

    pub(super) fn leveldb_writebatch_create() -> *mut WriteBatch;
    pub(super) fn leveldb_writebatch_destroy(batch: *mut WriteBatch);
    pub(super) fn leveldb_writebatch_clear(batch: *mut WriteBatch);
    pub(super) fn leveldb_writebatch_put(
        batch: *mut WriteBatch,
        key: *const c_char,
        key_len: usize,
        value: *const c_char,
        value_len: usize,
    );
    pub(super) fn leveldb_writebatch_delete(batch: *mut WriteBatch, key: *const c_char, key_len: usize);

    pub(super) fn leveldb_options_create() -> *mut Options;
    pub(super) fn leveldb_options_destroy(options: *mut Options);
    pub(super) fn leveldb_options_set_create_if_missing(options: *mut Options, yes: u8);
    pub(super) fn leveldb_options_set_write_buffer_size(options: *mut Options, bytes: usize);
    pub(super) fn leveldb_options_set_cache(options: *mut Options, cache: *mut Cache);
    pub(super) fn leveldb_options_set_filter_policy(options: *mut Options, policy: *mut FilterPolicy);
    pub(super) fn leveldb_readoptions_create() -> *mut ReadOptions;
    pub(super) fn leveldb_readoptions_destroy(options: *mut ReadOptions);
    pub(super) fn leveldb_readoptions_set_snapshot(options: *mut ReadOptions, snapshot: *const Snapshot);
    pub(super) fn leveldb_writeoptions_create() -> *mut WriteOptions;
    pub(super) fn leveldb_writeoptions_destroy(options: *mut WriteOptions);
    pub(super) fn leveldb_writeoptions_set_sync(options: *mut WriteOptions, yes: u8);
    pub(super) fn leveldb_cache_create_lru(bytes: usize) -> *mut Cache;
    pub(super) fn leveldb_cache_destroy(cache: *mut Cache);
    pub(super) fn leveldb_filterpolicy_create_bloom(bits_per_key: c_int) -> *mut FilterPolicy;
    pub(super) fn leveldb_filterpolicy_destroy(policy: *mut FilterPolicy);

    pub(super) fn leveldb_free(pointer: *mut c_void);
    pub(super) fn leveldb_major_version() -> c_int;
    pub(super) fn leveldb_minor_version() -> c_int;
}

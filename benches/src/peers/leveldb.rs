//! LevelDB, linked against the library that the system has installed.
//!
//! It has no column families: where the setup asks for several, all keys lie in one database, each behind the
//! number of its family (four bytes, big-endian), so that a batch over families is one commit. Unsynced is
//! `sync = false` with the log on, which hands every record to the operating system. It is given the cache
//! and bloom filters of 10 bits; its one write buffer, which a second one may follow, is half of the setup's.
//! Where the setup gives no memory it has nothing but its defaults.

use std::ffi::{CStr, CString, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{null, null_mut};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::leveldb_interface as c;
use crate::engine::{Batch, Direction, Durability, Engine, Held, Reader, Setup, Writer};

/// Bytes of the number of a family before each key.
const PREFIX_BYTES: usize = 4;

struct Level {
    database: *mut c::Database,
    cache: *mut c::Cache,
    filter: *mut c::FilterPolicy,
    /// Whether keys stand behind the number of their family.
    prefixed: bool,
}

// SAFETY: LevelDB allows any number of threads to use one database; the cache and the filter are its own
// until it is closed.
unsafe impl Send for Level {}
// SAFETY: as above.
unsafe impl Sync for Level {}

/// Opens one database for all families.
pub(super) fn open(path: &Path, setup: &Setup) -> Result<Box<dyn Engine>> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mut level =
        Level { database: null_mut(), cache: null_mut(), filter: null_mut(), prefixed: setup.families > 1 };
    let mut error = null_mut();
    // SAFETY: the options live until they are destroyed below; cache and filter live in `level`, which closes
    // the database first.
    unsafe {
        let options = c::leveldb_options_create();
        c::leveldb_options_set_create_if_missing(options, 1);
        if let Some(memory) = setup.memory {
            level.cache = c::leveldb_cache_create_lru(usize::try_from(memory.cache_bytes)?);
            level.filter = c::leveldb_filterpolicy_create_bloom(10);
            c::leveldb_options_set_cache(options, level.cache);
            c::leveldb_options_set_filter_policy(options, level.filter);
            let bytes = usize::try_from(memory.write_buffer_bytes / 2)?;
            c::leveldb_options_set_write_buffer_size(options, bytes);
        }
        level.database = c::leveldb_open(options, name.as_ptr(), &raw mut error);
        c::leveldb_options_destroy(options);
    }
    check(error)?;
    Ok(Box::new(level))
}

impl Drop for Level {
    fn drop(&mut self) {
        // SAFETY: nobody borrows the database any more; what is null was never made.
        unsafe {
            if !self.database.is_null() {
                c::leveldb_close(self.database);
            }
            if !self.cache.is_null() {
                c::leveldb_cache_destroy(self.cache);
                c::leveldb_filterpolicy_destroy(self.filter);
            }
        }
    }
}

/// Fails with what LevelDB says went wrong, if it says anything.
fn check(error: *mut c_char) -> Result<()> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: LevelDB's errors end with a zero byte and belong to whoever gets them.
    let message = unsafe {
        let message = CStr::from_ptr(error).to_string_lossy().into_owned();
        c::leveldb_free(error.cast());
        message
    };
    bail!("{message}")
}

fn chars(bytes: &[u8]) -> *const c_char {
    bytes.as_ptr().cast()
}

/// The bytes that LevelDB shows.
///
/// # Safety
///
/// `bytes` are `len` bytes that stay as they are for as long as what is returned is used.
unsafe fn shown<'a>(bytes: *const c_char, len: usize) -> &'a [u8] {
    // SAFETY: the caller promises it.
    unsafe { std::slice::from_raw_parts(bytes.cast(), len) }
}

impl Level {
    /// What stands before the keys of a family.
    fn prefix(&self, family: usize) -> Prefix {
        let bytes = (family as u32).to_be_bytes();
        Prefix { bytes, len: if self.prefixed { PREFIX_BYTES } else { 0 } }
    }

    fn compact_between(&self, bounds: Option<(&[u8], &[u8])>) {
        let (start, limit) = bounds.map_or((None, None), |(start, limit)| (Some(start), Some(limit)));
        let part = |bytes: Option<&[u8]>| bytes.map_or((null(), 0), |bytes| (chars(bytes), bytes.len()));
        let ((start, start_len), (limit, limit_len)) = (part(start), part(limit));
        // SAFETY: the database is open, and the bounds live until the call returns.
        unsafe { c::leveldb_compact_range(self.database, start, start_len, limit, limit_len) };
    }

    /// What it tells of its compactions so far.
    fn statistics(&self) -> Result<String> {
        // SAFETY: the database is open, and the name ends with a zero byte. What is returned belongs to the
        // caller.
        unsafe {
            let text = c::leveldb_property_value(self.database, c"leveldb.stats".as_ptr());
            if text.is_null() {
                bail!("it tells nothing of its compactions");
            }
            let statistics = CStr::from_ptr(text).to_string_lossy().into_owned();
            c::leveldb_free(text.cast());
            Ok(statistics)
        }
    }
}

/// What stands before a key.
#[derive(Clone, Copy)]
struct Prefix {
    bytes: [u8; PREFIX_BYTES],
    len: usize,
}

impl Prefix {
    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Puts the key behind the prefix into `whole`.
    fn join(&self, key: &[u8], whole: &mut Vec<u8>) {
        whole.clear();
        whole.extend_from_slice(self.as_slice());
        whole.extend_from_slice(key);
    }
}

impl Engine for Level {
    fn version(&self) -> String {
        // SAFETY: the calls only return numbers.
        let (major, minor) = unsafe { (c::leveldb_major_version(), c::leveldb_minor_version()) };
        format!("{major}.{minor}")
    }

    fn writer(&self, durability: Durability) -> Result<Box<dyn Writer + '_>> {
        // SAFETY: both are new, and destroyed with the writer.
        let (options, batch) = unsafe { (c::leveldb_writeoptions_create(), c::leveldb_writebatch_create()) };
        let sync = durability == Durability::Sync;
        // SAFETY: the options were just made.
        unsafe { c::leveldb_writeoptions_set_sync(options, sync.into()) };
        Ok(Box::new(LevelWriter { level: self, options, batch, key: Vec::new() }))
    }

    fn read(&self, family: usize, work: &mut dyn FnMut(&mut dyn Reader) -> Result<()>) -> Result<()> {
        work(&mut LevelReader::new(self, family, null()))
    }

    fn hold(&self) -> Result<Box<dyn Held + '_>> {
        // SAFETY: the database is open; the snapshot is released when it is dropped.
        let snapshot = unsafe { c::leveldb_create_snapshot(self.database) };
        Ok(Box::new(LevelHeld { level: self, snapshot }))
    }

    fn is_log(&self, file: &Path) -> bool {
        file.extension().is_some_and(|extension| extension == "log")
    }

    /// LevelDB has no call for it, but writes its memtable before it compacts a range, be there nothing in
    /// it; and a range is compacted after what is being compacted already.
    fn flush_until_quiet(&self) -> Result<()> {
        const BEYOND: &[u8] = &[0xff; 64];
        self.compact_between(Some((BEYOND, BEYOND)));
        let mut before = self.statistics()?;
        super::wait_while(|| {
            std::thread::sleep(Duration::from_millis(20));
            let now = self.statistics()?;
            let busy = now != before;
            before = now;
            Ok(busy)
        })
    }

    fn compact(self: Box<Self>) -> Result<Box<dyn Engine>> {
        self.compact_between(None);
        self.flush_until_quiet()?;
        Ok(self)
    }
}

struct LevelWriter<'e> {
    level: &'e Level,
    options: *mut c::WriteOptions,
    batch: *mut c::WriteBatch,
    key: Vec<u8>,
}

impl Drop for LevelWriter<'_> {
    fn drop(&mut self) {
        // SAFETY: both were made with the writer and belong to it.
        unsafe {
            c::leveldb_writeoptions_destroy(self.options);
            c::leveldb_writebatch_destroy(self.batch);
        }
    }
}

impl Writer for LevelWriter<'_> {
    fn put(&mut self, family: usize, key: &[u8], value: &[u8]) -> Result<()> {
        self.level.prefix(family).join(key, &mut self.key);
        let (database, options, key) = (self.level.database, self.options, &self.key);
        let mut error = null_mut();
        // SAFETY: database and options live as long as the writer, key and value until the call returns.
        unsafe {
            c::leveldb_put(
                database,
                options,
                chars(key),
                key.len(),
                chars(value),
                value.len(),
                &raw mut error,
            );
        }
        check(error)
    }

    fn write_together(&mut self, batches: &[(usize, &Batch)]) -> Result<()> {
        let mut error = null_mut();
        // SAFETY: the batch belongs to this writer, and copies the keys and values that it is handed.
        unsafe {
            c::leveldb_writebatch_clear(self.batch);
            for (family, batch) in batches {
                let prefix = self.level.prefix(*family);
                for (key, value) in batch.iter() {
                    prefix.join(key, &mut self.key);
                    let (key, key_len) = (chars(&self.key), self.key.len());
                    match value {
                        Some(value) => {
                            c::leveldb_writebatch_put(self.batch, key, key_len, chars(value), value.len());
                        }
                        None => c::leveldb_writebatch_delete(self.batch, key, key_len),
                    }
                }
            }
            c::leveldb_write(self.level.database, self.options, self.batch, &raw mut error);
        }
        check(error)
    }
}

struct LevelHeld<'e> {
    level: &'e Level,
    snapshot: *const c::Snapshot,
}

impl Drop for LevelHeld<'_> {
    fn drop(&mut self) {
        // SAFETY: the snapshot is one of this database, which is still open, and nobody else releases it.
        unsafe { c::leveldb_release_snapshot(self.level.database, self.snapshot) };
    }
}

impl Held for LevelHeld<'_> {
    fn read(&self, family: usize, work: &mut dyn FnMut(&mut dyn Reader) -> Result<()>) -> Result<()> {
        work(&mut LevelReader::new(self.level, family, self.snapshot))
    }
}

struct LevelReader<'e> {
    level: &'e Level,
    prefix: Prefix,
    options: *mut c::ReadOptions,
    key: Vec<u8>,
}

impl<'e> LevelReader<'e> {
    /// Reads a snapshot, or the present if that is null.
    fn new(level: &'e Level, family: usize, snapshot: *const c::Snapshot) -> Self {
        // SAFETY: the options are new, and the snapshot outlives the reader.
        let options = unsafe {
            let options = c::leveldb_readoptions_create();
            c::leveldb_readoptions_set_snapshot(options, snapshot);
            options
        };
        Self { level, prefix: level.prefix(family), options, key: Vec::new() }
    }

    fn cursor(&self) -> Cursor<'_> {
        // SAFETY: database and options outlive the cursor, which borrows this reader.
        let iterator = unsafe { c::leveldb_create_iterator(self.level.database, self.options) };
        Cursor { iterator, prefix: &self.prefix }
    }
}

impl Drop for LevelReader<'_> {
    fn drop(&mut self) {
        // SAFETY: the options were made with the reader and belong to it.
        unsafe { c::leveldb_readoptions_destroy(self.options) };
    }
}

impl Reader for LevelReader<'_> {
    fn get(&mut self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.prefix.join(key, &mut self.key);
        let (mut len, mut error) = (0, null_mut());
        // SAFETY: database, options and key live until the call returns. What it returns are `len` bytes that
        // belong to the caller.
        unsafe {
            let (key, key_len) = (chars(&self.key), self.key.len());
            let value =
                c::leveldb_get(self.level.database, self.options, key, key_len, &raw mut len, &raw mut error);
            check(error)?;
            if value.is_null() {
                return Ok(false);
            }
            visit(shown(value, len));
            c::leveldb_free(value.cast());
        }
        Ok(true)
    }

    fn scan(
        &mut self,
        from: &[u8],
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<()> {
        let mut start = Vec::new();
        self.prefix.join(from, &mut start);
        let mut cursor = self.cursor();
        match direction {
            Direction::Forward => cursor.seek(&start),
            Direction::Backward => cursor.seek_for_prev(&start),
        }
        while let Some((key, value)) = cursor.entry() {
            if !visit(key, value) {
                break;
            }
            match direction {
                Direction::Forward => cursor.next(),
                Direction::Backward => cursor.prev(),
            }
        }
        cursor.finish()
    }
}

/// Walks the keys behind one prefix.
struct Cursor<'r> {
    iterator: *mut c::Iterator,
    prefix: &'r Prefix,
}

impl Drop for Cursor<'_> {
    fn drop(&mut self) {
        // SAFETY: the iterator belongs to the cursor.
        unsafe { c::leveldb_iter_destroy(self.iterator) };
    }
}

impl Cursor<'_> {
    fn seek(&mut self, key: &[u8]) {
        // SAFETY: the iterator lives as long as the cursor, the key until the call returns.
        unsafe { c::leveldb_iter_seek(self.iterator, chars(key), key.len()) };
    }

    /// Goes to the last key that is not above `key`.
    fn seek_for_prev(&mut self, key: &[u8]) {
        self.seek(key);
        // SAFETY: the iterator lives as long as the cursor; the step back is taken from a key alone.
        unsafe {
            match self.whole_key() {
                None => c::leveldb_iter_seek_to_last(self.iterator),
                Some(found) if found != key => c::leveldb_iter_prev(self.iterator),
                Some(_) => (),
            }
        }
    }

    /// The key that the iterator is at, with its prefix.
    fn whole_key(&self) -> Option<&[u8]> {
        let mut len = 0;
        // SAFETY: an iterator that is valid shows a key that stays until it moves, which this borrow forbids.
        unsafe {
            (c::leveldb_iter_valid(self.iterator) != 0)
                .then(|| shown(c::leveldb_iter_key(self.iterator, &raw mut len), len))
        }
    }

    /// The entry that the cursor is at, unless it has left the family.
    fn entry(&self) -> Option<(&[u8], &[u8])> {
        let key = self.whole_key()?.strip_prefix(self.prefix.as_slice())?;
        let mut len = 0;
        // SAFETY: as for the key, and the iterator is valid.
        let value = unsafe { shown(c::leveldb_iter_value(self.iterator, &raw mut len), len) };
        Some((key, value))
    }

    fn next(&mut self) {
        // SAFETY: only called where `entry` has shown one, so that the iterator is valid.
        unsafe { c::leveldb_iter_next(self.iterator) };
    }

    fn prev(&mut self) {
        // SAFETY: as above.
        unsafe { c::leveldb_iter_prev(self.iterator) };
    }

    /// Fails if the walk ended because of an error.
    fn finish(&self) -> Result<()> {
        let mut error = null_mut();
        // SAFETY: the iterator lives as long as the cursor.
        unsafe { c::leveldb_iter_get_error(self.iterator, &raw mut error) };
        check(error).context("the walk broke off")
    }
}

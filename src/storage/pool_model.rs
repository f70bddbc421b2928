//! The pool of descriptors in every interleaving: none is closed under the I/O that uses it, and never are
//! too many open.

use std::io;

use loom::thread;

use super::{FileHandle, FileHandlePool, FileMode, StorageBackend, StorageFile, StorageLock};
use crate::codec::ids::FamilyId;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

const CAP: usize = 2;

/// Counts the descriptors that are open.
#[derive(Debug, Default)]
struct Disk {
    open: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct File {
    open: Arc<AtomicUsize>,
    closed: AtomicBool,
}

impl Drop for File {
    fn drop(&mut self) {
        self.closed.store(true, SeqCst);
        self.open.fetch_sub(1, SeqCst);
    }
}

impl StorageBackend for Disk {
    fn open(&self, _path: &str, _mode: FileMode) -> io::Result<Arc<dyn StorageFile>> {
        let open = self.open.fetch_add(1, SeqCst) + 1;
        assert!(open <= CAP, "{open} descriptors are open at once");
        Ok(Arc::new(File { open: Arc::clone(&self.open), closed: AtomicBool::new(false) }))
    }

    fn list(&self, _directory: &str) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn create_directory(&self, _directory: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_directory(&self, _directory: &str) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _path: &str) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _path: &str, _shared: bool) -> io::Result<Box<dyn StorageLock>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl StorageFile for File {
    fn read_at(&self, _buffer: &mut [u8], _offset: u64) -> io::Result<()> {
        Ok(())
    }

    /// Some I/O: another thread may go on in the middle of it.
    fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
        for _ in 0..2 {
            assert!(!self.closed.load(SeqCst), "the descriptor was closed under its I/O");
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn deallocate(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
}

/// Each of `uses` runs in a thread of its own, at once, on a pool with one place beside the permanent
/// descriptor.
fn explore(preemptions: usize, uses: &'static [fn(&Arc<FileHandlePool>, &FileHandle)]) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(move || {
        let disk = Disk::default();
        let open = Arc::clone(&disk.open);
        let pool = Arc::new(FileHandlePool::new(Arc::new(disk), "data", FileMode::Write, CAP).unwrap());
        let family = Arc::new(FileHandle::new(Arc::clone(&pool), FamilyId(0)));
        let (first, others) = uses.split_first().unwrap();
        let threads: Vec<_> = others
            .iter()
            .map(|user| {
                let (pool, family) = (Arc::clone(&pool), Arc::clone(&family));
                thread::spawn(move || user(&pool, &family))
            })
            .collect();
        first(&pool, &family);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(pool.stats().open, open.load(SeqCst));
        drop(family);
        assert_eq!((pool.stats().open, open.load(SeqCst)), (1, 1));
        drop(pool);
        assert_eq!(open.load(SeqCst), 0);
    });
}

fn write(handle: &FileHandle) {
    handle.file().write_at(b"x", 0).unwrap();
}

/// A family comes, writes, and goes.
fn pass(pool: &Arc<FileHandlePool>, family: u32) {
    write(&FileHandle::new(Arc::clone(pool), FamilyId(family)));
}

#[test]
fn loom_families_that_share_one_place_do_not_wait_for_each_other() {
    explore(3, &[|pool, _| pass(pool, 1), |pool, _| pass(pool, 2)]);
}

#[test]
fn loom_three_families_share_one_place() {
    explore(2, &[|pool, _| pass(pool, 1), |pool, _| pass(pool, 2), |pool, _| pass(pool, 3)]);
}

#[test]
fn loom_two_threads_use_one_family_while_another_comes_and_goes() {
    explore(2, &[|_, family| write(family), |_, family| write(family), |pool, _| pass(pool, 2)]);
}

//! The commit queue in every interleaving: appends, group sync and the change of segments, over a disk that
//! tells what would be left of it.

use std::collections::BTreeMap;
use std::io;

use loom::thread;

use super::{Log, LogEnd, LogOptions, replay};
use crate::codec::ids::SequenceNumber;
use crate::codec::log_mark::LogMark;
use crate::storage::{FileMode, StorageBackend, StorageFile, StorageLock};
use crate::sync::{Arc, Mutex};

const DATABASE_ID: [u8; 16] = [7; 16];

/// What the system has in memory, and what has reached the disk.
#[derive(Debug, Clone, Default)]
struct Bytes {
    live: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<BTreeMap<String, Bytes>>>);

#[derive(Debug)]
struct File(Disk, String);

impl Disk {
    /// What is left when the power goes now.
    fn left(&self) -> Self {
        let kept = |(name, bytes): (&String, &Bytes)| {
            (name.clone(), Bytes { live: bytes.durable.clone(), durable: bytes.durable.clone() })
        };
        Self(Arc::new(Mutex::new(self.0.lock().iter().map(kept).collect())))
    }

    /// The records that recovery finds: their numbers, and the one byte of which each is made.
    fn recovered(&self) -> Vec<(u64, u8)> {
        let mut found = Vec::new();
        replay(self, &DATABASE_ID, LogMark::default(), &mut |sequence, payload| {
            found.push((sequence.0, payload[0]));
            Ok(())
        })
        .unwrap();
        found
    }
}

impl StorageBackend for Disk {
    fn open(&self, path: &str, mode: FileMode) -> io::Result<Arc<dyn StorageFile>> {
        let mut files = self.0.lock();
        if mode == FileMode::Create {
            files.insert(path.to_owned(), Bytes::default());
        } else if !files.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Arc::new(File(self.clone(), path.to_owned())))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let within = format!("{directory}/");
        let files = self.0.lock();
        Ok(files.keys().filter_map(|path| path.strip_prefix(&within).map(str::to_owned)).collect())
    }

    fn create_directory(&self, _directory: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_directory(&self, _directory: &str) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        unreachable!("no segment is recycled here")
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.0.lock().remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn lock(&self, _path: &str, _shared: bool) -> io::Result<Box<dyn StorageLock>> {
        unreachable!("the log locks nothing")
    }
}

impl File {
    fn with<R>(&self, look: impl FnOnce(&mut Bytes) -> R) -> R {
        look(self.0.0.lock().entry(self.1.clone()).or_default())
    }
}

impl StorageFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(|bytes| {
            let range = offset as usize..offset as usize + buffer.len();
            let found = bytes.live.get(range).ok_or(io::ErrorKind::UnexpectedEof)?;
            buffer.copy_from_slice(found);
            Ok(())
        })
    }

    fn write_at(&self, written: &[u8], offset: u64) -> io::Result<()> {
        self.with(|bytes| {
            let end = offset as usize + written.len();
            if bytes.live.len() < end {
                bytes.live.resize(end, 0);
            }
            bytes.live[offset as usize..end].copy_from_slice(written);
        });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|bytes| bytes.durable = bytes.live.clone());
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.with(|bytes| bytes.live.len() as u64))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|bytes| bytes.live.resize(len as usize, 0));
        Ok(())
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.with(|bytes| {
            let end = (offset + len) as usize;
            bytes.live.resize(bytes.live.len().max(end), 0);
        });
        Ok(())
    }

    fn deallocate(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
}

struct Model {
    disk: Disk,
    log: Log,
}

impl Model {
    /// A log whose segments have room for `records` records.
    fn new(records: u64) -> Arc<Self> {
        let disk = Disk::default();
        let len = super::segment::HEADER_LEN + records * super::record::record_len(8);
        let options = LogOptions {
            first_segment_bytes: len,
            max_segment_bytes: len,
            spare_segments: 0,
            use_mapping: false,
            ..LogOptions::new(DATABASE_ID)
        };
        let log = Log::start(Arc::new(disk.clone()), options, LogEnd::default()).unwrap();
        Arc::new(Self { disk, log })
    }

    /// Appends a record and has it synced.
    fn commit(&self, byte: u8) -> SequenceNumber {
        let sequence = self.log.append(&[byte; 8], 0, true).unwrap();
        self.log.sync_through(sequence).unwrap();
        sequence
    }

    /// What was acknowledged as durable is left when the power goes now, and all before it.
    fn assert_left(&self, sequence: SequenceNumber, byte: u8) {
        let found = self.disk.left().recovered();
        assert!(found.iter().map(|record| record.0).eq(1..=found.len() as u64), "{found:?}");
        assert!(found.contains(&(sequence.0, byte)), "{sequence} was acknowledged, {found:?} is left");
    }
}

fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

#[test]
fn loom_a_commit_that_was_synced_is_left_with_all_before_it() {
    explore(3, || {
        let model = Model::new(4);
        let other = Arc::clone(&model);
        let thread = thread::spawn(move || {
            let sequence = other.commit(2);
            other.assert_left(sequence, 2);
        });
        // Written before, in the same segment, and not synced by itself.
        model.log.append(&[0; 8], 0, false).unwrap();
        let sequence = model.commit(1);
        model.assert_left(sequence, 1);
        thread.join().unwrap();
    });
}

#[test]
fn loom_a_commit_that_was_synced_is_left_although_the_segment_changed_meanwhile() {
    explore(2, || {
        let model = Model::new(1);
        let other = Arc::clone(&model);
        let thread = thread::spawn(move || {
            let sequence = other.commit(2);
            other.assert_left(sequence, 2);
        });
        model.log.append(&[0; 8], 0, false).unwrap();
        let sequence = model.commit(1);
        model.assert_left(sequence, 1);
        thread.join().unwrap();
    });
}

#[test]
fn loom_the_next_segment_is_made_ahead_of_need_while_commits_want_it() {
    explore(2, || {
        let model = Model::new(1);
        let other = Arc::clone(&model);
        let thread = thread::spawn(move || other.log.prepare().unwrap());
        for byte in 0..2 {
            let sequence = model.commit(byte);
            model.assert_left(sequence, byte);
        }
        thread.join().unwrap();
        let sequence = model.commit(2);
        model.assert_left(sequence, 2);
    });
}

#[test]
fn loom_segments_are_released_only_below_what_is_marked_and_written() {
    explore(2, || {
        let model = Model::new(1);
        let first = model.commit(0);
        let other = Arc::clone(&model);
        let thread = thread::spawn(move || {
            let sequence = other.log.append(&[1; 8], 0, false).unwrap();
            assert_eq!(sequence.0, first.0 + 1);
            other.log.sync_through(sequence).unwrap();
        });
        // Recovery may begin where the log stands now, which is not yet beyond what the other appends.
        let mark = model.log.mark(model.log.segment_of_next());
        model.log.release_before(mark.first_segment).unwrap();
        thread.join().unwrap();
        let kept = model.disk.left();
        let mut found = Vec::new();
        replay(&kept, &DATABASE_ID, mark, &mut |sequence, _| {
            found.push(sequence.0);
            Ok(())
        })
        .unwrap();
        assert_eq!(found.last(), Some(&(first.0 + 1)), "{found:?} is left from {mark:?} on");
    });
}

//! What of a mapped segment is in memory.

use std::collections::{BTreeSet, VecDeque};

use super::*;
use crate::storage::{FileMode, SharedMapping};
use crate::sync::Mutex;
use crate::wal::log::READY_AHEAD;
use crate::wal::segment::{Segment, SegmentFile};
use crate::wal::stock::Stock;

const PAGE: u64 = 4 << 10;
const SEGMENT: u64 = 64 << 20;

#[derive(Debug, Default)]
struct Resident {
    pages: BTreeSet<u64>,
    /// How many there were at most.
    most: usize,
}

/// A mapping that holds nothing and knows which pages would be in memory.
#[derive(Debug, Clone, Default)]
struct Pages(Arc<Mutex<Resident>>);

impl SharedMapping for Pages {
    fn store(&self, offset: u64, bytes: &[u8]) {
        self.make_ready(offset, bytes.len() as u64);
    }

    fn make_ready(&self, offset: u64, len: u64) {
        let mut resident = self.0.lock();
        resident.pages.extend(offset / PAGE..(offset + len).div_ceil(PAGE));
        resident.most = resident.most.max(resident.pages.len());
    }

    fn let_go(&self, offset: u64, len: u64) {
        self.0.lock().pages.retain(|page| !(offset.div_ceil(PAGE)..(offset + len) / PAGE).contains(page));
    }
}

#[test]
fn only_what_lies_around_the_newest_record_is_in_memory() {
    let backend: Arc<dyn StorageBackend> = Arc::new(MemoryStorage::new());
    let options = LogOptions { max_segment_bytes: SEGMENT, ..LogOptions::new(DATABASE) };
    let pages = Pages::default();
    backend.create_directory("wal").unwrap();
    let file = backend.open(&segment::path(1), FileMode::Create).unwrap();
    let body = SegmentFile::new(file, Some(Box::new(pages.clone())), SEGMENT);
    let stock = Stock::new(backend, &options, 1, VecDeque::new());
    let log = Log::new(options, stock, Arc::new(Segment::new(1, Arc::new(body))), 0);

    // Long records are written past the mapping, whatever comes before them.
    let (long, short) = (vec![1; 1 << 20], vec![2; 20 << 10]);
    for _ in 0..12 {
        log.append(&long, 0, false).unwrap();
    }
    assert!(pages.0.lock().pages.is_empty());
    while log.current_segment() == 1 && log.stats().bytes_appended < 40 << 20 {
        log.append(&short, 0, false).unwrap();
        if log.wants_prepare() {
            log.prepare_memory();
            assert!(
                pages.0.lock().pages.contains(&(log.stats().bytes_appended / PAGE + 64)),
                "not made ready"
            );
        }
    }
    assert!(log.stats().bytes_appended >= 40 << 20);
    let most = pages.0.lock().most as u64 * PAGE;
    assert!(most <= 3 * READY_AHEAD, "{most} bytes in memory");
}

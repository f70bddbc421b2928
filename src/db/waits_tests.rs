//! Whatever a writer waits for is counted with its cause and its length, and told through `tracing`.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::column_family::options::FamilyOptions;
use crate::db::{ColumnFamilyDatabase, Waits};
use crate::error::ErrorKind;
use crate::options::DatabaseBuilder;
use crate::storage::MemoryStorage;
use crate::sync::Mutex;
use crate::txn::batch::WriteBatch;
use crate::txn::handle::ColumnFamily;

/// Long enough for a machine that does much else, and nothing that a test waits for if all is well.
const PATIENCE: Duration = Duration::from_secs(60);

/// Keeps what is told in one thread, a line for each event.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, "{}={value:?} ", field.name()).unwrap();
    }
}

impl Subscriber for Told {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Told {
    /// What `during` returns, and all lines about waits that its thread was told.
    fn of<R>(during: impl FnOnce() -> R) -> (R, Vec<String>) {
        let told = Self::default();
        let lines = Arc::clone(&told.0);
        let returned = tracing::subscriber::with_default(told, during);
        let mut lines = std::mem::take(&mut *lines.lock());
        lines.retain(|line| line.contains("a writer ") || line.contains("waited"));
        (returned, lines)
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "it never came to this: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn builder() -> DatabaseBuilder {
    ColumnFamilyDatabase::builder().page_size(4096).automatic_maintenance(false).background_threads(1)
}

fn create(db: &ColumnFamilyDatabase, name: &str) -> ColumnFamily {
    db.create_column_family(name, FamilyOptions::default()).unwrap()
}

/// That many lines say `what`, each with a length, and with `family` if there is one.
fn assert_told(lines: &[String], what: &str, length: &str, family: Option<&ColumnFamily>, count: u64) {
    let said: Vec<_> = lines.iter().filter(|line| line.contains(what)).collect();
    assert_eq!(said.len() as u64, count, "{what}: {lines:?}");
    let of = family.map_or(String::new(), |family| format!("family={} ", family.id().0));
    assert!(said.iter().all(|line| line.contains(&format!("{length}=")) && line.contains(&of)), "{said:?}");
}

fn assert_one(waits: Waits, at_least: Duration) {
    assert!(waits.count == 1 && waits.time >= at_least, "{waits:?}");
}

#[test]
fn pauses_and_stops_for_merges_name_their_family_and_their_length() {
    let db = builder().write_buffer_bytes(256 << 10).storage(MemoryStorage::new()).open("memory").unwrap();
    let (other, family) = (create(&db, "other"), create(&db, "family"));
    other.put("key", "value").unwrap();
    let lines = thread::scope(|scope| {
        // Nothing of it is merged while this is held.
        let merging = family.family().merging.lock();
        let writer = scope.spawn(|| {
            let put = |n: u32| family.put(n.to_be_bytes(), [1; 1000]).unwrap();
            Told::of(|| (0..400).for_each(|n| _ = put(n))).1
        });
        wait_until("a writer is stopped", || db.statistics().write_stops > 1);
        drop(merging);
        writer.join().unwrap()
    });
    let statistics = db.statistics();
    assert!(statistics.write_stop_time >= Duration::from_millis(20), "{statistics:?}");
    assert_told(
        &lines,
        "was stopped until memtables are merged",
        "took",
        Some(&family),
        statistics.write_stops,
    );
    assert!(statistics.write_pauses > 0, "{statistics:?}");
    // None is shorter.
    assert!(statistics.write_delay >= Duration::from_millis(3) * statistics.write_pauses as u32);
    let draining = statistics.waits.draining.count;
    let merging = statistics.write_pauses - draining;
    assert_told(&lines, "is slowed until memtables are merged", "pause", Some(&family), merging);
    assert_told(&lines, "is slowed until deltas are drained", "pause", Some(&family), draining);
    db.close().unwrap();
}

#[test]
fn stops_for_the_length_of_the_log_are_told() {
    let db = builder().log_limit_bytes(64 << 10).storage(MemoryStorage::new()).open("memory").unwrap();
    let family = create(&db, "family");
    let lines = thread::scope(|scope| {
        let merging = family.family().merging.lock();
        let writer = scope.spawn(|| {
            let put = |n: u32| family.put(n.to_be_bytes(), [1; 1000]).unwrap();
            Told::of(|| (0..200).for_each(|n| _ = put(n))).1
        });
        wait_until("a writer is stopped", || db.statistics().log.write_stops > 0);
        drop(merging);
        writer.join().unwrap()
    });
    let log = db.statistics().log;
    assert!(
        log.write_stop_time > Duration::ZERO && log.write_delay >= Duration::from_millis(3)
            || log.write_pauses == 0
    );
    assert_told(&lines, "was stopped until the log was shorter", "took", None, log.write_stops);
    assert_told(&lines, "is slowed until the log is shorter", "pause", None, log.write_pauses);
    db.close().unwrap();
}

#[test]
fn a_segment_of_the_log_that_a_writer_makes_himself_is_a_wait() {
    let builder = ColumnFamilyDatabase::builder().page_size(4096).storage(MemoryStorage::new());
    let db = builder.open_without_threads("memory").unwrap();
    let family = create(&db, "family");
    let before = db.statistics().waits.log_segments.count;
    let ((), lines) = Told::of(|| {
        (0..100u32).for_each(|n| _ = family.put(n.to_be_bytes(), [1; 1000]).unwrap());
    });
    let waits = db.statistics().waits.log_segments;
    // 16 KiB, 128 KiB.
    assert!(waits.count - before == 1 && waits.time > Duration::ZERO, "{waits:?}");
    assert_told(&lines, "waited for the next segment of the log", "took", None, 1);
}

#[test]
fn a_commit_that_waits_for_earlier_ones_says_so() {
    let db = builder().storage(MemoryStorage::new()).open("memory").unwrap();
    let family = create(&db, "family");
    let pipeline = db.pipeline();
    let mut batch = WriteBatch::new();
    batch.put(&family, "key", "value").put(&family, "other", "value");
    let lines = thread::scope(|scope| {
        // A commit that has its number, and stands still.
        let number = pipeline.log.as_ref().unwrap().assign().unwrap();
        let writer = scope.spawn(|| Told::of(|| db.write(&batch).unwrap()).1);
        wait_until("a commit waits", || pipeline.visible.waiters() > 0);
        thread::sleep(Duration::from_millis(2));
        pipeline.visible.complete(number.0);
        writer.join().unwrap()
    });
    assert_one(db.statistics().waits.earlier_commits, Duration::from_millis(2));
    assert_told(&lines, "waited for earlier ones", "took", None, 1);
    db.close().unwrap();
}

#[test]
fn a_write_that_waits_for_a_decision_or_for_room_says_so() {
    let storage = MemoryStorage::new();
    let db =
        builder().decision_wait(Duration::from_millis(3)).storage(storage.clone()).open("memory").unwrap();
    let family = create(&db, "family");
    let mut transaction = db.begin().unwrap();
    transaction.put(&family, "held", "value").unwrap();
    let prepared = transaction.prepare("name").unwrap();
    let (refused, lines) = Told::of(|| family.put("held", "other"));
    refused.unwrap_err();
    assert_one(db.statistics().waits.decisions, Duration::from_millis(3));
    assert_told(&lines, "waited for a prepared transaction", "took", None, 1);
    prepared.rollback().unwrap();

    storage.set_capacity_limit(storage.used_bytes());
    let (refused, lines) = Told::of(|| {
        let put = |n: u32| family.put(n.to_be_bytes(), [1; 4000]);
        (0..10_000).map(put).find_map(Result::err).expect("the disk is full")
    });
    assert_eq!(refused.kind(), ErrorKind::OutOfSpace);
    let waits = db.statistics().waits.full_disk;
    assert!(waits.count > 0 && waits.time > Duration::ZERO, "{waits:?}");
    assert_told(&lines, "waited for room on a full disk", "took", None, waits.count);
}

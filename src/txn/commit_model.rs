//! The commit pipeline, reduced to what races: commits over two families, whose numbers come from the log's
//! lock, a freeze, and readers of a moment. What `commit` in `commit.rs` does in order, this does in the same
//! order.

use loom::thread;

use crate::sync::arc_cell::ArcCell;
use crate::sync::sequencer::Sequencer;
use crate::sync::{Arc, Mutex};

#[derive(Default)]
struct Table(Mutex<Vec<u64>>);

/// The memtables of each family, newest first.
type View = [Vec<Arc<Table>>; 2];

struct Database {
    views: ArcCell<View>,
    visible: Sequencer,
    /// The number assigned last.
    log: Mutex<u64>,
    write: [Mutex<Arc<Table>>; 2],
}

impl Database {
    fn new() -> Arc<Self> {
        let tables: [Arc<Table>; 2] = std::array::from_fn(|_| Arc::default());
        Arc::new(Self {
            views: ArcCell::new(Arc::new(tables.each_ref().map(|table| vec![Arc::clone(table)]))),
            visible: Sequencer::new(0),
            log: Mutex::new(0),
            write: tables.map(Mutex::new),
        })
    }

    /// Commits a batch over `families`, which are in ascending order.
    fn commit(&self, families: &[usize]) {
        let sides: Vec<_> = families.iter().map(|&family| self.write[family].lock()).collect();
        let number = {
            let mut last = self.log.lock();
            *last += 1;
            *last
        };
        for side in &sides {
            side.0.lock().push(number);
        }
        self.visible.admit(number).unwrap();
        self.visible.complete(number);
        drop(sides);
        self.visible.wait_for(number).unwrap();
    }

    fn freeze(&self, family: usize) {
        let mut side = self.write[family].lock();
        let active = Arc::<Table>::default();
        self.views.update(|view| {
            let mut view = view.clone();
            view[family].insert(0, Arc::clone(&active));
            (view, ())
        });
        *side = active;
    }

    /// Up to the number of the moment both families say the same, and nothing is missing; no older memtable
    /// holds what is newer than a younger one's, else a merge of the older would pass over the younger's.
    fn read(&self) {
        let at = self.visible.watermark();
        let view = self.views.load_full();
        let [first, second] = view.each_ref().map(|tables| {
            let numbers: Vec<Vec<u64>> = tables.iter().rev().map(|table| table.0.lock().clone()).collect();
            assert!(numbers.concat().is_sorted(), "{numbers:?}");
            numbers.concat().into_iter().filter(|&number| number <= at).collect::<Vec<_>>()
        });
        assert_eq!(first, second, "a part of a batch is visible at {at}");
        assert!(first.iter().copied().eq(1..=at), "{first:?} is visible at {at}");
    }
}

#[test]
fn loom_batches_over_two_families_are_visible_whole_and_in_order() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(|| {
        let database = Database::new();
        let other = Arc::clone(&database);
        let reader = Arc::clone(&database);
        let committing = thread::spawn(move || other.commit(&[0, 1]));
        let reading = thread::spawn(move || reader.read());
        database.commit(&[0, 1]);
        committing.join().unwrap();
        reading.join().unwrap();
        database.read();
    });
}

#[test]
fn loom_a_freeze_beside_batches_cuts_between_them() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(|| {
        let database = Database::new();
        let other = Arc::clone(&database);
        let freezer = Arc::clone(&database);
        let committing = thread::spawn(move || other.commit(&[0, 1]));
        let freezing = thread::spawn(move || freezer.freeze(1));
        database.commit(&[0, 1]);
        database.read();
        committing.join().unwrap();
        freezing.join().unwrap();
        database.read();
    });
}

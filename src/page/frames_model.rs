//! The life of a frame in every interleaving: a reader under a guard or a pin never sees its frame reused.

use loom::cell::UnsafeCell;
use loom::thread;

use super::clock::Clock;
use super::frames::{Frame, FrameStore, OwnedFrame};
use super::table::{FrameTable, Inserted};
use crate::codec::ids::PageId;
use crate::sync::Arc;
use crate::sync::epoch;

/// What the frames hold, told to the model checker: it finds a read at the same time as a write.
struct Model {
    table: FrameTable,
    store: Arc<FrameStore>,
    contents: [UnsafeCell<u32>; 2],
}

// SAFETY: the model checker watches over the access to `contents`.
unsafe impl Sync for Model {}

impl Model {
    /// Page 0 stands in frame 0.
    fn new() -> Arc<Self> {
        let model = Arc::new(Self {
            table: FrameTable::new(),
            store: FrameStore::new(4096, 2),
            contents: [UnsafeCell::new(0), UnsafeCell::new(0)],
        });
        let owned = model.store.take(1).unwrap();
        model.fill(owned, 0);
        model
    }

    fn fill(&self, owned: OwnedFrame, page: u32) {
        // SAFETY: the frame is owned.
        self.contents[owned.frame().0 as usize].with_mut(|at| unsafe { *at = page });
        owned.set_page(PageId(page));
        if self.table.insert(PageId(page), owned.frame(), false) == Inserted::Done {
            owned.into_mapped();
        }
    }

    fn assert_holds(&self, frame: Frame, page: u32) {
        // SAFETY: the frame is held under a guard or a pin.
        let held = self.contents[frame.0 as usize].with(|at| unsafe { *at });
        assert_eq!(held, page, "frame {} was reused", frame.0);
    }

    /// Evicts page 0 and, if its frame came free, has page 1 use it.
    fn evict_and_reuse(&self) {
        let guard = epoch::pin();
        let evicted = Clock::default().sweep(&self.table, &self.store, 1);
        self.store.retire(evicted, &guard);
        drop(guard);
        if let Some(owned) = self.store.take(1) {
            self.fill(owned, 1);
        }
    }
}

#[test]
fn loom_a_reader_under_a_guard_never_sees_its_frame_reused() {
    loom::model(|| {
        let model = Model::new();
        let other = Arc::clone(&model);
        let evictor = thread::spawn(move || other.evict_and_reuse());
        let guard = epoch::pin();
        if let Some(frame) = model.table.lookup(PageId(0), &guard) {
            model.assert_holds(frame, 0);
            model.assert_holds(frame, 0);
        }
        drop(guard);
        evictor.join().unwrap();
    });
}

#[test]
fn loom_a_pinned_frame_is_reused_only_after_it_was_unpinned() {
    loom::model(|| {
        let model = Model::new();
        let other = Arc::clone(&model);
        let evictor = thread::spawn(move || other.evict_and_reuse());
        let guard = epoch::pin();
        let found = model.table.lookup(PageId(0), &guard);
        if let Some(frame) = found {
            model.store.pin(frame);
        }
        drop(guard);
        if let Some(frame) = found {
            model.assert_holds(frame, 0);
            model.store.unpin(frame);
        }
        evictor.join().unwrap();
    });
}

#[test]
fn loom_two_threads_that_take_the_same_page_out_retire_its_frame_once() {
    loom::model(|| {
        let model = Model::new();
        let other = Arc::clone(&model);
        let evictor = thread::spawn(move || other.evict_and_reuse());
        let guard = epoch::pin();
        if let Some(frame) = model.table.remove(PageId(0)) {
            model.store.retire(vec![frame], &guard);
        }
        drop(guard);
        evictor.join().unwrap();
        drop(epoch::pin());
        let busy = model.table.clean();
        assert_eq!(model.store.busy(), busy);
    });
}

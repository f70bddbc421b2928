//! The life of a frame in every interleaving: a reader under a guard or a pin never sees its frame reused.

use loom::cell::UnsafeCell;
use loom::thread;

use super::clock::Clock;
use super::frames::{Frame, FrameStore, OwnedFrame};
use super::table::{FrameTable, Inserted, Retired};
use crate::codec::ids::PageId;
use crate::sync::Arc;
use crate::sync::epoch;

/// What the frames hold, told to the model checker: it finds a read at the same time as a write.
struct Model {
    table: FrameTable,
    store: Arc<FrameStore>,
    contents: [UnsafeCell<u32>; 3],
}

// SAFETY: the model checker watches over the access to `contents`.
unsafe impl Sync for Model {}

impl Model {
    /// Page 0 stands in frame 0.
    fn new() -> Arc<Self> {
        let model = Arc::new(Self {
            table: FrameTable::new(),
            store: FrameStore::new(4096, 2),
            contents: std::array::from_fn(|_| UnsafeCell::new(0)),
        });
        let owned = model.store.take(1).unwrap();
        model.fill(owned, 0);
        model
    }

    fn fill(&self, owned: OwnedFrame, page: u32) {
        self.enter(owned, page, false);
    }

    /// Makes `owned` what holds `page`. Gives the frame that does; the caller may look at it for as long as
    /// he holds a guard.
    fn enter(&self, owned: OwnedFrame, page: u32, dirty: bool) -> Frame {
        let frame = owned.frame();
        // SAFETY: the frame is owned.
        self.contents[frame.0 as usize].with_mut(|at| unsafe { *at = page });
        owned.set_page(PageId(page));
        match self.table.insert(PageId(page), frame, dirty, &epoch::pin()) {
            Inserted::Done => {
                owned.into_mapped();
                frame
            }
            Inserted::Occupied(other) => other,
            Inserted::Refused => panic!("there is no memory for an entry"),
        }
    }

    /// Reads `page`, from memory or else from the file.
    fn read(&self, page: u32) {
        let guard = epoch::pin();
        if let Some(frame) = self.table.lookup(PageId(page), &guard) {
            self.assert_holds(frame, page);
        } else if let Some(owned) = self.store.take(2) {
            let frame = self.enter(owned, page, false);
            self.assert_holds(frame, page);
        }
        drop(guard);
    }

    fn assert_holds(&self, frame: Frame, page: u32) {
        // SAFETY: the frame is held under a guard or a pin.
        let held = self.contents[frame.0 as usize].with(|at| unsafe { *at });
        assert_eq!(held, page, "frame {} was reused", frame.0);
    }

    fn evict(&self, wanted: usize) {
        let guard = epoch::pin();
        let mut retired = Retired::default();
        Clock::default().sweep(&self.table, &self.store, wanted, &guard, &mut retired);
        self.store.retire(retired.frames, retired.pieces, &guard);
    }

    /// The page is given up: nothing reaches it any more.
    fn remove(&self, page: u32) {
        let guard = epoch::pin();
        let mut retired = Retired::default();
        if let Some(frame) = self.table.remove(PageId(page), &guard, &mut retired.pieces) {
            self.assert_holds(frame, page);
            retired.frames.push(frame);
        }
        self.store.retire(retired.frames, retired.pieces, &guard);
    }

    /// Evicts page 0 and, if its frame came free, has page 1 use it.
    fn evict_and_reuse(&self) {
        self.evict(1);
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
        model.remove(0);
        evictor.join().unwrap();
        drop(epoch::pin());
        let busy = model.table.clean();
        assert_eq!(model.store.busy(), busy);
    });
}

#[test]
fn loom_two_readers_that_load_one_page_find_it_while_it_is_evicted() {
    loom::model(|| {
        let model = Model::new();
        let threads: Vec<_> = (0..2)
            .map(|reader| {
                let model = Arc::clone(&model);
                thread::spawn(move || {
                    if reader == 0 {
                        model.read(1);
                    } else {
                        model.evict(2);
                    }
                })
            })
            .collect();
        model.read(1);
        model.read(0);
        for thread in threads {
            thread.join().unwrap();
        }
        drop(epoch::pin());
        assert_eq!(model.store.busy(), model.table.clean(), "a frame was lost, or is mapped twice");
    });
}

#[test]
fn loom_a_page_that_was_written_out_is_evicted_or_taken_out_once() {
    loom::model(|| {
        let model = Model::new();
        let owned = model.store.take(2).unwrap();
        let frame = model.enter(owned, 1, true);
        let (writer, other) = (Arc::clone(&model), Arc::clone(&model));
        let writing = thread::spawn(move || {
            let guard = epoch::pin();
            if writer.table.lookup_dirty(PageId(1), &guard).is_some() {
                writer.assert_holds(frame, 1);
                writer.table.mark_clean(PageId(1), frame, &guard);
            }
        });
        let evicting = thread::spawn(move || other.evict(2));
        model.remove(1);
        writing.join().unwrap();
        evicting.join().unwrap();
        drop(epoch::pin());
        assert_eq!(model.table.dirty(), 0);
        assert_eq!(model.store.busy(), model.table.clean(), "a frame was lost, or is mapped twice");
    });
}

#[test]
fn loom_a_page_that_enters_while_its_piece_is_let_go_is_found() {
    loom::model(|| {
        let model = Model::new();
        let other = Arc::clone(&model);
        // Pages 0 and 1 are neighbours: what holds the entry of both goes with the one, or stays for the
        // other.
        let removing = thread::spawn(move || other.remove(0));
        model.read(1);
        removing.join().unwrap();
        let guard = epoch::pin();
        assert!(
            model.table.lookup(PageId(1), &guard).is_some(),
            "the page went with the piece of its neighbour"
        );
        drop(guard);
        model.remove(1);
        assert_eq!(model.table.piece_bytes(), 0);
    });
}

#[test]
fn loom_two_pages_that_leave_one_piece_let_it_go_once() {
    loom::model(|| {
        let model = Model::new();
        model.read(1);
        let other = Arc::clone(&model);
        let removing = thread::spawn(move || other.remove(0));
        model.remove(1);
        removing.join().unwrap();
        assert_eq!((model.table.clean(), model.table.piece_bytes()), (0, 0));
        model.read(0);
        assert_eq!(model.table.clean(), 1);
    });
}

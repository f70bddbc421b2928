//! Snapshots against reclamation, reduced to what races: a reader takes a moment and reads a page through the
//! tree of its view; a merge installs a tree that does without the page, and gives the page to the next one
//! as soon as the last who held the old tree has noted that it is let go.

use loom::cell::UnsafeCell;
use loom::sync::Arc as Counted;
use loom::thread;

use crate::sync::arc_cell::ArcCell;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex, epoch};

/// Pages of trees that nobody holds any more.
type LetGo = Arc<Mutex<Vec<usize>>>;

/// Where the tree's one node stands.
struct Tree {
    page: usize,
    let_go: LetGo,
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.let_go.lock().push(self.page);
    }
}

struct View {
    tree: Counted<Tree>,
    /// The counts of views are not the model checker's: this orders what their readers did before their end,
    /// as a count does.
    left: AtomicUsize,
}

impl View {
    fn new(tree: Counted<Tree>) -> Self {
        Self { tree, left: AtomicUsize::new(0) }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.left.fetch_add(0, Ordering::Acquire);
    }
}

/// A view that a reader holds.
struct Held(Arc<View>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.left.fetch_add(1, Ordering::Release);
    }
}

struct Family {
    views: ArcCell<View>,
    pages: [UnsafeCell<usize>; 2],
    let_go: LetGo,
}

// SAFETY: the model checker watches over the access to `pages`.
unsafe impl Sync for Family {}

impl Family {
    /// Version 0 stands in page 0.
    fn new() -> (Arc<Self>, Counted<Tree>) {
        let let_go = LetGo::default();
        let tree = Counted::new(Tree { page: 0, let_go: Arc::clone(&let_go) });
        let views = ArcCell::new(Arc::new(View::new(Counted::clone(&tree))));
        (Arc::new(Self { views, pages: [UnsafeCell::new(0), UnsafeCell::new(0)], let_go }), tree)
    }

    fn tree(&self, page: usize) -> Counted<Tree> {
        Counted::new(Tree { page, let_go: Arc::clone(&self.let_go) })
    }

    fn write(&self, page: usize, version: usize) {
        // SAFETY: as above.
        self.pages[page].with_mut(|at| unsafe { *at = version });
    }

    fn read(&self, tree: &Tree) -> usize {
        // SAFETY: as above.
        self.pages[tree.page].with(|at| unsafe { *at })
    }

    /// Reads through a snapshot, twice: it stays what it was.
    fn snapshot(&self) {
        let held = Held(self.views.load_full());
        let first = self.read(&held.0.tree);
        assert_eq!(self.read(&held.0.tree), first);
    }

    /// Reads as a look-up does: under a guard, without counting.
    fn get(&self) {
        let guard = epoch::pin();
        let view = self.views.load(&guard);
        let first = self.read(&view.tree);
        assert_eq!(self.read(&view.tree), first);
    }

    /// Merges twice: the second merge takes the page of the first tree if it is free.
    fn merge(&self, old: Counted<Tree>) {
        self.write(1, 1);
        let current = self.tree(1);
        self.install(&current);
        drop(old);
        if !self.let_go.lock().contains(&0) {
            return;
        }
        self.write(0, 2);
        self.install(&self.tree(0));
    }

    fn install(&self, tree: &Counted<Tree>) {
        self.views.update(|_| (View::new(Counted::clone(tree)), ()));
    }
}

fn explore(reader: fn(&Family)) {
    loom::model(move || {
        let (family, old) = Family::new();
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let family = Arc::clone(&family);
                thread::spawn(move || reader(&family))
            })
            .collect();
        family.merge(old);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn loom_a_page_is_reused_only_when_no_snapshot_reaches_it() {
    explore(Family::snapshot);
}

#[test]
fn loom_a_page_is_reused_only_when_no_look_up_reaches_it() {
    explore(Family::get);
}

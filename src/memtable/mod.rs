//! Recent writes of one column family, in memory: a sorted, multi-version map and range deletions.
//!
//! Start reading at `table` ([`Memtable`], [`MemtableWriter`]), then `tree`, `leaf` and `branch`; `cursor`
//! walks the tree, past what is `dead`, `operands` are versions that want to be folded, `changed` says what
//! was written after a commit, `ranges` holds the range deletions, `filter` keeps reads of absent keys away
//! from the tree, `entry` and `arena` are the memory that all of it lies in. `unsafe` stands in `arena`,
//! `entry`, `node`, `leaf`, `branch`, `ranges` (links between versions) and `cursor` (a self-reference),
//! behind safe functions.
//!
//! One writer, which the family's write lock makes the only one; any number of readers, which take no lock,
//! never wait and never repeat a step because of the writer. The structure is a B+tree of nodes that are
//! replaced, not moved:
//!
//! ```text
//!   root ──► branch: heads of separators, children          built once; a child may be swapped for one of the same range
//!              │ └──────────► ...
//!              ▼
//!            leaf: order │ heads │ entries                  slots filled once; one word says how they are sorted
//!                              │
//!                              ▼
//!                            entry, newest ──► older ──► …  never changed
//! ```
//!
//! # Invariants
//!
//! *Published* means stored where readers find it with one `Release` store; every load of such a place is an
//! `Acquire`.
//!
//! 1. Memory is written before it is published, and is freed only with the memtable, as a whole. So whatever
//!    a reader reaches is initialised and stays.
//! 2. An entry never changes. A slot's chain only grows at its newest end, and its sequence numbers do not
//!    fall towards that end. What an entry and its milestone point to are older entries of its chain.
//! 3. A leaf's slots are filled in turn, each once, before an order that names it is published. An order
//!    names all slots that older orders named.
//! 4. Every node has a *range* of keys, `[low, high)`. The ranges of a branch's children divide its own. A
//!    branch's separators never change, and a child is only ever swapped for one of the same range. The range
//!    of a node that is part of the tree can shrink in one case: a full leaf whose upper neighbour is split
//!    off for a key above all of its keys stays in the tree as it is, and so do full branches above it that
//!    it is the last child of.
//! 5. A change of structure (a split, and all splits above that it causes) builds all its nodes aside and is
//!    published by one store, into the root or a branch that stays. Before it readers see the old nodes,
//!    after it the new ones.
//! 6. A node that was replaced is never changed again, but for the writer's notes, and holds all that its
//!    subtree held when it was replaced.
//! 7. Keys of a node share its prefix: what both bounds of its range begin with. Heads are the eight bytes
//!    behind it.
//! 8. Every version of the range deletions is a tree that never changes. Its last boundary covers nothing,
//!    and before every boundary that covers nothing stands one that covers something.
//! 9. Nodes below which every key is deleted are marked, which lets walks pass them: see `dead`.
//!
//! # Why a reader finds every commit that was visible when it began
//!
//! Let the writer have done everything up to some point P of its program before the reader's first load
//! (commits become visible after their inserts, so P lies behind the last insert that is visible). Loads of
//! one place do not go back, so the reader finds in every place what stood there at P or later. Claim: each
//! node that it visits was part of the tree at P or at some point after it. The root is such a node. Let a
//! branch be one; if it still was part of the tree at P, its children's places hold what was stored last
//! before P, or later: a child that is part of the tree at P or after, since a child is swapped in the moment
//! it is replaced. If the branch was made after P, its children were part of the tree when it was made, or
//! made with it. So the claim holds further down. A node that is part of the tree at P or later holds, by 4
//! to 6, every key of its range that was published up to P, whether it was replaced since or not; a range
//! that shrank since (4) lost no key that stood in it. Which range the reader takes it to have is that of the
//! branch by which it came, and those separators cover the reader's key. So the descent ends at a leaf that
//! holds the key if it was published by P, and its order, loaded then, names it.
//!
//! A cursor repeats the argument for each leaf: it remembers the branch above its leaf, whose children divide
//! one range without gap or overlap and are found as of P or later, and goes on from that branch's bound by a
//! new descent. Separators never leave the tree, so the new descent begins just where the old range ended.
//! Turning is the same walk the other way. What was inserted after P may be met or not; its sequence numbers
//! lie above the cursor's, and the chain walk skips them.
//!
//! # Decisions
//!
//! - *No links between leaves.* A link would have to be right at every moment between the stores of a split,
//!   for readers that stand on either side of it. The branch above has the same information, swapped at once.
//! - *Branches are copied, not changed in place.* To insert a separator into a branch and then to swap the
//!   lower child takes two stores. A reader that chose the child before the first and loads it after the
//!   second lands in a node that has lost the upper half of its range, and would need bounds and links to
//!   find out and go on. A copy of the branch is a few hundred bytes for each split of a leaf, and its
//!   separators can be dense and sorted.
//! - *Nodes that were replaced stay until the memtable goes.* Giving them back sooner would tie every read to
//!   an epoch.
//! - *Full leaves at the end of ascending keys stay full*, wherever in the tree they are, so that streams of
//!   ascending keys take no more room than they need. A leaf is left full in this way once, then it is split
//!   in halves: otherwise keys that descend towards it would get a leaf each.

mod arena;
mod branch;
mod changed;
#[cfg(all(test, not(loom)))]
mod concurrency_tests;
mod cursor;
mod dead;
#[cfg(all(test, not(loom)))]
mod dead_tests;
mod entry;
mod estimate;
mod filter;
mod leaf;
#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod model_tests;
mod node;
mod opened;
mod operands;
mod ranges;
mod table;
pub(crate) mod touched;
mod tree;

pub(crate) use cursor::MemtableCursor;
pub(crate) use filter::Filter;
pub(crate) use table::{BEFORE_ITS_NUMBER, Found, Memtable, MemtableWriter, Prepared};

//! Verifies a tree from the disk up: every invariant of the layout and of the tree, every node and value run.
//!
//! A fault does not end the walk: what is below a node that cannot be read is left out, and everything else
//! is still looked at. The walk may be of some keys alone, and go on later, in another version of the tree.
//! What every node is held to:
//!
//! 1. its checksum, and the identity, kind, level and length that its place and its pointer ask for; not
//!    newer than the tree;
//! 2. nothing else reaches its pages; it takes no more of them than it needs; what it does not use is zero;
//! 3. its keys ascend, within its fences; each head is that of its key; the prefix is all that the keys
//!    share;
//! 4. entries are as long as they say, keys and values no longer than a leaf may hold, value runs as long as
//!    the value;
//! 5. the count and the flag that an inner node holds for a child are true.

use super::locate::locate;
use super::node::{Fault, LeafValue, Node};
use super::records::ValuePointer;
use super::tree::Tree;
use crate::codec::expiry::STAMP_LEN;
use crate::codec::{key, operands};
use crate::error::Error;
use crate::page::{HEADER_LEN, PagePointer};
use crate::segment::{PageSet, PartitionedStorageBackend};

#[derive(Debug, Clone, Copy)]
pub(crate) struct CheckOptions {
    /// Faults that are listed; more are only counted.
    pub(crate) max_faults: usize,
    /// Whether entries may say that their key is deleted.
    pub(crate) deletions: bool,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self { max_faults: 1000, deletions: false }
    }
}

/// What a check of a tree found.
#[derive(Debug, Default)]
pub(crate) struct CheckReport {
    /// The first faults, each with its place.
    pub(crate) faults: Vec<Error>,
    pub(crate) faults_total: u64,
    /// Pages that the tree reaches.
    pub(crate) pages: PageSet,
    pub(crate) entries: u64,
    pub(crate) leaves: u64,
    pub(crate) inner_nodes: u64,
    pub(crate) value_runs: u64,
    /// Bytes that leaves use, and bytes of their pages.
    pub(crate) leaf_bytes_used: u64,
    pub(crate) leaf_bytes_total: u64,
    pub(crate) inner_bytes_used: u64,
    pub(crate) inner_bytes_total: u64,
    /// Bytes of values in runs, and bytes of the pages of the runs.
    pub(crate) value_bytes_used: u64,
    pub(crate) value_bytes_total: u64,
    /// Nodes that were read, and belong to an earlier part of the walk as well.
    again: PageSet,
    /// Leaves that were read, those that belong to an earlier part as well included.
    leaves_read: u64,
    /// Where the walk goes on.
    next: Option<Vec<u8>>,
}

/// A part of a walk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part<'k> {
    /// Where it begins: all of the tree below was looked at.
    pub(crate) from: &'k [u8],
    /// Pages after which it ends, behind a leaf.
    pub(crate) most_pages: u64,
}

impl Tree {
    /// Reads the whole tree from disk and holds it against its invariants.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn check(&self, store: &PartitionedStorageBackend, options: &CheckOptions) -> CheckReport {
        self.check_part(store, options, Part { from: &[], most_pages: u64::MAX }).0
    }

    /// Reads a part of the tree from disk and holds it against its invariants. Nodes and entries are counted
    /// in the part in which they begin. Gives where the next part begins, if there is one: that of another
    /// version of the tree may, too.
    pub(crate) fn check_part(
        &self,
        store: &PartitionedStorageBackend,
        options: &CheckOptions,
        part: Part<'_>,
    ) -> (CheckReport, Option<Vec<u8>>) {
        let mut checker =
            Checker { tree: self, store, options, part, report: CheckReport::default(), spare: Vec::new() };
        match self.top(store) {
            Err(error) => checker.report(error),
            Ok(None) => {
                if self.entries > 0 || self.owns_values {
                    checker.report(
                        Error::corruption("an empty tree claims entries").of_family(store.family().0),
                    );
                }
            }
            Ok(Some((root, level))) => {
                let claim = Claim { entries: self.entries, owns_values: self.owns_values };
                checker.check_child(root, level, &[], None, claim);
            }
        }
        // What a forged tree says may lead back.
        let next = checker.report.next.take().filter(|next| key::compare(next, part.from).is_gt());
        (checker.report, next)
    }
}

/// What is said, or true, of a subtree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Claim {
    entries: u64,
    owns_values: bool,
}

struct Checker<'a> {
    tree: &'a Tree,
    store: &'a PartitionedStorageBackend,
    options: &'a CheckOptions,
    part: Part<'a>,
    report: CheckReport,
    /// Buffers for pages, to be used again.
    spare: Vec<Vec<u8>>,
}

impl Checker<'_> {
    fn report(&mut self, error: Error) {
        self.report.faults_total += 1;
        if self.report.faults.len() < self.options.max_faults {
            self.report.faults.push(error);
        }
    }

    fn fault(&mut self, pointer: PagePointer, fault: Fault) {
        self.report(locate(self.store, pointer, fault));
    }

    fn expect(&mut self, pointer: PagePointer, holds: bool, otherwise: &'static str) {
        if !holds {
            self.fault(pointer, Fault(otherwise));
        }
    }

    /// Checks a subtree, and what is claimed of it.
    fn check_child(
        &mut self,
        pointer: PagePointer,
        level: u8,
        low: &[u8],
        high: Option<&[u8]>,
        claim: Claim,
    ) {
        let from = self.part.from;
        // Of the first part nothing lies below.
        if !from.is_empty() && high.is_some_and(|high| key::compare(high, from).is_le()) {
            return;
        }
        let again = key::compare(low, from).is_lt();
        self.report.leaves_read += u64::from(level == 0);
        let Some(bytes) = self.read(pointer, again) else { return };
        let truth = match Node::open(&bytes, level) {
            Ok(node) => {
                self.count(&bytes, &node, level, again);
                self.check_node(pointer, &bytes, node, level, low, high)
            }
            Err(fault) => {
                self.fault(pointer, fault);
                None
            }
        };
        if let Some(truth) = truth {
            self.expect(
                pointer,
                truth.entries == claim.entries,
                "a node has not as many entries as its pointer says",
            );
            let same = truth.owns_values == claim.owns_values;
            self.expect(pointer, same, "a node's pointer is wrong on whether it owns value runs");
        }
        self.spare.push(bytes);
    }

    /// Reads a node or value run from disk, unless some of its pages were met before.
    fn read(&mut self, pointer: PagePointer, again: bool) -> Option<Vec<u8>> {
        const TWICE: Fault = Fault("a page is reached twice");
        if self.report.pages.contains(pointer.page) || self.report.again.contains(pointer.page) {
            self.fault(pointer, TWICE);
            return None;
        }
        let mut bytes = self.spare.pop().unwrap_or_default();
        if let Err(error) = self.store.read_uncached(pointer, &mut bytes) {
            self.report(error);
            return None;
        }
        // That the run was read says that it ends within the page numbers: only an overlap is refused.
        let pages = if again { &mut self.report.again } else { &mut self.report.pages };
        if !pages.insert_run(pointer.page, pointer.pages) {
            self.fault(pointer, TWICE);
            return None;
        }
        Some(bytes)
    }

    /// Checks a node and what is below it. `None` if not all of that could be read.
    fn check_node(
        &mut self,
        pointer: PagePointer,
        bytes: &[u8],
        node: Node<'_>,
        level: u8,
        low: &[u8],
        high: Option<&[u8]>,
    ) -> Option<Claim> {
        self.check_extent(pointer, bytes, &node);
        let readable = self.check_keys(pointer, &node, low, high);
        if level == 0 {
            let again = key::compare(low, self.part.from).is_lt();
            let owns_values = self.check_values(pointer, &node, again)?;
            return Some(Claim { entries: node.count() as u64, owns_values });
        }
        if !readable {
            return None;
        }
        self.check_children(pointer, &node, level, low, high)
    }

    /// Counts a node, unless an earlier part did.
    fn count(&mut self, bytes: &[u8], node: &Node<'_>, level: u8, again: bool) {
        if again {
            return;
        }
        let (used, total) = (node.offset(node.count()) as u64, bytes.len() as u64);
        if level == 0 {
            self.report.leaves += 1;
            self.report.entries += node.count() as u64;
            self.report.leaf_bytes_used += used;
            self.report.leaf_bytes_total += total;
        } else {
            self.report.inner_nodes += 1;
            self.report.inner_bytes_used += used;
            self.report.inner_bytes_total += total;
        }
    }

    /// Whether the part has all that it may have.
    fn is_over(&self) -> bool {
        let read = self.report.pages.len() + self.report.again.len();
        self.report.leaves_read > 0 && read >= self.part.most_pages
    }

    /// The length of a node, its pages, and the bytes that it does not use.
    fn check_extent(&mut self, pointer: PagePointer, bytes: &[u8], node: &Node<'_>) {
        let end = node.offset(node.count());
        self.expect(pointer, end == node.declared_len(), "a node does not end where its last entry does");
        self.expect(
            pointer,
            node.offset(0) == node.entries_at(),
            "the entries of a node do not begin after its prefix",
        );
        let page_size = self.store.page_size();
        self.expect(
            pointer,
            end.div_ceil(page_size) * page_size == bytes.len(),
            "a node has more pages than it needs",
        );
        let unused = bytes.get(end..).unwrap_or_default();
        let zero = unused.iter().all(|&byte| byte == 0);
        self.expect(pointer, zero, "bytes that a node does not use are not zero");
        let generation = node.generation();
        self.expect(pointer, generation <= self.tree.generation, "a node is newer than its tree");
    }

    /// The keys or separators of a node. `false` if they cannot be read.
    fn check_keys(&mut self, pointer: PagePointer, node: &Node<'_>, low: &[u8], high: Option<&[u8]>) -> bool {
        let (mut last, mut key) = (Vec::new(), Vec::new());
        for i in 0..node.count() {
            if let Err(fault) = node.key(i, &mut key) {
                self.fault(pointer, fault);
                return false;
            }
            let ascends =
                if i == 0 { key::compare(low, &key).is_le() } else { key::compare(&last, &key).is_lt() };
            self.expect(pointer, ascends, "a key is not above the one before it, or below the lower fence");
            let head = key::head4(&key[node.prefix().len()..]);
            self.expect(
                pointer,
                u32::from_le_bytes(node.heads()[i]) == head,
                "a head is not that of its key",
            );
            self.expect(pointer, key.len() <= key::MAX_KEY_LEN, "a key is longer than a key can be");
            std::mem::swap(&mut last, &mut key);
        }
        let below = high.is_none_or(|high| key::compare(&last, high).is_lt());
        self.expect(pointer, below, "a key is not below the upper fence");
        if node.key(0, &mut key).is_ok() {
            let shared = if node.count() == 1 { key.len() } else { key::common_prefix(&key, &last) };
            self.expect(pointer, shared == node.prefix().len(), "the prefix is not what the keys share");
        }
        true
    }

    /// The values of a leaf: whether any of them stands in a run. `None` if not all entries can be read.
    fn check_values(&mut self, pointer: PagePointer, node: &Node<'_>, again: bool) -> Option<bool> {
        let quarter = self.store.page_size() / 4;
        let mut owns_values = false;
        for i in 0..node.count() {
            match node.entry(i) {
                Ok(entry) => match entry.value {
                    LeafValue::Inline(range) => {
                        let fits = range.len() <= 3 * self.store.page_size();
                        self.expect(pointer, fits, "a value is too long for a leaf");
                    }
                    LeafValue::Run(value) => {
                        owns_values = true;
                        self.expect(pointer, value.len as usize > quarter, "a value is too short for a run");
                        self.check_value(value, again);
                    }
                    LeafValue::Expiring(range) => {
                        let fits = range.len() <= STAMP_LEN + 3 * self.store.page_size();
                        self.expect(pointer, fits, "a value is too long for a leaf");
                    }
                    LeafValue::Deletion => {
                        let expected = self.options.deletions;
                        self.expect(pointer, expected, "a deletion stands in a tree that has none older");
                    }
                    LeafValue::Operands(range) => {
                        let base = operands::base(node.bytes(range));
                        self.expect(pointer, base.is_some(), "the operands of a key make no sense");
                        let is_open = base.is_some_and(|base| base.is_older());
                        let expected = self.options.deletions || !is_open;
                        self.expect(pointer, expected, "operands are to be folded onto what no tree has");
                    }
                },
                Err(fault) => {
                    self.fault(pointer, fault);
                    return None;
                }
            }
        }
        Some(owns_values)
    }

    fn check_value(&mut self, value: ValuePointer, again: bool) {
        let Some(bytes) = self.read(value.run, again) else { return };
        if !again {
            self.report.value_runs += 1;
            self.report.value_bytes_used += u64::from(value.len);
            self.report.value_bytes_total += bytes.len() as u64;
        }
        let end = HEADER_LEN as u64 + u64::from(value.len);
        let pages = end.div_ceil(self.store.page_size() as u64);
        self.expect(value.run, pages == u64::from(value.run.pages), "a value is not as long as its run");
        let fault = super::node::check_value_run(&bytes, value.len);
        if let Err(fault) = fault {
            self.fault(value.run, fault);
        }
        self.spare.push(bytes);
    }

    /// The subtrees of an inner node.
    fn check_children(
        &mut self,
        pointer: PagePointer,
        node: &Node<'_>,
        level: u8,
        low: &[u8],
        high: Option<&[u8]>,
    ) -> Option<Claim> {
        let (mut child_low, mut child_high) = (low.to_vec(), Vec::new());
        let mut sum = Claim { entries: 0, owns_values: false };
        for i in 0..node.count() {
            let is_last = i + 1 == node.count();
            if !is_last && let Err(fault) = node.key(i + 1, &mut child_high) {
                self.fault(pointer, fault);
                return None;
            }
            let upper = if is_last { high } else { Some(&child_high[..]) };
            let child = match node.child(i) {
                Ok(child) => child,
                Err(fault) => {
                    self.fault(pointer, fault);
                    return None;
                }
            };
            // Not before the first child: what begins with it was read, and would be taken for the next
            // part's.
            if i > 0 && self.is_over() {
                self.report.next.get_or_insert_with(|| child_low.clone());
                return None;
            }
            let claim = Claim { entries: child.entries, owns_values: child.owns_values };
            self.check_child(child.pointer, level - 1, &child_low, upper, claim);
            sum.entries = sum.entries.saturating_add(child.entries);
            sum.owns_values |= child.owns_values;
            std::mem::swap(&mut child_low, &mut child_high);
        }
        Some(sum)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::testing::Harness;
    use super::*;

    #[test]
    fn what_an_earlier_part_counted_is_not_counted_again() {
        let mut harness = Harness::new(4096);
        // Leaves of values of their own, of several pages, and such with value runs.
        let len = |n: u32| {
            if n < 100 {
                30
            } else if n < 200 {
                2500
            } else {
                20_000
            }
        };
        harness.put((0..300u32).map(|n| (n.to_be_bytes(), vec![n as u8; len(n)])));
        let options = CheckOptions::default();
        let counts = |report: &CheckReport| {
            [
                report.entries,
                report.leaves,
                report.value_runs,
                report.leaf_bytes_used,
                report.leaf_bytes_total,
                report.value_bytes_used,
                report.value_bytes_total,
            ]
        };
        let whole = harness.tree.check(&harness.store, &options);
        assert!(whole.faults.is_empty(), "{:?}", whole.faults);
        assert_eq!(whole.value_runs, 100);
        // An end that another version of the tree gave lies anywhere in a leaf.
        for end in [1u32, 50, 101, 102, 150, 201, 250, 299] {
            let end = end.to_be_bytes();
            let behind = Part { from: &end, most_pages: u64::MAX };
            let (behind, next) = harness.tree.check_part(&harness.store, &options, behind);
            assert!(behind.faults.is_empty() && next.is_none());
            let again = behind.leaves_read - behind.leaves;
            assert!(again <= 1, "{again} leaves were read again");
            let before = harness.model.range(..end.to_vec()).count() as u64;
            let in_both = whole.entries - behind.entries - before;
            assert!(in_both < 130, "{in_both} entries of a leaf");
            let run_bytes: usize = harness
                .model
                .values()
                .skip((before + in_both) as usize)
                .map(Vec::len)
                .filter(|&len| len > 12_288)
                .sum();
            assert_eq!(behind.value_bytes_used, run_bytes as u64);
            assert_eq!(behind.value_bytes_total, behind.value_runs * 5 * 4096);
            assert!(counts(&behind).iter().zip(counts(&whole)).all(|(&part, whole)| part <= whole));
        }
    }
}

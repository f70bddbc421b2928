//! An array that shares what did not change with the array that it was made from.
//!
//! ```text
//! Slots ── Branch ─┬─ Leaf: elements 0..32
//!                  ├─ Leaf: elements 32..64, some of them missing
//!                  └─ ...
//! ```
//!
//! Invariants:
//! 1. Every leaf is at the same depth; the children of a branch of height h cover 32^h elements each.
//! 2. No node below the root is empty, and no node ends with a missing child.
//! 3. A node that two arrays share never changes: a change copies the nodes on the way to the element that
//!    others share.
//!
//! The rejected alternative, one list of all elements, costs a copy of the whole list for each change.

use crate::sync::Arc;

/// Slots of a node, as a power of two.
const BITS: u32 = 5;
const FANOUT: usize = 1 << BITS;

/// An array of elements of which some are missing, by slot.
pub(crate) struct Slots<T> {
    root: Node<T>,
    /// Branches above each leaf.
    height: u32,
}

enum Node<T> {
    Leaf(Vec<Option<Arc<T>>>),
    Branch(Vec<Option<Arc<Node<T>>>>),
}

impl<T> Clone for Node<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Leaf(elements) => Self::Leaf(elements.clone()),
            Self::Branch(children) => Self::Branch(children.clone()),
        }
    }
}

impl<T> Clone for Slots<T> {
    fn clone(&self) -> Self {
        Self { root: self.root.clone(), height: self.height }
    }
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { root: Node::Leaf(Vec::new()), height: 0 }
    }
}

/// The position in a node of height `height` that leads to `slot`.
#[inline]
fn position(slot: usize, height: u32) -> usize {
    slot.checked_shr(height * BITS).unwrap_or(0) % FANOUT
}

/// Puts `element` at `at`; a vector has no missing elements at its end.
fn put<E>(elements: &mut Vec<Option<E>>, at: usize, element: Option<E>) {
    if elements.len() <= at {
        if element.is_none() {
            return;
        }
        elements.resize_with(at + 1, || None);
    }
    elements[at] = element;
    while elements.last().is_some_and(Option::is_none) {
        elements.pop();
    }
}

impl<T> Slots<T> {
    /// The element in `slot`.
    #[inline]
    pub(crate) fn get(&self, slot: usize) -> Option<&Arc<T>> {
        let mut height = self.height;
        if !self.covers(slot) {
            return None;
        }
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(elements) => return elements.get(slot % FANOUT)?.as_ref(),
                Node::Branch(children) => {
                    node = children.get(position(slot, height))?.as_deref()?;
                    height -= 1;
                }
            }
        }
    }

    #[inline]
    fn covers(&self, slot: usize) -> bool {
        slot.checked_shr((self.height + 1) * BITS).unwrap_or(0) == 0
    }

    /// The elements, by slot.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        let mut path = vec![Children::of(&self.root)];
        std::iter::from_fn(move || {
            loop {
                match path.last_mut()? {
                    Children::Leaf(elements) => match elements.flatten().next() {
                        Some(element) => return Some(element),
                        None => path.truncate(path.len() - 1),
                    },
                    Children::Branch(children) => match children.flatten().next() {
                        Some(child) => path.push(Children::of(child)),
                        None => path.truncate(path.len() - 1),
                    },
                }
            }
        })
    }

    /// Puts `element` into `slot`, or takes what is there out. Copies what other arrays share of the way to
    /// the slot, and nothing else.
    pub(crate) fn set(&mut self, slot: usize, element: Option<Arc<T>>) {
        while !self.covers(slot) {
            if element.is_none() {
                return;
            }
            let root = std::mem::replace(&mut self.root, Node::Branch(Vec::new()));
            if !root.is_empty()
                && let Node::Branch(children) = &mut self.root
            {
                put(children, 0, Some(Arc::new(root)));
            }
            self.height += 1;
        }
        self.root.set(slot, element, self.height);
        if self.root.is_empty() {
            *self = Self::default();
        }
    }
}

impl<T> Node<T> {
    fn is_empty(&self) -> bool {
        match self {
            Self::Leaf(elements) => elements.is_empty(),
            Self::Branch(children) => children.is_empty(),
        }
    }

    fn set(&mut self, slot: usize, element: Option<Arc<T>>, height: u32) {
        match self {
            Self::Leaf(elements) => put(elements, slot % FANOUT, element),
            Self::Branch(children) => {
                let at = position(slot, height);
                let child = children.get_mut(at).and_then(Option::as_mut);
                let mut child = match child {
                    None if element.is_none() => return,
                    None if height == 1 => Self::Leaf(Vec::new()),
                    None => Self::Branch(Vec::new()),
                    Some(shared) => {
                        if let Some(own) = Arc::get_mut(shared) {
                            own.set(slot, element, height - 1);
                            if own.is_empty() {
                                put(children, at, None);
                            }
                            return;
                        }
                        Self::clone(shared)
                    }
                };
                child.set(slot, element, height - 1);
                let child = (!child.is_empty()).then(|| Arc::new(child));
                put(children, at, child);
            }
        }
    }
}

/// What is left to visit of a node.
enum Children<'a, T> {
    Leaf(std::slice::Iter<'a, Option<Arc<T>>>),
    Branch(std::slice::Iter<'a, Option<Arc<Node<T>>>>),
}

impl<'a, T> Children<'a, T> {
    fn of(node: &'a Node<T>) -> Self {
        match node {
            Node::Leaf(elements) => Self::Leaf(elements.iter()),
            Node::Branch(children) => Self::Branch(children.iter()),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    impl<T> Slots<T> {
        fn check(&self) {
            self.root.check(self.height, true);
        }

        /// Nodes that `self` does not share with `other`, and the places in them.
        fn own_nodes(&self, other: &Self) -> (usize, usize) {
            let mut shared = Vec::new();
            other.root.visit(&mut |node| shared.push(std::ptr::from_ref(node)));
            let mut own = (0, 0);
            self.root.visit(&mut |node| {
                if !shared.contains(&std::ptr::from_ref(node)) {
                    own = (own.0 + 1, own.1 + node.len());
                }
            });
            own
        }
    }

    impl<T> Node<T> {
        fn len(&self) -> usize {
            match self {
                Self::Leaf(elements) => elements.len(),
                Self::Branch(children) => children.len(),
            }
        }

        fn check(&self, height: u32, is_root: bool) {
            assert!(is_root || !self.is_empty(), "an empty node");
            assert!(self.len() <= FANOUT);
            match self {
                Self::Leaf(elements) => {
                    assert_eq!(height, 0, "a leaf at height {height}");
                    assert!(elements.last().is_none_or(Option::is_some));
                }
                Self::Branch(children) => {
                    assert!(children.last().is_none_or(Option::is_some));
                    children.iter().flatten().for_each(|child| child.check(height - 1, false));
                }
            }
        }

        fn visit(&self, visitor: &mut impl FnMut(&Self)) {
            visitor(self);
            if let Self::Branch(children) = self {
                children.iter().flatten().for_each(|child| child.visit(visitor));
            }
        }
    }

    proptest! {
        #![proptest_config(crate::sampling::config(128))]

        #[test]
        fn an_array_and_those_made_from_it_agree_with_maps(
            changes in prop::collection::vec((0usize..3000, prop::option::weighted(0.6, 0u32..100), any::<bool>()), 1..80)
        ) {
            let (mut slots, mut model) = (Slots::default(), BTreeMap::new());
            let mut held: Vec<(Slots<u32>, BTreeMap<usize, u32>)> = Vec::new();
            for (slot, element, hold) in changes {
                if hold {
                    held.push((slots.clone(), model.clone()));
                }
                slots.set(slot, element.map(Arc::new));
                match element {
                    Some(element) => model.insert(slot, element),
                    None => model.remove(&slot),
                };
                slots.check();
                prop_assert_eq!(slots.get(slot).map(|element| **element), element);
            }
            held.push((slots, model));
            for (slots, model) in &held {
                let elements: Vec<u32> = slots.iter().map(|element| **element).collect();
                prop_assert_eq!(elements, model.values().copied().collect::<Vec<_>>());
                for slot in (0..3100).step_by(7) {
                    prop_assert_eq!(slots.get(slot).map(|element| **element), model.get(&slot).copied());
                }
            }
        }
    }

    #[test]
    fn a_change_copies_one_way_whatever_the_number_of_elements() {
        let mut slots = Slots::default();
        (0..10_000).for_each(|slot| slots.set(slot, Some(Arc::new(slot))));
        let before = slots.clone();
        slots.set(5000, Some(Arc::new(0)));
        // The root, and a node at each height below it.
        assert_eq!(slots.own_nodes(&before), (3, 10 + 32 + 32));
        assert_eq!(before.get(5000).map(|element| **element), Some(5000));
    }

    #[test]
    fn a_slot_that_no_array_reaches_holds_nothing() {
        let mut slots = Slots::default();
        assert!(slots.get(usize::MAX).is_none());
        slots.set(usize::MAX, None);
        slots.set(0, Some(Arc::new(1)));
        assert!(slots.get(32).is_none() && slots.get(usize::MAX).is_none());
        slots.set(usize::MAX, Some(Arc::new(2)));
        slots.check();
        assert_eq!(slots.get(usize::MAX).map(|element| **element), Some(2));
        assert_eq!(slots.get(0).map(|element| **element), Some(1));
    }
}

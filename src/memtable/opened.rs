//! What a node is: a leaf or a branch.

use super::branch::BranchRef;
use super::leaf::Leaf;
use super::node::NodeRef;

/// A node of a tree whose lowest level are leaves.
pub(super) enum Node<'a> {
    Leaf(&'a Leaf),
    Branch(BranchRef<'a>),
}

impl<'a> NodeRef<'a> {
    /// What the node is, in a tree whose lowest level are leaves.
    #[inline]
    pub(super) fn open(self) -> Node<'a> {
        if self.header().level == 0 {
            // SAFETY: in such a tree nodes of level 0 are leaves, and the pointer covers the whole node.
            Node::Leaf(unsafe { self.as_ptr().cast::<Leaf>().as_ref() })
        } else {
            Node::Branch(BranchRef::new(self))
        }
    }
}

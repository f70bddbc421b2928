//! The numbers by which things are known, each a type of its own so that they cannot be mixed up.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $visibility:vis $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $visibility struct $name($visibility $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// Number of a column family. Never used twice in one database; 0 stands for the database itself.
    pub FamilyId(u32)
}
id! {
    /// Number of a page within its column family.
    pub(crate) PageId(u32)
}
id! {
    /// Position of a commit in the one total order of all commits. The first commit has number 1.
    pub SequenceNumber(u64)
}

/// Above every sequence number, log segment and checkpoint that is ever reached: a file that names a higher
/// one is damaged.
pub(crate) const BEYOND_COUNTING: u64 = 1 << 56;

impl SequenceNumber {
    /// Above every sequence number that a commit can get.
    pub const MAX: Self = Self(u64::MAX);

    /// The next position.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

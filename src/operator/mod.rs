//! Merge operators: what a program gives a family to fold operands with.
//!
//! Everything that is called of one is the program's, and a guest: it may panic or fail, and what it says is
//! not believed beyond the one value. It is called while no lock of the database is held but, in the
//! background, the one by which one merge of the family runs at a time.
//!
//! [`MergeOperator`] is the trait, [`associative`] makes one of a closure, [`ready`] has those that most
//! programs want, [`named`] is what a family keeps of one. [`filter`] is what drops and changes entries.

pub(crate) mod associative;
pub(crate) mod filter;
pub(crate) mod named;
pub mod ready;
pub(crate) mod sets;

use std::fmt;

/// What a merge operator gives: bytes, or why it cannot.
pub type MergeResult = std::result::Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>>;

/// Folds what was [merged](crate::ColumnFamily::merge) into a key into its value.
///
/// A family has one from the time when it is created, or later, by
/// [`FamilyOptions::merge_operator`](crate::FamilyOptions::merge_operator); its name is kept in the database.
/// There are ready-made ones in [`merge_operators`](crate::merge_operators), and
/// [`associative`](crate::merge_operators::associative) makes one of a closure.
///
/// Its answers must follow from what it is given alone: values are folded when they are read, and again when
/// memtables meet the tree, with as many operands at once as there are then.
///
/// It may be called by any thread, and by several at once. Called by a read, it is called by the thread that
/// reads; else by one that merges, which merges nothing else meanwhile: it must not write to the database,
/// nor flush or compact it. If it panics, that is an error like one that it gives: of the read that needed
/// the value, and of no other. Operands are kept until they could be folded.
///
/// ```
/// # fn main() -> peristyle::Result<()> {
/// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
/// use peristyle::{MergeOperands, MergeOperator, MergeResult};
///
/// /// Keeps the longest of what it is given.
/// struct Longest;
///
/// impl MergeOperator for Longest {
///     fn name(&self) -> &str {
///         "longest"
///     }
///
///     fn merge(&self, _: &[u8], existing: Option<&[u8]>, operands: MergeOperands<'_>) -> MergeResult {
///         let longest = existing.into_iter().chain(operands).max_by_key(|bytes| bytes.len());
///         Ok(longest.unwrap_or_default().to_vec())
///     }
/// }
///
/// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
/// let words = db.create_column_family("words", FamilyOptions::default().merge_operator(Longest))?;
/// words.merge("a", "apple")?;
/// words.merge("a", "apricot")?;
/// words.merge("a", "ash")?;
/// assert_eq!(words.get("a")?.unwrap(), "apricot");
/// # Ok(()) }
/// ```
pub trait MergeOperator: Send + Sync + 'static {
    /// Its name, of 1 to 255 bytes: what it does to values goes with the name. Asked once, when it is given
    /// to options.
    fn name(&self) -> &str;

    /// The value of `key` that follows from its value before, if it had one, and `operands`, the oldest
    /// first, of which there is one at least.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from giving a value. Who reads the key is told, with
    /// [`MergeFailed`](crate::ErrorKind::MergeFailed); the operands stay.
    fn merge(&self, key: &[u8], existing: Option<&[u8]>, operands: MergeOperands<'_>) -> MergeResult;

    /// One operand that does what `operands` do, two at least, the oldest first, one after the other,
    /// whatever the value is that they are merged into. `None` if there is none: they are kept one by one.
    ///
    /// Called where the value is not at hand, so that many operands take no more room than one.
    fn combine(&self, key: &[u8], operands: MergeOperands<'_>) -> Option<Vec<u8>> {
        let _ = (key, operands);
        None
    }
}

/// The operands of a key, the oldest first.
#[derive(Clone)]
pub struct MergeOperands<'a>(std::slice::Iter<'a, &'a [u8]>);

impl<'a> MergeOperands<'a> {
    pub(crate) fn new(operands: &'a [&'a [u8]]) -> Self {
        Self(operands.iter())
    }
}

impl fmt::Debug for MergeOperands<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MergeOperands").field("left", &self.0.len()).finish_non_exhaustive()
    }
}

impl<'a> Iterator for MergeOperands<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        self.0.next().copied()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl DoubleEndedIterator for MergeOperands<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        self.0.next_back().copied()
    }
}

impl ExactSizeIterator for MergeOperands<'_> {}

impl std::iter::FusedIterator for MergeOperands<'_> {}

//! An operator made of a closure.

use super::{MergeOperands, MergeOperator, MergeResult};

/// Why a closure cannot take an operand in.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// An operator that takes one operand after the other into what it has. Made by
/// [`associative`](crate::merge_operators::associative).
pub(crate) struct Associative<F> {
    pub(crate) name: String,
    pub(crate) take_in: F,
}

impl<F> Associative<F>
where
    F: Fn(&mut Vec<u8>, &[u8]) -> Result<(), Failure> + Send + Sync + 'static,
{
    /// The first of `parts`, with the others taken in.
    fn fold<'a>(&self, mut parts: impl Iterator<Item = &'a [u8]>) -> MergeResult {
        let mut folded = parts.next().unwrap_or_default().to_vec();
        for part in parts {
            (self.take_in)(&mut folded, part)?;
        }
        Ok(folded)
    }
}

impl<F> MergeOperator for Associative<F>
where
    F: Fn(&mut Vec<u8>, &[u8]) -> Result<(), Failure> + Send + Sync + 'static,
{
    fn name(&self) -> &str {
        &self.name
    }

    fn merge(&self, _: &[u8], existing: Option<&[u8]>, operands: MergeOperands<'_>) -> MergeResult {
        self.fold(existing.into_iter().chain(operands))
    }

    fn combine(&self, _: &[u8], operands: MergeOperands<'_>) -> Option<Vec<u8>> {
        self.fold(operands).ok()
    }
}

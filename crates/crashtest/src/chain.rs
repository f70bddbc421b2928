//! The merge operator of all families under test.

use peristyle::{FamilyOptions, MergeOperands, MergeOperator, MergeResult};

use crate::digest;

/// Makes of a value and an operand one that tells every operand that was ever merged, and their order: what
/// the entry added to its family's sum before, and the operand. An operand that is lost, or counts twice,
/// shows in every later value.
#[derive(Debug, Clone, Copy)]
pub struct Chain;

/// The value that follows from what the entry added to the sum, if it was there, and an operand.
pub fn merged(sum: Option<u128>, operand: &[u8]) -> Vec<u8> {
    let mut value = sum.map_or_else(Vec::new, |sum| sum.to_le_bytes().to_vec());
    value.extend_from_slice(operand);
    value
}

impl MergeOperator for Chain {
    fn name(&self) -> &str {
        "chain"
    }

    fn merge(&self, key: &[u8], existing: Option<&[u8]>, operands: MergeOperands<'_>) -> MergeResult {
        let mut value = existing.map(<[u8]>::to_vec);
        for operand in operands {
            value = Some(merged(value.as_deref().map(|value| digest::entry(key, value)), operand));
        }
        Ok(value.unwrap_or_default())
    }
}

/// Options of a family under test.
pub fn family_options() -> FamilyOptions {
    FamilyOptions::default().merge_operator(Chain)
}

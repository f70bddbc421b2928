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

/// Before the operands that a combined one is made of. No operand of a workload begins with it.
const COMBINED: [u8; 16] = *b"operands combine";

/// Calls `each` with the operands that `operand` is made of, or with itself.
fn parts<'o>(operand: &'o [u8], each: &mut impl FnMut(&'o [u8])) {
    let Some(mut rest) = operand.strip_prefix(&COMBINED) else { return each(operand) };
    while let Some((len, behind)) = rest.split_first_chunk::<4>() {
        let (part, next) = behind.split_at(u32::from_le_bytes(*len) as usize);
        each(part);
        rest = next;
    }
}

impl MergeOperator for Chain {
    fn name(&self) -> &str {
        "chain"
    }

    fn merge(&self, key: &[u8], existing: Option<&[u8]>, operands: MergeOperands<'_>) -> MergeResult {
        let mut value = existing.map(<[u8]>::to_vec);
        let mut take_in = |operand: &[u8]| {
            value = Some(merged(value.as_deref().map(|value| digest::entry(key, value)), operand));
        };
        operands.for_each(|operand| parts(operand, &mut take_in));
        Ok(value.unwrap_or_default())
    }

    /// Of every other key, so that lists of operands, too, are under test.
    fn combine(&self, key: &[u8], operands: MergeOperands<'_>) -> Option<Vec<u8>> {
        if digest::entry(key, &[]).is_multiple_of(2) {
            return None;
        }
        let mut combined = COMBINED.to_vec();
        let mut take_in = |part: &[u8]| {
            combined.extend_from_slice(&(part.len() as u32).to_le_bytes());
            combined.extend_from_slice(part);
        };
        operands.for_each(|operand| parts(operand, &mut take_in));
        Some(combined)
    }
}

/// Options of a family under test.
pub fn family_options() -> FamilyOptions {
    FamilyOptions::default().merge_operator(Chain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use peristyle::{ColumnFamilyDatabase, MemoryStorage};

    #[test]
    fn combined_operands_do_what_they_did_one_by_one() {
        let builder = ColumnFamilyDatabase::builder().merge_cost(0).automatic_maintenance(false);
        let db = builder.storage(MemoryStorage::new()).open("memory").unwrap();
        let family = db.create_column_family("family", family_options()).unwrap();
        let mut expected = vec![None; 20];
        for round in 0..6u8 {
            for (number, value) in (0u8..).zip(&mut expected) {
                for part in 0..3 {
                    let operand = vec![round; usize::from(number + part)];
                    family.merge([number], &operand).unwrap();
                    let sum = value.as_deref().map(|value| digest::entry(&[number], value));
                    *value = Some(merged(sum, &operand));
                }
            }
            // A tree, then deltas, then all of them in one.
            db.flush().unwrap();
            for (number, value) in (0u8..).zip(&expected) {
                assert_eq!(family.get([number]).unwrap().as_deref(), value.as_deref());
            }
        }
        db.wait_until_idle().unwrap();
        for (number, value) in (0u8..).zip(&expected) {
            assert_eq!(family.get([number]).unwrap().as_deref(), value.as_deref());
        }
    }
}

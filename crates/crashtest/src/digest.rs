//! Contents of a database as sums: equal contents have equal sums, and a change of one entry changes the sum
//! by a difference.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::{xxh3_64, xxh3_128, xxh3_128_with_seed};

/// The most writers that a workload has. The first byte of a key says whose it is.
pub const WRITERS: usize = 4;

/// What an entry adds to the sum of its family.
pub fn entry(key: &[u8], value: &[u8]) -> u128 {
    xxh3_128_with_seed(key, xxh3_64(value))
}

/// What a family adds to a sum: its name, and the sum of its entries.
pub fn family(name: &str, entries: u128) -> u128 {
    let mut bytes = Vec::with_capacity(name.len() + 16);
    bytes.extend_from_slice(&entries.to_le_bytes());
    bytes.extend_from_slice(name.as_bytes());
    xxh3_128(&bytes)
}

/// The writer that the first byte of a key names.
pub fn writer_of(key: &[u8]) -> usize {
    usize::from(key.first().copied().unwrap_or(0)) % WRITERS
}

/// What was read of a database: of every family, the sum of each writer's entries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Sums {
    /// By name.
    pub families: BTreeMap<String, [u128; WRITERS]>,
}

impl Sums {
    /// What belongs to `writer` among the families that `counts` admits: its entries, and its families.
    pub fn of_writer(&self, writer: usize, counts: impl Fn(&str) -> bool) -> u128 {
        let families = self.families.iter().filter(|(name, _)| counts(name));
        families.fold(0u128, |sum, (name, sums)| sum.wrapping_add(part(name, writer, sums[writer])))
    }
}

/// What one family adds to the sum of `writer`. A family without entries of the writer counts only if it is
/// the writer's own.
pub fn part(name: &str, writer: usize, entries: u128) -> u128 {
    if entries == 0 && owner(name) != Some(writer) { 0 } else { family(name, entries) }
}

/// Whose a family is: those called `w0...` belong to writer 0. Other families are always there.
pub fn owner(name: &str) -> Option<usize> {
    let digit = name.strip_prefix('w')?.chars().next()?.to_digit(10)?;
    Some(digit as usize)
}

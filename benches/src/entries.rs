//! The entries that the workloads write and read.
//!
//! Keys and values are functions of a position, so they cost no memory and can be told again when an entry is
//! checked. Values are incompressible, and begin with the tag of their position: whoever reads a value knows
//! whose it is.

/// The finalizer of SplitMix64: a bijection whose results look random.
pub fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The random key of a position, `LEN` bytes, at least 8; no two positions have the same.
pub fn random_key<const LEN: usize>(position: u64) -> [u8; LEN] {
    let mut key = [0; LEN];
    let mut word = mix(position);
    for chunk in key.chunks_mut(8) {
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
        word = mix(!word);
    }
    key
}

/// Random bytes of which every value is a part.
pub struct Values {
    pool: Vec<u8>,
}

impl Default for Values {
    fn default() -> Self {
        Self::new()
    }
}

impl Values {
    /// 256 KiB, always the same: more than any compression looks back for, little enough to stay in a
    /// processor's cache, where an application has what it is about to write.
    pub fn new() -> Self {
        Self::of_stock(256 << 10)
    }

    /// As many random bytes as are asked for; no value is longer.
    pub fn of_stock(bytes: usize) -> Self {
        let mut pool = vec![0; bytes];
        fastrand::Rng::with_seed(1).fill(&mut pool);
        Self { pool }
    }

    /// The `len` bytes that belong to a position.
    pub fn value(&self, position: u64, len: usize) -> &[u8] {
        let offset = mix(!position) as usize % (self.pool.len() - len);
        &self.pool[offset..offset + len]
    }

    /// Puts a value of a position into `value`: its tag, then random bytes that also depend on the version.
    pub fn fill_tagged(&self, position: u64, version: u64, value: &mut [u8]) {
        let (tag, rest) = value.split_at_mut(TAG_BYTES);
        tag.copy_from_slice(&position.to_le_bytes());
        let len = rest.len();
        rest.copy_from_slice(self.value(position ^ version.rotate_left(32), len));
    }
}

/// Length of the tag at the beginning of a tagged value.
pub const TAG_BYTES: usize = 8;

/// Whether a value was made by [`Values::fill_tagged`] for a position.
pub fn has_tag(value: &[u8], position: u64) -> bool {
    value.first_chunk() == Some(&position.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn random_keys_are_distinct_and_the_same_each_time() {
        let distinct: BTreeSet<[u8; 24]> = (0..10_000).map(random_key).collect();
        assert_eq!(distinct.len(), 10_000);
        assert_eq!(random_key::<32>(77), random_key::<32>(77));
        assert_eq!(random_key::<32>(77)[..16], random_key::<16>(77));
    }

    #[test]
    fn a_tagged_value_tells_whose_it_is() {
        let values = Values::new();
        let (mut first, mut second) = ([0; 100], [0; 100]);
        values.fill_tagged(7, 0, &mut first);
        values.fill_tagged(7, 1, &mut second);
        assert_ne!(first, second);
        assert!(has_tag(&first, 7) && has_tag(&second, 7) && !has_tag(&first, 8) && !has_tag(&first[..4], 7));
    }
}

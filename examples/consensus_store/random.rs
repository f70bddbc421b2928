//! Numbers that look random and are the same in every run (SplitMix64, Steele, Lea and Flood, OOPSLA 2014).

/// Scrambles 64 bits; no two numbers give the same result.
pub(crate) fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A sequence of random numbers.
pub(crate) struct Random(u64);

impl Random {
    /// The sequence of `seed` that is used for `purpose`.
    pub(crate) fn new(seed: u64, purpose: u64) -> Self {
        Self(mix(mix(seed) ^ purpose))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Bytes that `seed` and `number` determine.
pub(crate) fn fill(bytes: &mut [u8], seed: u64, number: u64) {
    let mut random = Random::new(seed, number);
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
    }
}

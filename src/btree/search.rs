//! Search over key heads: a contiguous array of little-endian `u32`, in ascending order.

/// Below this many heads, comparing all of them beats branching: their loads do not wait for each other.
const COUNTED: usize = 16;

/// Number of leading heads that are below `head`, if the heads ascend. Some number up to `heads.len()` in any
/// case.
#[inline]
pub(super) fn lower_bound(heads: &[[u8; 4]], head: u32) -> usize {
    let mut start = 0;
    let mut len = heads.len();
    while len > COUNTED {
        let half = len / 2;
        // Compiles to a conditional move: the outcome of a comparison of random keys cannot be predicted.
        start += if u32::from_le_bytes(heads[start + half - 1]) < head { half } else { 0 };
        len -= half;
    }
    start
        + heads[start..start + len].iter().map(|h| usize::from(u32::from_le_bytes(*h) < head)).sum::<usize>()
}

/// Number of leading heads that are at or below `head`, under the same conditions.
#[inline]
pub(super) fn upper_bound(heads: &[[u8; 4]], head: u32) -> usize {
    match head.checked_add(1) {
        Some(above) => lower_bound(heads, above),
        None => heads.len(),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::sampling::config(256))]

        #[test]
        fn bounds_agree_with_a_partition(
            mut heads in prop::collection::vec(prop_oneof![any::<u32>(), 0..9u32, Just(u32::MAX)], 0..300),
            head in prop_oneof![any::<u32>(), 0..9u32, Just(u32::MAX)],
        ) {
            heads.sort_unstable();
            let bytes: Vec<_> = heads.iter().map(|h| h.to_le_bytes()).collect();
            prop_assert_eq!(lower_bound(&bytes, head), heads.partition_point(|&h| h < head));
            prop_assert_eq!(upper_bound(&bytes, head), heads.partition_point(|&h| h <= head));
        }

        #[test]
        fn disorder_stays_in_bounds(heads: Vec<[u8; 4]>, head: u32) {
            prop_assert!(lower_bound(&heads, head) <= heads.len());
            prop_assert!(upper_bound(&heads, head) <= heads.len());
        }
    }
}

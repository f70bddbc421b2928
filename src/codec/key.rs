//! The order of keys: the one seam through which keys are compared.
//!
//! Keys are ordered as byte strings. A *head* is the leading bytes of a key as a big-endian integer, padded
//! with zeros: integer order of heads agrees with key order, and only equal heads need the whole keys.

use std::cmp::Ordering;
use std::ops::Bound;

/// The longest key, in bytes.
pub(crate) const MAX_KEY_LEN: usize = 64 << 10;

/// A key above every key that a family can hold: the end of a range deletion that has no end.
pub(crate) static ABOVE_EVERY_KEY: [u8; MAX_KEY_LEN + 1] = [0xff; MAX_KEY_LEN + 1];

/// Orders two keys.
#[inline]
pub(crate) fn compare(a: &[u8], b: &[u8]) -> Ordering {
    a.cmp(b)
}

/// The first four bytes of `key` as an integer.
#[inline]
pub(crate) fn head4(key: &[u8]) -> u32 {
    if let Some(bytes) = key.first_chunk::<4>() {
        return u32::from_be_bytes(*bytes);
    }
    let mut bytes = [0; 4];
    bytes[..key.len()].copy_from_slice(key);
    u32::from_be_bytes(bytes)
}

/// The first eight bytes of `key` as an integer.
#[inline]
pub(crate) fn head8(key: &[u8]) -> u64 {
    if let Some(bytes) = key.first_chunk::<8>() {
        return u64::from_be_bytes(*bytes);
    }
    let mut bytes = [0; 8];
    bytes[..key.len()].copy_from_slice(key);
    u64::from_be_bytes(bytes)
}

/// Number of leading bytes that `a` and `b` share.
#[inline]
pub(crate) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

/// The smallest key above every key that starts with `prefix`; `None` if there is none.
pub(crate) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// The range of the keys that start with `prefix`.
pub(crate) fn prefix_bounds(prefix: &[u8]) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    (Bound::Included(prefix.to_vec()), prefix_end(prefix).map_or(Bound::Unbounded, Bound::Excluded))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::sampling::config(256))]

        #[test]
        fn heads_agree_with_key_order(a: Vec<u8>, b: Vec<u8>) {
            if head4(&a) != head4(&b) {
                prop_assert_eq!(head4(&a).cmp(&head4(&b)), compare(&a, &b));
            }
            if head8(&a) != head8(&b) {
                prop_assert_eq!(head8(&a).cmp(&head8(&b)), compare(&a, &b));
            }
        }

        #[test]
        fn a_prefix_ends_where_its_keys_end(prefix: Vec<u8>, tail: Vec<u8>) {
            let key = [&prefix[..], &tail].concat();
            if let Some(end) = prefix_end(&prefix) {
                prop_assert!(key < end);
                prop_assert!(prefix < end);
            } else {
                prop_assert!(prefix.iter().all(|&b| b == 0xff));
            }
        }
    }
}

//! The bytes of stored keys.
//!
//! | order | stored key |
//! |---|---|
//! | reverse | each byte `b` as `255 - b`, with a 0 behind it if that is 255; then 255 255 |
//! | integers | big-endian, of signed ones with the highest bit turned around |
//! | of a program | each byte of the sort key, with a 255 behind it if it is 0; then 0 0; then the key |
//!
//! No stored key begins with another one, but for those of a program that have the same sort key.

/// How keys are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Reverse,
    Integers(Integers),
    SortKey,
}

/// Integers of some length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Integers {
    bytes: u8,
    is_signed: bool,
    is_big_endian: bool,
}

/// Bytes of the integers that there are orders for.
const LENGTHS: [usize; 4] = [2, 4, 8, 16];

impl Form {
    pub(super) fn of_integers(bytes: usize, is_signed: bool, is_big_endian: bool) -> Self {
        Self::Integers(Integers { bytes: bytes as u8, is_signed, is_big_endian })
    }

    /// The name of the order, if it comes with the engine.
    pub(super) fn name(self) -> String {
        match self {
            Self::Reverse => "peristyle.reverse".to_owned(),
            Self::Integers(integers) => {
                let sign = if integers.is_signed { "i" } else { "u" };
                let end = if integers.is_big_endian { "be" } else { "le" };
                format!("peristyle.{sign}{}_{end}", 8 * integers.len())
            }
            Self::SortKey => String::new(),
        }
    }

    /// That of the order that comes with the engine under this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        let signs = [false, true].into_iter();
        let kinds = signs.flat_map(|sign| [(sign, false), (sign, true)]);
        let integers = kinds.flat_map(|(sign, end)| LENGTHS.map(|bytes| Self::of_integers(bytes, sign, end)));
        std::iter::once(Self::Reverse).chain(integers).find(|form| form.name() == name)
    }
}

impl Integers {
    pub(super) fn len(self) -> usize {
        usize::from(self.bytes)
    }

    /// Adds the stored key of `key`, which has the right length.
    pub(super) fn store(self, key: &[u8], stored: &mut Vec<u8>) {
        stored.extend_from_slice(key);
        if !self.is_big_endian {
            stored.reverse();
        }
        self.turn_sign(stored.first_mut());
    }

    pub(super) fn restore(self, stored: &[u8], key: &mut Vec<u8>) -> bool {
        key.extend_from_slice(stored);
        self.turn_sign(key.first_mut());
        if !self.is_big_endian {
            key.reverse();
        }
        stored.len() == self.len()
    }

    fn turn_sign(self, highest: Option<&mut u8>) {
        if let Some(highest) = highest
            && self.is_signed
        {
            *highest ^= 0x80;
        }
    }
}

/// Adds what the stored keys of all keys that begin with `key` begin with.
pub(super) fn store_reverse_beginning(key: &[u8], stored: &mut Vec<u8>) {
    stored.reserve(key.len() + 2);
    for &byte in key {
        stored.push(!byte);
        if byte == 0 {
            stored.push(0);
        }
    }
}

pub(super) fn store_reverse(key: &[u8], stored: &mut Vec<u8>) {
    store_reverse_beginning(key, stored);
    stored.extend_from_slice(&[0xff, 0xff]);
}

/// Adds the bytes of the key up to where `stored` ends, or makes no sense. Whether it is all of a key.
pub(super) fn restore_reverse(stored: &[u8], key: &mut Vec<u8>) -> bool {
    let mut bytes = stored.iter();
    loop {
        match bytes.next() {
            None => return false,
            Some(0xff) => match bytes.next() {
                Some(0) => key.push(0),
                Some(0xff) => return bytes.as_slice().is_empty(),
                _ => return false,
            },
            Some(&byte) => key.push(!byte),
        }
    }
}

/// Adds the stored key of a key with this sort key.
pub(super) fn store_beside(sort_key: &[u8], key: &[u8], stored: &mut Vec<u8>) {
    stored.reserve(sort_key.len() + 2 + key.len());
    for &byte in sort_key {
        stored.push(byte);
        if byte == 0 {
            stored.push(0xff);
        }
    }
    stored.extend_from_slice(&[0, 0]);
    stored.extend_from_slice(key);
}

/// The key in a stored key that begins with a sort key.
pub(super) fn beside(stored: &[u8]) -> Option<&[u8]> {
    let mut rest = stored;
    loop {
        let zero = rest.iter().position(|&byte| byte == 0)?;
        match rest.get(zero + 1)? {
            0 => return rest.get(zero + 2..),
            0xff => rest = rest.get(zero + 2..)?,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key_order::KeyOrder;

    /// Keys in which the bytes that are stored otherwise are frequent.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop_oneof![Just(0), Just(0xff), Just(1), Just(0xfe), any::<u8>()], 0..6)
    }

    fn by_length() -> KeyOrder {
        KeyOrder::new("by length", |key, sort_key| {
            // With zeros in it, and behind it.
            sort_key.extend((key.len() as u16).to_be_bytes());
            sort_key.extend(key.iter().take(1).map(|first| first & 1));
            Ok(())
        })
    }

    fn comes_back(order: &KeyOrder, key: &[u8]) -> bool {
        let mut restored = vec![7];
        order.restore(&order.stored(key).unwrap(), &mut restored) && restored == key
    }

    proptest! {
        #![proptest_config(crate::sampling::config(512))]

        #[test]
        fn stored_keys_sort_as_the_order_says_and_come_back(a in key(), b in key()) {
            let reverse = KeyOrder::reverse();
            prop_assert_eq!(reverse.compare(&a, &b).unwrap(), b.cmp(&a));
            let sort_key = |key: &[u8]| (key.len(), key.first().map(|first| first & 1));
            let own = by_length();
            prop_assert_eq!(own.compare(&a, &b).unwrap(), (sort_key(&a), &a).cmp(&(sort_key(&b), &b)));
            for order in [reverse, own] {
                prop_assert!(comes_back(&order, &a));
            }
        }

        #[test]
        fn integers_sort_as_numbers(a: i128, b: i128, small in -3i128..3, shift in 0u32..128) {
            for (a, b) in [(a >> shift, b >> shift), (a, small), (small, small - 1), (small, -small)] {
                macro_rules! check {
                    ($($integer:ident $order:ident)*) => {$(
                        let (x, y, order) = (a as $integer, b as $integer, KeyOrder::$order());
                        let compared = order.compare(&x.to_ne_bytes(), &y.to_ne_bytes()).unwrap();
                        prop_assert_eq!(compared, x.cmp(&y));
                        prop_assert!(comes_back(&order, &x.to_ne_bytes()));
                        let other = Form::of_integers(size_of::<$integer>(), $integer::MIN != 0, cfg!(target_endian = "little"));
                        let other = KeyOrder::ready(other);
                        let turned = |n: $integer| n.swap_bytes().to_ne_bytes();
                        prop_assert_eq!(other.compare(&turned(x), &turned(y)).unwrap(), x.cmp(&y));
                    )*};
                }
                check!(u16 native_u16 u32 native_u32 u64 native_u64 u128 native_u128);
                check!(i16 native_i16 i32 native_i32 i64 native_i64 i128 native_i128);
            }
        }

        #[test]
        fn a_prefix_of_keys_in_reverse_is_one_of_stored_keys(prefix in key(), other in key(), tail in key()) {
            let order = KeyOrder::reverse();
            let stored = order.stored_prefix(&prefix).unwrap();
            let begins = |key: &[u8]| order.stored(key).unwrap().starts_with(&stored);
            prop_assert!(begins(&[&prefix[..], &tail].concat()));
            prop_assert_eq!(begins(&other), other.starts_with(&prefix));
            prop_assert_eq!(order.shown(&stored), prefix);
        }

        #[test]
        fn bytes_that_nobody_stored_are_no_keys_and_are_shown(bytes in key()) {
            let mut key = Vec::new();
            for order in [KeyOrder::reverse(), KeyOrder::native_i32(), by_length()] {
                if order.restore(&bytes, &mut key) && order.name() != "by length" {
                    prop_assert_eq!(&order.stored(&key).unwrap(), &bytes);
                }
                order.shown(&bytes);
            }
        }
    }

    #[test]
    fn names_say_what_there_is() {
        for order in [KeyOrder::reverse(), KeyOrder::native_u16(), KeyOrder::native_i128()] {
            assert!(KeyOrder::named(order.name()).unwrap().is_present());
        }
        assert_eq!(Form::of_integers(8, false, false).name(), "peristyle.u64_le");
        assert!(!KeyOrder::named("of a program").unwrap().is_present());
        assert!(KeyOrder::named("peristyle.of_tomorrow").is_none() && KeyOrder::named("").is_none());
        assert!(KeyOrder::new("peristyle.reverse", |_, _| Ok(())).check().is_err());
        assert!(KeyOrder::new(&"n".repeat(256), |_, _| Ok(())).check().is_err());
    }
}

//! Variable-length unsigned integers, little-endian base 128 (LEB128): 1 byte below 128, 10 bytes at most.

/// Appends `value`.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Number of bytes that [`put`] appends for `value`.
pub(crate) fn len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Takes one integer off the front of `bytes`; `None` if it is cut short or larger than 64 bits.
#[inline]
pub(crate) fn take(bytes: &mut &[u8]) -> Option<u64> {
    match **bytes {
        [first @ ..0x80, ref rest @ ..] => {
            *bytes = rest;
            Some(u64::from(first))
        }
        [first, second @ ..0x80, ref rest @ ..] => {
            *bytes = rest;
            Some(u64::from(first & 0x7f) | u64::from(second) << 7)
        }
        _ => take_long(bytes),
    }
}

/// As [`take`], of what [`put`] may have made: `None` also of an integer that stands in more bytes than it
/// needs.
#[inline]
pub(crate) fn take_shortest(bytes: &mut &[u8]) -> Option<u64> {
    let before = *bytes;
    let value = take(bytes)?;
    let last = before.len() - bytes.len() - 1;
    (last == 0 || before[last] != 0).then_some(value)
}

fn take_long(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (i, &byte) in bytes.iter().enumerate().take(10) {
        let part = u64::from(byte & 0x7f);
        if i == 9 && part > 1 {
            return None;
        }
        value |= part << (7 * i);
        if byte < 0x80 {
            *bytes = bytes.get(i + 1..)?;
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_comes_back_and_is_as_long_as_said() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift] {
                let mut bytes = Vec::new();
                put(&mut bytes, value);
                assert_eq!(bytes.len(), len(value));
                let mut rest = &bytes[..];
                assert_eq!(take(&mut rest), Some(value));
                assert!(rest.is_empty());
                assert_eq!(take_shortest(&mut &bytes[..]), Some(value));
                if bytes.len() < 10 {
                    *bytes.last_mut().unwrap() |= 0x80;
                    bytes.push(0);
                    assert_eq!(take(&mut &bytes[..]), Some(value));
                    assert_eq!(take_shortest(&mut &bytes[..]), None);
                }
            }
        }
    }

    #[test]
    fn cut_or_overlong_bytes_are_refused() {
        assert_eq!(take(&mut &[][..]), None);
        assert_eq!(take(&mut &[0x80][..]), None);
        assert_eq!(take(&mut &[0xff; 10][..]), None);
        assert_eq!(take(&mut &[0x80; 11][..]), None);
        assert_eq!(take_shortest(&mut &[0x80][..]), None);
    }
}

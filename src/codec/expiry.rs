//! The second at which an entry expires, and how a value that does stands in memtables, log and leaves.
//!
//! ```text
//! u8     8
//! u64    expiry: seconds since 1970; little-endian, as everywhere
//! value
//! ```
//!
//! The first byte tells such a *stamped value* from a list of operands, which in a leaf has the same kind.
//! Who has the value in a run keeps the expiry with the pointer to that.

use std::time::Duration;

/// The first byte of a stamped value.
pub(crate) const MARK: u8 = 8;

/// Bytes before the value.
pub(crate) const STAMP_LEN: usize = 1 + size_of::<u64>();

/// A second, since 1970, from which on an entry is gone; 0 for one that stays.
pub(crate) type Expiry = u64;

/// The second, since 1970, at which entries are judged; 0 where none is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Now(pub(crate) u64);

impl Now {
    /// Nothing has expired.
    pub(crate) const UNASKED: Self = Self(0);

    /// Whether it may be that something has expired.
    #[inline]
    pub(crate) fn judges(self) -> bool {
        self.0 > 0
    }

    /// Whether an entry that expires at `expiry` is gone.
    #[inline]
    pub(crate) fn is_past(self, expiry: Expiry) -> bool {
        expiry != 0 && expiry <= self.0
    }
}

/// The second from which on an entry is gone that is written at `now`, since 1970, and lives for `time`:
/// the first full one that is not sooner. So nothing is gone too early, and what would outlive all seconds
/// that can be counted stays for ever.
pub(crate) fn expiry_after(now: Duration, time: Duration) -> Expiry {
    let end = now.saturating_add(time);
    end.as_secs().saturating_add(u64::from(end.subsec_nanos() > 0)).max(1)
}

/// The stamped value, added to `out`.
pub(crate) fn put_stamped(out: &mut Vec<u8>, expiry: Expiry, value: &[u8]) {
    out.reserve(STAMP_LEN + value.len());
    out.push(MARK);
    out.extend_from_slice(&expiry.to_le_bytes());
    out.extend_from_slice(value);
}

pub(crate) fn stamped(expiry: Expiry, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_stamped(&mut out, expiry, value);
    out
}

/// Expiry and value of a stamped value; `None` if it is none.
#[inline]
pub(crate) fn split(stamped: &[u8]) -> Option<(Expiry, &[u8])> {
    let (&[mark, ref expiry @ ..], value) = stamped.split_first_chunk::<STAMP_LEN>()?;
    let expiry = u64::from_le_bytes(*expiry);
    // One that does not expire has no stamp.
    (mark == MARK && expiry != 0).then_some((expiry, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_entry_is_never_gone_too_early() {
        let after = |now: u64, millis| expiry_after(Duration::from_secs(now), Duration::from_millis(millis));
        assert_eq!(after(100, 0), 100);
        assert_eq!(after(100, 1), 101);
        assert_eq!(after(100, 5000), 105);
        assert_eq!(expiry_after(Duration::from_millis(100_001), Duration::from_secs(5)), 106);
        assert!(Now(105).is_past(105) && !Now(104).is_past(105));
    }

    #[test]
    fn what_outlives_all_seconds_stays() {
        for now in [Duration::ZERO, Duration::from_secs(100), Duration::MAX] {
            assert_eq!(expiry_after(now, Duration::MAX), u64::MAX);
        }
        assert_eq!(expiry_after(Duration::ZERO, Duration::ZERO), 1, "0 would say that it never expires");
        assert!(!Now(u64::MAX - 1).is_past(u64::MAX) && !Now(u64::MAX).is_past(0));
    }

    proptest! {
        #![proptest_config(crate::sampling::config(256))]

        #[test]
        fn a_stamped_value_comes_back(expiry in 1u64.., value: Vec<u8>) {
            let stamped = stamped(expiry, &value);
            prop_assert_eq!(split(&stamped), Some((expiry, &value[..])));
            for len in 0..STAMP_LEN {
                prop_assert_eq!(split(&stamped[..len]), None);
            }
        }
    }
}

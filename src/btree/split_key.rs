//! A key in two pieces, as nodes hold it: prefix and rest. Lets keys be compared and written without being
//! put together.

use std::cmp::Ordering;

use crate::codec::key;

#[derive(Debug, Clone, Copy)]
pub(super) struct SplitKey<'a>(pub(super) &'a [u8], pub(super) &'a [u8]);

impl<'a> SplitKey<'a> {
    pub(super) fn whole(key: &'a [u8]) -> Self {
        Self(key, &[])
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.0.len() + self.1.len()
    }

    /// What follows the first `n` bytes.
    #[inline]
    pub(super) fn skip(&self, n: usize) -> Self {
        match self.0.split_at_checked(n) {
            Some((_, lead)) => Self(lead, self.1),
            None => Self(&self.1[n - self.0.len()..], &[]),
        }
    }

    /// The first `n` bytes.
    #[inline]
    pub(super) fn take(&self, n: usize) -> Self {
        match self.0.split_at_checked(n) {
            Some((lead, _)) => Self(lead, &[]),
            None => Self(self.0, &self.1[..n - self.0.len()]),
        }
    }

    /// Puts the key together in `out`.
    pub(super) fn store(&self, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(self.0);
        out.extend_from_slice(self.1);
    }

    /// How the keys are ordered, and how many leading bytes they share.
    pub(super) fn compare(mut self, mut other: Self) -> (Ordering, usize) {
        let mut shared = 0;
        loop {
            if self.0.is_empty() {
                self = Self(self.1, &[]);
            }
            if other.0.is_empty() {
                other = Self(other.1, &[]);
            }
            let n = self.0.len().min(other.0.len());
            if n == 0 {
                return (self.len().cmp(&other.len()), shared);
            }
            let (a, b) = (&self.0[..n], &other.0[..n]);
            let same = key::common_prefix(a, b);
            shared += same;
            if same < n {
                return (key::compare(&a[same..], &b[same..]), shared);
            }
            self = self.skip(n);
            other = other.skip(n);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::sampling::config(256))]

        #[test]
        fn pieces_behave_as_the_whole(
            a in prop::collection::vec(0..3u8, 0..9),
            b in prop::collection::vec(0..3u8, 0..9),
            cut_a in 0..9usize,
            cut_b in 0..9usize,
            n in 0..9usize,
        ) {
            let split = |key: &'static [u8], cut: usize| {
                let (lead, rest) = key.split_at(cut.min(key.len()));
                SplitKey(lead, rest)
            };
            let (leaked_a, leaked_b): (&'static [u8], &'static [u8]) = (a.clone().leak(), b.clone().leak());
            let (x, y) = (split(leaked_a, cut_a), split(leaked_b, cut_b));
            prop_assert_eq!(x.compare(y), (a.cmp(&b), key::common_prefix(&a, &b)));
            let n = n.min(a.len());
            let mut out = Vec::new();
            x.skip(n).store(&mut out);
            prop_assert_eq!(&out[..], &a[n..]);
            x.take(n).store(&mut out);
            prop_assert_eq!(&out[..], &a[..n]);
        }
    }
}

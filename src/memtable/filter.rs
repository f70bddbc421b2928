//! A filter of keys: says of a key that it was never added, or that it may have been.
//!
//! A Bloom filter whose keys set all their bits in one word, so that a question costs one cache line and
//! adding is one load and one store by the one writer.
//!
//! Source: F. Putze, P. Sanders, J. Singler, "Cache-, Hash- and Space-Efficient Bloom Filters", WEA 2007.

use std::sync::OnceLock;

use super::arena::zeroed_words;
use crate::codec::prefetch;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Bytes of memtable for which the filter has a word: at 8 to 10 bits an entry, small entries fill it as it
/// should be.
const BYTES_PER_WORD: usize = 800;
const FEWEST_WORDS: usize = if cfg!(loom) { 1 } else { 8 };
const MOST_WORDS: usize = 1 << 28;
const PAGE: usize = 4 << 10;

pub(crate) struct Filter {
    count: usize,
    words: OnceLock<Box<[AtomicU64]>>,
}

impl Filter {
    /// A filter for a memtable of `capacity` bytes. It takes memory when the first key is added.
    pub(super) fn new(capacity: usize) -> Self {
        Self { count: (capacity / BYTES_PER_WORD).clamp(FEWEST_WORDS, MOST_WORDS), words: OnceLock::new() }
    }

    /// A filter for `keys` keys, with two bytes for each: one of a hundred other keys passes.
    pub(crate) fn of_keys(keys: u64) -> Self {
        let words = usize::try_from(keys / 4).unwrap_or(usize::MAX);
        Self { count: words.clamp(FEWEST_WORDS, MOST_WORDS), words: OnceLock::new() }
    }

    /// Where `key` stands in the filter.
    #[inline]
    pub(crate) fn spot(&self, key: &[u8]) -> FilterSpot {
        let hash = hash(key);
        let word = ((hash >> 32) * self.count as u64) >> 32;
        let bit = |i: u32| 1u64 << (hash >> (6 * i) & 63);
        FilterSpot { word: word as usize, bits: bit(0) | bit(1) | bit(2) | bit(3) }
    }

    /// Adds the key that stands at `spot`. Only the writer calls this, before it publishes the key.
    #[inline]
    pub(crate) fn add(&self, spot: FilterSpot) {
        let word = &self.words.get_or_init(|| zeroed_words(self.count))[spot.word];
        word.store(word.load(Ordering::Relaxed) | spot.bits, Ordering::Relaxed);
    }

    /// Bytes that it takes, however few keys were added.
    pub(crate) fn memory(&self) -> usize {
        self.words.get().map_or(0, |words| size_of_val(&**words))
    }

    /// Whether the key may have been added.
    #[inline]
    pub(crate) fn may_hold(&self, key: &[u8]) -> bool {
        let Some(words) = self.words.get() else { return false };
        let spot = self.spot(key);
        words[spot.word].load(Ordering::Relaxed) & spot.bits == spot.bits
    }

    /// Bytes of memory that adding `keys` keys has touched at most.
    pub(super) fn bytes(&self, keys: u64) -> usize {
        let touched = usize::try_from(keys).unwrap_or(usize::MAX).saturating_mul(PAGE);
        touched.min(self.count * size_of::<u64>())
    }
}

/// The word of a key in a filter, and the bits that the key sets there.
#[derive(Clone, Copy)]
pub(crate) struct FilterSpot {
    word: usize,
    bits: u64,
}

impl FilterSpot {
    /// Asks for the word ahead of its use.
    #[inline]
    pub(super) fn prefetch(self, filter: &Filter) {
        if let Some(words) = filter.words.get() {
            prefetch::line(&raw const words[self.word]);
        }
    }
}

/// Odd numbers with as many ones as zeros in every byte.
const MIX: [u64; 3] = [0x2d35_8dcc_aa6c_78a5, 0x8bb8_4b93_962e_acc9, 0x4b33_a62e_d433_d4a3];

/// A hash of `key`: of the family of wyhash, a 64 by 64 bit multiplication for 16 bytes. Not for use on disk.
#[inline]
fn hash(key: &[u8]) -> u64 {
    let mut state = MIX[0] ^ key.len() as u64;
    let mut rest = key;
    while let Some((front, back)) = rest.split_first_chunk::<16>() {
        state = fold(word(front.first_chunk()) ^ MIX[1], word(front.last_chunk()) ^ state);
        rest = back;
    }
    let (a, b) = match rest.len() {
        8.. => (word(rest.first_chunk()), word(rest.last_chunk())),
        4.. => (half_word(rest.first_chunk()), half_word(rest.last_chunk())),
        1.. => (u64::from(rest[0]) << 8 | u64::from(rest[rest.len() / 2]), u64::from(rest[rest.len() - 1])),
        0 => (0, 0),
    };
    fold(fold(a ^ MIX[1], b ^ state) ^ MIX[2], state ^ MIX[0])
}

#[inline]
fn word(bytes: Option<&[u8; 8]>) -> u64 {
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[inline]
fn half_word(bytes: Option<&[u8; 4]>) -> u64 {
    bytes.map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes)))
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Keys of many shapes: counters in both byte orders and in digits, with common prefixes, of every short
    /// length.
    fn keys(count: u64) -> impl Iterator<Item = Vec<u8>> {
        (0..count).map(|i| match i % 5 {
            0 => i.to_be_bytes().to_vec(),
            1 => i.to_le_bytes().to_vec(),
            2 => format!("user{i:020}").into_bytes(),
            3 => format!("{i}").into_bytes(),
            _ => [&i.to_le_bytes()[..], &vec![0; (i % 40) as usize]].concat(),
        })
    }

    #[test]
    fn a_key_that_was_added_is_never_denied() {
        let filter = Filter::new(100_000);
        assert!(!filter.may_hold(b""));
        let count = if cfg!(miri) { 50 } else { 20_000 };
        for key in keys(count) {
            filter.add(filter.spot(&key));
            assert!(filter.may_hold(&key));
        }
        assert!(keys(count).all(|key| filter.may_hold(&key)));
    }

    #[test]
    fn few_keys_that_were_not_added_pass() {
        if cfg!(miri) {
            return;
        }
        let count = 50_000;
        let filter = Filter::new(count as usize * BYTES_PER_WORD * 10 / 64);
        for key in keys(count) {
            filter.add(filter.spot(&key));
        }
        let passed = keys(4 * count).skip(count as usize).filter(|key| filter.may_hold(key)).count();
        assert!(passed < 3 * count as usize / 20, "{passed} of {} pass", 3 * count);
    }

    #[test]
    fn hashes_of_short_keys_differ() {
        let mut hashes: Vec<_> =
            (0..=if cfg!(miri) { 99 } else { u16::MAX }).map(|i| hash(&i.to_le_bytes())).collect();
        hashes.extend((0..=u8::MAX).map(|i| hash(&[i])));
        hashes.push(hash(&[]));
        let count = hashes.len();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), count);
    }
}

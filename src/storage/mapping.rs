//! A shared mapping of a real file.
//!
//! The mapping is seen as a slice of atomic words, and every byte goes into it as part of a word: whole words by a
//! plain (relaxed) store, the ends of a range by exchanging the word that they share with their neighbours. So
//! whatever ranges several threads store at once, there is no data race in the language's sense; ranges that
//! overlap against the caller's promise leave a mixture of both, and neighbours never disturb each other.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::slice;
// Not from `crate::sync`: the model checker's atomics cannot be laid over foreign memory.
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};

use super::SharedMapping;

const WORD: usize = size_of::<u64>();

#[derive(Debug)]
pub(super) struct FileMapping {
    map: MmapRaw,
    len: usize,
}

impl FileMapping {
    /// Maps the first `len` bytes, which the file must have: a store beyond its end would kill the process.
    pub(super) fn new(file: &File, len: u64) -> io::Result<Self> {
        if len > file.metadata()?.len() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let len = usize::try_from(len).map_err(|_| io::Error::from(ErrorKind::FileTooLarge))?;
        // Mappings cover whole pages, so the word at the end is there even if the file ends within it.
        let map = MmapOptions::new().len(len.next_multiple_of(WORD)).map_raw(file)?;
        Ok(Self { map, len })
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is writable, starts at a page and is `len` rounded up to words long, and lives as long
        // as `self`. All access to it is through these words, all of it atomic and of one size.
        unsafe { slice::from_raw_parts(self.map.as_mut_ptr().cast(), self.len.div_ceil(WORD)) }
    }
}

impl SharedMapping for FileMapping {
    fn store(&self, offset: u64, bytes: &[u8]) {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let room = self.len.saturating_sub(offset);
        assert!(
            offset <= self.len && bytes.len() <= room,
            "{} bytes at {offset} are outside of a mapping of {} bytes",
            bytes.len(),
            self.len
        );
        store(self.words(), offset, bytes);
    }

    #[cfg(target_os = "linux")]
    fn make_ready(&self, offset: u64, len: u64) {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(self.len);
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(self.len - offset);
        if len > 0 {
            // Older kernels do not know the advice; then each page is waited for when it is first stored into.
            let _ = self.map.advise_range(memmap2::Advice::PopulateWrite, offset, len);
        }
    }
}

/// Stores `bytes` from byte `offset` of `words` on.
fn store(words: &[AtomicU64], offset: usize, bytes: &[u8]) {
    let mut index = offset / WORD;
    let skip = offset % WORD;
    let mut rest = bytes;
    if skip != 0 {
        let (head, after) = rest.split_at(rest.len().min(WORD - skip));
        store_part(&words[index], skip, head);
        rest = after;
        index += 1;
    }
    let (whole, tail) = rest.as_chunks::<WORD>();
    if !whole.is_empty() {
        for (word, bytes) in words[index..index + whole.len()].iter().zip(whole) {
            word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
        index += whole.len();
    }
    if !tail.is_empty() {
        store_part(&words[index], 0, tail);
    }
}

/// Replaces some bytes of a word, and leaves the others to those who store into them at this moment.
fn store_part(word: &AtomicU64, skip: usize, bytes: &[u8]) {
    let mut current = word.load(Ordering::Relaxed);
    loop {
        let mut next = current.to_ne_bytes();
        next[skip..skip + bytes.len()].copy_from_slice(bytes);
        match word.compare_exchange_weak(
            current,
            u64::from_ne_bytes(next),
            Ordering::Relaxed,
            Ordering::Relaxed,
        ) {
            Ok(_) => return,
            Err(now) => current = now,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn bytes_of(words: &[AtomicU64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect()
    }

    #[test]
    fn every_offset_and_length_stores_just_its_range() {
        const LEN: usize = 5 * WORD;
        for offset in 0..=LEN {
            for len in 0..=LEN - offset {
                let words: Vec<AtomicU64> = (0..5).map(|_| AtomicU64::new(u64::MAX)).collect();
                let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
                store(&words, offset, &bytes);
                let mut expected = vec![0xff; LEN];
                expected[offset..offset + len].copy_from_slice(&bytes);
                assert_eq!(bytes_of(&words), expected, "offset {offset}, length {len}");
            }
        }
    }

    #[test]
    fn neighbours_that_share_words_do_not_disturb_each_other() {
        let words: Vec<AtomicU64> =
            (0..if cfg!(miri) { 16 } else { 1024 }).map(|_| AtomicU64::new(0)).collect();
        let len = words.len() * WORD;
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let words = &words;
                scope.spawn(move || {
                    for start in (thread * 5..len).step_by(15) {
                        store(words, start, &[thread as u8 + 1; 5][..5.min(len - start)]);
                    }
                });
            }
        });
        let expected: Vec<u8> = (0..len).map(|i| (i / 5 % 3) as u8 + 1).collect();
        assert_eq!(bytes_of(&words), expected);
    }
}

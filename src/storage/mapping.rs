//! A shared mapping of a real file.
//!
//! The mapping is seen as a slice of atomic words, and every byte goes into it as part of a word, by a plain
//! (relaxed) store. So whatever ranges several threads store at once, there is no data race in the language's
//! sense; ranges that overlap against the caller's promise leave a mixture of both.
//!
//! A store into a page that is not in memory has the system read it, and ends the process if that fails. What
//! is made ready is therefore locked into memory until it is let go: the system may write it back, but does
//! not take it away. What is left: a file that is cut by another process, or whose file system is shut down
//! (its device is gone), has no pages any more, and a store ends the process then.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::slice;
// Not from `crate::sync`: the model checker's atomics cannot be laid over foreign memory.
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};

use super::backend::SharedMapping;
use crate::codec::prefetch::{self, LINE};
#[cfg(target_os = "linux")]
use crate::system::whole_pages;

const WORD: usize = size_of::<u64>();

/// Cache lines behind a store that are fetched for the next one.
const MOST_LINES_AHEAD: usize = 8;

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
        let map = MmapOptions::new().len(len).map_raw(file)?;
        Ok(Self { map, len })
    }

    /// What of `len` bytes from `offset` lies in the mapping.
    #[cfg(target_os = "linux")]
    fn within(&self, offset: u64, len: u64) -> (usize, usize) {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(self.len);
        (offset, usize::try_from(len).unwrap_or(usize::MAX).min(self.len - offset))
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is writable, starts at a page and is `len` bytes long, and lives as long as
        // `self`. All access to it is through these words, all of it atomic and of one size.
        unsafe { slice::from_raw_parts(self.map.as_mut_ptr().cast(), self.len / WORD) }
    }
}

impl SharedMapping for FileMapping {
    fn store(&self, offset: u64, bytes: &[u8]) {
        let index = usize::try_from(offset / WORD as u64).unwrap_or(usize::MAX);
        let count = bytes.len().div_ceil(WORD);
        let words = self.words().get(index..).filter(|words| count <= words.len());
        let (true, Some(words)) = (offset.is_multiple_of(WORD as u64), words) else {
            panic!("{} bytes at {offset} are no words of a mapping of {} bytes", bytes.len(), self.len);
        };
        store(words, bytes);
        // What is stored next lies behind it, and is likely to be as long.
        for line in
            words[count..].chunks(LINE / WORD).take((count * WORD).div_ceil(LINE).min(MOST_LINES_AHEAD))
        {
            prefetch::line_for_writing(line.as_ptr());
        }
    }

    #[cfg(target_os = "linux")]
    fn make_ready(&self, offset: u64, len: u64) -> bool {
        let (offset, len) = self.within(offset, len);
        if len == 0 {
            return true;
        }
        // Spares stores their faults. Older kernels do not know it, and whatever else is in the way is met by
        // the next step, too.
        let _ = self.map.advise_range(memmap2::Advice::PopulateWrite, offset, len);
        // Has what is not in memory read, and reports what cannot be. SAFETY: the range lies in the mapping;
        // locking it changes nothing of what it holds. Pages that it shares with what lies around are locked
        // as a whole.
        unsafe { rustix::mm::mlock(self.map.as_mut_ptr().add(offset).cast(), len) }.is_ok()
    }

    #[cfg(target_os = "linux")]
    fn let_go(&self, offset: u64, len: u64) {
        let (offset, len) = self.within(offset, len);
        // Nobody uses what of the last page lies behind the end.
        let end = if offset + len == self.len { usize::MAX / 2 } else { offset + len };
        let pages = whole_pages(offset..end);
        let pages = pages.start..pages.end.min(self.len);
        if !pages.is_empty() {
            // SAFETY: the range lies in the mapping. The mapping is shared, so what was stored stays with the
            // file and is seen again by whoever touches the memory next; nobody holds more of it than the
            // words of the whole mapping, which stay what they are.
            unsafe {
                let _ = rustix::mm::munlock(self.map.as_mut_ptr().add(pages.start).cast(), pages.len());
                let _ = self.map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    pages.start,
                    pages.len(),
                );
            }
        }
    }
}

/// Stores `bytes` from the first of `words` on. The rest of the last word becomes zero.
fn store(words: &[AtomicU64], bytes: &[u8]) {
    let (whole, rest) = bytes.as_chunks::<WORD>();
    for (word, bytes) in words.iter().zip(whole) {
        word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
    }
    if !rest.is_empty() {
        let mut last = [0; WORD];
        last[..rest.len()].copy_from_slice(rest);
        words[whole.len()].store(u64::from_ne_bytes(last), Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_length_stores_just_its_words() {
        for len in 0..=5 * WORD {
            let words: Vec<AtomicU64> = (0..5).map(|_| AtomicU64::new(u64::MAX)).collect();
            let bytes: Vec<u8> = (1..=len as u8).collect();
            store(&words, &bytes);
            let mut expected = bytes;
            expected.resize(len.next_multiple_of(WORD), 0);
            expected.resize(5 * WORD, 0xff);
            let stored: Vec<u8> =
                words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect();
            assert_eq!(stored, expected, "length {len}");
        }
    }
}

//! The bytes of one file: chunks that are shared until somebody writes to them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes that are shared, copied and hashed as one.
const CHUNK: usize = 4096;

struct Chunk {
    bytes: [u8; CHUNK],
    /// 0 as long as nobody asked.
    hash: AtomicU64,
}

impl Clone for Chunk {
    fn clone(&self) -> Self {
        Self { bytes: self.bytes, hash: AtomicU64::new(0) }
    }
}

impl Chunk {
    fn zeros() -> Arc<Self> {
        Arc::new(Self { bytes: [0; CHUNK], hash: AtomicU64::new(0) })
    }

    fn hash(&self, index: u64) -> u64 {
        let mut hash = self.hash.load(Ordering::Relaxed);
        if hash == 0 {
            hash = xxh3_64_with_seed(&self.bytes, 0).max(1);
            self.hash.store(hash, Ordering::Relaxed);
        }
        xxh3_64_with_seed(&hash.to_le_bytes(), index)
    }
}

/// The content of a file. Cloning shares the chunks; chunks that are not there read as zeros.
#[derive(Clone, Default)]
pub struct Content {
    len: u64,
    chunks: BTreeMap<u64, Arc<Chunk>>,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content").field("len", &self.len).field("chunks", &self.chunks.len()).finish()
    }
}

/// Cuts a range of bytes at the borders of chunks: (chunk, start within it, length).
fn pieces(offset: u64, len: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    let (mut offset, end) = (offset, offset + len);
    std::iter::from_fn(move || {
        let start = (offset % CHUNK as u64) as usize;
        let len = (end - offset).min((CHUNK - start) as u64) as usize;
        let chunk = offset / CHUNK as u64;
        offset += len as u64;
        (len > 0).then_some((chunk, start, len))
    })
}

impl Content {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the length is 0.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fills `buffer` from `offset`, with zeros where nothing was written.
    pub fn read(&self, buffer: &mut [u8], offset: u64) {
        let mut rest = buffer;
        for (chunk, start, len) in pieces(offset, rest.len() as u64) {
            let (piece, after) = rest.split_at_mut(len);
            match self.chunks.get(&chunk) {
                Some(chunk) => piece.copy_from_slice(&chunk.bytes[start..start + len]),
                None => piece.fill(0),
            }
            rest = after;
        }
    }

    /// Writes `bytes` at `offset`; the file grows if it ends before.
    pub fn write(&mut self, bytes: &[u8], offset: u64) {
        self.write_beyond(bytes, offset);
        if !bytes.is_empty() {
            self.len = self.len.max(offset + bytes.len() as u64);
        }
    }

    /// Writes `bytes` and leaves the length as it is: what lies beyond comes to light if the file grows
    /// later.
    pub(super) fn write_beyond(&mut self, bytes: &[u8], offset: u64) {
        let mut rest = bytes;
        for (index, start, len) in pieces(offset, bytes.len() as u64) {
            let (piece, after) = rest.split_at(len);
            rest = after;
            if piece.iter().all(|&byte| byte == 0) {
                self.clear_in(index, start, start + len);
                continue;
            }
            let chunk = Arc::make_mut(self.chunks.entry(index).or_insert_with(Chunk::zeros));
            chunk.bytes[start..start + len].copy_from_slice(piece);
            *chunk.hash.get_mut() = 0;
        }
    }

    fn clear_in(&mut self, index: u64, start: usize, end: usize) {
        if (start, end) == (0, CHUNK) {
            self.chunks.remove(&index);
        } else if let Some(chunk) = self.chunks.get_mut(&index) {
            let chunk = Arc::make_mut(chunk);
            chunk.bytes[start..end].fill(0);
            *chunk.hash.get_mut() = 0;
        }
    }

    /// Makes `len` bytes from `offset` on read as zeros; the length stays.
    pub fn clear(&mut self, offset: u64, len: u64) {
        let Some(end) = offset.checked_add(len).filter(|_| len > 0) else { return };
        let affected: Vec<u64> = self
            .chunks
            .range(offset / CHUNK as u64..=(end - 1) / CHUNK as u64)
            .map(|(&index, _)| index)
            .collect();
        for index in affected {
            let base = index * CHUNK as u64;
            let start = offset.saturating_sub(base) as usize;
            let stop = (end - base).min(CHUNK as u64) as usize;
            self.clear_in(index, start, stop);
        }
    }

    /// Cuts the file, or extends it with a hole.
    pub fn set_len(&mut self, len: u64) {
        self.cut_beyond(len);
        self.len = len;
    }

    /// Zeros what lies at or beyond `end`.
    pub(super) fn cut_beyond(&mut self, end: u64) {
        let Some((&last, _)) = self.chunks.last_key_value() else { return };
        let written = (last + 1) * CHUNK as u64;
        if end < written {
            self.clear(end, written - end);
        }
    }

    /// Makes the file at least `len` bytes long.
    pub(super) fn extend(&mut self, len: u64) {
        self.len = self.len.max(len);
    }

    /// A number that equal contents share.
    pub fn hash(&self) -> u64 {
        let zero = |bytes: &[u8; CHUNK]| bytes.iter().all(|&byte| byte == 0);
        let chunks = self.chunks.iter().filter(|(_, chunk)| !zero(&chunk.bytes));
        chunks.fold(self.len.wrapping_mul(0x9e37_79b9_7f4a_7c15), |sum, (&index, chunk)| {
            sum.wrapping_add(chunk.hash(index))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_the_rest_is_zero() {
        let mut content = Content::default();
        content.write(&[7; 5000], 3000);
        assert_eq!(content.len(), 8000);
        let mut bytes = vec![1; 9000];
        content.read(&mut bytes, 0);
        assert!(bytes[..3000].iter().chain(&bytes[8000..]).all(|&byte| byte == 0));
        assert!(bytes[3000..8000].iter().all(|&byte| byte == 7));
    }

    #[test]
    fn clones_do_not_see_each_others_writes() {
        let mut one = Content::default();
        one.write(&[1; 100], 0);
        let mut two = one.clone();
        assert_eq!(one.hash(), two.hash());
        two.write(&[2], 50);
        let mut byte = [0];
        one.read(&mut byte, 50);
        assert_eq!(byte, [1]);
        assert_ne!(one.hash(), two.hash());
        two.write(&[1], 50);
        assert_eq!(one.hash(), two.hash());
    }

    #[test]
    fn what_is_cut_off_does_not_come_back() {
        let mut content = Content::default();
        content.write(&[9; 10_000], 0);
        content.set_len(5000);
        content.set_len(10_000);
        let mut bytes = vec![1; 10_000];
        content.read(&mut bytes, 0);
        assert!(bytes[..5000].iter().all(|&byte| byte == 9) && bytes[5000..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn zeros_hash_alike_whether_written_or_not() {
        let (mut one, mut two) = (Content::default(), Content::default());
        one.set_len(8192);
        two.write(&[0; 8192], 0);
        assert_eq!(one.hash(), two.hash());
        two.write(&[1], 4);
        two.write(&[0], 4);
        assert_eq!(one.hash(), two.hash());
    }
}

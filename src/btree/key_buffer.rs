//! The key that a cursor stands on.

/// A key that is put together from the prefix of a leaf and the rest that an entry holds.
#[derive(Debug, Default)]
pub(super) struct KeyBuffer {
    bytes: Vec<u8>,
    len: usize,
}

impl KeyBuffer {
    /// The key.
    #[inline]
    pub(super) fn get(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Puts `rest` behind the first `prefix_len` bytes, which stay.
    #[inline]
    pub(super) fn set_rest(&mut self, prefix_len: usize, rest: &[u8]) {
        self.len = prefix_len + rest.len();
        if self.bytes.len() < self.len {
            self.grow();
        }
        put_together(&mut self.bytes, prefix_len, rest);
    }

    /// The bytes that the key is put together in, at least `len` of them, unchanged. Which of them are the
    /// key is for [`set_rest`](Self::set_rest) to say.
    #[inline]
    pub(super) fn room(&mut self, len: usize) -> &mut [u8] {
        if self.bytes.len() < len {
            self.bytes.resize(len.next_power_of_two(), 0);
        }
        &mut self.bytes
    }

    #[cold]
    fn grow(&mut self) {
        self.room(self.len);
    }
}

/// The key whose first `prefix_len` bytes stand in `room` and whose other bytes are `rest`, put together
/// there.
#[inline(always)]
pub(super) fn put_together<'r>(room: &'r mut [u8], prefix_len: usize, rest: &[u8]) -> &'r [u8] {
    let key = &mut room[..prefix_len + rest.len()];
    copy(&mut key[prefix_len..], rest);
    key
}

/// Copies as many bytes as both have. A call of `memcpy` takes longer than to copy what most keys are.
#[inline(always)]
fn copy(to: &mut [u8], from: &[u8]) {
    match from.len() {
        8..16 => copy_ends::<8>(to, from),
        16..=32 => copy_ends::<16>(to, from),
        _ => to.copy_from_slice(from),
    }
}

/// Copies the first and the last `N` bytes, which are all of them if there are `N` to `2 N`.
#[inline(always)]
fn copy_ends<const N: usize>(to: &mut [u8], from: &[u8]) {
    if let (Some(to), Some(from)) = (to.first_chunk_mut::<N>(), from.first_chunk::<N>()) {
        *to = *from;
    }
    if let (Some(to), Some(from)) = (to.last_chunk_mut::<N>(), from.last_chunk::<N>()) {
        *to = *from;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_any_length_is_prefix_and_rest() {
        let bytes: Vec<u8> = (0..200).collect();
        let mut key = KeyBuffer::default();
        for prefix in 0..20 {
            key.set_rest(0, &bytes[..prefix]);
            for len in (0..80).chain([150]).rev().chain(0..80) {
                key.set_rest(prefix, &bytes[50..50 + len]);
                assert_eq!(key.get(), [&bytes[..prefix], &bytes[50..50 + len]].concat());
            }
        }
    }
}

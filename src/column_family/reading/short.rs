//! Bytes that are mostly few: kept in place up to a length, behind a pointer beyond.

/// Bytes that are kept in place.
const IN_PLACE: usize = 62;

/// Bytes of its own.
#[derive(Clone)]
pub(super) enum Short {
    InPlace { len: u8, bytes: [u8; IN_PLACE] },
    Apart(Box<[u8]>),
}

impl Short {
    pub(super) const EMPTY: Self = Self::InPlace { len: 0, bytes: [0; IN_PLACE] };

    /// Becomes a copy of `bytes`, written where it stands: what is moved right after it was put together
    /// waits until its parts have come to the cache.
    #[inline]
    pub(super) fn fill(&mut self, bytes: &[u8]) {
        *self = Self::EMPTY;
        match self {
            Self::InPlace { len, bytes: to } if bytes.len() <= IN_PLACE => {
                *len = bytes.len() as u8;
                copy_short(&mut to[..bytes.len()], bytes);
            }
            _ => *self = Self::Apart(bytes.into()),
        }
    }

    #[inline]
    pub(super) fn copy(bytes: &[u8]) -> Self {
        if bytes.len() > IN_PLACE {
            return Self::Apart(bytes.into());
        }
        let mut copy = [0; IN_PLACE];
        copy_short(&mut copy[..bytes.len()], bytes);
        Self::InPlace { len: bytes.len() as u8, bytes: copy }
    }

    pub(super) fn own(bytes: Vec<u8>) -> Self {
        if bytes.len() > IN_PLACE { Self::Apart(bytes.into_boxed_slice()) } else { Self::copy(&bytes) }
    }

    #[inline]
    pub(super) fn get(&self) -> &[u8] {
        match self {
            Self::InPlace { len, bytes } => &bytes[..usize::from(*len)],
            Self::Apart(bytes) => bytes,
        }
    }

    pub(super) fn into_vec(self) -> Vec<u8> {
        match self {
            Self::Apart(bytes) => bytes.into_vec(),
            in_place => in_place.get().to_vec(),
        }
    }
}

/// Copies `from` to `to`, which is as long: at most [`IN_PLACE`] bytes.
#[inline(always)]
fn copy_short(to: &mut [u8], from: &[u8]) {
    // A call of `memcpy` takes longer than to copy what most of them are.
    match from.len() {
        32.. => copy_ends::<32>(to, from),
        16.. => copy_ends::<16>(to, from),
        8.. => copy_ends::<8>(to, from),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_any_length_are_kept() {
        let bytes: Vec<u8> = (0..200).collect();
        for len in 0..bytes.len() {
            let short = Short::copy(&bytes[..len]);
            assert_eq!((short.get(), short.clone().into_vec()), (&bytes[..len], bytes[..len].to_vec()));
            let mut filled = Short::copy(&bytes[100..]);
            filled.fill(&bytes[..len]);
            assert_eq!(filled.get(), &bytes[..len]);
            assert_eq!(matches!(short, Short::InPlace { .. }), len <= IN_PLACE);
        }
        assert_eq!(size_of::<Short>(), 64);
    }
}

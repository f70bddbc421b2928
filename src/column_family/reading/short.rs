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
    #[inline]
    pub(super) fn copy(bytes: &[u8]) -> Self {
        if bytes.len() > IN_PLACE {
            return Self::Apart(bytes.into());
        }
        let mut copy = [0; IN_PLACE];
        let to = &mut copy[..bytes.len()];
        // A call of `memcpy` takes longer than to copy what most of them are.
        match bytes.len() {
            32.. => copy_ends::<32>(to, bytes),
            16.. => copy_ends::<16>(to, bytes),
            8.. => copy_ends::<8>(to, bytes),
            _ => to.copy_from_slice(bytes),
        }
        Self::InPlace { len: bytes.len() as u8, bytes: copy }
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
            assert_eq!(matches!(short, Short::InPlace { .. }), len <= IN_PLACE);
        }
        assert_eq!(size_of::<Short>(), 64);
    }
}

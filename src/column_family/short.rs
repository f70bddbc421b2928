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
        // By pieces of one length, since a call of `memcpy` takes longer than to copy what most of them are.
        let mut at = 0;
        let (pieces, rest) = bytes.as_chunks::<8>();
        for piece in pieces {
            copy[at..at + 8].copy_from_slice(piece);
            at += 8;
        }
        for (to, from) in copy[at..].iter_mut().zip(rest) {
            *to = *from;
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

//! Bytes that are mostly few: kept in place up to a length, and otherwise in something that is larger.
//!
//! Items of iterators are moved several times right after they were put together. A move in pieces other than
//! those that were written waits until the pieces have come to the cache, and that takes longer than all
//! else. So what is kept here is a block without inner structure that the compiler could take apart: it is
//! moved as a whole, 16 bytes at a time.
//!
//! Invariants:
//! 1. `few.len` is always initialised, and is [`LARGE`] exactly if `large` is what is there.
//! 2. Otherwise it is [`IN_PLACE`] at most, and so many of `few.bytes`, from the first on, are initialised.
//! 3. `large` ends before `few.len` begins.

use std::mem::{ManuallyDrop, MaybeUninit, offset_of};
use std::ops::Deref;

/// Bytes that are kept in place.
const IN_PLACE: usize = 62;

/// In place of a length: there is something larger.
const LARGE: u8 = u8::MAX;

#[derive(Clone, Copy)]
#[repr(C)]
struct Few {
    bytes: [MaybeUninit<u8>; 63],
    len: u8,
}

/// Up to [`IN_PLACE`] bytes in place, or a `T` that has bytes.
#[repr(C)]
pub(super) union Short<T> {
    few: Few,
    large: ManuallyDrop<T>,
}

impl<T> Short<T> {
    pub(super) const EMPTY: Self = {
        assert!(size_of::<T>() <= offset_of!(Few, len) && size_of::<Self>() == size_of::<Few>());
        Self { few: Few { bytes: [MaybeUninit::uninit(); 63], len: 0 } }
    };

    #[inline]
    pub(super) fn large(large: T) -> Self {
        let mut short = Self::EMPTY;
        short.large = ManuallyDrop::new(large);
        short.few.len = LARGE;
        short
    }

    #[inline]
    fn len(&self) -> u8 {
        // SAFETY: invariant 1.
        unsafe { self.few.len }
    }

    /// What is there instead of bytes in place.
    #[inline]
    fn get_large(&self) -> Option<&T> {
        // SAFETY: invariant 1.
        (self.len() == LARGE).then(|| unsafe { &*self.large })
    }

    #[inline]
    pub(super) fn get(&self) -> &[u8]
    where
        T: Deref<Target = [u8]>,
    {
        match self.get_large() {
            Some(large) => large,
            None => {
                // SAFETY: all bytes of `few` are what `MaybeUninit` allows them to be.
                let bytes = unsafe { &self.few.bytes[..usize::from(self.len())] };
                // SAFETY: invariant 2, and bytes that may be uninitialised are laid out as bytes.
                unsafe { &*(std::ptr::from_ref(bytes) as *const [u8]) }
            }
        }
    }

    /// Becomes a copy of `bytes`, written where it stands.
    #[inline]
    pub(super) fn fill(&mut self, bytes: &[u8])
    where
        T: From<Box<[u8]>>,
    {
        if bytes.len() > IN_PLACE || self.len() == LARGE {
            *self = Self::copy(bytes);
            return;
        }
        // SAFETY: all bytes of `few` are what `MaybeUninit` allows them to be, and no `large` is there.
        let few = unsafe { &mut self.few };
        copy_short(&mut few.bytes[..bytes.len()], as_uninit(bytes));
        few.len = bytes.len() as u8;
    }

    #[inline]
    pub(super) fn copy(bytes: &[u8]) -> Self
    where
        T: From<Box<[u8]>>,
    {
        if bytes.len() > IN_PLACE {
            return Self::large(Box::<[u8]>::from(bytes).into());
        }
        let mut short = Self::EMPTY;
        short.fill(bytes);
        short
    }

    pub(super) fn own(bytes: Vec<u8>) -> Self
    where
        T: From<Box<[u8]>>,
    {
        if bytes.len() > IN_PLACE { Self::large(bytes.into_boxed_slice().into()) } else { Self::copy(&bytes) }
    }

    /// What is there instead of bytes in place; or itself.
    pub(super) fn into_large(self) -> Result<T, Self> {
        if self.len() != LARGE {
            return Err(self);
        }
        let mut this = ManuallyDrop::new(self);
        // SAFETY: invariant 1; nobody uses or drops `this` any more.
        Ok(unsafe { ManuallyDrop::take(&mut this.large) })
    }
}

impl<T> Drop for Short<T> {
    #[inline]
    fn drop(&mut self) {
        if self.len() == LARGE {
            // SAFETY: invariant 1; nobody uses it any more.
            unsafe { ManuallyDrop::drop(&mut self.large) }
        }
    }
}

impl<T: Clone> Clone for Short<T> {
    fn clone(&self) -> Self {
        match self.get_large() {
            Some(large) => Self::large(large.clone()),
            // SAFETY: all bytes of `few` are what `MaybeUninit` allows them to be, and its length is there.
            None => Self { few: unsafe { self.few } },
        }
    }
}

/// The same bytes, as those that may be uninitialised.
#[inline]
fn as_uninit(bytes: &[u8]) -> &[MaybeUninit<u8>] {
    // SAFETY: both have the same layout, every byte is a valid `MaybeUninit<u8>`, and nobody writes through
    // the reference.
    unsafe { &*(std::ptr::from_ref(bytes) as *const [MaybeUninit<u8>]) }
}

/// Copies `from` to `to`, which is as long: at most [`IN_PLACE`] bytes.
#[inline(always)]
fn copy_short(to: &mut [MaybeUninit<u8>], from: &[MaybeUninit<u8>]) {
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
fn copy_ends<const N: usize>(to: &mut [MaybeUninit<u8>], from: &[MaybeUninit<u8>]) {
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
    use std::sync::Arc;

    type Bytes = Short<Box<[u8]>>;

    #[test]
    fn bytes_of_any_length_are_kept() {
        let bytes: Vec<u8> = (0..200).collect();
        for len in 0..bytes.len() {
            let short = Bytes::copy(&bytes[..len]);
            let owned = Bytes::own(bytes[..len].to_vec());
            assert_eq!(
                (short.get(), short.clone().get(), owned.get()),
                (&bytes[..len], &bytes[..len], &bytes[..len])
            );
            for before in [0, 30, 62, 63, 100] {
                let mut filled = Bytes::copy(&bytes[..before]);
                filled.fill(&bytes[..len]);
                assert_eq!(filled.get(), &bytes[..len]);
            }
            match short.into_large() {
                Ok(large) => assert_eq!((&*large, len > IN_PLACE), (&bytes[..len], true)),
                Err(short) => assert_eq!((short.get(), len > IN_PLACE), (&bytes[..len], false)),
            }
        }
        assert_eq!(size_of::<Bytes>(), 64);
    }

    #[test]
    fn what_is_large_is_dropped_once() {
        struct Shared(Arc<()>);
        impl From<Box<[u8]>> for Shared {
            fn from(_: Box<[u8]>) -> Self {
                Self(Arc::default())
            }
        }
        let counted = Arc::new(());
        let large = || Short::large(Shared(Arc::clone(&counted)));
        drop(large());
        assert_eq!(Arc::strong_count(&counted), 1);
        let mut filled = large();
        filled.fill(b"short");
        assert_eq!(Arc::strong_count(&counted), 1);
        let taken = large().into_large().ok().unwrap();
        assert_eq!(Arc::strong_count(&taken.0), 2);
        drop(taken);
        assert_eq!(Arc::strong_count(&counted), 1);
    }
}

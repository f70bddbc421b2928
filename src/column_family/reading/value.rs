//! Values as readers get them.

use std::fmt;
use std::ops::{Deref, Range};

use crate::column_family::reading::short::Short;
use crate::page::PinnedPage;

/// Values up to this many bytes are copied out of their page, and those that are less than one part in so
/// many of it; larger ones are held where they stand.
const COPY_LIMIT: usize = 1024;
const LEAST_SHARE: usize = 8;

/// The bytes of a value. Dereferences to `[u8]`.
///
/// A small value is a copy, and so is whatever was found in a memtable: to keep a value for long takes its
/// own bytes of memory and keeps no memtable; up to 62 bytes take no allocation. A large one (above 1 KiB)
/// that was found in a tree may be held in its page, without a copy, until this is dropped; it keeps eight
/// times its size at most. It stays the same whatever is written, merged or dropped meanwhile. Where a copy
/// is too much, as of a value of many MiB, [`Cursor::value`](crate::Cursor::value) lends what it stands on.
///
/// ```
/// # fn main() -> peristyle::Result<()> {
/// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
/// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
/// # let blocks = db.create_column_family("blocks", FamilyOptions::default())?;
/// blocks.put(b"genesis", b"in the beginning")?;
/// let value = blocks.get(b"genesis")?.unwrap();
/// assert_eq!(&value[..6], b"in the");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Value(Short<Bytes>);

/// What is not short.
#[derive(Clone)]
enum Bytes {
    Copied(Box<[u8]>),
    Page(PinnedPage, Range<usize>),
}

impl Deref for Bytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Copied(bytes) => bytes,
            Self::Page(page, range) => &page[range.clone()],
        }
    }
}

impl From<Box<[u8]>> for Bytes {
    fn from(bytes: Box<[u8]>) -> Self {
        Self::Copied(bytes)
    }
}

impl Value {
    pub(crate) const EMPTY: Self = Self(Short::EMPTY);

    /// Becomes a copy of `bytes`.
    #[inline]
    pub(crate) fn fill(&mut self, bytes: &[u8]) {
        self.0.fill(bytes);
    }

    #[inline]
    pub(crate) fn copy(bytes: &[u8]) -> Self {
        Self(Short::copy(bytes))
    }

    /// Bytes that were made for this value.
    pub(crate) fn own(bytes: Vec<u8>) -> Self {
        Self(Short::own(bytes))
    }

    /// Whether a value of `len` bytes is better copied out of its page or run, of `page_len` bytes, than held
    /// there.
    pub(crate) fn is_small(len: usize, page_len: usize) -> bool {
        len <= COPY_LIMIT || len * LEAST_SHARE < page_len
    }

    pub(crate) fn in_page(page: PinnedPage, range: Range<usize>) -> Self {
        Self(Short::large(Bytes::Page(page, range)))
    }

    /// The bytes as a vector of their own.
    pub fn to_vec(&self) -> Vec<u8> {
        self[..].to_vec()
    }
}

impl Deref for Value {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.0.get()
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self[..].fmt(f)
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Value {
    fn eq(&self, other: &T) -> bool {
        self[..] == *other.as_ref()
    }
}

impl Eq for Value {}

impl From<Value> for Vec<u8> {
    fn from(value: Value) -> Self {
        match value.0.into_large() {
            Ok(Bytes::Copied(bytes)) => bytes.into_vec(),
            Ok(page @ Bytes::Page(..)) => page.to_vec(),
            Err(few) => few.get().to_vec(),
        }
    }
}

//! Keys as readers get them.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use crate::column_family::reading::short::Short;

/// The bytes of a key, as iterators give them. Dereferences to `[u8]`, and is compared and hashed as those
/// are.
///
/// A copy of its own; up to 62 bytes of it take no allocation.
///
/// ```
/// # fn main() -> peristyle::Result<()> {
/// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
/// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
/// # let blocks = db.create_column_family("blocks", FamilyOptions::default())?;
/// blocks.put("genesis", "in the beginning")?;
/// let (key, value) = blocks.first()?.unwrap();
/// assert_eq!(key, "genesis");
/// let owned: (Vec<u8>, Vec<u8>) = (key.into(), value.into());
/// # assert_eq!(owned.0, b"genesis");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Key(Short<Box<[u8]>>);

impl Key {
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
}

impl Deref for Key {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.0.get()
    }
}

impl AsRef<[u8]> for Key {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self[..].fmt(f)
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Key {
    #[inline]
    fn eq(&self, other: &T) -> bool {
        self[..] == *other.as_ref()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self[..].cmp(&other[..])
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self[..].hash(state);
    }
}

impl From<Key> for Vec<u8> {
    fn from(key: Key) -> Self {
        key.0.into_large().map_or_else(|few| few.get().to_vec(), <[u8]>::into_vec)
    }
}

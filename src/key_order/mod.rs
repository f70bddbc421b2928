//! Orders of keys other than that of their bytes.
//!
//! Everything below compares bytes: memtables, trees, the log, locks. A family with an order of its own gives
//! it *stored keys*: bytes that sort as the order sorts the keys, and from which the keys can be told. So an
//! order is asked where a key comes in, once, while no lock is held and nothing is written, and never again:
//! what it does wrong can neither divide a tree wrongly nor leave anything half done.
//!
//! [`KeyOrder`] is the name and the mapping, [`form`] the bytes.

mod form;

use std::cmp::Ordering;
use std::fmt;

use crate::codec::key::MAX_KEY_LEN;
use crate::error::{Error, Result};
use crate::operator::named::{MOST_NAME, guarded};
use form::Form;

/// What a function that gives sort keys comes to: nothing, or why it cannot.
pub type SortKeyResult = std::result::Result<(), Box<dyn std::error::Error + Send + Sync>>;

type SortKey = dyn Fn(&[u8], &mut Vec<u8>) -> SortKeyResult + Send + Sync;

/// Names that begin with this are those of orders that come with the engine. One more of them is one more
/// feature of readers: who does not know the name takes it for damage.
const OURS: &str = "peristyle.";

/// The order in which a column family keeps its keys, if it is not that of their bytes.
///
/// A family gets one when it is created, by [`FamilyOptions::key_order`](crate::FamilyOptions::key_order),
/// and keeps it; its name is kept in the database. There are [`reverse`](Self::reverse) and integers in the
/// machine's own byte order ([`native_u64`](Self::native_u64) and its like). [`new`](Self::new) makes one of
/// a function that gives each key a *sort key*: bytes by which it is sorted.
///
/// ```
/// # fn main() -> peristyle::Result<()> {
/// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
/// use peristyle::KeyOrder;
///
/// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
/// let latest_first = FamilyOptions::default().key_order(KeyOrder::reverse());
/// let news = db.create_column_family("news", latest_first)?;
/// for day in ["2031-05-30", "2031-05-31", "2031-06-01"] {
///     news.put(day, "nothing happened")?;
/// }
/// let (latest, _) = news.first()?.unwrap();
/// assert_eq!(latest, "2031-06-01");
/// // A range goes from what comes first to what comes last.
/// assert_eq!(news.range("2031-05-31".."2031-05-01")?.count(), 2);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct KeyOrder {
    name: std::sync::Arc<str>,
    form: Form,
    code: Code,
}

/// The function of an order that has one, if the program gave it.
#[derive(Clone)]
struct Code(Option<std::sync::Arc<SortKey>>);

impl Drop for Code {
    fn drop(&mut self) {
        if let Some(code) = self.0.take() {
            // What it does when it goes is its own.
            let _panic = guarded(|| drop(code));
        }
    }
}

macro_rules! native {
    ($($function:ident $integer:ident)*) => {$(
        #[doc = concat!("Keys that are `", stringify!($integer), "` in the machine's own byte order \
            (`to_ne_bytes`), by their numbers. Keys of another length are refused. The name of the order says \
            which byte order that is, so a machine with the other one reads such a family in the order in \
            which it was written; there this function gives an order of another name.")]
        pub fn $function() -> Self {
            Self::ready(Form::of_integers(size_of::<$integer>(), $integer::MIN != 0, cfg!(target_endian = "big")))
        }
    )*};
}

impl KeyOrder {
    /// The order called `name`, of 1 to 255 bytes, that sorts keys by what `sort_key` gives for each, and
    /// keys for which it gives the same by their bytes. `sort_key` is given a key and an empty vector, to
    /// which it adds the bytes.
    ///
    /// What it gives must follow from the key alone, for as long as the database lives: one that sorts
    /// otherwise is to have another name. It is called by the thread that names a key, once for each time
    /// that it is named, and not while anything is merged, recovered or compacted. If it fails or panics,
    /// that operation fails with [`KeyOrderFailed`](crate::ErrorKind::KeyOrderFailed), and nothing is
    /// written. If it gives something else for the same key some other day, the key is not found where it was
    /// put: nothing else suffers, and a walk over all keys meets it.
    ///
    /// A key takes its own bytes and those of its sort key (with two for each zero byte), and two more; all
    /// together are at most 65,536 bytes. Keys that share a sort key's beginning share its bytes in the
    /// pages.
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
    /// use peristyle::KeyOrder;
    ///
    /// // As people look names up: small and capital letters are one.
    /// let order = KeyOrder::new("names", |key, sort_key| {
    ///     sort_key.extend(std::str::from_utf8(key)?.to_lowercase().into_bytes());
    ///     Ok(())
    /// });
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// let people = db.create_column_family("people", FamilyOptions::default().key_order(order))?;
    /// for name in ["ann", "Zoe", "Ben"] {
    ///     people.put(name, "")?;
    /// }
    /// let names: Vec<_> = people.iter()?.map(|entry| entry.unwrap().0).collect();
    /// assert_eq!(names, ["ann", "Ben", "Zoe"]);
    /// assert!(people.put(b"\xff", "").is_err(), "that is no text");
    /// # Ok(()) }
    /// ```
    pub fn new(
        name: &str,
        sort_key: impl Fn(&[u8], &mut Vec<u8>) -> SortKeyResult + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), form: Form::SortKey, code: Code(Some(std::sync::Arc::new(sort_key))) }
    }

    /// Keys by their bytes, the highest first. Keys that begin with the same bytes are neighbours, so
    /// [`prefix`](crate::ColumnFamily::prefix) and its like can be asked for. A key takes two bytes more, and
    /// one for each zero byte in it.
    pub fn reverse() -> Self {
        Self::ready(Form::Reverse)
    }

    native! {
        native_u16 u16
        native_u32 u32
        native_u64 u64
        native_u128 u128
        native_i16 i16
        native_i32 i32
        native_i64 i64
        native_i128 i128
    }

    fn ready(form: Form) -> Self {
        Self { name: form.name().into(), form, code: Code(None) }
    }

    /// The order that the catalog says by this name; of one that does not come with the engine nothing but
    /// the name is known. `None` if there is no such order.
    pub(crate) fn named(name: &str) -> Option<Self> {
        if name.starts_with(OURS) {
            return Form::named(name).map(Self::ready);
        }
        let order = Self { name: name.into(), form: Form::SortKey, code: Code(None) };
        order.check().ok().map(|()| order)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it orders two keys: which of them a walk meets first.
    ///
    /// # Errors
    ///
    /// [`KeyOrderFailed`](crate::ErrorKind::KeyOrderFailed) and
    /// [`KeyTooLarge`](crate::ErrorKind::KeyTooLarge) for a key that cannot stand in it.
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// use peristyle::KeyOrder;
    ///
    /// let order = KeyOrder::native_i32();
    /// assert!(order.compare(&(-1i32).to_ne_bytes(), &256i32.to_ne_bytes())?.is_lt());
    /// assert!(KeyOrder::reverse().compare(b"a", b"b")?.is_gt());
    /// # Ok(()) }
    /// ```
    pub fn compare(&self, a: &[u8], b: &[u8]) -> Result<Ordering> {
        Ok(self.stored(a)?.cmp(&self.stored(b)?))
    }

    /// Whether it can be asked.
    pub(crate) fn is_present(&self) -> bool {
        self.form != Form::SortKey || self.code.0.is_some()
    }

    /// Refuses a name that no order can have.
    pub(crate) fn check(&self) -> Result<()> {
        let is_ours = self.form == Form::SortKey && self.name.starts_with(OURS);
        if (1..=MOST_NAME).contains(&self.name.len()) && !is_ours {
            return Ok(());
        }
        Err(Error::key_order_name(&self.name))
    }

    /// The stored key of `key`.
    pub(crate) fn stored(&self, key: &[u8]) -> Result<Vec<u8>> {
        let mut stored = Vec::new();
        if key.len() <= MAX_KEY_LEN {
            self.store(key, &mut stored)?;
        }
        if key.len().max(stored.len()) > MAX_KEY_LEN {
            return Err(Error::key_too_large_for(&self.name, key));
        }
        Ok(stored)
    }

    fn store(&self, key: &[u8], stored: &mut Vec<u8>) -> Result<()> {
        let failed = |reason: &str| Error::key_order_failed(&self.name, key, reason);
        match self.form {
            Form::Reverse => form::store_reverse(key, stored),
            Form::Integers(integers) if integers.len() == key.len() => integers.store(key, stored),
            Form::Integers(integers) => {
                return Err(failed(&format!("it has keys of {} bytes alone", integers.len())));
            }
            Form::SortKey => {
                let Some(code) = &self.code.0 else { return Err(Error::key_order_missing(&self.name)) };
                // What is lent to it is a vector of its own.
                let given = guarded(|| {
                    let mut sort_key = Vec::new();
                    let given = code(key, &mut sort_key);
                    given.map(|()| sort_key).map_err(|error| error.to_string())
                });
                match given {
                    Ok(Ok(sort_key)) if sort_key.len() > MAX_KEY_LEN => {
                        return Err(Error::key_too_large_for(&self.name, key));
                    }
                    Ok(Ok(sort_key)) => form::store_beside(&sort_key, key, stored),
                    Ok(Err(reason)) => return Err(failed(&reason)),
                    Err(panic) => return Err(failed(&format!("it panicked: {panic}"))),
                }
            }
        }
        Ok(())
    }

    /// Writes the key that was stored as `stored` to `key`. `false` if no key is stored so.
    pub(crate) fn restore(&self, stored: &[u8], key: &mut Vec<u8>) -> bool {
        key.clear();
        match self.form {
            Form::Reverse => form::restore_reverse(stored, key),
            Form::Integers(integers) => integers.restore(stored, key),
            Form::SortKey => match form::beside(stored) {
                Some(own) => {
                    key.extend_from_slice(own);
                    true
                }
                None => false,
            },
        }
    }

    /// What the stored keys of all keys that begin with `prefix` begin with, and no others.
    pub(crate) fn stored_prefix(&self, prefix: &[u8]) -> Result<Vec<u8>> {
        let mut stored = Vec::new();
        match self.form {
            Form::Reverse if prefix.len() <= MAX_KEY_LEN => {
                form::store_reverse_beginning(prefix, &mut stored)
            }
            Form::Reverse => return Err(Error::key_too_large_for(&self.name, prefix)),
            _ => return Err(Error::no_prefixes(&self.name)),
        }
        if stored.len() > MAX_KEY_LEN {
            return Err(Error::key_too_large_for(&self.name, prefix));
        }
        Ok(stored)
    }

    /// What is shown of a bound of stored keys: the key that is stored so, or right before it, or what the
    /// keys there begin with.
    pub(crate) fn shown(&self, bound: &[u8]) -> Vec<u8> {
        let mut key = Vec::new();
        if self.restore(bound, &mut key) {
            return key;
        }
        if let Some(before) = bound.strip_suffix(&[0])
            && self.restore(before, &mut key)
        {
            return key;
        }
        key.clear();
        match self.form {
            // Up to where it ends.
            Form::Reverse => drop(form::restore_reverse(bound, &mut key)),
            _ => key.extend_from_slice(bound),
        }
        key
    }
}

/// Two are the same if they have one name.
impl PartialEq for KeyOrder {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for KeyOrder {}

impl fmt::Debug for KeyOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

//! Filters: what a program leaves out or changes of a family's entries as these are written anew.
//!
//! A filter is a guest as an operator is. What it says counts for the entry that it was shown, if it says
//! anything; it is never asked under a lock but, in the background, the one by which one merge of the family
//! runs at a time.

use std::fmt;

use super::named::guarded;
use crate::codec::expiry::STAMP_LEN;
use crate::error::{Error, Result};
use crate::sync::Arc;

/// What is to become of an entry that a filter was shown.
///
/// See [`FamilyOptions::filter`](crate::FamilyOptions::filter).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilterVerdict {
    /// It stays as it is.
    Keep,
    /// It is deleted.
    Drop,
    /// It gets this value, of 4 GiB - 10 bytes at most, which has room for an expiry.
    Change(Vec<u8>),
}

/// Bytes of the longest value that also has room for an expiry.
const MAX_CHANGED_LEN: u64 = u32::MAX as u64 - STAMP_LEN as u64;

/// What a filter says of an entry, or why it cannot.
pub type FilterResult = std::result::Result<FilterVerdict, Box<dyn std::error::Error + Send + Sync>>;

/// An entry that a filter is shown.
///
/// See [`FamilyOptions::filter`](crate::FamilyOptions::filter).
#[derive(Clone, Copy)]
pub struct FilteredEntry<'a> {
    key: &'a [u8],
    len: usize,
    value: &'a dyn Fn() -> Result<&'a [u8]>,
}

impl<'a> FilteredEntry<'a> {
    pub(crate) fn new(key: &'a [u8], len: usize, value: &'a dyn Fn() -> Result<&'a [u8]>) -> Self {
        Self { key, len, value }
    }

    /// Its key.
    pub fn key(&self) -> &'a [u8] {
        self.key
    }

    /// Length of its value, in bytes. Reads nothing.
    pub fn value_len(&self) -> usize {
        self.len
    }

    /// Its value. One that stands in pages of its own, as large ones do, is read now.
    ///
    /// # Errors
    ///
    /// Those of reading: hand them on.
    pub fn value(&self) -> Result<&'a [u8]> {
        (self.value)()
    }
}

impl fmt::Debug for FilteredEntry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilteredEntry").field("key", &self.key).field("value_len", &self.len).finish()
    }
}

type Judge = dyn Fn(&FilteredEntry<'_>) -> FilterResult + Send + Sync;

/// A filter and its name.
#[derive(Clone)]
pub(crate) struct NamedFilter {
    name: Arc<str>,
    code: Code,
}

/// What a filter does when it goes is its own as well.
#[derive(Clone)]
struct Code(Option<std::sync::Arc<Judge>>);

impl Drop for Code {
    fn drop(&mut self) {
        if let Some(code) = self.0.take() {
            // Whoever lets go of it last has nothing to do with it.
            let _panic = guarded(|| drop(code));
        }
    }
}

impl NamedFilter {
    pub(crate) fn new(
        name: &str,
        judge: impl Fn(&FilteredEntry<'_>) -> FilterResult + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), code: Code(Some(std::sync::Arc::new(judge))) }
    }

    /// What is to become of `entry`. The error names filter and key.
    pub(crate) fn judge(&self, entry: &FilteredEntry<'_>) -> Result<FilterVerdict> {
        let Some(code) = &self.code.0 else { return Ok(FilterVerdict::Keep) };
        let failed = |reason: &str| Error::filter_failed(&self.name, entry.key, reason);
        // To show why it failed is up to it, too.
        match guarded(|| code(entry).map_err(|error| error.to_string())) {
            Ok(Ok(FilterVerdict::Change(value))) if value.len() as u64 > MAX_CHANGED_LEN => {
                Err(failed(&format!("it gave a value of {} bytes, which is too long", value.len())))
            }
            Ok(Ok(verdict)) => Ok(verdict),
            Ok(Err(reason)) => Err(failed(&reason)),
            Err(panic) => Err(failed(&format!("it panicked: {panic}"))),
        }
    }
}

/// What options say of a family's filter. They are the same whatever they say of it, since it is not kept in
/// the database.
#[derive(Clone, Default)]
pub(crate) enum GivenFilter {
    #[default]
    Unsaid,
    None,
    Some(NamedFilter),
}

impl PartialEq for GivenFilter {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for GivenFilter {}

impl fmt::Debug for GivenFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsaid => f.write_str("Unsaid"),
            Self::None => f.write_str("None"),
            Self::Some(filter) => filter.name.fmt(f),
        }
    }
}

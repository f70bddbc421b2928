//! The options of one column family.

use crate::codec::varint;
use crate::error::{Error, ErrorKind, Result};

/// Options of one column family, kept in the catalog. All of them can be read, here from
/// [`ColumnFamily::options`](crate::ColumnFamily::options), and changed while the family is in use, by
/// [`ColumnFamily::set_options`](crate::ColumnFamily::set_options).
///
/// ```
/// use peristyle::FamilyOptions;
///
/// // A family that is read much and overwritten in place: more cache, and room in its leaves.
/// let options = FamilyOptions::default().cache_share(4).page_fill(90);
/// assert_eq!((options.cache_share, options.page_fill), (4, 90));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct FamilyOptions {
    /// Percent of a leaf that a merge fills when it rewrites neighbours.
    pub page_fill: u8,
    /// Weight of the family when the read cache is split.
    pub cache_share: u16,
    /// Weight of the family when memtables and write buffers are split.
    pub memtable_share: u16,
}

impl Default for FamilyOptions {
    fn default() -> Self {
        Self { page_fill: 100, cache_share: 1, memtable_share: 1 }
    }
}

impl FamilyOptions {
    /// Percent of a leaf that a merge fills when it rewrites neighbours: 50 to 100 (the default). A change
    /// holds for what is merged from then on.
    pub fn page_fill(mut self, percent: u8) -> Self {
        self.page_fill = percent;
        self
    }

    /// Weight of this family when the read cache is split: 1 (the default) to 1000.
    pub fn cache_share(mut self, weight: u16) -> Self {
        self.cache_share = weight;
        self
    }

    /// Weight of this family when memtables and write buffers are split: 1 (the default) to 1000.
    pub fn memtable_share(mut self, weight: u16) -> Self {
        self.memtable_share = weight;
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |message: String| Err(Error::new(ErrorKind::InvalidArgument, message));
        if !(50..=100).contains(&self.page_fill) {
            return refuse(format!("a page fill of {} % is not possible; 50 to 100 are", self.page_fill));
        }
        for (name, weight) in [("cache", self.cache_share), ("memtable", self.memtable_share)] {
            if !(1..=1000).contains(&weight) {
                return refuse(format!("a {name} share of {weight} is not possible; 1 to 1000 are"));
            }
        }
        Ok(())
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        for value in [u16::from(self.page_fill), self.cache_share, self.memtable_share] {
            varint::put(out, u64::from(value));
        }
    }

    pub(crate) fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let options = Self {
            page_fill: varint::take(bytes)?.try_into().ok()?,
            cache_share: varint::take(bytes)?.try_into().ok()?,
            memtable_share: varint::take(bytes)?.try_into().ok()?,
        };
        options.check().is_ok().then_some(options)
    }
}

//! Snapshots: one moment of the whole database.

use std::fmt;

use crate::codec::ids::SequenceNumber;
use crate::column_family::reading::value::Value;
use crate::column_family::view::Moment;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Arc;
use crate::system::Inherited;
use crate::txn::family_snapshot::FamilySnapshot;
use crate::txn::handle::ColumnFamily;

/// One consistent moment across all column families, for as long as it is held.
///
/// Making one costs a shared counter and no I/O, however many families there are. It stays the same through
/// later writes, merges, checkpoints and drops of families. While it lives, the memtables and pages of its
/// moment are kept, so a snapshot that is held for long costs memory and disk, but no more than what it sees:
/// [`Statistics::pinned_bytes`](crate::Statistics::pinned_bytes) tells how much.
///
/// ```
/// # fn main() -> peristyle::Result<()> {
/// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
/// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
/// # let cf = db.create_column_family("heights", FamilyOptions::default())?;
/// cf.put("tip", "100")?;
/// let before = db.snapshot()?;
/// cf.put("tip", "101")?;
/// assert_eq!(before.get(&cf, "tip")?.unwrap(), "100");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Snapshot {
    moment: Inherited<Moment>,
    database: u64,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("at", &self.moment.at).finish_non_exhaustive()
    }
}

impl Snapshot {
    pub(crate) fn new(moment: Moment, database: u64) -> Self {
        Self { moment: Inherited::new(moment), database }
    }

    /// Position of the last commit that the snapshot sees.
    pub fn sequence_number(&self) -> SequenceNumber {
        self.moment.at
    }

    /// This moment of one family. [`ErrorKind::FamilyNotFound`] if the family was created later or dropped
    /// before.
    pub fn column_family(&self, family: &ColumnFamily) -> Result<FamilySnapshot> {
        if family.database_number() != self.database {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "the snapshot and the column family belong to different databases",
            ));
        }
        self.moment.check()?;
        let family = family.family();
        let view = self.moment.view.family(family.slot(), family.id()).map_err(|_| {
            Error::new(ErrorKind::FamilyNotFound, "the snapshot holds no such column family")
                .of_family(family.id().0)
        })?;
        Ok(FamilySnapshot::new(Arc::clone(view), self.moment.at, self.moment.now))
    }

    /// The value of `key` in `family` at this moment.
    pub fn get(&self, family: &ColumnFamily, key: impl AsRef<[u8]>) -> Result<Option<Value>> {
        self.column_family(family)?.get(key)
    }
}

//! Where the catalog stands in the data file, and what changes of families it records.

use crate::codec::checksum::crc32_on;
use crate::codec::features::Features;
use crate::codec::ids::FamilyId;
use crate::column_family::catalog::{BLOCK, Catalog, encode_part};
use crate::column_family::family::Family;
use crate::column_family::options::FamilyOptions;
use crate::column_family::record::{FamilyRecord, Record};
use crate::error::Result;
use crate::segment::{CatalogExtent, SpaceMap, Superblock};
use crate::sync::Arc;

/// Room for parts behind the first one, in bytes, if that one is smaller.
const LEAST_ROOM: u64 = 3 * BLOCK as u64;

/// Extents for the two copies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// First file page of each.
    pub(super) copies: [Option<u64>; 2],
    /// Pages of each.
    pub(super) room: u64,
    /// Whether all of that was written to before, so that the disk writes a part and nothing of its own.
    pub(super) is_written: bool,
}

impl Place {
    /// Takes extents of `room` pages each.
    pub(super) fn allocate(space: &SpaceMap, room: u64) -> Result<Self> {
        let (first, _) = space.allocate(room, room)?;
        match space.allocate(room, room) {
            Ok((second, _)) => Ok(Self { copies: [Some(first), Some(second)], room, is_written: false }),
            Err(error) => {
                space.free_unused(first, room);
                Err(error)
            }
        }
    }
}

/// The parts that are written, those of them that no superblock names yet included.
pub(super) struct CatalogFile {
    pub(super) place: Place,
    pub(super) len: u64,
    pub(super) number: u64,
    /// Of all its bytes, 0 if it is not known.
    pub(super) checksum: u32,
    /// A record that the superblock held when the database was opened: it may be in no part.
    pub(super) unlisted: Option<Record>,
    /// Parts can be written behind those that are there.
    pub(super) has_parts: bool,
    /// What stands there now is to stay when there is another catalog: some of it could not be read.
    pub(super) is_kept: bool,
    /// Room for the next, also on a full disk: where the catalog before this one stood, or what was found
    /// when the database was opened.
    pub(super) spare: Option<Place>,
    /// The next one is to stand at the lowest place that is free, where there is room for that.
    pub(super) is_to_move: bool,
}

impl CatalogFile {
    /// The catalog that was read, and the record that the superblock held.
    pub(super) fn restore(superblock: &Superblock, catalog: &Catalog, unlisted: Option<Record>) -> Self {
        let CatalogExtent { copies, len, number, checksum, .. } = superblock.catalog;
        Self {
            place: Place { copies, room: superblock.catalog_pages(), is_written: false },
            len,
            number,
            checksum,
            unlisted,
            has_parts: catalog.is_sound,
            is_kept: !catalog.lost.is_empty(),
            spare: None,
            is_to_move: false,
        }
    }

    /// What a superblock says of it.
    pub(super) fn extent(&self) -> CatalogExtent {
        let Self { place: Place { copies, room, .. }, len, number, checksum, .. } = *self;
        // More room than can be said is kept for as long as the database is open.
        CatalogExtent { copies, len, number, checksum, room: u32::try_from(room).unwrap_or(0) }
    }

    /// Pages for a catalog of `len` bytes and as many for parts behind it.
    pub(super) fn wanted_room(&self, len: u64, page_size: u64) -> u64 {
        (len + len.max(LEAST_ROOM)).div_ceil(page_size)
    }

    /// Pages that are taken for it, its spare place included.
    pub(super) fn pages(&self) -> u64 {
        let places = [Some(self.place), self.spare];
        places.iter().flatten().map(|place| place.copies.iter().flatten().count() as u64 * place.room).sum()
    }

    /// Whether the next catalog is to be a whole one, in another place.
    pub(super) fn is_to_be_replaced(&self) -> bool {
        !self.has_parts
    }

    /// Takes another spare place if there is none, or it has too little room for all that the catalog says
    /// now, and anything is kept for a full disk. Says whether it did: not without room for one.
    pub(super) fn find_spare(&mut self, space: &SpaceMap, page_size: u64) -> Result<bool> {
        let least = self.len.div_ceil(page_size);
        if space.reserve_bytes() == 0 || self.spare.is_some_and(|spare| spare.room >= least) {
            return Ok(false);
        }
        match Place::allocate(space, self.place.room.max(least)) {
            Err(error) if error.is_refusal() => {
                tracing::debug!(%error, "the catalog has no spare place");
                Ok(false)
            }
            place => {
                self.spare = Some(place?);
                Ok(true)
            }
        }
    }

    /// The part that says `records`, if there is room for it behind what is there.
    pub(super) fn encode_behind(&self, records: &[Record], page_size: u64) -> Option<Vec<u8>> {
        if !self.has_parts {
            return None;
        }
        let at = usize::try_from(self.len).ok()?;
        let bytes = encode_part(records, self.number, at);
        (self.len + bytes.len() as u64 <= self.place.room * page_size).then_some(bytes)
    }

    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        if self.checksum != 0 {
            self.checksum = crc32_on(self.checksum, bytes);
        }
        self.unlisted = None;
    }
}

/// What becomes of families without anything else.
pub(super) enum Change<'a> {
    Created(&'a [Arc<Family>]),
    Renamed(&'a Family, &'a str),
    Dropped(FamilyId),
    Changed(&'a Family, &'a FamilyOptions),
}

impl Change<'_> {
    pub(super) fn records(&self) -> Vec<Record> {
        match self {
            Self::Created(families) => {
                let new = |family: &Arc<Family>| {
                    Record::Whole(Box::new(FamilyRecord::new(family.id(), &family.name(), family.options())))
                };
                families.iter().map(new).collect()
            }
            Self::Renamed(family, name) => vec![Record::Renamed(family.id(), (*name).to_owned())],
            Self::Dropped(family) => vec![Record::Dropped(*family)],
            Self::Changed(family, options) => vec![Record::Changed(family.id(), (*options).clone())],
        }
    }

    /// What must be known of the database from now on.
    pub(super) fn features(&self) -> Features {
        match self {
            Self::Created(families) => families.iter().fold(Features::default(), |features, family| {
                let own = if family.is_internal() { Features::OF_PREPARED } else { Features::default() };
                features.and(own).and(family.options().features())
            }),
            Self::Changed(_, options) => options.features(),
            Self::Renamed(..) | Self::Dropped(_) => Features::default(),
        }
    }

    /// Changes the records of all families as they were before.
    pub(super) fn apply(&self, records: &mut Vec<Record>) {
        match self {
            Self::Created(_) => records.extend(self.records()),
            Self::Renamed(family, new_name) => {
                for record in records {
                    if let Record::Whole(record) = record
                        && record.id == family.id()
                    {
                        record.name = (*new_name).to_owned();
                    }
                }
            }
            Self::Dropped(family) => records.retain(|record| record.id() != *family),
            Self::Changed(family, new_options) => {
                for record in records {
                    if let Record::Whole(record) = record
                        && record.id == family.id()
                    {
                        record.options = (*new_options).clone();
                        record.features = record.features.and(new_options.features());
                    }
                }
            }
        }
    }
}

/// What the last checkpoint wrote; guarded by the lock that lets one run at a time.
pub(super) struct State {
    pub(super) superblock: Superblock,
    /// The slot of the superblock to write first.
    pub(super) first_slot: usize,
    /// Whether that slot's twin is known to be durable. When a database is opened both may say the same, and
    /// one of them only in the memory of the system: which one is not known.
    pub(super) twin_is_durable: bool,
    pub(super) catalog: CatalogFile,
}

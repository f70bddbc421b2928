//! Reads the catalog that a superblock names, from whichever of its copies can be read.

use crate::codec::checksum::crc32;
use crate::column_family::catalog::Catalog;
use crate::column_family::record::Record;
use crate::error::{Error, ErrorKind, Result};
use crate::segment::{CatalogExtent, EXTENTS_START, Superblock};
use crate::storage::StorageFile;

const DATA: &str = "data";
/// Of what cannot be read in one piece, pieces of this many bytes are read or given up.
const SECTOR: usize = 512;

/// What was read of the catalog.
pub(super) struct CatalogRead {
    pub(super) catalog: Catalog,
    /// The record that stood in the superblock.
    pub(super) newest: Option<Record>,
    /// The first sector of a copy that the disk did not give: what it held may be read another time.
    pub(super) failure: Option<Error>,
}

pub(super) fn read_catalog(file: &dyn StorageFile, superblock: &Superblock) -> Result<CatalogRead> {
    let (mut catalog, failure) = match superblock.catalog.number {
        0 => (read_old(file, superblock)?, None),
        _ => read_copies(file, superblock)?,
    };
    let newest = match superblock.record.bytes() {
        [] => None,
        record => Some(catalog.apply(record)?),
    };
    match (&newest, superblock.next_family) {
        (Some(record), 0) => {
            let next = record.id().0.checked_add(1).ok_or_else(beyond)?;
            catalog.next_family = catalog.next_family.max(next);
        }
        (_, 0) => {}
        (_, next) => {
            let highest = catalog.families.keys().chain(catalog.lost.keys()).max();
            if highest.is_some_and(|highest| highest.0 >= next) {
                return Err(beyond());
            }
        }
    }
    Ok(CatalogRead { catalog, newest, failure })
}

fn beyond() -> Error {
    Error::corruption("the catalog has a family with a number that is to be given yet").in_file(DATA)
}

/// Where a copy stands, if that is in the file.
fn place(superblock: &Superblock, page: u64, file_len: u64) -> Option<u64> {
    let offset = page.checked_mul(u64::from(superblock.page_size))?.checked_add(EXTENTS_START)?;
    offset.checked_add(superblock.catalog.len).filter(|&end| end <= file_len)?;
    Some(offset)
}

fn length(file: &dyn StorageFile) -> Result<u64> {
    file.len().map_err(|error| Error::io("reading the data file's length", error).in_file(DATA))
}

/// Room for a catalog, which was found to lie in the file.
fn buffer(len: u64) -> Result<Vec<u8>> {
    let too_large = || {
        let message = format!("there is no memory to read a catalog of {len} bytes");
        Error::new(ErrorKind::OutOfResources, message)
    };
    let len = usize::try_from(len).map_err(|_| too_large())?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| too_large())?;
    bytes.resize(len, 0);
    Ok(bytes)
}

fn read_copies(file: &dyn StorageFile, superblock: &Superblock) -> Result<(Catalog, Option<Error>)> {
    let file_len = length(file)?;
    let mut copies = [Vec::new(), Vec::new()];
    let mut failure = None;
    let mut offset = None;
    for (copy, page) in copies.iter_mut().zip(superblock.catalog.copies) {
        let Some(place) = page.and_then(|page| place(superblock, page, file_len)) else { continue };
        offset = offset.or(Some(place));
        *copy = buffer(superblock.catalog.len)?;
        read_around(file, copy, place, &mut failure);
    }
    let Some(offset) = offset else {
        return Err(Error::corruption("the catalog lies beyond the end of the file").in_file(DATA));
    };
    let located = |error: Error| error.in_file(DATA).at_offset(offset);
    let catalog = decode([&copies[0], &copies[1]], superblock);
    let catalog = catalog.map_err(|error| match failure.take() {
        Some(failure) if error.kind() == ErrorKind::Corruption => failure,
        _ => located(error),
    })?;
    if !catalog.is_sound {
        tracing::warn!(
            lost = catalog.lost.len(),
            "a copy of the catalog is damaged; what one of the copies has is used"
        );
    }
    Ok((catalog, failure))
}

/// What is wrong with each copy of the catalog by itself. To be called while nobody writes one.
pub(super) fn check_copies(file: &dyn StorageFile, superblock: &Superblock) -> Vec<Error> {
    if superblock.catalog.number == 0 {
        return read_old(file, superblock).err().into_iter().collect();
    }
    let copies = superblock.catalog.copies.into_iter().flatten();
    copies.filter_map(|page| check_copy(file, superblock, page).err()).collect()
}

fn check_copy(file: &dyn StorageFile, superblock: &Superblock, page: u64) -> Result<()> {
    let Some(offset) = place(superblock, page, length(file)?) else {
        return Err(Error::corruption("a copy of the catalog lies beyond the end of the file").in_file(DATA));
    };
    let located = |error: Error| error.in_file(DATA).at_offset(offset);
    let mut bytes = buffer(superblock.catalog.len).map_err(located)?;
    let read = file.read_at(&mut bytes, offset);
    read.map_err(|error| located(Error::reading("reading a copy of the catalog", error)))?;
    // As if both copies said it: nothing of the other one makes up for what is damaged here.
    let catalog = decode([&bytes, &bytes], superblock).map_err(located)?;
    if catalog.is_sound {
        Ok(())
    } else {
        Err(located(Error::corruption("a copy of the catalog is damaged")))
    }
}

/// What the copies say. The superblock knows their sum: a copy that has it counts alone, so that none counts
/// in which a write was lost, whatever whole frame stood there before.
fn decode(copies: [&[u8]; 2], superblock: &Superblock) -> Result<Catalog> {
    let CatalogExtent { number, checksum, .. } = superblock.catalog;
    if checksum == 0 {
        return Catalog::decode(copies, number, true);
    }
    let catalog = match copies.map(|copy| crc32(&[copy]) == checksum) {
        [true, true] => return Catalog::decode(copies, number, true),
        [false, false] => {
            let catalog = Catalog::decode(copies, number, false)?;
            if catalog.is_sound {
                return Err(Error::corruption("both copies of the catalog are older than the superblock"));
            }
            catalog
        }
        [first, _] => {
            let whole = copies[usize::from(!first)];
            Catalog::decode([whole, whole], number, true)?
        }
    };
    Ok(Catalog { is_sound: false, ..catalog })
}

/// Reads what can be read; where nothing can, ones stand in its place, which are no frame and no end of a
/// part.
fn read_around(file: &dyn StorageFile, bytes: &mut [u8], offset: u64, failure: &mut Option<Error>) {
    let Err(error) = file.read_at(bytes, offset) else { return };
    if bytes.len() <= SECTOR {
        bytes.fill(0xff);
        let error = Error::io("reading the catalog", error).in_file(DATA).at_offset(offset);
        tracing::warn!(%error, "a sector of the catalog cannot be read");
        failure.get_or_insert(error);
        return;
    }
    let half = (bytes.len() / 2).next_multiple_of(SECTOR);
    let (first, second) = bytes.split_at_mut(half);
    read_around(file, first, offset, failure);
    read_around(file, second, offset + half as u64, failure);
}

/// A catalog of format 1 to 3.
fn read_old(file: &dyn StorageFile, superblock: &Superblock) -> Result<Catalog> {
    let offset = superblock.catalog.copies[0].and_then(|page| place(superblock, page, length(file).ok()?));
    let offset = offset
        .ok_or_else(|| Error::corruption("the catalog lies beyond the end of the file").in_file(DATA))?;
    let located = |error: Error| error.in_file(DATA).at_offset(offset);
    let mut bytes = buffer(superblock.catalog.len)?;
    file.read_at(&mut bytes, offset).map_err(|error| located(Error::io("reading the catalog", error)))?;
    if crc32(&[&bytes]) != superblock.catalog.checksum {
        return Err(located(Error::corruption("the catalog's checksum does not match")));
    }
    Catalog::decode_old(&bytes).map_err(located)
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::storage::{FileMode, MemoryStorage, StorageBackend};
    use crate::{ColumnFamilyDatabase, FamilyOptions};

    /// A storage like `storage`, in whose database a family `name` was created, and then another one.
    fn with_families(storage: &MemoryStorage, name: &str) -> MemoryStorage {
        let copy = MemoryStorage::new();
        let mut bytes = Vec::new();
        copy.create_directory("wal").unwrap();
        for path in ["data", "wal/0000000000000001.log"] {
            let file = storage.open(path, FileMode::Read).unwrap();
            bytes.resize(file.len().unwrap() as usize, 0);
            file.read_at(&mut bytes, 0).unwrap();
            copy.open(path, FileMode::Create).unwrap().write_at(&bytes, 0).unwrap();
        }
        let db = open(&copy);
        for name in [name, "newest"] {
            db.create_column_family(name, FamilyOptions::default()).unwrap();
        }
        copy
    }

    fn open(storage: &MemoryStorage) -> ColumnFamilyDatabase {
        let builder = ColumnFamilyDatabase::builder().automatic_maintenance(false).disk_reserve_bytes(0);
        builder.storage(storage.clone()).open("memory").unwrap()
    }

    #[test]
    fn a_copy_in_which_a_write_was_lost_counts_for_nothing() {
        let storage = MemoryStorage::new();
        open(&storage).create_column_family("first", FamilyOptions::default()).unwrap();
        // Before it was killed, a process had written this where the next one writes something else.
        let before = with_families(&storage, "lost").open("data", FileMode::Read).unwrap();
        for stale in [&[0][..], &[1], &[0, 1]] {
            let after = with_families(&storage, "right");
            let file = after.open("data", FileMode::Write).unwrap();
            let (superblock, _) = Superblock::load(&*file, DATA).unwrap();
            let mut bytes = vec![0; superblock.catalog.len as usize];
            for &copy in stale {
                let page = superblock.catalog.copies[copy].unwrap();
                let offset = EXTENTS_START + page * u64::from(superblock.page_size);
                before.read_at(&mut bytes, offset).unwrap();
                assert_ne!(crc32(&[&bytes]), superblock.catalog.checksum);
                file.write_at(&bytes, offset).unwrap();
            }
            if stale.len() == 2 {
                let failed = read_catalog(&*file, &superblock).err().expect("nothing is whole");
                assert_eq!(failed.kind(), ErrorKind::Corruption);
                continue;
            }
            for _ in 0..2 {
                let db = open(&after);
                assert_eq!(db.column_family_names(), ["first", "newest", "right"]);
                db.close().unwrap();
            }
        }
    }
}

//! Opens what a crash left, and reads all of it.

use peristyle::{ColumnFamilyDatabase, Error, FamilySnapshot};

use crate::digest::{self, Sums, WRITERS};
use crate::disk::SimulatedDisk;
use crate::history::{PREPARED, State, prepared};
use crate::ledger::Recovered;
use crate::run::Setup;
use crate::violation::{Checked, Kind, Violation};

/// What it means when something that should be readable is not.
pub fn unreadable(error: &Error) -> Violation {
    Violation::new(Kind::Lost, format!("something cannot be read: {error}"))
}

/// Reads a family from front to back and gives each writer's sum; `each` is told of every entry. Keys must
/// ascend.
///
/// # Errors
/// The engine's.
pub fn read_family(
    family: &FamilySnapshot,
    mut each: impl FnMut(&[u8], u128),
) -> peristyle::Result<Checked<[u128; WRITERS]>> {
    let mut sums = [0u128; WRITERS];
    let mut last: Option<Vec<u8>> = None;
    let mut cursor = family.cursor();
    let mut stands = cursor.first()?;
    let mut count = 0;
    while stands {
        let key = cursor.key();
        if last.as_deref().is_some_and(|last| last >= key) {
            let message = format!("key {key:?} comes after {last:?}");
            return Ok(Err(Violation::new(Kind::Wrong, message)));
        }
        let sum = digest::entry(key, cursor.value()?);
        each(key, sum);
        let writer = digest::writer_of(key);
        sums[writer] = sums[writer].wrapping_add(sum);
        let kept = last.get_or_insert_default();
        kept.clear();
        kept.extend_from_slice(key);
        count += 1;
        stands = cursor.next()?;
    }
    if family.len()? != count {
        let message = format!("a family says that it has {} entries, but {count} are read", family.len()?);
        return Ok(Err(Violation::new(Kind::Wrong, message)));
    }
    Ok(Ok(sums))
}

/// Reads all of a database; `each` is told of every family's entries.
///
/// # Errors
/// The engine's.
pub fn read_all(
    db: &ColumnFamilyDatabase,
    mut each: impl FnMut(&str, &[u8], u128),
) -> peristyle::Result<Checked<Sums>> {
    let mut sums = Sums::default();
    for name in db.column_family_names() {
        let family = db.column_family(&name)?.snapshot()?;
        match read_family(&family, |key, sum| each(&name, key, sum))? {
            Ok(sum) => drop(sums.families.insert(name, sum)),
            Err(violation) => return Ok(Err(violation)),
        }
    }
    read_prepared(db, &mut sums, |name, sum| each(PREPARED, name, sum))?;
    Ok(Ok(sums))
}

/// Reads what is prepared; `each` is told of every name.
///
/// # Errors
/// The engine's.
pub fn read_prepared(
    db: &ColumnFamilyDatabase,
    sums: &mut Sums,
    mut each: impl FnMut(&[u8], u128),
) -> peristyle::Result<()> {
    let mut all = [0u128; WRITERS];
    for undecided in db.prepared_transactions()? {
        let sum = prepared(undecided.name());
        each(undecided.name(), sum);
        let writer = &mut all[digest::writer_of(undecided.name())];
        *writer = writer.wrapping_add(sum);
    }
    sums.families.insert(PREPARED.to_owned(), all);
    Ok(())
}

/// Reads all of a database into a state.
///
/// # Errors
/// What is read wrongly, or not at all.
pub fn read_state(db: &ColumnFamilyDatabase) -> Checked<State> {
    let names = db.column_family_names();
    let mut state = State::with_families(names.iter().map(String::as_str));
    read_all(db, |family, key, sum| state.insert(family, key.to_vec(), sum))
        .map_err(|error| unreadable(&error))??;
    Ok(state)
}

/// Looks at an open database: reads everything and verifies it.
///
/// # Errors
/// What is wrong.
pub fn look(db: &ColumnFamilyDatabase) -> Checked<Recovered> {
    let sums = read_all(db, |_, _, _| ()).map_err(|error| unreadable(&error))??;
    let report = db.verify().map_err(|error| unreadable(&error))?;
    if !report.is_clean() {
        let faults: Vec<String> = report.faults.iter().take(3).map(ToString::to_string).collect();
        let message = format!("{} faults: {}", report.faults.len(), faults.join("; "));
        return Err(Violation::new(Kind::Unsound, message));
    }
    let last_sequence = db.recovery_report().last_sequence.0;
    let visible = db.snapshot().map_err(|error| unreadable(&error))?.sequence_number().0;
    if visible != last_sequence {
        let message = format!("recovery ended at number {last_sequence}, but {visible} is visible");
        return Err(Violation::new(Kind::Resurrected, message));
    }
    Ok(Recovered { sums, last_sequence })
}

/// Opens what is on `disk`, which a crash left.
///
/// # Errors
/// It cannot be opened.
pub fn reopen(disk: &SimulatedDisk, setup: Setup) -> Checked<ColumnFamilyDatabase> {
    setup
        .open(disk)
        .map_err(|error| Violation::new(Kind::Lost, format!("the database does not open: {error}")))
}

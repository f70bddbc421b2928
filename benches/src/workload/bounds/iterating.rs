//! Steps of an iterator beside steps of a cursor and beside a scan.

use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::{Result, ensure};
use peristyle::{ColumnFamily, ColumnFamilyDatabase, FamilyOptions, WriteBatch};
use serde::{Deserialize, Serialize};

use super::{KEY_BYTES, Row};
use crate::child::Place;
use crate::engine::Feature;
use crate::entries::random_key;
use crate::measure::{Figure, Measured};

/// Entries of 72 bytes that fit a processor's cache.
const ENTRIES: u64 = 4000;
const VALUE: [u8; 56] = [7; 56];

/// For how long they are walked over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Iterating {
    /// Seconds for all ways together.
    pub seconds: f64,
}

impl Row for Iterating {
    fn name(&self) -> &'static str {
        "iterating"
    }

    fn description(&self) -> String {
        format!(
            "{ENTRIES} merged entries of {} B are walked over by steps of a cursor, by an iterator, both also backward, and by a scan, \
             in turn, over and over; of each way the quickest walk counts.",
            KEY_BYTES + VALUE.len()
        )
    }

    fn needs(&self) -> Vec<Feature> {
        vec![Feature::OwnApi]
    }

    fn run(&self, place: &Place) -> Result<Measured> {
        let db = ColumnFamilyDatabase::builder().open(place.directory())?;
        let family = db.create_column_family("walked", FamilyOptions::default())?;
        let mut batch = WriteBatch::new();
        for number in 0..ENTRIES {
            batch.put(&family, random_key::<KEY_BYTES>(number), VALUE);
        }
        db.write(&batch)?;
        db.compact()?;
        let ways = [by_cursor, by_iterator, by_scan, backward_by_cursor, backward_by_iterator];
        let mut quickest = [f64::INFINITY; 5];
        let start = Instant::now();
        while quickest[0].is_infinite() || start.elapsed().as_secs_f64() < self.seconds {
            for (way, quickest) in ways.iter().zip(&mut quickest) {
                let start = Instant::now();
                let count = way(&family)?;
                *quickest = quickest.min(start.elapsed().as_nanos() as f64 / ENTRIES as f64);
                ensure!(count == ENTRIES, "{count} entries instead of {ENTRIES}");
            }
        }
        drop(family);
        db.close()?;
        let [cursor, iterator, scan, cursor_back, iterator_back] = quickest;
        Ok(Measured {
            version: env!("PERISTYLE_VERSION").into(),
            figures: vec![
                Figure::lower("iterator_to_cursor", iterator / cursor, "ns/ns"),
                Figure::lower("iterator_to_cursor_backward", iterator_back / cursor_back, "ns/ns"),
                Figure::lower("cursor_step", cursor, "ns"),
                Figure::lower("iterator_step", iterator, "ns"),
                Figure::lower("scan_step", scan, "ns"),
            ],
            ..Measured::default()
        })
    }
}

fn by_cursor(family: &ColumnFamily) -> Result<u64> {
    let mut cursor = family.cursor()?;
    let mut count = 0;
    while cursor.next()? {
        black_box((cursor.key(), cursor.value()?));
        count += 1;
    }
    Ok(count)
}

fn backward_by_cursor(family: &ColumnFamily) -> Result<u64> {
    let mut cursor = family.cursor()?;
    let mut count = 0;
    while cursor.prev()? {
        black_box((cursor.key(), cursor.value()?));
        count += 1;
    }
    Ok(count)
}

fn by_iterator(family: &ColumnFamily) -> Result<u64> {
    let mut count = 0;
    for entry in family.iter()? {
        let (key, value) = entry?;
        black_box((&key[..], &value[..]));
        count += 1;
    }
    Ok(count)
}

fn backward_by_iterator(family: &ColumnFamily) -> Result<u64> {
    let mut count = 0;
    for entry in family.iter()?.rev() {
        let (key, value) = entry?;
        black_box((&key[..], &value[..]));
        count += 1;
    }
    Ok(count)
}

fn by_scan(family: &ColumnFamily) -> Result<u64> {
    let mut count = 0;
    let _ = family.cursor()?.scan(|key, value| {
        black_box((key, value));
        count += 1;
        ControlFlow::<()>::Continue(())
    })?;
    Ok(count)
}

//! Many range deletions in memtables: what readers pay for them, counted in places looked at, and what
//! readers see behind them.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::column_family::merging::merge::Pace;
use crate::db::ColumnFamilyDatabase;
use crate::memtable::touched;
use crate::storage::MemoryStorage;
use crate::{ColumnFamily, FamilyOptions, FamilySnapshot};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn key(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

struct Written {
    db: ColumnFamilyDatabase,
    family: ColumnFamily,
}

impl Written {
    /// A family whose memtables take hundreds of MiB, and are frozen and merged when a test says so.
    fn new(merge_cost: u32) -> Self {
        let builder = ColumnFamilyDatabase::builder().automatic_maintenance(false).log_limit_bytes(1 << 30);
        let builder = builder.write_buffer_bytes(8 << 30).merge_cost(merge_cost).page_size(4096);
        let db = builder.storage(MemoryStorage::new()).open("memory").unwrap();
        let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
        Self { db, family }
    }

    fn freeze(&self) {
        let (family, shared) = (self.family.family(), self.db.shared());
        family.freeze(&mut family.write.lock(), &shared.pipeline.views).unwrap();
    }

    fn merge(&self) {
        self.freeze();
        let context = self.db.shared().pipeline.merge_context(&|| false);
        self.family.family().merge(&context, Pace::Now).unwrap();
    }

    fn put(&self, numbers: impl Iterator<Item = u32>) {
        numbers.for_each(|number| {
            self.family.put(key(number), number.to_string()).unwrap();
        });
    }

    fn delete(&self, start: u32, end: u32) {
        self.family.delete_range(key(start)..key(end)).unwrap();
    }
}

/// What `read` gives, and places that it looked at.
fn counted<T>(read: impl FnOnce() -> T) -> (T, u64) {
    touched::take();
    (read(), touched::take())
}

/// Places for one look at one memtable's range deletions, in whose trees there are a few nodes from the root
/// to a boundary.
const LOOK: u64 = 40;

#[test]
fn readers_pay_for_range_deletions_that_they_meet_and_for_no_others() {
    for deletions in [10_000, 100_000] {
        let written = Written::new(8);
        let family = &written.family;
        // A hundred keys, between which ranges are deleted that hold none.
        let apart = deletions / 100 * 4;
        written.put((0..100).map(|i| i * apart));
        written.merge();
        let before = family.snapshot().unwrap();
        (0..deletions).for_each(|i| written.delete(i * 4 + 1, i * 4 + 2));
        let (first, steps) = counted(|| family.first().unwrap().unwrap());
        assert_eq!(first.0, key(0));
        assert!(steps <= 3 * LOOK, "{steps} steps to the first entry");
        let (last, steps) = counted(|| family.last().unwrap().unwrap());
        assert_eq!(last.0, key(99 * apart));
        assert!(steps <= 3 * LOOK, "{steps} steps to the last entry");
        let (empty, steps) = counted(|| family.is_empty().unwrap());
        assert!(!empty && steps <= 3 * LOOK, "{steps} steps to an entry");
        let (value, steps) = counted(|| family.get(key(50 * apart)).unwrap().unwrap());
        assert!(value == (50 * apart).to_string() && steps <= 2 * LOOK, "{steps} steps to a value");
        let mut cursor = family.cursor().unwrap();
        let ((), steps) = counted(|| {
            assert!(cursor.seek(key(50 * apart + 1)).unwrap() && cursor.key() == key(51 * apart));
            for n in 52..62 {
                assert!(cursor.next().unwrap() && cursor.key() == key(n * apart));
            }
            assert!(cursor.prev().unwrap() && cursor.key() == key(60 * apart));
        });
        assert!(steps <= 13 * 3 * LOOK, "{steps} steps for a seek and eleven steps");
        let (len, steps) = counted(|| family.len().unwrap());
        assert_eq!(len, 100);
        assert!(steps <= 101 * 3 * LOOK, "{steps} steps to count a hundred entries");
        let (len, steps) = counted(|| family.len().unwrap());
        assert_eq!((len, steps), (100, 0), "nothing was written since");
        family.delete(key(0)).unwrap();
        assert_eq!((family.len().unwrap(), before.len().unwrap()), (99, 100));
        family.put(key(0), "0").unwrap();
        assert_eq!(family.len().unwrap(), 100);
        let (first, steps) = counted(|| before.first().unwrap().unwrap());
        assert!(first.0 == key(0) && steps <= LOOK, "{steps} steps before all of them");
    }
}

#[test]
fn a_scan_goes_by_leaves_where_no_range_deletion_is_near() {
    let written = Written::new(8);
    written.put(0..2_000);
    written.merge();
    (0..50).for_each(|i| written.delete(5_000 + 2 * i, 5_001 + 2 * i));
    written.delete(1_000, 1_010);
    let mut cursor = written.family.cursor().unwrap();
    let (shown, steps) = counted(|| {
        let mut shown = 0u32;
        let flow = cursor.scan(|_, _| {
            shown += 1;
            ControlFlow::<()>::Continue(())
        });
        assert!(flow.unwrap().is_continue());
        shown
    });
    assert_eq!(shown, 1_990);
    // Keys whose first eight bytes are those of a bound are looked at one by one.
    assert!(steps <= 20 * LOOK, "{steps} steps");
}

#[test]
fn ranges_that_touch_each_other_are_sought_over_at_once() {
    for deletions in [1_000, 20_000u32] {
        let written = Written::new(8);
        let family = &written.family;
        written.put(0..deletions + 10);
        written.merge();
        // All keys but the last ten, each by a deletion of its own, in no order.
        (0..deletions)
            .map(|i| (u64::from(i) * 7919 % u64::from(deletions)) as u32)
            .for_each(|i| written.delete(i, i + 1));
        let (first, steps) = counted(|| family.first().unwrap().unwrap());
        assert_eq!(first.0, key(deletions));
        assert!(steps <= 5 * LOOK, "{steps} steps to the first entry");
        let (len, steps) = counted(|| family.len().unwrap());
        assert_eq!(len, 10);
        assert!(steps <= 5 * LOOK, "{steps} steps to count the entries");
        let mut cursor = family.cursor().unwrap();
        cursor.last().unwrap();
        let (back, steps) = counted(|| (0..10).filter(|_| cursor.prev().unwrap()).count());
        assert_eq!(back, 9);
        assert!(steps <= 20 * LOOK, "{steps} steps back to the first entry");
    }
}

#[test]
fn ranges_deleted_by_turns_in_two_memtables_cost_no_more_than_the_trees_keys_behind_them() {
    let written = Written::new(8);
    let (family, deletions) = (&written.family, 20_000u32);
    written.put([0, deletions / 2, deletions].into_iter());
    written.merge();
    (0..deletions / 2).for_each(|i| written.delete(2 * i, 2 * i + 1));
    written.freeze();
    (0..deletions / 2).for_each(|i| written.delete(2 * i + 1, 2 * i + 2));
    // Two of the three keys are hidden; each asks for some of the ranges behind it.
    let most = 2 * 4 * 32 * LOOK;
    let (first, steps) = counted(|| family.first().unwrap().unwrap());
    assert_eq!(first.0, key(deletions));
    assert!(steps <= most, "{steps} steps to the first entry");
    let (len, steps) = counted(|| family.len().unwrap());
    assert_eq!(len, 1);
    assert!(steps <= 2 * most, "{steps} steps to count the entries");
}

#[test]
fn entries_of_older_memtables_and_deltas_are_sought_over_as_well() {
    let written = Written::new(0);
    let family = &written.family;
    written.put(0..3_000);
    written.merge();
    written.put((0..3_000).step_by(2));
    written.merge();
    assert!(written.db.family_properties(family).unwrap().deltas > 0);
    written.put((0..3_000).step_by(3));
    written.freeze();
    written.delete(100, 2_900);
    let mut cursor = family.cursor().unwrap();
    assert!(cursor.seek(key(99)).unwrap());
    let (next, steps) = counted(|| cursor.next().unwrap());
    assert!(next && cursor.key() == key(2_900) && steps <= 20 * LOOK, "{steps} steps up");
    let (prev, steps) = counted(|| cursor.prev().unwrap());
    assert!(prev && cursor.key() == key(99) && steps <= 20 * LOOK, "{steps} steps down");
}

fn assert_same(moment: &FamilySnapshot, model: &Model) {
    assert_eq!(moment.len().unwrap(), model.len() as u64);
    assert!(
        moment
            .iter()
            .map(Result::unwrap)
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .eq(model.clone())
    );
    let back = moment.iter().rev().map(Result::unwrap).map(|(key, value)| (key.to_vec(), value.to_vec()));
    assert!(back.eq(model.clone().into_iter().rev()));
    let mut cursor = moment.cursor();
    let mut shown = Vec::new();
    let mut show = |key: &[u8], _: &[u8]| {
        shown.push(key.to_vec());
        ControlFlow::<()>::Continue(())
    };
    assert!(cursor.scan(&mut show).unwrap().is_continue());
    assert!(cursor.scan_back(&mut show).unwrap().is_continue());
    assert!(model.keys().chain(model.keys().rev()).eq(&shown));
    assert_eq!(moment.len().unwrap(), model.len() as u64, "counted again");
    // Turned around at every entry, after a search from between two of them.
    for (at, found) in model.keys().enumerate().step_by(7) {
        assert!(cursor.seek(found).unwrap() && cursor.key() == found);
        assert_eq!(cursor.prev().unwrap(), at > 0);
        assert!(cursor.next().unwrap() && cursor.key() == found);
        assert!(cursor.seek_for_prev([&found[..], &[0]].concat()).unwrap() && cursor.key() == found);
        let after = model.keys().nth(at + 1);
        assert_eq!(
            (cursor.next().unwrap(), cursor.key()),
            (after.is_some(), after.map_or(&[][..], |key| key))
        );
    }
}

#[test]
fn snapshots_see_their_moment_through_all_ranges_that_are_deleted_later() {
    for (merge_cost, seed) in [(8, 1u32), (0, 2), (8, 3), (0, 4), (1000, 5)] {
        let written = Written::new(merge_cost);
        let (mut model, mut random) = (Model::new(), seed);
        let mut below = |bound: u32| {
            random = random.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
            (random >> 8) % bound
        };
        let mut held = Vec::new();
        for round in 0..1_500u32 {
            match below(12) {
                0..=4 => {
                    let start = below(600);
                    let end = start + 1 + below(if round % 50 == 0 { 200 } else { 4 });
                    written.delete(start, end);
                    model.retain(|held, _| !(key(start)..key(end)).contains(&held[..].try_into().unwrap()));
                }
                5 => {
                    let number = below(600);
                    written.family.delete(key(number)).unwrap();
                    model.remove(&key(number)[..]);
                }
                _ => {
                    let number = below(600);
                    written.family.put(key(number), round.to_string()).unwrap();
                    model.insert(key(number).to_vec(), round.to_string().into_bytes());
                }
            }
            match below(300) {
                0..=2 => written.freeze(),
                3 => written.merge(),
                4..8 => held.push((written.family.snapshot().unwrap(), model.clone())),
                8..12 => assert_same(&written.family.snapshot().unwrap(), &model),
                _ => {}
            }
        }
        held.push((written.family.snapshot().unwrap(), model));
        held.iter().for_each(|(moment, model)| assert_same(moment, model));
        written.merge();
        held.iter().for_each(|(moment, model)| assert_same(moment, model));
    }
}

use super::*;
use crate::btree::Tree;
use crate::codec::features::Features;
use crate::codec::ids::PageId;
use crate::column_family::options::FamilyOptions;
use crate::error::ErrorKind;
use crate::operator::named::NamedOperator;
use crate::page::PagePointer;
use crate::segment::{PageSet, Segment};

const NUMBER: u64 = 17;

fn empty(id: u32, name: &str) -> Record {
    Record::Whole(Box::new(FamilyRecord::new(FamilyId(id), name, FamilyOptions::default())))
}

fn full(id: u32) -> Record {
    let root = PagePointer { page: PageId(7), pages: 1, checksum: 0xdead_beef };
    let mut reachable = PageSet::default();
    reachable.insert_run(PageId(3), 5);
    let delta = Tree { root: Some(root), height: 1, entries: 2, owns_values: false, generation: 10 };
    Record::Whole(Box::new(FamilyRecord {
        id: FamilyId(id),
        name: "tokens \u{1f3db}".into(),
        features: Features::OF_OPERANDS,
        options: with_operator(FamilyOptions::default().page_fill(90)),
        merged_through: SequenceNumber(1 << 40),
        tree: Tree { root: Some(root), height: 3, entries: 1000, owns_values: true, generation: 9 },
        deltas: vec![delta],
        segments: vec![Segment { first_page: 0, pages: 8, file_page: 12 }],
        reachable,
    }))
}

/// The parts that hold these records, one behind the other.
fn catalog(parts: &[Vec<Record>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for records in parts {
        let at = bytes.len();
        bytes.extend(encode_part(records, NUMBER, at));
    }
    bytes
}

fn with_operator(options: FamilyOptions) -> FamilyOptions {
    FamilyOptions { merge_operator: Some(NamedOperator::absent("sums")), ..options }
}

fn other_options() -> FamilyOptions {
    with_operator(FamilyOptions::default().page_fill(70).cache_share(3).memtable_share(1000))
}

fn example() -> Vec<Vec<Record>> {
    let names: Vec<_> = (10..60).map(|id| empty(id, &format!("family number {id}"))).collect();
    vec![
        [vec![full(2), empty(5, "five")], names].concat(),
        vec![Record::Renamed(FamilyId(2), "renamed".into()), empty(6, "six"), empty(7, "seven")],
        vec![Record::Dropped(FamilyId(5)), full(6), Record::Changed(FamilyId(2), other_options())],
    ]
}

fn decode(bytes: &[u8]) -> Result<Catalog> {
    Catalog::decode([bytes, bytes], NUMBER, true)
}

/// Numbers and names of those that are not in the fifty.
fn names(catalog: &Catalog) -> Vec<(u32, &str)> {
    let few = catalog.families.values().filter(|family| !(10..60).contains(&family.id.0));
    few.map(|family| (family.id.0, family.name.as_str())).collect()
}

#[test]
fn a_catalog_comes_back_as_it_was() {
    let catalog = decode(&catalog(&[vec![full(2), empty(5, "five")]])).unwrap();
    assert!(catalog.is_sound && catalog.lost.is_empty());
    let records: Vec<_> =
        catalog.families.into_values().map(|family| Record::Whole(Box::new(family))).collect();
    assert_eq!(records, [full(2), empty(5, "five")]);
    assert_eq!(
        decode(&encode_part(&[], NUMBER, 0)).unwrap(),
        Catalog { is_sound: true, ..Catalog::default() }
    );
}

#[test]
fn later_parts_and_the_record_of_the_superblock_count_more() {
    let mut catalog = decode(&catalog(&example())).unwrap();
    assert!(catalog.is_sound);
    assert_eq!(names(&catalog), [(2, "renamed"), (6, "tokens \u{1f3db}"), (7, "seven")]);
    assert_eq!(catalog.families[&FamilyId(2)].options, other_options());
    let mut record = Vec::new();
    empty(9, "newest").encode(&mut record);
    assert_eq!(catalog.apply(&record).unwrap(), empty(9, "newest"));
    assert_eq!(names(&catalog).len(), 4);
    assert!(catalog.apply(&[4, 0]).is_err(), "there is no family 4 to drop");
    assert!(catalog.apply(&[7, 0, 0]).is_err(), "something follows the record");
}

#[test]
fn records_of_families_that_there_are_not_are_refused() {
    for record in [Record::Dropped(FamilyId(3)), Record::Renamed(FamilyId(3), "c".into())] {
        assert!(decode(&catalog(&[vec![full(2)], vec![record]])).is_err());
    }
}

#[test]
fn parts_of_another_catalog_or_place_are_no_parts() {
    let parts = example();
    let mut bytes = catalog(&parts[..1]);
    let whole = bytes.len();
    for part in [encode_part(&parts[1], NUMBER - 1, whole), encode_part(&parts[1], NUMBER, 0)] {
        bytes.truncate(whole);
        bytes.extend(part);
        assert_eq!(decode(&bytes).unwrap_err().kind(), ErrorKind::Corruption);
    }
}

#[test]
fn damage_anywhere_in_one_copy_costs_nothing() {
    let whole = catalog(&example());
    let expected = decode(&whole).unwrap();
    let check = |damaged: &[u8], what: &str| {
        for copies in [[damaged, &whole], [&whole, damaged]] {
            let found = Catalog::decode(copies, NUMBER, false).unwrap();
            assert!(!found.is_sound, "{what}");
            assert_eq!((&found.families, &found.lost), (&expected.families, &expected.lost), "{what}");
        }
    };
    let step = if cfg!(miri) { 611 } else { 29 };
    for at in (0..whole.len()).step_by(step) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        check(&damaged, &format!("byte {at}"));
    }
    for sector in [512, BLOCK] {
        for at in (0..whole.len()).step_by(sector) {
            let mut damaged = whole.clone();
            // What cannot be read is read as ones.
            damaged[at..at + sector].fill(0xff);
            check(&damaged, &format!("sector at {at}"));
        }
    }
    check(&[], "no copy");
    check(&vec![0; whole.len()], "a copy that was never written");
}

#[test]
fn different_damage_to_both_copies_costs_nothing() {
    let whole = catalog(&example());
    let expected = decode(&whole).unwrap();
    // Every frame is whole in one of the two: odd sectors here, even ones there, where frames end with
    // sectors at least.
    let mut copies = [whole.clone(), whole.clone()];
    for (block, start) in (0..whole.len()).step_by(BLOCK).enumerate() {
        copies[block % 2][start..start + 100].fill(0xff);
    }
    let found = Catalog::decode([&copies[0], &copies[1]], NUMBER, false).unwrap();
    assert_eq!(found.families, expected.families);
}

#[test]
fn the_same_byte_changed_in_both_copies_costs_one_family_that_is_named() {
    let parts = example();
    let whole = catalog(&parts);
    let expected = decode(&whole).unwrap();
    let step = if cfg!(miri) { 611 } else { 29 };
    for at in (0..whole.len()).step_by(step) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        let found = decode(&damaged).unwrap_or_else(|error| panic!("byte {at}: {error}"));
        assert!(!found.is_sound && found.lost.len() <= 1, "byte {at}");
        for (id, name) in &found.lost {
            assert!(!found.families.contains_key(id));
            let record = parts.iter().flatten().rfind(|record| record.id() == *id).unwrap();
            let known = expected.families.get(id).map(|family| &family.name[..]);
            assert_eq!(&name[..], known.unwrap_or(record.name()), "byte {at}");
        }
        for (id, family) in &expected.families {
            let same = found.families.get(id).is_some_and(|found| {
                let options = family.options.clone();
                *family == FamilyRecord { options, ..found.clone() }
            });
            assert!(same || found.lost.contains_key(id), "byte {at}: family {id}");
        }
    }
}

#[test]
fn an_older_record_of_a_lost_family_does_not_serve() {
    let parts = [vec![empty(1, "one"), empty(2, "two")], vec![full(1)]];
    let whole = catalog(&parts);
    // Behind the list of names of the second part.
    let at = BLOCK + frame_len(1 + 1 + 1 + "tokens \u{1f3db}".len());
    for byte in [at + 1, at + HEADER_LEN + 1] {
        let mut damaged = whole.clone();
        damaged[byte] ^= 1;
        let found = decode(&damaged).unwrap();
        assert_eq!(found.lost, BTreeMap::from([(FamilyId(1), "tokens \u{1f3db}".to_owned())]));
        assert_eq!(found.families.len(), 1);
        // With neither record nor name, nobody knows whose it is.
        damaged[BLOCK] ^= 1;
        let found = decode(&damaged);
        if byte == at + 1 {
            assert_eq!(found.unwrap_err().kind(), ErrorKind::Corruption);
        } else {
            assert_eq!(found.unwrap().lost, BTreeMap::from([(FamilyId(1), "one".to_owned())]));
        }
    }
}

#[test]
fn a_part_that_is_gone_from_both_copies_is_missed() {
    let whole = catalog(&example());
    let part = catalog(&example()[..1]).len();
    for lost in [0..part, part..part + BLOCK, part + BLOCK..whole.len()] {
        let mut damaged = whole.clone();
        damaged[lost.clone()].fill(0);
        assert_eq!(decode(&damaged).unwrap_err().kind(), ErrorKind::Corruption, "{lost:?}");
        assert_eq!(decode(&whole[..lost.start]).is_ok(), lost.start > 0);
    }
    assert!(decode(&[&whole[..], &[0; BLOCK]].concat()).is_err(), "something stands behind the last part");
}

#[test]
fn a_lost_family_stays_lost_until_it_is_dropped() {
    let lost = Record::Lost(FamilyId(4), "four".into());
    let found = decode(&catalog(&[vec![full(2), lost.clone()]])).unwrap();
    assert_eq!(found.lost, BTreeMap::from([(FamilyId(4), "four".to_owned())]));
    assert!(found.is_sound);
    let found = decode(&catalog(&[vec![full(2), lost], vec![Record::Dropped(FamilyId(4))]])).unwrap();
    assert!(found.lost.is_empty());
}

#[test]
fn a_family_that_needs_features_nobody_here_knows_is_named() {
    let Record::Whole(mut family) = full(2) else { unreachable!() };
    family.features.read = 1 << 40;
    let bytes = catalog(&[vec![Record::Whole(family)]]);
    let error = decode(&bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NewerFormat);
    assert!(error.to_string().contains("tokens"), "{error}");
}

#[test]
fn flipped_bits_never_panic() {
    let bytes = catalog(&[vec![full(2), empty(5, "five")], vec![full(6)]]);
    for bit in (0..bytes.len() * 8).step_by(if cfg!(miri) { 611 } else { 67 }) {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let _ = decode(&damaged);
    }
    // Nor do fields that make no sense under checksums that are right.
    for word in (8..HEADER_LEN - 8).step_by(4) {
        for value in [0u32, 1, 7, 1 << 31, u32::MAX] {
            for frame in [0, frame_len(1 + 1 + 1 + "tokens \u{1f3db}".len() + 1 + 1 + 1 + 4)] {
                let mut forged = bytes.clone();
                forged[frame + word..][..4].copy_from_slice(&value.to_le_bytes());
                let place = [NUMBER.to_le_bytes(), (frame as u64).to_le_bytes()];
                let sum = crc32(&[&forged[frame + 4..frame + HEADER_LEN], &place[0], &place[1]]);
                forged[frame..][..4].copy_from_slice(&sum.to_le_bytes());
                let _ = decode(&forged);
            }
        }
    }
}

#[test]
fn copies_that_say_different_things_are_refused_unless_that_is_no_matter() {
    let first = vec![empty(2, "two")];
    let copies = ["three", "new"].map(|name| catalog(&[first.clone(), vec![empty(3, name)]]));
    let copies = [&copies[0][..], &copies[1][..]];
    assert_eq!(Catalog::decode(copies, NUMBER, false).unwrap_err().kind(), ErrorKind::Corruption);
    assert!(Catalog::decode(copies, NUMBER, true).is_ok());
}

#[test]
fn families_that_are_lost_have_names_of_their_own() {
    let lost = |id, name: &str| Record::Lost(FamilyId(id), name.to_owned());
    let part = vec![empty(2, "two"), lost(3, "three"), lost(4, "three"), lost(5, ""), lost(6, "two")];
    let found = decode(&catalog(&[part])).unwrap();
    assert_eq!(found.lost.len(), 4);
    let mut names: Vec<&str> = found.lost.values().map(String::as_str).chain(["two"]).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 5, "{names:?}");
}

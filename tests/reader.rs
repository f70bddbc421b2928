//! A reader of databases that was written from the description of the format in DESIGN.md and uses nothing of
//! the engine: what it finds in a closed database, and in one that was killed, is what was put there.

mod common;

use std::collections::BTreeMap;
use std::ops::Bound;

use common::kept::{Files, files, unpack};
use peristyle::{ColumnFamilyDatabase, Durability, FamilyOptions, MemoryStorage};

fn u16_at(bytes: &[u8], at: usize) -> usize {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()).into()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = *bytes.split_off_first().unwrap();
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

fn take<'a>(bytes: &mut &'a [u8], len: u64) -> &'a [u8] {
    bytes.split_off(..len as usize).unwrap()
}

fn crc(parts: &[&[u8]]) -> u32 {
    crc32fast::hash(&parts.concat())
}

/// A root or a child: page, length in pages, checksum.
type Pointer = (u32, u32, u32);

/// What is said of a key.
#[derive(Default)]
struct Said {
    /// `None`: what is older counts; `Some(None)`: there is no value.
    base: Option<Option<Value>>,
    /// What is to be folded onto it, the oldest first, with its stamp.
    operands: Vec<(Vec<u8>, Stamp)>,
}

/// A value, and when it expires, or 0.
type Value = (Vec<u8>, u64);

/// When an operand was written, and when what it makes expires; zeros without a stamp.
type Stamp = (u64, u64);

/// The second at which the reader looks.
const NOW: u64 = 105;

type Entries = BTreeMap<Vec<u8>, Said>;

impl Said {
    fn value(value: Option<Vec<u8>>) -> Self {
        Self { base: Some(value.map(|value| (value, 0))), operands: Vec::new() }
    }

    fn expiring(mut stamped: &[u8]) -> Self {
        Self { base: Some(Some(expiring(&mut stamped))), operands: Vec::new() }
    }

    /// What an entry of kind 3 says.
    fn of_operands(mut entry: &[u8]) -> Self {
        if entry[0] == 8 {
            return Self::expiring(entry);
        }
        let first = take(&mut entry, 1)[0];
        let base = match first & !4 {
            0 => None,
            1 => Some(None),
            2 => Some(Some((with_length(&mut entry), 0))),
            3 => Some(Some(expiring(&mut &with_length(&mut entry)[..]))),
            base => panic!("operands of {base}"),
        };
        let mut operands = Vec::new();
        while !entry.is_empty() {
            if first & 4 == 0 {
                operands.push((with_length(&mut entry), (0, 0)));
                continue;
            }
            let len = varint(&mut entry);
            let stamp = if len & 1 == 1 { stamp(&mut entry) } else { (0, 0) };
            operands.push((take(&mut entry, len >> 1).to_vec(), stamp));
        }
        Self { base, operands }
    }

    fn follow(&mut self, newer: Self) {
        match newer.base {
            Some(_) => *self = newer,
            None => self.operands.extend(newer.operands),
        }
    }

    /// The value, where operands are members of a list.
    fn fold(self) -> Option<Vec<u8>> {
        let is_there = |expiry: u64, now| expiry == 0 || expiry > now;
        let mut value = self.base.flatten();
        for (operand, (written, expiry)) in self.operands {
            let before = value.filter(|(_, expiry)| is_there(*expiry, written));
            let (before, until) = before.map_or((None, 0), |(value, until)| (Some(value), until));
            let list = before.into_iter().chain([operand]).collect::<Vec<_>>().join(&b","[..]);
            value = Some((list, if expiry != 0 { expiry } else { until }));
        }
        value.filter(|(_, expiry)| is_there(*expiry, NOW)).map(|(value, _)| value)
    }
}

/// A stamped value.
fn expiring(bytes: &mut &[u8]) -> Value {
    assert_eq!(take(bytes, 1), [8]);
    let expiry = u64_at(take(bytes, 8), 0);
    assert!(expiry > 0);
    (take(bytes, bytes.len() as u64).to_vec(), expiry)
}

fn stamp(bytes: &mut &[u8]) -> Stamp {
    (u64_at(take(bytes, 8), 0), u64_at(take(bytes, 8), 0))
}

fn with_length(bytes: &mut &[u8]) -> Vec<u8> {
    let len = varint(bytes);
    take(bytes, len).to_vec()
}

#[derive(Default)]
struct Family {
    name: String,
    has_operator: bool,
    expires: bool,
    /// The name of its key order, if it is not that of bytes.
    order: String,
    merged_through: u64,
    /// Root and height of the tree, then of the deltas, the newest first.
    trees: Vec<Option<(Pointer, u64)>>,
    segments: Vec<(u32, u32, u64)>,
}

fn tree(body: &mut &[u8]) -> Option<(Pointer, u64)> {
    let _generation = varint(body);
    let height = varint(body);
    (height > 0).then(|| {
        let (page, pages) = (varint(body) as u32, varint(body) as u32);
        let checksum = u32_at(take(body, 4), 0);
        let _entries = varint(body);
        let _owns_values = take(body, 1);
        ((page, pages, checksum), height)
    })
}

fn name(body: &mut &[u8]) -> String {
    let len = varint(body);
    String::from_utf8(take(body, len).to_vec()).unwrap()
}

/// Takes all that there is to say of a family: with features in records of kind 4, without deltas in
/// catalogs of format 1.
fn whole(body: &mut &[u8], has_features: bool, has_deltas: bool) -> Family {
    let mut family = Family { name: name(body), ..Family::default() };
    let mut has_order = false;
    if has_features {
        let features = (varint(body), varint(body));
        assert_eq!((features.0 & !7, features.1), (0, u64::from(family.name.is_empty())), "features");
        family.has_operator = features.0 & 1 != 0;
        family.expires = features.0 & 2 != 0;
        has_order = features.0 & 4 != 0;
    }
    let _options = [0; 3].map(|_: u8| varint(body));
    let _operator = family.has_operator.then(|| name(body));
    assert!(!family.expires || varint(body) > 0, "a lifetime");
    family.order = if has_order { name(body) } else { String::new() };
    family.merged_through = varint(body);
    family.trees.push(tree(body));
    for _ in 0..if has_deltas { varint(body) } else { 0 } {
        family.trees.push(tree(body));
    }
    for _ in 0..varint(body) {
        let (first, pages) = (varint(body) as u32, varint(body) as u32);
        family.segments.push((first, pages, varint(body)));
    }
    for _ in 0..varint(body) {
        let _pages_in_use = (varint(body), varint(body));
    }
    family
}

/// Takes a record, as a frame, the superblock or an old catalog holds it, and applies it.
fn record(body: &mut &[u8], families: &mut BTreeMap<u64, Family>) {
    let id = varint(body);
    match take(body, 1)[0] {
        0 => drop(families.remove(&id)),
        1 => families.get_mut(&id).unwrap().name = name(body),
        2 => drop(families.insert(id, whole(body, false, true))),
        3 => drop([0; 3].map(|_: u8| varint(body))),
        4 => drop(families.insert(id, whole(body, true, true))),
        // Nobody knows where its pages are.
        5 => drop((name(body), families.remove(&id))),
        7 => {
            let _options = [0; 3].map(|_: u8| varint(body));
            let family = families.get_mut(&id).unwrap();
            (family.has_operator, family.expires) = (!name(body).is_empty(), true);
            assert!(varint(body) > 0, "a lifetime");
        }
        6 => {
            let _options = [0; 3].map(|_: u8| varint(body));
            families.get_mut(&id).unwrap().has_operator = !name(body).is_empty();
        }
        kind => panic!("a record of kind {kind}"),
    }
}

/// The key that a stored key of a family of this order stands for.
fn user_key(order: &str, stored: Vec<u8>) -> Vec<u8> {
    match order {
        "" => stored,
        "peristyle.reverse" => {
            let mut bytes = stored.strip_suffix(&[255, 255]).unwrap().iter();
            let mut key = Vec::new();
            while let Some(byte) = bytes.next() {
                key.push(255 - byte);
                assert!(*byte != 255 || bytes.next() == Some(&0));
            }
            key
        }
        "peristyle.i64_le" => {
            let number = u64::from_be_bytes(stored.try_into().unwrap()) ^ 1 << 63;
            number.to_le_bytes().to_vec()
        }
        // Of a program: behind the sort key, in which 0 255 stands for 0, and 0 0.
        _ => {
            let mut end = 0;
            while stored[end..end + 2] != [0, 0] {
                end += if stored[end] == 0 { 2 } else { 1 };
            }
            stored[end + 2..].to_vec()
        }
    }
}

/// Families of a catalog of format 1 to 3.
fn old_catalog(catalog: &[u8]) -> BTreeMap<u64, Family> {
    let mut families = BTreeMap::new();
    let mut rest = &catalog[4..];
    let format = u32_at(catalog, 0);
    while !rest.is_empty() {
        let (_next_family, _last_sequence) = (varint(&mut rest), varint(&mut rest));
        for _ in 0..varint(&mut rest) {
            if format == 3 {
                record(&mut rest, &mut families);
            } else {
                families.insert(varint(&mut rest), whole(&mut rest, false, format == 2));
            }
        }
        if format == 3 {
            let at = catalog.len() - rest.len();
            take(&mut rest, (at.next_multiple_of(4096) - at) as u64);
        }
    }
    families
}

struct Reader<'a> {
    data: &'a [u8],
    page_size: usize,
}

impl Reader<'_> {
    fn offset(&self, file_page: u64) -> usize {
        (64 << 10) + file_page as usize * self.page_size
    }

    /// Families of the catalog copy that begins at `file_page`.
    fn catalog(&self, file_page: u64, len: usize, number: u64, sum: u32) -> BTreeMap<u64, Family> {
        let copy = &self.data[self.offset(file_page)..][..len];
        assert!(sum == 0 || crc(&[copy]) == sum, "the catalog at {file_page}");
        let mut families = BTreeMap::new();
        let mut at = 0;
        while at < len {
            let header = &copy[at..at + 40];
            let place = [number.to_le_bytes(), (at as u64).to_le_bytes()];
            assert_eq!(u32_at(header, 0), crc(&[&header[4..], &place[0], &place[1]]), "the header at {at}");
            let body = &copy[at + 40..][..u32_at(header, 8) as usize];
            assert_eq!(u32_at(header, 4), crc(&[body]), "the body at {at}");
            match header[32] {
                1 => {}
                2 => {
                    let mut rest = body;
                    record(&mut rest, &mut families);
                    assert!(rest.is_empty(), "a record is all of its frame");
                }
                kind => panic!("a frame of kind {kind}"),
            }
            let end_of_part = at + (u32_at(header, 20) - u32_at(header, 16)) as usize;
            at += 40 + body.len().next_multiple_of(8);
            if at == end_of_part {
                at = at.next_multiple_of(4096);
            }
        }
        families
    }

    /// The bytes of a node or value run, checked.
    fn run(&self, id: u64, family: &Family, (page, pages, checksum): Pointer) -> &[u8] {
        let holds = |&&(first, count, _): &&(u32, u32, u64)| (first..first + count).contains(&page);
        let &(first, _, file_page) = family.segments.iter().find(holds).expect("a segment with the page");
        let start = self.offset(file_page + u64::from(page - first));
        let bytes = &self.data[start..][..pages as usize * self.page_size];
        let len = u32_at(bytes, 12) as usize;
        let end = if bytes[24] == 3 { 32 + len } else { len };
        assert_eq!(u32_at(bytes, 0), checksum);
        assert_eq!(crc(&[&bytes[4..end]]), checksum);
        assert_eq!((u64::from(u32_at(bytes, 4)), u32_at(bytes, 8), u32_at(bytes, 28)), (id, page, pages));
        assert_eq!(bytes[26..28], [0, 0], "features");
        &bytes[..end]
    }

    fn node(&self, id: u64, family: &Family, pointer: Pointer, level: u64, entries: &mut Entries) {
        let node = self.run(id, family, pointer);
        assert_eq!((node[24], u64::from(node[25])), (if level == 0 { 1 } else { 2 }, level));
        let count = u16_at(node, 32);
        let prefix_len = u32_at(node, 36) as usize;
        let width = if u32_at(node, 28) > 1 { 4 } else { 2 };
        let offsets = 40 + 4 * count;
        let offset = |i: usize| match width {
            2 => u16_at(node, offsets + 2 * i),
            _ => u32_at(node, offsets + 4 * i) as usize,
        };
        let children = offsets + width * (count + 1);
        let prefix_at = children + if level > 0 { 24 * count } else { 0 };
        let prefix = &node[prefix_at..prefix_at + prefix_len];
        for i in 0..count {
            if level > 0 {
                let child = &node[children + 24 * i..][..24];
                let pointer = (u32_at(child, 0), u32_at(child, 4) & !(1 << 31), u32_at(child, 8));
                self.node(id, family, pointer, level - 1, entries);
                continue;
            }
            let mut entry = &node[offset(i)..offset(i + 1)];
            let (rest_len, tag) = (varint(&mut entry), varint(&mut entry));
            let key = [prefix, take(&mut entry, rest_len)].concat();
            assert_eq!(tag >> 2, entry.len() as u64);
            let value = match tag & 3 {
                0 => Said::value(Some(entry.to_vec())),
                1 => {
                    let pointer = (u32_at(entry, 0), u32_at(entry, 4), u32_at(entry, 8));
                    let value = &self.run(id, family, pointer)[32..];
                    assert_eq!(value.len(), u32_at(entry, 12) as usize);
                    let expiry = if entry.len() > 16 { u64_at(entry, 16) } else { 0 };
                    Said { base: Some(Some((value.to_vec(), expiry))), operands: Vec::new() }
                }
                2 => Said::value(None),
                _ => Said::of_operands(entry),
            };
            assert!(entries.insert(key, value).is_none(), "a key that stands twice");
        }
    }

    /// What tree and deltas hold.
    fn entries(&self, id: u64, family: &Family) -> Entries {
        let mut all = Entries::new();
        // The tree, then the deltas from the oldest to the newest: what comes later counts more.
        let oldest_first = family.trees.iter().take(1).chain(family.trees.iter().skip(1).rev());
        for &(root, height) in oldest_first.flatten() {
            let mut entries = Entries::new();
            self.node(id, family, root, height - 1, &mut entries);
            for (key, said) in entries {
                all.entry(key).or_default().follow(said);
            }
        }
        all
    }
}

/// The records of the log from segment `first` on: numbers and payloads.
fn log(files: &Files, first: u64, database_id: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut segments = BTreeMap::new();
    for (path, bytes) in files {
        // What else stands there is kept for a full disk.
        let Some(name) = path.strip_prefix("wal/").and_then(|name| name.strip_suffix(".log")) else {
            continue;
        };
        let id = u64::from_str_radix(name, 16).unwrap();
        let len = if bytes.len() >= 12 && u32_at(bytes, 8) == 1 { 64 } else { 128 };
        if bytes.len() < len || !bytes.starts_with(b"PERISLOG") || !(1..=2).contains(&u32_at(bytes, 8)) {
            continue;
        }
        if u32_at(bytes, 12) == crc(&[&bytes[..12], &bytes[16..len]]) && u64_at(bytes, 16) == id {
            assert_eq!(&bytes[24..40], database_id);
            assert!(len == 64 || bytes[64..128] == [0; 64], "features, and what is reserved");
            segments.insert(id, (len, bytes));
        }
    }
    let mut records = Vec::new();
    let mut segment = first;
    loop {
        let names_it =
            |&(id, (_, bytes)): &(&u64, &(usize, &Vec<u8>))| *id > segment && u64_at(bytes, 40) == segment;
        let next = segments.iter().rev().find(names_it);
        let limit = next.map(|(_, (_, bytes))| u64_at(bytes, 48));
        let mut at = 0;
        if let Some((start, bytes)) = segments.get(&segment) {
            at = *start as u64;
            let mut last = u64_at(bytes, 56);
            while limit != Some(at) {
                let Some((end, number, payload)) = log_record(bytes, segment, at) else { break };
                if number <= last || limit.is_some_and(|limit| end > limit) {
                    break;
                }
                last = number;
                records.push((number, payload.to_vec()));
                at = end;
            }
        } else {
            assert_eq!(segment, 0, "the first segment is there");
        }
        match next {
            Some((&id, _)) if limit == Some(at) => segment = id,
            _ => return records,
        }
    }
}

/// Where the next record would stand, number and payload of the one at `at`, if there is one.
fn log_record(bytes: &[u8], segment: u64, at: u64) -> Option<(u64, u64, &[u8])> {
    let header = bytes.get(at as usize..)?.get(..40)?;
    let place = [segment.to_le_bytes(), at.to_le_bytes()];
    let (kind, len) = (header[15], u64_at(header, 8) & ((1 << 56) - 1));
    let (number, durable) = (u64_at(header, 16), u64_at(header, 24));
    if u32_at(header, 0) != crc(&[&header[4..], &place[0], &place[1]])
        || kind == 0
        || number >= 1 << 56
        || durable > at
    {
        return None;
    }
    let payload = bytes.get(at as usize + 40..)?.get(..len as usize)?;
    if u32_at(header, 4) != crc(&[payload]) {
        return None;
    }
    assert_eq!((kind, &header[32..]), (1, &[0; 8][..]), "a commit");
    Some((at + 40 + len.next_multiple_of(8), number, payload))
}

/// Applies a commit to the entries of families by number.
fn commit(
    number: u64,
    mut payload: &[u8],
    families: &BTreeMap<u64, Family>,
    all: &mut BTreeMap<u64, Entries>,
) {
    while !payload.is_empty() {
        let kind = take(&mut payload, 1)[0];
        let id = varint(&mut payload);
        let len = varint(&mut payload);
        let key = take(&mut payload, len).to_vec();
        let mut more = || {
            let len = varint(&mut payload);
            take(&mut payload, len).to_vec()
        };
        let second = if kind == 2 { Vec::new() } else { more() };
        if families.get(&id).is_none_or(|family| family.merged_through >= number) {
            continue;
        }
        let entries = all.entry(id).or_default();
        match kind {
            1 => entries.entry(key).or_default().follow(Said::value(Some(second))),
            2 => drop(entries.remove(&key)),
            4 => entries.entry(key).or_default().operands.push((second, (0, 0))),
            5 => entries.entry(key).or_default().follow(Said::expiring(&second)),
            6 => {
                let mut operand = &second[..];
                let stamp = stamp(&mut operand);
                entries.entry(key).or_default().operands.push((operand.to_vec(), stamp));
            }
            3 => {
                let end = if second.is_empty() { Bound::Unbounded } else { Bound::Excluded(second) };
                let range = (Bound::Included(key), end);
                let gone: Vec<_> = entries.range(range).map(|(key, _)| key.clone()).collect();
                gone.iter().for_each(|key| drop(entries.remove(key)));
            }
            kind => panic!("an operation of kind {kind}"),
        }
    }
}

type Contents = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

fn read(files: &Files) -> Contents {
    let data = &files.iter().find(|(path, _)| path == "data").unwrap().1;
    let slot = |start: usize| {
        let slot = &data[start..start + 512];
        let whole = slot.starts_with(b"PERISTYL")
            && (1..=2).contains(&u32_at(slot, 8))
            && u32_at(slot, 508) == crc(&[&slot[..508]]);
        whole.then_some(slot)
    };
    let superblock =
        [slot(0), slot(32 << 10)].into_iter().flatten().max_by_key(|slot| u64_at(slot, 16)).unwrap();
    let reader = Reader { data, page_size: u32_at(superblock, 12) as usize };
    let is_old = u32_at(superblock, 8) == 1;
    // Where the only copy of an old catalog stands, its length, its sum; the log's first segment; the record.
    let (page, len, sum, log_first, record_at) =
        if is_old { (40, 48, 56, 64, 88) } else { (56, 72, 92, 108, 180) };
    let len = u64_at(superblock, len) as usize;
    let number = if is_old { 0 } else { u64_at(superblock, 80) };
    let sum_of_all = u32_at(superblock, sum);
    let mut families = if number == 0 {
        let catalog = &data[reader.offset(u64_at(superblock, page))..][..len];
        assert_eq!(crc(&[catalog]), sum_of_all);
        old_catalog(catalog)
    } else {
        let [first, second] =
            [56, 64].map(|at| reader.catalog(u64_at(superblock, at), len, number, sum_of_all));
        assert!(first.keys().eq(second.keys()));
        first
    };
    let mut newest = &superblock[record_at + 2..][..u16_at(superblock, record_at)];
    if !newest.is_empty() {
        record(&mut newest, &mut families);
        assert!(newest.is_empty());
    }
    let mut all = families.iter().map(|(&id, family)| (id, reader.entries(id, family))).collect();
    for (number, payload) in log(files, u64_at(superblock, log_first), &superblock[24..40]) {
        commit(number, &payload, &families, &mut all);
    }
    if !is_old {
        let bit = |has: fn(&Family) -> bool| u64::from(families.values().any(has));
        let features = bit(|family| family.has_operator)
            | bit(|family| family.expires) << 1
            | bit(|family| !family.order.is_empty()) << 2;
        assert_eq!(u64_at(superblock, 40), features, "features that readers must know");
        let is_used = families.values().any(|family| family.name.is_empty());
        let writers = u64_at(superblock, 48);
        assert!(writers & 1 == 1 || !is_used, "writers must know what is prepared");
        assert_eq!(writers & !1, if number != 0 && sum_of_all != 0 { 2 } else { 0 }, "and the catalog's sum");
    }
    let named = all.into_iter().map(|(id, entries)| {
        let order = &families[&id].order;
        let values = entries.into_iter().filter_map(|(key, said)| Some((user_key(order, key), said.fold()?)));
        (families[&id].name.clone(), values.collect())
    });
    named.collect()
}

fn contents(storage: &MemoryStorage) -> Contents {
    let builder = ColumnFamilyDatabase::builder().read_only(true).storage(storage.clone());
    let db = builder.open("memory").unwrap();
    let names = db.column_family_names().into_iter();
    let entries = |name: &str| {
        let entries = db.column_family(name).unwrap().iter().unwrap();
        entries.map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
    };
    names.map(|name| (name.clone(), entries(&name))).collect()
}

#[test]
fn a_reader_made_from_the_description_finds_what_the_engine_finds() {
    for page_size in [4096, 32 << 10] {
        let storage = MemoryStorage::new();
        let builder = ColumnFamilyDatabase::builder().page_size(page_size).storage(storage.clone());
        let db = builder.open("memory").unwrap();
        let [small, large, other] = ["small", "large", "other"]
            .map(|name| db.create_column_family(name, FamilyOptions::default()).unwrap());
        for round in 0..4u32 {
            for i in 0..2000u32 {
                small.put((i * 7919 % 5000).to_be_bytes(), format!("value {i} of round {round}")).unwrap();
            }
            for i in 0..20usize {
                large.put(vec![b'k'; 1 + i * 500], vec![i as u8; 1 + i * 4000]).unwrap();
            }
            small.delete_range((round * 1000).to_be_bytes()..(round * 1000 + 300).to_be_bytes()).unwrap();
            db.flush().unwrap();
            // Some of it is merged as a delta, some is in the log alone.
            for i in (0..5000u32).step_by(250 + round as usize) {
                small.put(i.to_be_bytes(), "changed").unwrap();
                small.delete((i + 1).to_be_bytes()).unwrap();
            }
            db.flush().unwrap();
            db.checkpoint().unwrap();
            other.put_with(format!("round {round}"), "logged", Durability::Sync).unwrap();
            small.delete_range(4000u32.to_be_bytes()..4010u32.to_be_bytes()).unwrap();
            let name = format!("family {round}");
            db.create_column_family(&name, FamilyOptions::default()).unwrap().put("a", "b").unwrap();
            db.sync().unwrap();
            let files = files(&storage);
            let killed = common::kept::storage(&files);
            assert!(read(&files) == contents(&killed), "round {round}");
        }
        db.close().unwrap();
        let found = read(&files(&storage));
        assert!(found == contents(&storage));
        assert!(found["small"].len() > 1000 && found["large"].len() == 20 && found["other"].len() == 4);
    }
}

#[test]
fn it_reads_what_expires_wherever_it_stands() {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, UNIX_EPOCH};

    let clock = std::sync::Arc::new(AtomicU64::new(100));
    let time = std::sync::Arc::clone(&clock);
    let append = || peristyle::merge_operators::append(",");
    let options = || FamilyOptions::default().expire_each();
    let storage = MemoryStorage::new();
    let builder = move |storage: &MemoryStorage| {
        let time = std::sync::Arc::clone(&time);
        let builder = ColumnFamilyDatabase::builder().page_size(4096).storage(storage.clone());
        let builder = builder.merge_operator(append()).merge_cost(0).automatic_maintenance(false);
        builder.clock(move || UNIX_EPOCH + Duration::from_secs(time.load(Ordering::SeqCst)))
    };
    let db = builder(&storage).open("memory").unwrap();
    let values = db.create_column_family("values", options()).unwrap();
    let lists = db.create_column_family("lists", options().merge_operator(append())).unwrap();
    // The first round comes into the tree, the second into a delta, the third into the log alone.
    for round in 0..3u64 {
        clock.store(100 + round, Ordering::SeqCst);
        for i in 0..400u64 {
            let value = format!("{round} {i}").repeat(if i % 40 == 3 { 2000 } else { 1 });
            let time = Duration::from_secs((i + round) % 8);
            if (i + round) % 5 < 2 {
                values.put_with_ttl(i.to_be_bytes(), &value, time).unwrap();
                lists.merge(i.to_be_bytes(), &value).unwrap();
            } else if (i + round) % 7 == 3 {
                lists.put_with_ttl(i.to_be_bytes(), &value, time).unwrap();
            }
        }
        if round == 0 {
            db.compact().unwrap();
        } else if round == 1 {
            lists.set_options(FamilyOptions::default().expire_after(Duration::from_secs(4))).unwrap();
            db.flush().unwrap();
            db.checkpoint().unwrap();
        }
    }
    db.sync().unwrap();
    clock.store(NOW, Ordering::SeqCst);
    let files = files(&storage);
    let killed = builder(&common::kept::storage(&files)).read_only(true).open("memory").unwrap();
    let found = read(&files);
    for name in ["values", "lists"] {
        let entries = killed.column_family(name).unwrap().iter().unwrap();
        let entries: BTreeMap<_, _> =
            entries.map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect();
        assert!(entries.len() > 50, "{} in {name}", entries.len());
        assert!(found[name] == entries, "{name}");
    }
}

#[test]
fn it_finds_what_transactions_have_prepared() {
    let storage = MemoryStorage::new();
    let db = ColumnFamilyDatabase::builder().storage(storage.clone()).open("memory").unwrap();
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    for name in ["first", "second", "third"] {
        let mut transaction = db.begin().unwrap();
        transaction.get(&family, "read").unwrap();
        assert!(transaction.range(&family, "a".."c").unwrap().next().is_none());
        transaction.put(&family, name, "value").unwrap();
        transaction.delete_range(&family, format!("x {name}")..format!("y {name}")).unwrap();
        if name != "third" {
            let prepared = transaction.prepare(name).unwrap();
            if name == "first" {
                prepared.commit().unwrap();
            }
        }
    }
    let killed = files(&storage);
    drop(family);
    db.close().unwrap();
    for files in [killed, files(&storage)] {
        let found = read(&files);
        assert!(found["family"].keys().eq([b"first"]));
        let prepared = &found[""];
        assert!(prepared.keys().eq([b"second"]));
        let mut value = &prepared[&b"second"[..]][..];
        assert_eq!(take(&mut value, 1), [1], "its layout");
        let len = varint(&mut value);
        let operations = |mut bytes: &[u8]| {
            let mut operations = Vec::new();
            while !bytes.is_empty() {
                let (kind, family, len) = (take(&mut bytes, 1)[0], varint(&mut bytes), varint(&mut bytes));
                let key = take(&mut bytes, len).to_vec();
                let len = if kind == 2 { 0 } else { varint(&mut bytes) };
                operations.push((kind, family, key, take(&mut bytes, len).to_vec()));
            }
            operations
        };
        let operation = |kind, key: &str, second: &str| (kind, 1, key.as_bytes().to_vec(), second.into());
        assert_eq!(operations(take(&mut value, len)), [operation(2, "read", ""), operation(3, "a", "c")]);
        let writes = [operation(1, "second", "value"), operation(3, "x second", "y second")];
        assert_eq!(operations(value), writes);
    }
}

#[test]
fn it_reads_operands_wherever_they_stand() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats/2-operands.kept");
    let found = read(&unpack(&std::fs::read(path).unwrap()));
    let lists = found["lists"].iter().map(|(key, value)| (str(key), str(value))).collect::<Vec<_>>();
    let expected = [
        ("folded", "a,b,c"),
        ("in the log", "a"),
        ("new", "a,b"),
        ("open", "a,b,c,d"),
        ("put again", "b,c"),
        ("stuck", "a,b"),
    ];
    assert_eq!(lists, expected);
}

#[test]
fn it_reads_keys_in_orders_of_their_own() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats/2-key-orders.kept");
    let found = read(&unpack(&std::fs::read(path).unwrap()));
    let texts = |name: &str| found[name].iter().map(|(k, v)| (str(k), str(v))).collect::<Vec<_>>();
    assert_eq!(texts("reverse"), [("a", "tree"), ("a\0", "delta"), ("ab", "log"), ("b", "tree")]);
    assert_eq!(texts("ends"), [("", "tree"), ("ab", "tree"), ("b\0c", "log"), ("ba", "delta")]);
    let of_number = |n: i64| found["integers"].get(&n.to_le_bytes()[..]).map(|value| str(value).to_owned());
    for number in [-300, -1, 0, 256] {
        assert_eq!(of_number(number), Some(number.to_string()));
    }
    assert_eq!(found["integers"].len(), 4);
}

fn str(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn it_reads_the_databases_that_are_kept() {
    for name in
        ["1-catalog-1", "1-catalog-2", "1-catalog-3", "2", "2-pages-of-32-kib", "2-prepared", "2-lost"]
    {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/formats/{name}.kept"));
        let mut found = read(&unpack(&std::fs::read(path).unwrap()));
        let prepared = found.remove("");
        assert_eq!(prepared.is_some_and(|entries| entries.len() == 1), name == "2-prepared");
        assert_eq!(found.keys().collect::<Vec<_>>(), ["late", "numbers", "renamed"], "{name}");
        assert_eq!(found["numbers"].len(), 400 + 1 - 32, "{name}");
        assert_eq!(found["renamed"][&b"large"[..]], [b'L'; 9000], "{name}");
    }
}

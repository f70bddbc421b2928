//! Nodes of trees: arbitrary, forged and built.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use peristyle::fuzzing::{ModelledTree, read_node};

use crate::format::{page, put};
use crate::input::Input;

const PAGE_SIZE: usize = 4096;
/// The most changes to one node.
const MAX_CHANGES: usize = 12;

/// Makes nodes as the bytes say, and reads them.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.below(4) {
        0 => run_arbitrary(&mut input),
        1 | 2 => run_forged(&mut input),
        _ => run_built(&mut input),
    }
}

/// A page or run of bytes of which nothing is known.
fn run_arbitrary(input: &mut Input<'_>) {
    let (level, pages) = (input.below(4) as u8, 1 + input.below(3));
    let is_whole = input.bool();
    let probes = keys(input, 4);
    let mut bytes = vec![0; page::HEADER_LEN];
    if is_whole {
        // What every node has.
        put(&mut bytes, page::KIND, &[if level == 0 { page::LEAF } else { page::INNER }, level]);
        put(&mut bytes, page::PAGES, &(pages as u32).to_le_bytes());
        bytes.extend_from_slice(input.rest());
    } else {
        bytes = input.rest().to_vec();
    }
    bytes.resize(pages * PAGE_SIZE, 0);
    for level in [level, 0, 1] {
        read_node(&bytes, level, &probes);
    }
}

/// A tree of three levels with every kind of node: leaves and inner nodes of one page and of several, value
/// runs. Small, for each input walks through all of it several times: separators are long, so that few
/// children make an inner node.
fn sound() -> ModelledTree {
    let mut tree = ModelledTree::new(PAGE_SIZE, 100);
    let mut entries = BTreeMap::new();
    for group in 0..10u8 {
        for n in 0..8u8 {
            let key = [&[b'0' + group][..], &[b'x'; 500], &[n]].concat();
            entries.insert(key, Some(vec![n; if n == 7 && group.is_multiple_of(4) { 2000 } else { 700 }]));
        }
    }
    entries.extend((0..120).map(|n| (numbered(n), Some(vec![5; 20]))));
    for end in [b'x', b'y'] {
        entries.insert([&numbered(50)[..], &[b'x'; 6000], &[end]].concat(), Some(vec![1]));
    }
    tree.merge(&[], &entries);
    assert_eq!(tree.height(), 3);
    tree.verify(&[]);
    tree
}

fn numbered(n: u32) -> Vec<u8> {
    format!("{n:08}").into_bytes()
}

thread_local! {
    static SOUND: OnceLock<ModelledTree> = const { OnceLock::new() };
}

/// A sound tree in which one node was changed.
fn run_forged(input: &mut Input<'_>) {
    SOUND.with(|tree| {
        let tree = tree.get_or_init(sound);
        let level = input.below(3) as u8;
        let turns = [usize::from(input.u8()), usize::from(input.u8())];
        let mut probes = keys(input, 6);
        probes.extend([40, 50].map(numbered));
        probes.extend([b'1', b'7'].map(|group| [&[group][..], &[b'x'; 500], &[3]].concat()));
        probes.sort();
        tree.exercise_forged(level, &turns, &probes, |bytes| {
            for _ in 0..MAX_CHANGES {
                if input.is_empty() {
                    break;
                }
                change(&mut bytes[page::HEADER_LEN..], input);
            }
            for level in 0..3 {
                read_node(bytes, level, &probes);
            }
        });
    });
}

fn change(bytes: &mut [u8], input: &mut Input<'_>) {
    let near = if input.bool() { 128 } else { bytes.len() };
    let (kind, at) = (input.u8() % 8, input.place(near));
    match kind {
        0 => bytes[at] ^= 1 << input.below(8),
        1 => bytes[at] = input.u8(),
        2 => put(bytes, at, &input.u16().to_le_bytes()),
        3 => put(bytes, at, &input.u32().to_le_bytes()),
        4 => put(bytes, at, &[0xff; 8][..1 + input.below(8)]),
        5 => {
            let len = input.below(64);
            let literal = input.take(len);
            put(bytes, at, literal);
        }
        6 => {
            let (from, len) = (input.place(bytes.len()), input.below(64));
            let len = len.min(bytes.len() - from).min(bytes.len() - at);
            bytes.copy_within(from..from + len, at);
        }
        _ => {
            let child = page::CHILD_LEN.min(bytes.len() - at);
            let from = at.saturating_sub(page::CHILD_LEN);
            bytes.copy_within(from..from + child, at);
        }
    }
}

/// Merges into an empty tree, one after the other; what was built must hold what a sorted map holds.
fn run_built(input: &mut Input<'_>) {
    let mut tree = ModelledTree::new(PAGE_SIZE, 50 + input.below(51) as u8);
    for _ in 0..1 + input.below(6) {
        let mut deletions = Vec::new();
        let mut bounds = keys(input, 4);
        bounds.sort();
        bounds.dedup();
        for pair in bounds.chunks_exact(2) {
            deletions.push((pair[0].clone(), Some(pair[1].clone())));
        }
        if let ([.., last], true) = (&bounds[..], bounds.len() % 2 == 1) {
            deletions.push((last.clone(), None));
        }
        let mut ops = BTreeMap::new();
        if input.below(3) == 0 {
            let (start, len) = (input.below(1000) as u32, input.below(300));
            let value = if input.below(5) == 0 { None } else { Some(vec![start as u8; len]) };
            ops.extend(
                (start..start + input.below(200) as u32).map(|n| (n.to_be_bytes().to_vec(), value.clone())),
            );
        }
        for key in keys(input, 24) {
            let value = match input.below(8) {
                0 | 1 => None,
                7 => Some(vec![7; 900 + input.below(9000)]),
                _ => Some(vec![1; input.below(100)]),
            };
            ops.insert(key, value);
        }
        tree.merge(&deletions, &ops);
        if input.is_empty() {
            break;
        }
    }
    let mut probes = keys(input, 12);
    probes.extend([0, 17, 1100].map(|n: u32| n.to_be_bytes().to_vec()));
    tree.verify(&probes);
    if input.bool() {
        tree.repack();
        tree.verify(&probes);
    }
}

/// Fewer than `bound` keys that often share beginnings.
fn keys(input: &mut Input<'_>, bound: usize) -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = Vec::new();
    for _ in 0..input.below(bound) {
        let way = input.u8();
        let lead = match way & 3 {
            0 => keys.last().cloned().unwrap_or_default(),
            1 => b"0000".to_vec(),
            _ => Vec::new(),
        };
        let len = usize::from(way >> 2 & 15);
        let mut key = [&lead, input.take(len)].concat();
        if way >> 6 == 3 {
            key.resize(key.len() + input.below(6000), b's');
            key.extend_from_slice(input.take(1));
        }
        key.truncate(8000);
        keys.push(key);
    }
    keys
}

//! Random merges against a `BTreeMap`.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::testing::{Bounds, Bytes, Harness};

/// Keys of many shapes that collide, neighbour and share prefixes often.
fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        4 => prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(b'a'), Just(255)], 0..6),
        6 => (0..3000u32).prop_map(|n| format!("key/{n:06}").into_bytes()),
        2 => (0..3u8, 0..40u8).prop_map(|(a, b)| [&[b'p'; 300][..], &[a], &[b'q'; 120], &[b]].concat()),
        1 => (0..4u8, 1000..9000usize, 0..8u8).prop_map(|(a, len, b)| [&[b'l', a][..], &vec![b'x'; len], &[b]].concat()),
    ]
}

fn value() -> impl Strategy<Value = Bytes> {
    let of = |lens: std::ops::Range<usize>| (any::<u8>(), lens).prop_map(|(byte, len)| vec![byte; len]);
    prop_oneof![20 => of(0..40), 6 => of(40..400), 2 => of(1000..1050), 1 => of(1025..9000)]
}

#[derive(Debug, Clone)]
enum Action {
    Merge {
        deletions: Vec<Bounds>,
        ops: BTreeMap<Bytes, Option<Bytes>>,
    },
    /// Many entries next to each other.
    Load {
        first: u32,
        step: u32,
        count: u32,
        value: Bytes,
    },
    Repack,
    MoveToFront,
}

fn action() -> impl Strategy<Value = Action> {
    let deletions = prop::collection::btree_set(key(), 0..5).prop_map(|bounds| {
        let bounds: Vec<_> = bounds.into_iter().collect();
        bounds.chunks(2).map(|pair| (pair[0].clone(), pair.get(1).cloned())).collect::<Vec<_>>()
    });
    let deletions = prop_oneof![2 => Just(Vec::new()), 1 => deletions];
    let ops = || prop::collection::btree_map(key(), prop::option::weighted(0.7, value()), 0..120);
    prop_oneof![
        8 => (deletions, ops()).prop_map(|(deletions, ops)| Action::Merge { deletions, ops }),
        3 => (0..3000u32, 1..4u32, 1..800u32, value())
            .prop_map(|(first, step, count, value)| Action::Load { first, step, count, value }),
        1 => Just(Action::Repack),
        3 => Just(Action::MoveToFront),
    ]
}

fn run(page_size: usize, fill: u8, actions: &[Action], probes: &[Bytes]) {
    let mut harness = Harness::new(page_size);
    harness.fill = fill;
    for action in actions {
        match action {
            Action::Merge { deletions, ops } => {
                harness.apply(deletions, ops);
            }
            Action::Load { first, step, count, value } => {
                let value = &value[..value.len().min(300)];
                harness.put((0..*count).map(|n| (format!("key/{:06}", first + n * step), value.to_vec())));
            }
            Action::Repack => {
                harness.repack();
            }
            Action::MoveToFront => {
                harness.move_to_front();
            }
        }
        harness.verify();
        for key in probes {
            harness.verify_at(key);
        }
    }
}

proptest! {
    #![proptest_config(crate::sampling::config(32))]

    #[test]
    fn merges_agree_with_a_map(
        page_size in prop_oneof![3 => Just(4096usize), 1 => Just(8192usize), 1 => Just(32768usize)],
        fill in 50..=100u8,
        actions in prop::collection::vec(action(), 1..if cfg!(miri) { 3 } else { 10 }),
        probes in prop::collection::vec(key(), 1..20),
    ) {
        run(page_size, fill, &actions, &probes);
    }
}

/// Keys so long, and different so late, that nodes hold few of them: tall trees of few entries.
fn tall_key() -> impl Strategy<Value = Bytes> {
    (prop::array::uniform3(0..4u8), 0..6u8).prop_map(|(groups, last)| {
        let mut key: Bytes = groups.iter().flat_map(|&group| [group; 300]).collect();
        key.push(last);
        key
    })
}

fn tall_action() -> impl Strategy<Value = Action> {
    let deletions = prop::collection::btree_set(tall_key(), 0..5).prop_map(|bounds| {
        let bounds: Vec<_> = bounds.into_iter().collect();
        bounds.chunks(2).map(|pair| (pair[0].clone(), pair.get(1).cloned())).collect::<Vec<_>>()
    });
    let deletions = prop_oneof![2 => Just(Vec::new()), 1 => deletions];
    let ops =
        |puts, size| prop::collection::btree_map(tall_key(), prop::option::weighted(puts, value()), size);
    let ops = prop_oneof![ops(0.9, 0..200), ops(0.5, 0..10), ops(0.1, 0..100)];
    (deletions, ops).prop_map(|(deletions, ops)| Action::Merge { deletions, ops })
}

proptest! {
    #![proptest_config(crate::sampling::config(32))]

    #[test]
    fn merges_into_tall_trees_agree_with_a_map(
        actions in prop::collection::vec(tall_action(), 1..if cfg!(miri) { 3 } else { 12 }),
        probes in prop::collection::vec(tall_key(), 1..10),
    ) {
        run(4096, 100, &actions, &probes);
    }
}

/// What happens to the keys numbered `first..first + count`.
#[derive(Debug, Clone)]
struct Span {
    first: u32,
    count: u32,
    fate: Fate,
}

#[derive(Debug, Clone)]
enum Fate {
    Put { len: usize },
    Delete { but_every: u32 },
    DeleteRange,
}

fn span() -> impl Strategy<Value = Span> {
    let fate = prop_oneof![
        3 => (0..300usize).prop_map(|len| Fate::Put { len }),
        1 => (900..5000usize).prop_map(|len| Fate::Put { len }),
        4 => prop_oneof![Just(u32::MAX), 3..400u32].prop_map(|but_every| Fate::Delete { but_every }),
        2 => Just(Fate::DeleteRange),
    ];
    let count = prop_oneof![1..4u32, 1..40u32, 1..400u32, 1..3000u32];
    let anywhere = (0..3000u32, count);
    let to_an_edge =
        prop_oneof![(1..800u32).prop_map(|end| (0, end)), (1..800u32).prop_map(|first| (first, 3000))];
    let place = prop_oneof![6 => anywhere, 1 => to_an_edge];
    (place, fate).prop_map(|((first, count), fate)| Span { first, count, fate })
}

/// Loads a tree, then changes it in few places at a time, so that what is left of a leaf or an inner node
/// stands between neighbours that are not touched.
fn run_spans(fill: u8, key: impl Fn(u32) -> Bytes, loaded: u32, merges: &[Vec<Span>]) {
    let mut harness = Harness::new(4096);
    harness.fill = fill;
    harness.put((0..loaded).map(|n| (key(n), vec![n as u8; 60])));
    harness.verify();
    for spans in merges {
        let (mut ops, mut deletions, mut deleted_to) = (BTreeMap::new(), Vec::new(), 0);
        let mut spans = spans.clone();
        spans.sort_by_key(|span| span.first);
        for Span { first, count, fate } in spans {
            let numbers = first..first + count;
            match fate {
                Fate::Put { len } => ops.extend(numbers.take(60).map(|n| (key(n), Some(vec![7; len])))),
                Fate::Delete { but_every } => {
                    ops.extend(numbers.filter(|n| n % but_every != 1).map(|n| (key(n), None)));
                }
                Fate::DeleteRange if first >= deleted_to => {
                    deleted_to = numbers.end;
                    deletions.push((key(first), Some(key(deleted_to))));
                }
                Fate::DeleteRange => {}
            }
        }
        harness.apply(&deletions, &ops);
        harness.verify();
        for (start, end) in &deletions {
            harness.verify_at(start);
            end.iter().for_each(|end| harness.verify_at(end));
        }
    }
}

proptest! {
    #![proptest_config(crate::sampling::config(24))]

    #[test]
    fn spans_of_changes_agree_with_a_map(
        fill in 50..=100u8,
        loaded in prop_oneof![Just(300u32), Just(3000)],
        merges in prop::collection::vec(prop::collection::vec(span(), 1..4), 1..16),
    ) {
        run_spans(fill, |n| format!("{n:012}").into_bytes(), loaded, &merges);
    }

    #[test]
    fn spans_of_changes_in_tall_trees_agree_with_a_map(
        fill in 50..=100u8,
        loaded in 1..800u32,
        merges in prop::collection::vec(prop::collection::vec(span(), 1..4), 1..16),
    ) {
        // Six digits to the base of four, each as long as a twentieth of a page.
        let key = |n: u32| (0..6).rev().flat_map(|i| [((n / 4) >> (2 * i)) as u8 & 3; 200]).chain([n as u8]).collect();
        run_spans(fill, key, loaded, &merges);
    }
}

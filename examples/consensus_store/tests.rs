//! What both stores must do.

use std::ops::ControlFlow;
use std::path::Path;

use peristyle::{ColumnFamilyDatabase, MemoryStorage};

use crate::memory_store::MemoryStore;
use crate::model::{Block, BlockStore, LastUse, Token, TokenId, TokenStore};
use crate::peristyle_store::PeristyleStore;
use crate::progress::Progress;
use crate::signature::{Challenge, MATCHES, Signature};
use crate::workload::{Outcome, Workload};

fn peristyle() -> PeristyleStore {
    let builder = ColumnFamilyDatabase::builder().storage(MemoryStorage::new());
    PeristyleStore::open(builder, Path::new("in memory")).unwrap()
}

fn token(number: u8) -> TokenId {
    [number; 32]
}

fn usage(time: u64) -> LastUse {
    LastUse { block: [time as u8; 32], time }
}

/// The first bytes of the identifiers that a walk shows, which is broken off after `limit`.
fn seen(limit: usize, walk: impl FnOnce(&mut dyn FnMut(Token<'_>) -> ControlFlow<()>)) -> Vec<u8> {
    let mut seen = Vec::new();
    walk(&mut |token| {
        seen.push(token.id[0]);
        if seen.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    seen
}

fn check_newer_time_wins(store: &impl TokenStore) {
    assert_eq!(store.lookup(&token(1)).unwrap(), None);
    assert!(store.set(&token(1), usage(5)).unwrap());
    assert!(!store.set(&token(1), usage(4)).unwrap(), "older news were taken");
    assert!(!store.set(&token(1), usage(5)).unwrap(), "news of the same time were taken");
    assert_eq!(store.lookup(&token(1)).unwrap(), Some(usage(5)));
    assert!(store.set(&token(1), usage(6)).unwrap());
    assert_eq!(store.lookup(&token(1)).unwrap(), Some(usage(6)));
}

fn check_walks(store: &impl TokenStore) {
    for number in [10, 20, 30, 40] {
        store.set(&token(number), usage(1)).unwrap();
    }
    assert_eq!(seen(9, |visit| store.range_after(&token(20), visit).unwrap()), [30, 40]);
    assert_eq!(seen(9, |visit| store.range_before(&token(20), visit).unwrap()), [10]);
    assert_eq!(seen(9, |visit| store.range_after(&token(15), visit).unwrap()), [20, 30, 40]);
    assert_eq!(seen(2, |visit| store.range_before(&token(45), visit).unwrap()), [40, 30]);
    assert_eq!(seen(9, |visit| store.range_after(&token(40), visit).unwrap()), [0; 0]);
    assert_eq!(seen(9, |visit| store.range_before(&token(10), visit).unwrap()), [0; 0]);
}

fn check_blocks(store: &(impl TokenStore + BlockStore)) {
    assert!(store.save(&[7; 32], b"first").unwrap());
    assert!(!store.save(&[7; 32], b"second").unwrap(), "a block was replaced");
    assert_eq!(store.load(&[7; 32]).unwrap().unwrap(), b"first");

    store.set(&token(2), usage(9)).unwrap();
    let tokens = [token(1), token(2), token(1)];
    store.commit_block(&Block { id: &[8; 32], time: 8, body: b"body", tokens: &tokens }).unwrap();
    assert_eq!(store.load(&[8; 32]).unwrap().unwrap(), b"body");
    assert_eq!(store.lookup(&token(1)).unwrap(), Some(usage(8)));
    assert_eq!(store.lookup(&token(2)).unwrap(), Some(usage(9)), "a newer use was replaced by an older one");
}

#[test]
fn newer_time_wins_in_both_stores() {
    check_newer_time_wins(&peristyle());
    check_newer_time_wins(&MemoryStore::default());
}

#[test]
fn walks_leave_out_the_token_itself_and_end_when_told_in_both_stores() {
    check_walks(&peristyle());
    check_walks(&MemoryStore::default());
}

#[test]
fn blocks_never_change_and_take_their_tokens_along_in_both_stores() {
    check_blocks(&peristyle());
    check_blocks(&MemoryStore::default());
}

#[test]
fn a_signature_holds_five_matches_on_each_side_or_all_there_are() {
    let store = MemoryStore::default();
    for number in 0..=20 {
        store.set(&token(number), usage(1)).unwrap();
    }
    let every = Challenge { nonce: 3, one_in: 1 };
    let signature = Signature::generate(&store, &token(18), every).unwrap().unwrap();
    assert_eq!(signature.after, [token(19), token(20)]);
    assert_eq!(signature.before, [17, 16, 15, 14, 13].map(token));
    assert_eq!(signature.visited, 2 + MATCHES as u64);
    assert_eq!(Signature::generate(&store, &token(99), every).unwrap(), None);
}

#[test]
fn both_stores_come_to_the_same_signatures_also_over_a_former_run() {
    let workload = Workload { tokens: 5000, blocks: 200, news: 2000, signatures: 50, one_in: 20, seed: 7 };
    let progress = Progress { silent: true };
    let expected = workload.run(&MemoryStore::default(), &progress).unwrap();
    assert_ne!(expected, Outcome { visited: 0, matches: 0, checksum: 0 });
    let store = peristyle();
    assert_eq!(workload.run(&store, &progress).unwrap(), expected);
    store.database().flush().unwrap();
    assert_eq!(workload.run(&store, &progress).unwrap(), expected, "over what the first run left");
    let other = Workload { seed: 8, ..workload };
    assert_ne!(other.run(&MemoryStore::default(), &progress).unwrap(), expected);
}

//! Epochs as [`crate::sync::epoch`] promises them, at their most eager: what is deferred runs at the first
//! entry into an epoch after the last guard of its time is gone. Nothing of an earlier execution is left over
//! for a later one.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

type Deferred = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Epochs {
    now: u64,
    /// How many guards of each epoch live.
    guards: BTreeMap<u64, usize>,
    deferred: VecDeque<(u64, Deferred)>,
    /// Whether an execution's end will empty this.
    begun: bool,
}

thread_local! {
    /// All threads of an execution take turns on one thread of the system.
    static EPOCHS: RefCell<Epochs> = RefCell::default();
}

shuttle::lazy_static! {
    static ref EXECUTION: Execution = Execution;
}

/// Ends with the execution.
struct Execution;

impl Drop for Execution {
    fn drop(&mut self) {
        with(|epochs| epochs.guards.clear());
        collect();
        with(|epochs| *epochs = Epochs::default());
    }
}

/// Never switches, so that what is borrowed is always free.
fn with<R>(look: impl FnOnce(&mut Epochs) -> R) -> R {
    EPOCHS.with_borrow_mut(look)
}

pub(crate) struct Guard(u64);

pub(crate) fn pin() -> Guard {
    super::switch();
    if !with(|epochs| std::mem::replace(&mut epochs.begun, true)) {
        shuttle::lazy_static::initialize(&EXECUTION);
    }
    let guard = with(|epochs| {
        *epochs.guards.entry(epochs.now).or_default() += 1;
        Guard(epochs.now)
    });
    collect();
    guard
}

pub(crate) fn defer(_guard: &Guard, reclaim: impl FnOnce() + Send + 'static) {
    with(|epochs| {
        epochs.deferred.push_back((epochs.now, Box::new(reclaim)));
        epochs.now += 1;
    });
    collect();
}

pub(crate) fn collect() {
    let due = |epochs: &mut Epochs| {
        let oldest = epochs.guards.keys().next().copied().unwrap_or(u64::MAX);
        let (epoch, _) = epochs.deferred.front()?;
        if *epoch < oldest { epochs.deferred.pop_front() } else { None }
    };
    while let Some((_, reclaim)) = with(due) {
        reclaim();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        super::switch();
        with(|epochs| {
            let Some(count) = epochs.guards.get_mut(&self.0) else { return };
            *count -= 1;
            if *count == 0 {
                epochs.guards.remove(&self.0);
            }
        });
    }
}

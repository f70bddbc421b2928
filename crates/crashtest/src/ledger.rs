//! What all writers of a workload did, and what a database that is recovered must hold of it.

use crate::digest::{Sums, WRITERS};
use crate::history::{Action, History, State};
use crate::violation::{Checked, Kind, Violation};

/// From this length of the disk's log on, so many events of each writer are durable: those with log records,
/// and those without.
#[derive(Debug, Clone, Copy, Default)]
pub struct Floor {
    /// Length of the log.
    pub moment: usize,
    /// Events by writer.
    pub events: [[usize; 2]; WRITERS],
}

/// What a crash leaves of the memory of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// Nothing.
    PowerLoss,
    /// All of it: only the process was killed.
    Kill,
    /// Nothing, and a sync had claimed more than it did: nothing that was acknowledged after it need be
    /// there.
    Deceived(usize),
}

/// The histories of all writers.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// Of each writer, what is logged and what is not.
    pub histories: Vec<[History; 2]>,
    floors: Vec<Floor>,
    /// The sequence number before the first event.
    base_sequence: u64,
    /// The most numbers that no event has: where a page of a family could not be read, what its memtables
    /// hold is carried along in the log, as records of its own that change nothing.
    pub carried: u64,
}

/// What was read of a recovered database.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Recovered {
    /// What it holds.
    pub sums: Sums,
    /// Its last sequence number.
    pub last_sequence: u64,
}

impl Ledger {
    /// A ledger of `histories`, with floors in any order.
    pub fn new(histories: Vec<[History; 2]>, mut floors: Vec<Floor>, base_sequence: u64) -> Self {
        floors.sort_by_key(|floor| floor.moment);
        let mut highest = Floor::default();
        for floor in &mut floors {
            for (high, events) in highest.events.iter_mut().flatten().zip(floor.events.iter_mut().flatten()) {
                *high = (*high).max(*events);
                *events = *high;
            }
        }
        Self { histories, floors, base_sequence, carried: 0 }
    }

    /// The fewest events of a writer that must be found after a crash behind `moment` operations.
    fn floor(&self, writer: usize, moment: usize, crash: Crash) -> [usize; 2] {
        let durable = |moment| {
            let count = self.floors.partition_point(|floor| floor.moment <= moment);
            count.checked_sub(1).map_or([0, 0], |last| self.floors[last].events[writer])
        };
        match crash {
            Crash::PowerLoss => durable(moment),
            Crash::Deceived(since) => durable(moment.min(since.saturating_sub(1))),
            Crash::Kill => {
                let [logged, unlogged] = durable(moment);
                [logged.max(self.histories[writer][0].acknowledged(moment)), unlogged]
            }
        }
    }

    /// Checks what was recovered after a crash behind `moment` operations.
    pub fn check(&self, recovered: &Recovered, moment: usize, crash: Crash) -> Checked<()> {
        // Where neighbouring prefixes do not differ, which one is there is not known.
        let mut present = vec![(0, 0); self.histories.len()];
        let (mut fewest, mut most, mut all, mut unlogged_begun) = (0, 0, 0, 0);
        for (writer, [logged, unlogged]) in self.histories.iter().enumerate() {
            let floor = self.floor(writer, moment, crash);
            for (history, floor) in [logged, unlogged].into_iter().zip(floor) {
                let begun = history.begun(moment);
                let sum = history.part_of(&recovered.sums);
                let matching = history.matching(sum, floor..=begun);
                let (Some(&first), Some(&last)) = (matching.first(), matching.last()) else {
                    return Err(diagnose(history, sum, floor, begun));
                };
                all += history.commits(begun);
                if std::ptr::eq(history, logged) {
                    present[writer] = (first, last);
                    fewest += history.commits(first);
                    most += history.commits(last);
                } else {
                    unlogged_begun += history.commits(begun);
                }
            }
        }
        let counted = recovered.last_sequence.wrapping_sub(self.base_sequence);
        let events = if unlogged_begun == 0 { most } else { all };
        let possible = fewest..=events + self.carried;
        if !possible.contains(&counted) {
            return Err(Violation::new(
                Kind::Torn,
                format!(
                    "the last sequence number is {counted} beyond the first, but {fewest} to {most} commits are there, of {all} that were begun: they are no prefix"
                ),
            ));
        }
        self.check_order(&present)
    }

    /// What was acknowledged before something that is there began must be there as well.
    fn check_order(&self, present: &[(usize, usize)]) -> Checked<()> {
        let began = |writer: usize| {
            let last = present[writer].0.checked_sub(1)?;
            Some(self.histories[writer][0].events()[last].began_tick)
        };
        let newest = (0..present.len()).filter_map(began).max().unwrap_or(0);
        for (writer, (_, count)) in present.iter().enumerate() {
            let missing = self.histories[writer][0].events().get(*count);
            if let Some(event) = missing
                && event.acknowledged_tick.is_some_and(|tick| tick < newest)
            {
                let message = format!(
                    "event {count} of writer {writer} is not there, but one is that began after it was acknowledged: {:?}",
                    event.action
                );
                return Err(Violation::new(Kind::Torn, message));
            }
        }
        Ok(())
    }

    /// Whether a family was created, renamed or dropped, and that acknowledged, when the log had `moment`
    /// operations or more.
    pub fn changes_families_after(&self, moment: usize) -> bool {
        let mut events = self.histories.iter().flatten().flat_map(History::events);
        events.any(|event| {
            !matches!(event.action, Action::Commit { .. } | Action::Decide { .. })
                && event.acknowledged.is_some_and(|acknowledged| acknowledged >= moment)
        })
    }

    /// In what `found` differs from the state that it comes closest to, of those that may be there after a
    /// crash behind `moment` operations. A few lines for each history.
    pub fn explain(&self, found: &State, moment: usize, crash: Crash) -> String {
        let mut lines = Vec::new();
        for (writer, histories) in self.histories.iter().enumerate() {
            let floor = self.floor(writer, moment, crash);
            for (history, floor) in histories.iter().zip(floor) {
                let possible = floor..=history.begun(moment).max(floor).min(history.events().len());
                let closest = possible
                    .map(|count| (history.differences(count, found), count))
                    .min_by_key(|(differences, _)| differences.len());
                if let Some((differences, count)) = closest.filter(|(differences, _)| !differences.is_empty())
                {
                    let next = history.events().get(count).map(|event| &event.action);
                    lines.push(format!(
                        "{}, {count} events, closest (the next is {next:?}): {}",
                        history.name(),
                        differences.join(", ")
                    ));
                }
            }
        }
        lines.join("; ")
    }
}

/// Says what is wrong with a sum that no admissible prefix has.
fn diagnose(history: &History, sum: u128, floor: usize, begun: usize) -> Violation {
    let writer = history.name();
    let all = 0..=history.events().len();
    if let Some(prefix) = history.matching(sum, all).last() {
        let (kind, what) =
            if *prefix < floor { (Kind::Lost, "durable") } else { (Kind::Resurrected, "begun") };
        let message = format!(
            "writer {writer}: {prefix} events are there, {what} were {}",
            floor.max(begun.min(*prefix))
        );
        return Violation::new(kind, format!("{message}; floor {floor}, begun {begun}"));
    }
    Violation::new(
        Kind::Torn,
        format!("{writer}: no prefix of {floor} to {begun} events gives what is there"),
    )
}

//! What one writer did, in order, and what the database must hold of it after a crash.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt;
use std::ops::RangeInclusive;

use crate::chain::merged;
use crate::digest::{self, Sums};

/// A change to the entries of a family.
#[derive(Clone, PartialEq, Eq)]
pub enum Change {
    /// Key and value.
    Put(Vec<u8>, Vec<u8>),
    /// Key and operand.
    Merge(Vec<u8>, Vec<u8>),
    /// A key.
    Delete(Vec<u8>),
    /// From a key to another, excluded.
    DeleteRange(Vec<u8>, Vec<u8>),
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(key, value) => write!(f, "Put({key:?}, {} bytes)", value.len()),
            Self::Merge(key, operand) => write!(f, "Merge({key:?}, {} bytes)", operand.len()),
            Self::Delete(key) => write!(f, "Delete({key:?})"),
            Self::DeleteRange(start, end) => write!(f, "DeleteRange({start:?}, {end:?})"),
        }
    }
}

/// One atomic step of a writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A commit: changes by name of the family, at the time.
    Commit {
        /// What it changes.
        changes: Vec<(String, Change)>,
    },
    /// A transaction is prepared under a name; the changes come with its commit.
    Prepare {
        /// Its name; the first byte is the writer.
        name: Vec<u8>,
        /// What it will change.
        changes: Vec<(String, Change)>,
    },
    /// What is prepared under a name is decided.
    Decide {
        /// Its name.
        name: Vec<u8>,
        /// What it changes; nothing if it is rolled back.
        changes: Vec<(String, Change)>,
        /// Whether it is committed.
        commits: bool,
    },
    /// A family comes into being.
    Create(String),
    /// Several come into being at once.
    CreateAll(Vec<String>),
    /// A family gets another name: from, to.
    Rename(String, String),
    /// A family goes.
    Drop(String),
}

/// What is prepared, as if it were a family: names are keys, and each adds what its entry would.
pub const PREPARED: &str = "prepared";

/// Name and changes of a prepared transaction.
pub type Undecided<'a> = (&'a [u8], &'a [(String, Change)]);

/// What a prepared transaction adds to the sum of what is prepared.
pub fn prepared(name: &[u8]) -> u128 {
    digest::entry(name, b"prepared")
}

/// A step and when it was made. Moments are lengths of the disk's log; ticks count everything that any writer
/// begins or ends.
#[derive(Debug, Clone)]
pub struct Event {
    /// The step.
    pub action: Action,
    /// When it began.
    pub began: usize,
    /// When it was acknowledged.
    pub acknowledged: Option<usize>,
    /// When it began, in ticks.
    pub began_tick: u64,
    /// When it was acknowledged, in ticks.
    pub acknowledged_tick: Option<u64>,
}

/// Entries of a family: what each adds to the sum.
type Entries = BTreeMap<Vec<u8>, u128>;

/// Families by name.
#[derive(Debug, Clone, Default)]
pub struct State {
    families: BTreeMap<String, (Entries, u128)>,
}

impl State {
    /// A state that holds the families of `names` and nothing in them.
    pub fn with_families<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let families = names.into_iter().map(|name| (name.to_owned(), Default::default()));
        Self { families: families.collect() }
    }

    /// Adds an entry that was read.
    pub fn insert(&mut self, family: &str, key: Vec<u8>, sum: u128) {
        let (entries, total) = self.families.entry(family.to_owned()).or_default();
        *total = total.wrapping_add(sum);
        entries.insert(key, sum);
    }

    /// Names of the families.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.families.keys().map(String::as_str)
    }

    /// The sum of a family's entries.
    pub fn family_sum(&self, name: &str) -> Option<u128> {
        self.families.get(name).map(|(_, sum)| *sum)
    }

    /// What each entry of a family adds.
    pub fn entries(&self, name: &str) -> Option<&BTreeMap<Vec<u8>, u128>> {
        self.families.get(name).map(|(entries, _)| entries)
    }

    /// The sum over all families that `counts` admits, as [`Sums::of_writer`] has it.
    pub fn sum(&self, writer: usize, counts: impl Fn(&str) -> bool) -> u128 {
        let families = self.families.iter().filter(|(name, _)| counts(name));
        families
            .fold(0u128, |sum, (name, (_, entries))| sum.wrapping_add(digest::part(name, writer, *entries)))
    }

    /// All families, with the entries of one writer.
    #[must_use]
    pub fn of_writer(&self, writer: usize) -> Self {
        let mut part = Self::with_families(self.names());
        for (name, (entries, _)) in &self.families {
            for (key, sum) in entries.iter().filter(|(key, _)| digest::writer_of(key) == writer) {
                part.insert(name, key.clone(), *sum);
            }
        }
        part
    }

    /// Carries out one step.
    pub fn apply(&mut self, action: &Action) {
        match action {
            Action::Commit { changes } => {
                for (family, change) in changes {
                    self.change(family, change);
                }
            }
            Action::Prepare { name, .. } => self.insert(PREPARED, name.clone(), prepared(name)),
            Action::Decide { name, changes, .. } => {
                self.change(PREPARED, &Change::Delete(name.clone()));
                for (family, change) in changes {
                    self.change(family, change);
                }
            }
            Action::Create(name) => drop(self.families.insert(name.clone(), Default::default())),
            Action::CreateAll(names) => {
                for name in names {
                    self.families.insert(name.clone(), Default::default());
                }
            }
            Action::Rename(from, to) => {
                if let Some(family) = self.families.remove(from) {
                    self.families.insert(to.clone(), family);
                }
            }
            Action::Drop(name) => drop(self.families.remove(name)),
        }
    }

    fn change(&mut self, family: &str, change: &Change) {
        // What was written to a family that is gone is gone, too.
        let Some((entries, total)) = self.families.get_mut(family) else { return };
        match change {
            Change::Put(key, value) => {
                let sum = digest::entry(key, value);
                let old = entries.insert(key.clone(), sum).unwrap_or(0);
                *total = total.wrapping_add(sum).wrapping_sub(old);
            }
            Change::Merge(key, operand) => {
                let old = entries.get(key).copied();
                let sum = digest::entry(key, &merged(old, operand));
                entries.insert(key.clone(), sum);
                *total = total.wrapping_add(sum).wrapping_sub(old.unwrap_or(0));
            }
            Change::Delete(key) => *total = total.wrapping_sub(entries.remove(key).unwrap_or(0)),
            Change::DeleteRange(start, end) if start < end => {
                let gone: Vec<Vec<u8>> =
                    entries.range(start.clone()..end.clone()).map(|(key, _)| key.clone()).collect();
                for key in gone {
                    *total = total.wrapping_sub(entries.remove(&key).unwrap_or(0));
                }
            }
            Change::DeleteRange(..) => {}
        }
    }
}

/// The steps of one writer, and the state after each: those that have log records, or those that have none.
#[derive(Debug, Clone)]
pub struct History {
    writer: usize,
    unlogged: bool,
    base: State,
    state: State,
    events: Vec<Event>,
    /// After so many events, the sum of what is logged.
    sums: Vec<u128>,
    /// Commits among so many events.
    commits: Vec<u64>,
    prefixes: HashMap<u128, Vec<usize>>,
}

/// Whether a family's writes are all unlogged: then it follows a history of its own.
pub fn is_unlogged(name: &str) -> bool {
    name.starts_with('u')
}

impl History {
    /// A writer who finds `base`; `unlogged` is what it does to the families that have no log records.
    pub fn new(writer: usize, unlogged: bool, base: &State) -> Self {
        let base = base.of_writer(writer);
        let sum = base.sum(writer, |name| is_unlogged(name) == unlogged);
        let state = base.clone();
        Self {
            writer,
            unlogged,
            base,
            state,
            events: Vec::new(),
            sums: vec![sum],
            commits: vec![0],
            prefixes: HashMap::from([(sum, vec![0])]),
        }
    }

    /// The writer's number.
    pub fn writer(&self) -> usize {
        self.writer
    }

    /// Whose it is, and of what.
    pub fn name(&self) -> String {
        format!("writer {}, {}", self.writer, if self.unlogged { "unlogged" } else { "logged" })
    }

    /// What is prepared and not decided, unless an earlier writer did it.
    pub fn undecided(&self) -> Option<Undecided<'_>> {
        let last = self.events.iter().rev().find_map(|event| match &event.action {
            Action::Prepare { name, changes } => Some(Some((&name[..], &changes[..]))),
            Action::Decide { .. } => Some(None),
            _ => None,
        });
        last.flatten()
    }

    /// The state before the first event.
    pub fn base(&self) -> &State {
        &self.base
    }

    /// The state after all events.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The events.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// What of `sums` this history is about.
    pub fn part_of(&self, sums: &Sums) -> u128 {
        sums.of_writer(self.writer, |name| is_unlogged(name) == self.unlogged)
    }

    /// The sum after `count` events.
    pub fn sum(&self, count: usize) -> u128 {
        self.sums[count]
    }

    /// Commits among the first `count` events: each takes a sequence number.
    pub fn commits(&self, count: usize) -> u64 {
        self.commits[count]
    }

    /// Notes a step that begins.
    pub fn begin(&mut self, action: Action, moment: usize, tick: u64) {
        self.state.apply(&action);
        let sum = self.state.sum(self.writer, |name| is_unlogged(name) == self.unlogged);
        let is_commit =
            matches!(action, Action::Commit { .. } | Action::Prepare { .. } | Action::Decide { .. });
        let commits = self.commits[self.events.len()] + u64::from(is_commit);
        self.events.push(Event {
            action,
            began: moment,
            acknowledged: None,
            began_tick: tick,
            acknowledged_tick: None,
        });
        self.sums.push(sum);
        self.commits.push(commits);
        self.prefixes.entry(sum).or_default().push(self.events.len());
    }

    /// Families that all writers share are there from the first event on. They add nothing to any sum as long
    /// as nothing is in them.
    pub fn find(&mut self, names: &[&str]) {
        for name in names {
            self.base.families.entry((*name).to_owned()).or_default();
            self.state.families.entry((*name).to_owned()).or_default();
        }
    }

    /// Notes that the last step was acknowledged.
    pub fn acknowledge(&mut self, moment: usize, tick: u64) {
        if let Some(event) = self.events.last_mut() {
            event.acknowledged = Some(moment);
            event.acknowledged_tick = Some(tick);
        }
    }

    /// Forgets the last step: it was refused, and changed nothing.
    pub fn take_back(&mut self) {
        let count = self.events.len();
        if self.events.pop().is_none() {
            return;
        }
        if let Some(sum) = self.sums.pop()
            && let Some(prefixes) = self.prefixes.get_mut(&sum)
        {
            prefixes.retain(|prefix| *prefix != count);
        }
        self.commits.pop();
        self.state = self.state_after(self.events.len());
    }

    /// The state after `count` events.
    pub fn state_after(&self, count: usize) -> State {
        let mut state = self.base.clone();
        self.events[..count].iter().for_each(|event| state.apply(&event.action));
        state
    }

    /// Events that had begun before the disk's log had `moment` operations: no more can be found.
    pub fn begun(&self, moment: usize) -> usize {
        self.events.partition_point(|event| event.began < moment)
    }

    /// Events that were acknowledged by then.
    pub fn acknowledged(&self, moment: usize) -> usize {
        let is_acknowledged =
            |event: &Event| event.acknowledged.is_some_and(|acknowledged| acknowledged <= moment);
        self.events.iter().take_while(|event| is_acknowledged(event)).count()
    }

    /// The numbers of events within `range` after which the sum is `sum`.
    pub fn matching(&self, sum: u128, range: RangeInclusive<usize>) -> Vec<usize> {
        let prefixes = self.prefixes.get(&sum).map_or(&[][..], Vec::as_slice);
        prefixes.iter().copied().filter(|prefix| range.contains(prefix)).collect()
    }

    /// In what the entries that are there differ from those after `count` events.
    pub fn differences(&self, count: usize, found: &State) -> Vec<String> {
        const MOST: usize = 20;
        let expected = self.state_after(count);
        let mut lines = Vec::new();
        for name in expected.names().filter(|name| is_unlogged(name) == self.unlogged) {
            let Some(there) = found.entries(name) else {
                lines.push(format!("family {name} is missing"));
                continue;
            };
            let wanted = expected.entries(name).into_iter().flatten();
            for (key, sum) in wanted {
                match there.get(key) {
                    None => lines.push(format!("{name}/{key:?} is missing")),
                    Some(other) if other != sum => lines.push(format!("{name}/{key:?} has another value")),
                    Some(_) => {}
                }
            }
            let extra = there.keys().filter(|key| digest::writer_of(key) == self.writer);
            let extra = extra.filter(|key| !expected.entries(name).is_some_and(|own| own.contains_key(*key)));
            lines.extend(extra.map(|key| format!("{name}/{key:?} should not be there")));
        }
        let unexpected = found.names().filter(|name| {
            digest::owner(name) == Some(self.writer) && expected.family_sum(name).is_none() && !self.unlogged
        });
        lines.extend(unexpected.map(|name| format!("family {name} should not be there")));
        lines.truncate(MOST);
        lines
    }
}

//! What a workload is made of.

use std::fmt;

use peristyle::Durability;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

/// A value that a number and a length give: no two of different numbers are alike.
pub fn value(number: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 8);
    let mut word = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    bytes.extend_from_slice(&number.to_le_bytes());
    while bytes.len() < len {
        word = word.wrapping_mul(0xd129_0e8f_5c4d_3b21).wrapping_add(0x1234_5678_9abc_def1);
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A write of a batch. Families are numbered, see [`Step`]; keys are small numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// Family, key, length of the value.
    Put(u8, u16, u16),
    /// Family, key, length of the operand.
    Merge(u8, u16, u16),
    /// Family, key.
    Delete(u8, u16),
    /// Family, first key, key behind the last one.
    DeleteRange(u8, u16, u16),
}

impl Write {
    /// The same to keys that no other writes are about.
    #[must_use]
    pub fn apart(self) -> Self {
        const APART: u16 = 0x8000;
        match self {
            Self::Put(family, key, len) => Self::Put(family, key | APART, len),
            Self::Merge(family, key, len) => Self::Merge(family, key | APART, len),
            Self::Delete(family, key) => Self::Delete(family, key | APART),
            Self::DeleteRange(family, from, to) => Self::DeleteRange(family, from | APART, to | APART),
        }
    }
}

/// One step. Families 0 and 1 are always there, as is the one of unlogged writes; 2 and above are the
/// writer's own and may be missing: then the step goes to family 0. Snapshots and iterators are kept until
/// they are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// One commit.
    Commit(Vec<Write>, Durability),
    /// A commit of one write without a log record, to the family of such writes.
    Unlogged(Write),
    /// A put that depends on the value that is there: family, key, length of the value.
    Update(u8, u16, u16, Durability),
    /// A transaction that reads all that it writes before, and commits.
    Transact(Vec<Write>, Durability),
    /// Prepares a transaction that reads all that it writes before, unless one is prepared: to the first two
    /// families, and to keys of which nothing else writes.
    Prepare(Vec<Write>),
    /// Commits or rolls back what is prepared, if anything is.
    Decide(bool),
    /// Makes the log durable.
    Sync,
    /// Waits until a callback tells that what was committed is durable.
    Told,
    /// Merges everything and makes it durable.
    Flush,
    /// Merges one family and makes it durable.
    FlushFamily(u8),
    /// Merges everything.
    Merge,
    /// Makes what is merged durable.
    Checkpoint,
    /// Takes a snapshot, to be compared later.
    Snapshot,
    /// Compares the oldest snapshot with what was there when it was taken, and lets go of it.
    Compare,
    /// Opens an iterator and reads half of what it gives; the next time, the rest is read and compared.
    Iterate(u8),
    /// Creates one of the writer's own families.
    Create(u8),
    /// Creates both of them at once.
    CreateBoth,
    /// Drops one.
    Drop(u8),
    /// Renames one.
    Rename(u8, u8),
    /// Compacts everything.
    Compact,
    /// Compacts one family.
    CompactFamily(u8),
    /// Copies the database to another disk, where the copy is opened and verified.
    Copy,
    /// Reads everything and compares.
    Read,
    /// Closes the database and opens it again. Only where there is one writer.
    Close,
    /// Drops the database without closing it, and opens it again. Only where there is one writer.
    Abandon,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A length that makes a log segment full: the next record goes to another one.
pub const FILLING: u16 = 13_000;

/// How a random workload is made.
#[derive(Debug, Clone, Copy)]
pub struct Mixture {
    /// Keys of each family.
    pub keys: u16,
    /// Whether there are writes without log records.
    pub unlogged: bool,
    /// Whether the database may be closed in between.
    pub reopens: bool,
    /// Whether maintenance is asked for by hand.
    pub maintains: bool,
}

fn length(random: &mut ChaCha8Rng) -> u16 {
    match random.random_range(0..40) {
        0..24 => random.random_range(8..120),
        24..34 => random.random_range(120..1000),
        34..39 => random.random_range(1000..5000),
        _ => FILLING,
    }
}

fn durability(random: &mut ChaCha8Rng) -> Durability {
    if random.random_range(0..3) == 0 { Durability::Sync } else { Durability::Buffered }
}

impl Mixture {
    fn family(random: &mut ChaCha8Rng) -> u8 {
        *[0, 0, 0, 1, 1, 2, 3].choose(random).unwrap_or(&0)
    }

    fn write(&self, random: &mut ChaCha8Rng) -> Write {
        let family = Self::family(random);
        let key = random.random_range(0..self.keys);
        match random.random_range(0..16) {
            0..8 => Write::Put(family, key, length(random)),
            8..12 => Write::Merge(family, key, length(random)),
            12..15 => Write::Delete(family, key),
            _ => Write::DeleteRange(family, key, key + random.random_range(1..=self.keys / 4 + 1)),
        }
    }

    /// The next step.
    pub fn step(&self, random: &mut ChaCha8Rng) -> Step {
        match random.random_range(0..100) {
            0..50 => Step::Commit(vec![self.write(random)], durability(random)),
            50..66 => {
                let count = random.random_range(2..8);
                let writes = (0..count).map(|_| self.write(random)).collect();
                let durability = durability(random);
                match random.random_range(0..6) {
                    0 | 1 => Step::Transact(writes, durability),
                    2 if random.random() => Step::Prepare(writes),
                    2 => Step::Decide(random.random()),
                    _ => Step::Commit(writes, durability),
                }
            }
            66..72 if self.unlogged => {
                let key = random.random_range(0..self.keys);
                let write = match random.random_range(0..4) {
                    0 => Write::Delete(0, key),
                    1 => Write::Merge(0, key, length(random)),
                    _ => Write::Put(0, key, length(random)),
                };
                Step::Unlogged(write)
            }
            66..72 => Step::Commit(vec![self.write(random)], durability(random)),
            72..74 => {
                let key = random.random_range(0..self.keys);
                Step::Update(Self::family(random), key, length(random), durability(random))
            }
            74 if random.random() => Step::Told,
            74 => Step::Sync,
            75..78 if self.maintains => Step::Flush,
            78 if self.maintains => Step::FlushFamily(Self::family(random)),
            79..82 if self.maintains => Step::Merge,
            82..84 if self.maintains => Step::Checkpoint,
            84..86 => Step::Snapshot,
            86..88 => Step::Compare,
            88..91 => Step::Iterate(Self::family(random)),
            91 => Step::Create(random.random_range(2..4)),
            92 if random.random() => Step::CreateBoth,
            92 => Step::Create(random.random_range(2..4)),
            93 => Step::Drop(random.random_range(2..4)),
            94 => Step::Rename(random.random_range(2..4), random.random_range(2..4)),
            95 if self.maintains => Step::Compact,
            96 if self.maintains => Step::CompactFamily(Self::family(random)),
            97 if self.reopens => Step::Close,
            98 if self.reopens => Step::Abandon,
            99 => Step::Read,
            _ => Step::Commit(vec![self.write(random)], durability(random)),
        }
    }
}

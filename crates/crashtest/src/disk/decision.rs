//! What is decided about everything that was not synced when a disk crashed.

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The unit in which a disk writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Grain {
    /// 512 bytes.
    Sector,
    /// 4 KiB.
    Page,
    /// Any byte on its own.
    Byte,
}

impl Grain {
    /// In bytes.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Sector => 512,
            Self::Page => 4096,
            Self::Byte => 1,
        }
    }
}

/// Something that was done since the last sync of its file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    /// A write of so many grains.
    Data {
        /// Grains that the write touches.
        grains: usize,
    },
    /// The file got another length, by a write, an allocation or a cut.
    Length,
    /// A range was given back.
    Hole,
    /// A file or directory was created, renamed or removed.
    Entry,
}

/// What becomes of something unsynced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is on the disk.
    Kept,
    /// It is not.
    Dropped,
    /// Of a write, so many grains from its start are.
    Prefix(usize),
    /// Of a write, all but so many grains from its start are.
    Suffix(usize),
    /// Of a write, the grains that the seed picks are.
    Subset(u64),
}

impl Fate {
    /// Whether grain `index` is on the disk.
    pub(super) fn keeps(self, index: usize) -> bool {
        match self {
            Self::Kept => true,
            Self::Dropped => false,
            Self::Prefix(count) => index < count,
            Self::Suffix(count) => index >= count,
            Self::Subset(seed) => {
                let mut mixed = (seed ^ index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                (mixed >> 40) & 1 == 1
            }
        }
    }
}

/// What reads where a file has grown and nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwritten {
    /// Zeros.
    Zeros,
    /// Bytes that the seed gives.
    Noise(u64),
    /// What a file that is gone held at the same place; the number picks the file.
    Old(usize),
}

/// The source of the decisions about one crash. The defaults are those of an orderly disk.
///
/// `index` counts the unsynced things from 0, files first, each file's in the order in which they were done,
/// then directory entries.
pub trait Decisions {
    /// The unit in which the disk writes; asked once.
    fn grain(&mut self) -> Grain {
        Grain::Sector
    }

    /// What becomes of one thing.
    fn fate(&mut self, index: usize, what: Unsynced) -> Fate;

    /// In which order the `count` writes to one file reached the disk: a permutation, or `None` for that of
    /// the writes.
    fn order(&mut self, count: usize) -> Option<Vec<usize>> {
        let _ = count;
        None
    }

    /// What reads where the file has grown and nothing was written; asked once for each file that has.
    fn unwritten(&mut self) -> Unwritten {
        Unwritten::Zeros
    }
}

/// Nothing that was not synced is there.
#[derive(Debug, Clone, Copy)]
pub struct Nothing;

impl Decisions for Nothing {
    fn fate(&mut self, _index: usize, _what: Unsynced) -> Fate {
        Fate::Dropped
    }
}

/// All is there, as if the machine had been switched off in good order.
#[derive(Debug, Clone, Copy)]
pub struct Everything;

impl Decisions for Everything {
    fn fate(&mut self, _index: usize, _what: Unsynced) -> Fate {
        Fate::Kept
    }
}

/// One thing has a fate of its own.
#[derive(Debug, Clone, Copy)]
pub struct Single {
    /// Which one.
    pub index: usize,
    /// Its fate.
    pub fate: Fate,
    /// The fate of other writes.
    pub data: Fate,
    /// The fate of other changes to lengths, holes and entries.
    pub metadata: Fate,
    /// What reads where nothing was written.
    pub unwritten: Unwritten,
    /// The unit in which the disk writes.
    pub grain: Grain,
}

impl Decisions for Single {
    fn grain(&mut self) -> Grain {
        self.grain
    }

    fn fate(&mut self, index: usize, what: Unsynced) -> Fate {
        match what {
            _ if index == self.index => self.fate,
            Unsynced::Data { .. } => self.data,
            _ => self.metadata,
        }
    }

    fn unwritten(&mut self) -> Unwritten {
        self.unwritten
    }
}

/// Decisions drawn from a seed. Each crash has a temper of its own: how much is kept, and how it is torn.
#[derive(Debug, Clone)]
pub struct RandomDecisions {
    random: ChaCha8Rng,
    grain: Grain,
    /// Of 256.
    kept: u32,
    torn: u32,
    metadata_kept: u32,
    reorders: bool,
}

impl RandomDecisions {
    /// Decisions that `seed` gives.
    pub fn new(seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut share = || *[0, 16, 128, 240, 256].get(random.random_range(0..5)).unwrap_or(&128);
        let (kept, torn, metadata_kept) = (share(), share(), share());
        let grain = match random.random_range(0..8) {
            0..5 => Grain::Sector,
            5..7 => Grain::Page,
            _ => Grain::Byte,
        };
        let reorders = random.random_range(0..4) == 0;
        Self { random, grain, kept, torn, metadata_kept, reorders }
    }

    fn once_of_256(&mut self, share: u32) -> bool {
        self.random.random_range(0..256) < share
    }
}

impl Decisions for RandomDecisions {
    fn grain(&mut self) -> Grain {
        self.grain
    }

    fn fate(&mut self, _index: usize, what: Unsynced) -> Fate {
        let Unsynced::Data { grains } = what else {
            return if self.once_of_256(self.metadata_kept) { Fate::Kept } else { Fate::Dropped };
        };
        if grains > 1 && self.once_of_256(self.torn) {
            return match self.random.random_range(0..3) {
                0 => Fate::Prefix(self.random.random_range(1..grains)),
                1 => Fate::Suffix(self.random.random_range(1..grains)),
                _ => Fate::Subset(self.random.next_u64()),
            };
        }
        if self.once_of_256(self.kept) { Fate::Kept } else { Fate::Dropped }
    }

    fn order(&mut self, count: usize) -> Option<Vec<usize>> {
        if !self.reorders {
            return None;
        }
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            order.swap(last, self.random.random_range(0..=last));
        }
        Some(order)
    }

    fn unwritten(&mut self) -> Unwritten {
        match self.random.random_range(0..4) {
            0 => Unwritten::Noise(self.random.next_u64()),
            1 => Unwritten::Old(self.random.random_range(0..1 << 16)),
            _ => Unwritten::Zeros,
        }
    }
}

/// Decisions taken from bytes, as a fuzzer gives them; when they are used up, nothing more is kept.
#[derive(Debug, Clone)]
pub struct ByteDecisions<'a> {
    bytes: std::slice::Iter<'a, u8>,
}

impl<'a> ByteDecisions<'a> {
    /// Decisions that `bytes` give.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: bytes.iter() }
    }

    fn next(&mut self) -> u8 {
        self.bytes.next().copied().unwrap_or(0)
    }
}

impl Decisions for ByteDecisions<'_> {
    fn grain(&mut self) -> Grain {
        match self.next() % 4 {
            0 | 1 => Grain::Sector,
            2 => Grain::Page,
            _ => Grain::Byte,
        }
    }

    fn fate(&mut self, _index: usize, what: Unsynced) -> Fate {
        let byte = self.next();
        match what {
            Unsynced::Data { grains } if grains > 1 => match byte % 5 {
                0 => Fate::Dropped,
                1 => Fate::Kept,
                2 => Fate::Prefix(usize::from(self.next()) % grains),
                3 => Fate::Suffix(usize::from(self.next()) % grains),
                _ => Fate::Subset(u64::from(self.next())),
            },
            _ if byte.is_multiple_of(2) => Fate::Dropped,
            _ => Fate::Kept,
        }
    }

    fn order(&mut self, count: usize) -> Option<Vec<usize>> {
        let byte = self.next();
        (byte % 4 == 3).then(|| (0..count).rev().collect())
    }

    fn unwritten(&mut self) -> Unwritten {
        match self.next() % 4 {
            0 | 1 => Unwritten::Zeros,
            2 => Unwritten::Noise(u64::from(self.next())),
            _ => Unwritten::Old(usize::from(self.next())),
        }
    }
}

//! What is locked, and how.

use crate::codec::ids::FamilyId;
use crate::error::{LockMode, LockOwner};
use crate::sync::Arc;
use crate::txn::keys::Keys;

/// How keys are locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    Shared,
    /// As a plain write does, for as long as it takes: the write lock of the family orders such among each
    /// other.
    Write,
    Exclusive,
}

impl Mode {
    pub(crate) fn conflicts_with(self, other: Self) -> bool {
        self != other || self == Self::Exclusive
    }

    /// Whether the lock is one that writers have to look for.
    pub(super) fn is_marked(self) -> bool {
        self != Self::Write
    }

    pub(crate) fn shown(self) -> LockMode {
        match self {
            Self::Shared => LockMode::Shared,
            Self::Write | Self::Exclusive => LockMode::Exclusive,
        }
    }
}

impl From<LockMode> for Mode {
    fn from(mode: LockMode) -> Self {
        match mode {
            LockMode::Shared => Self::Shared,
            LockMode::Exclusive => Self::Exclusive,
        }
    }
}

/// A key, or a range of keys, that is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Span {
    One(Arc<[u8]>),
    Range(Arc<[u8]>, Option<Arc<[u8]>>),
}

impl Span {
    /// Bytes of its keys in memory.
    pub(super) fn memory(&self) -> usize {
        let one = |key: &Arc<[u8]>| key.len() + 2 * size_of::<usize>();
        match self {
            Self::One(key) => one(key),
            Self::Range(start, end) => one(start) + end.as_ref().map_or(0, one),
        }
    }

    pub(crate) fn keys(&self) -> Keys<'_> {
        match self {
            Self::One(key) => Keys::One(key),
            Self::Range(start, end) => Keys::Range(start, end.as_deref()),
        }
    }
}

impl From<Keys<'_>> for Span {
    fn from(keys: Keys<'_>) -> Self {
        match keys {
            Keys::One(key) => Self::One(key.into()),
            Keys::Range(start, end) => Self::Range(start.into(), end.map(Into::into)),
        }
    }
}

/// A lock that somebody wants.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Want {
    pub(crate) family: FamilyId,
    pub(crate) span: Span,
    pub(crate) mode: Mode,
}

impl Want {
    pub(crate) fn new(family: FamilyId, keys: Keys<'_>, mode: Mode) -> Self {
        Self { family, span: keys.into(), mode }
    }

    /// What is locked, however.
    pub(crate) fn place(&self) -> (FamilyId, &Span) {
        (self.family, &self.span)
    }

    pub(super) fn conflicts_with(&self, other: &Self) -> bool {
        self.family == other.family
            && self.mode.conflicts_with(other.mode)
            && self.span.keys().overlaps(other.span.keys())
    }
}

/// That one waits for another, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) owner: LockOwner,
    pub(crate) want: Want,
    pub(crate) waits_for: LockOwner,
}

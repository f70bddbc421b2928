//! The view: what the whole database consists of at one moment.

use crate::codec::ids::{FamilyId, SequenceNumber};
use crate::column_family::family::Family;
use crate::column_family::trees::TreeVersion;
use crate::error::{Error, ErrorKind, Result};
use crate::memtable::Memtable;
use crate::sync::Arc;
use crate::sync::arc_cell::ArcCell;
use crate::sync::sequencer::Sequencer;

/// A memtable that takes no more writes and waits to be merged.
#[derive(Clone)]
pub(crate) struct Frozen {
    pub(crate) table: Arc<Memtable>,
    /// Log segment that holds the oldest of its records; `u64::MAX` if it has none.
    pub(crate) first_segment: u64,
}

/// One family at one moment.
#[derive(Clone)]
pub(crate) struct FamilyView {
    pub(crate) family: Arc<Family>,
    pub(crate) active: Arc<Memtable>,
    /// Newest first.
    pub(crate) frozen: Vec<Frozen>,
    pub(crate) tree: Arc<TreeVersion>,
}

impl FamilyView {
    /// The memtables that hold anything, newest first.
    pub(crate) fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        std::iter::once(&self.active)
            .chain(self.frozen.iter().map(|frozen| &frozen.table))
            .filter(|table| !table.is_empty())
    }
}

/// Every family at one moment, each in the slot that it keeps for its life.
#[derive(Clone, Default)]
pub(crate) struct View {
    slots: Vec<Option<Arc<FamilyView>>>,
}

impl View {
    /// The family `id` that lives in `slot`; `FamilyDropped` if it is not in this view.
    #[inline]
    pub(crate) fn family(&self, slot: usize, id: FamilyId) -> Result<&Arc<FamilyView>> {
        match self.slots.get(slot) {
            Some(Some(view)) if view.family.id() == id => Ok(view),
            _ => Err(dropped(id)),
        }
    }

    /// The families, by slot.
    pub(crate) fn families(&self) -> impl Iterator<Item = &Arc<FamilyView>> {
        self.slots.iter().flatten()
    }

    /// The family called `name`.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<FamilyView>> {
        self.families().find(|view| &*view.family.name() == name)
    }

    /// The lowest slot without a family.
    pub(crate) fn free_slot(&self) -> usize {
        self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len())
    }

    /// This view with one slot changed.
    pub(crate) fn with(&self, slot: usize, family: Option<Arc<FamilyView>>) -> Self {
        let mut slots = self.slots.clone();
        if slots.len() <= slot {
            slots.resize(slot + 1, None);
        }
        slots[slot] = family;
        Self { slots }
    }
}

pub(crate) fn dropped(id: FamilyId) -> Error {
    Error::new(ErrorKind::FamilyDropped, "the column family was dropped").of_family(id.0)
}

/// A view and the sequence number up to which it is read.
#[derive(Clone)]
pub(crate) struct Moment {
    pub(crate) view: Arc<View>,
    pub(crate) at: SequenceNumber,
}

impl Moment {
    /// The present moment.
    ///
    /// View and number must belong together: a tree keeps one version of a key, so a view that is newer than the
    /// number may have merged what the number excludes, and one that is older may lack the memtable that a commit went to.
    pub(crate) fn now(views: &ArcCell<View>, visible: &Sequencer) -> Self {
        loop {
            let view = views.load_full();
            let at = SequenceNumber(visible.watermark());
            if views.is_current(&view) {
                return Self { view, at };
            }
        }
    }
}

//! The operations of a batch as users see them, where some of its families store other keys than they see.

use crate::codec::ids::FamilyId;
use crate::column_family::family::Family;
use crate::column_family::keys::StoredBounds;
use crate::sync::Arc;
use crate::txn::keys::Keys;
use crate::txn::operation::{Operation, Operations};

/// The keys of each operation of `payload`, which touches `families`, as users see them. `None`: they are
/// stored so.
pub(super) fn shown_keys(families: &[Arc<Family>], payload: &[u8]) -> Option<Vec<StoredBounds>> {
    families.iter().find(|family| family.own_order().is_some())?;
    let shown = |(id, operation): (FamilyId, Operation<'_>)| {
        let bounds = match Keys::of(&operation) {
            Keys::One(key) => (key.to_vec(), None),
            Keys::Range(start, end) => (start.to_vec(), end.map(<[u8]>::to_vec)),
        };
        match families.iter().find(|family| family.id() == id) {
            Some(family) => family.user_bounds(bounds),
            None => bounds,
        }
    };
    Some(Operations::new(payload).map_while(Result::ok).map(shown).collect())
}

/// `operation` on the keys that are `shown`.
pub(super) fn with_keys<'b>(operation: Operation<'b>, shown: &'b StoredBounds) -> Operation<'b> {
    let (key, end) = (&shown.0[..], shown.1.as_deref());
    match operation {
        Operation::Put { value, .. } => Operation::Put { key, value },
        Operation::PutExpiring { value, .. } => Operation::PutExpiring { key, value },
        Operation::Merge { operand, .. } => Operation::Merge { key, operand },
        Operation::MergeExpiring { operand, .. } => Operation::MergeExpiring { key, operand },
        Operation::Delete { .. } => Operation::Delete { key },
        Operation::DeleteRange { .. } => Operation::DeleteRange { start: key, end },
    }
}

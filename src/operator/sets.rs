//! Sets of byte strings as values: the members, ascending, each behind its length.

use crate::codec::varint;

/// The members of an encoded set, ascending; `None` if it is none.
pub(crate) fn members(mut set: &[u8]) -> Option<Vec<&[u8]>> {
    let mut members: Vec<&[u8]> = Vec::new();
    while !set.is_empty() {
        let len = usize::try_from(varint::take(&mut set)?).ok()?;
        let (member, rest) = set.split_at_checked(len)?;
        if members.last().is_some_and(|last| *last >= member) {
            return None;
        }
        members.push(member);
        set = rest;
    }
    Some(members)
}

/// The set of `members`, in any order, once each.
pub(crate) fn encode(mut members: Vec<&[u8]>) -> Vec<u8> {
    members.sort_unstable();
    members.dedup();
    let mut set = Vec::new();
    for member in members {
        varint::put(&mut set, member.len() as u64);
        set.extend_from_slice(member);
    }
    set
}

//! Operands of a key, gathered from where they stand, and what the family's merge operator makes of them.
//!
//! An operand is an entry of a kind of its own: a version in a memtable, and in a leaf a list of all that
//! stand there, oldest first, see `codec/operands.rs`. What they come to follows from all of them, down to
//! the newest value or deletion, or to the end of what there is. They are folded
//!
//! 1. when the key is read;
//! 2. where what they are to be folded onto is at hand: when memtables or deltas become part of the tree, and
//!    when they become a delta, if a value or a deletion stands behind the operands there.
//!
//! Elsewhere, in deltas, they are combined into one if the operator can, and kept one by one if not. Where
//! the operator is missing or fails in the background all of them are kept, together with what they are to
//! be folded onto. So it is readers of this key who are told, and what else is merged goes its way.
//!
//! The operator is called while no lock is held but that by which one merge of the family runs at a time.

use std::borrow::Cow;
use std::ops::Range;

use crate::btree::{Combine, Combined, Old};
use crate::codec::expiry::{self, Expiry, Now};
use crate::codec::ids::SequenceNumber;
use crate::codec::operands::{self, Base, Group, Listed, Stamp};
use crate::column_family::family::Family;
use crate::error::{Error, ErrorKind, Result};
use crate::memtable::{Found, Memtable};
use crate::page::PinnedPage;
use crate::sync::epoch;

/// Bytes that the operands of one key come to at most where they are kept one by one: they stand in a leaf.
const MOST_BYTES: usize = 1 << 30;

/// Bytes that they come to with the value that they are to be folded onto.
const MOST_WITH_VALUE: usize = u32::MAX as usize - (1 << 20);

/// Bytes up to which a combined operand may be longer than what it was made of, whatever that was.
const LITTLE: usize = 64 << 10;

/// Bytes that are borrowed, or stand in a page.
pub(crate) enum Held<'a> {
    Bytes(&'a [u8]),
    Page(PinnedPage, Range<usize>),
    Own(Vec<u8>),
}

impl Held<'_> {
    fn get(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Page(page, range) => &page[range.clone()],
            Self::Own(bytes) => bytes,
        }
    }
}

/// What stands behind what was gathered.
enum Behind<'a> {
    /// What is older, and was not looked at yet.
    Older,
    Nothing,
    Value(Held<'a>),
    /// A stamped value.
    Expiring(Held<'a>),
    /// The last list says it.
    InList,
}

/// Operands of a key, of newer sources first.
pub(crate) struct Gathered<'a> {
    /// Those of memtables, the newest first.
    newest_first: Listed<'a>,
    /// Lists, the newest first, all older than what memtables have.
    lists: Vec<Held<'a>>,
    behind: Behind<'a>,
}

impl<'a> Gathered<'a> {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self { newest_first: Listed::default(), lists: Vec::new(), behind: Behind::Older }
    }

    /// Whether older sources do not matter any more.
    pub(crate) fn is_closed(&self) -> bool {
        !matches!(self.behind, Behind::Older)
    }

    /// Adds what a memtable says, unless it is nothing.
    pub(crate) fn add_found(&mut self, found: Option<Found<'a>>) {
        let base = match found {
            None => return,
            Some(Found::Put(value)) => Base::Value(value),
            Some(Found::Expiring(stamped)) => Base::Expiring(stamped),
            Some(Found::Deleted) => Base::Nothing,
            Some(Found::Operands(operands)) => operands.collect(&mut self.newest_first),
        };
        self.behind = match base {
            Base::Older => return,
            Base::Nothing => Behind::Nothing,
            Base::Value(value) => Behind::Value(Held::Bytes(value)),
            Base::Expiring(stamped) => Behind::Expiring(Held::Bytes(stamped)),
        };
    }

    pub(crate) fn add_list(&mut self, list: Held<'a>) {
        if !operands::is_open(list.get()) {
            self.behind = Behind::InList;
        }
        self.lists.push(list);
    }

    /// The key has this value, or none.
    pub(crate) fn end(&mut self, value: Option<Held<'a>>) {
        self.behind = value.map_or(Behind::Nothing, Behind::Value);
    }

    /// The key has this stamped value.
    pub(crate) fn end_expiring(&mut self, stamped: Held<'a>) {
        self.behind = Behind::Expiring(stamped);
    }

    /// Adds what a tree says. `is_last`: nothing older stands behind it.
    fn add_old(&mut self, old: Old<'a>, is_last: bool) {
        if self.is_closed() {
            return;
        }
        match old {
            Old::Nothing => {}
            Old::Deleted => self.end(None),
            Old::Value(value) => self.end(Some(Held::Bytes(value))),
            Old::Expiring(stamped) => self.end_expiring(Held::Bytes(stamped)),
            Old::Operands(list) => self.add_list(Held::Bytes(list)),
        }
        if is_last && !self.is_closed() {
            self.end(None);
        }
    }

    /// What counts of it. `None` if a list makes no sense.
    fn parts(&self) -> Option<Parts<'_>> {
        let (mut base, mut operands) = self.all()?;
        let expiry = operands.settle(&mut base);
        Some(Parts { base, operands, expiry: expiry.unwrap_or(0) })
    }

    /// The operands, the oldest first, and what they are to be folded onto.
    fn all(&self) -> Option<(Base<'_>, Listed<'_>)> {
        let mut base = match &self.behind {
            Behind::Older | Behind::InList => Base::Older,
            Behind::Nothing => Base::Nothing,
            Behind::Value(value) => Base::Value(value.get()),
            Behind::Expiring(stamped) => Base::Expiring(stamped.get()),
        };
        let mut operands = Listed::default();
        for list in self.lists.iter().rev() {
            let own = operands::decode(list.get(), &mut operands)?;
            if !own.is_older() {
                base = own;
            }
        }
        operands.extend_reversed(&self.newest_first);
        Some((base, operands))
    }

    /// When what was gathered down to the end expires; 0 if it does not. `None` if it makes no sense.
    pub(crate) fn expiry(&self) -> Option<Expiry> {
        Some(self.parts()?.expiry)
    }

    /// One list of all that was gathered.
    pub(crate) fn to_list(&self) -> Option<Vec<u8>> {
        let (base, operands) = self.all()?;
        Some(operands::encode(base, operands.iter()))
    }
}

/// What of operands, the oldest first, and of what they are to be folded onto counts: what had not expired
/// when they were written.
struct Parts<'p> {
    base: Base<'p>,
    operands: Listed<'p>,
    /// When what they come to expires; 0 if it does not, or that follows from what is older.
    expiry: Expiry,
}

impl Family {
    /// The value of `key`, whose operands were gathered down to the end, and its expiry; `None` if it has
    /// none, which is so only where there are no operands, or it has expired at `now`. An error of the
    /// operator names the key.
    pub(crate) fn fold(
        &self,
        key: &[u8],
        gathered: &Gathered<'_>,
        now: Now,
    ) -> Result<Option<(Vec<u8>, Expiry)>> {
        let Parts { base, operands, expiry } = gathered.parts().ok_or_else(|| self.nonsense())?;
        if now.is_past(expiry) {
            return Ok(None);
        }
        let value = self.value_of(base)?;
        if operands.operands().is_empty() {
            return Ok(value.map(|value| (value.to_vec(), expiry)));
        }
        Ok(Some((self.fold_onto(key, value, operands.operands())?, expiry)))
    }

    /// The value that operands are folded onto, if there is one.
    fn value_of<'b>(&self, base: Base<'b>) -> Result<Option<&'b [u8]>> {
        match base {
            Base::Value(value) => Ok(Some(value)),
            Base::Nothing | Base::Older => Ok(None),
            Base::Expiring(stamped) => {
                expiry::split(stamped).map(|(_, value)| Some(value)).ok_or_else(|| self.nonsense())
            }
        }
    }

    fn fold_onto(&self, key: &[u8], value: Option<&[u8]>, operands: &[&[u8]]) -> Result<Vec<u8>> {
        // What it does is up to users.
        epoch::assert_left();
        let key = &*self.user_key(key);
        let folded = match self.operator() {
            Some(operator) => operator.merge(key, value, operands),
            None => {
                let options = self.options();
                let named = options.merge_operator.as_ref().map(|operator| operator.name());
                Err(Error::merge_operator_missing(named, key))
            }
        };
        folded.map_err(|error| error.of_family(self.id().0))
    }

    /// What a tree is to say of `key`: the value, if all is at hand that it follows from, and the operator
    /// gives it. Also if it has expired: see `merging/expired.rs`.
    fn settle(&self, key: &[u8], gathered: &Gathered<'_>) -> Result<Combined> {
        let Parts { base, operands, expiry } = gathered.parts().ok_or_else(|| self.nonsense())?;
        if base.is_older() {
            let combined = self.combine(key, &operands);
            return self.keep(base, combined.iter().map(|(operand, stamp)| (&operand[..], *stamp)));
        }
        match self.fold_onto(key, self.value_of(base)?, operands.operands()) {
            Ok(value) if expiry != 0 => Ok(Combined::Expiring(expiry::stamped(expiry, &value))),
            Ok(value) => Ok(Combined::Value(value)),
            Err(error) => {
                tracing::debug!(%error, "operands are kept as they are");
                self.keep(base, operands.iter())
            }
        }
    }

    fn keep<'o>(
        &self,
        base: Base<'_>,
        operands: impl Iterator<Item = (&'o [u8], Stamp)> + Clone,
    ) -> Result<Combined> {
        let bytes: usize = operands.clone().map(|(operand, _)| operand.len()).sum();
        let list = operands::encode(base, operands);
        if bytes > MOST_BYTES || list.len() > MOST_WITH_VALUE {
            // Nothing is harmed: the merge is put off until they can be folded, or are overwritten.
            let message = format!("the operands of a key that are not folded have {bytes} bytes");
            return Err(Error::new(ErrorKind::OutOfResources, message).of_family(self.id().0));
        }
        Ok(Combined::Operands(list))
    }

    /// `operands`, or fewer that do the same, which must not be much longer than they are.
    fn combine<'o>(&self, key: &[u8], operands: &Listed<'o>) -> Vec<(Cow<'o, [u8]>, Stamp)> {
        let mut combined = Vec::new();
        let mut from = 0;
        for Group { operands: group, stamp } in operands.groups() {
            match self.combine_group(key, group) {
                Some(one) => combined.push((one.into(), stamp)),
                None => {
                    let group = group.iter().zip(from..);
                    combined.extend(group.map(|(&operand, at)| (operand.into(), operands.stamp(at))));
                }
            }
            from += group.len();
        }
        combined
    }

    /// One operand that does what those of `group` do, if there are several and the operator knows one.
    fn combine_group(&self, key: &[u8], group: &[&[u8]]) -> Option<Vec<u8>> {
        if group.len() < 2 {
            return None;
        }
        let bytes: usize = group.iter().map(|operand| operand.len()).sum();
        if let Some(one) = self.operator().and_then(|operator| {
            epoch::assert_left();
            operator.combine(&self.user_key(key), group)
        }) && one.len() <= bytes.saturating_mul(2).clamp(LITTLE, MOST_BYTES)
        {
            return Some(one);
        }
        None
    }

    #[cold]
    pub(crate) fn nonsense(&self) -> Error {
        Error::corruption("the operands of a key make no sense").of_family(self.id().0)
    }
}

/// What memtables, newest first, say of keys with operands.
pub(crate) struct OfMemtables<'m> {
    pub(crate) family: &'m Family,
    pub(crate) tables: &'m [&'m Memtable],
    /// What has expired by then is dropped.
    pub(crate) now: Now,
}

impl<'m> OfMemtables<'m> {
    fn gather(&self, key: &[u8]) -> Gathered<'m> {
        let mut gathered = Gathered::new();
        for table in self.tables {
            gathered.add_found(table.get(key, SequenceNumber::MAX));
            if gathered.is_closed() {
                break;
            }
        }
        gathered
    }
}

impl Combine for OfMemtables<'_> {
    /// What comes with the operation is nothing: memtables are asked for the key.
    fn combine(&self, key: &[u8], _: &[u8], old: Old<'_>, is_last: bool) -> Result<Combined> {
        let mut gathered = self.gather(key);
        gathered.add_old(old, is_last);
        self.family.settle(key, &gathered)
    }
}

/// What comes with the operations are lists.
pub(crate) struct OfLists<'f>(pub(crate) &'f Family);

impl Combine for OfLists<'_> {
    fn combine(&self, key: &[u8], list: &[u8], old: Old<'_>, is_last: bool) -> Result<Combined> {
        let mut gathered = Gathered::new();
        gathered.add_list(Held::Bytes(list));
        gathered.add_old(old, is_last);
        self.0.settle(key, &gathered)
    }
}

//! The options of one column family.

use std::time::Duration;

use crate::codec::features::Features;
use crate::codec::varint;
use crate::error::{Error, ErrorKind, Result};
use crate::key_order::KeyOrder;
use crate::operator::MergeOperator;
use crate::operator::filter::{FilterResult, FilteredEntry, GivenFilter, NamedFilter};
use crate::operator::named::NamedOperator;

/// Options of one column family, kept in the catalog but for the [filter](Self::filter). They can be read
/// from [`ColumnFamily::options`](crate::ColumnFamily::options), and changed while the family is in use, by
/// [`ColumnFamily::set_options`](crate::ColumnFamily::set_options); but a [key order](Self::key_order) stays
/// what it is, and so does a [merge operator](Self::merge_operator) once there is one.
///
/// ```
/// use peristyle::FamilyOptions;
///
/// // A family that is read much and overwritten in place: more cache, and room in its leaves.
/// let options = FamilyOptions::default().cache_share(4).page_fill(90);
/// assert_eq!((options.cache_share, options.page_fill), (4, 90));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct FamilyOptions {
    /// Percent of a leaf that a merge fills when it rewrites neighbours.
    pub page_fill: u8,
    /// Weight of the family when the read cache is split.
    pub cache_share: u16,
    /// Weight of the family when memtables and write buffers are split.
    pub memtable_share: u16,
    pub(crate) merge_operator: Option<NamedOperator>,
    /// `None`: that of their bytes.
    pub(crate) key_order: Option<KeyOrder>,
    pub(crate) lifetime: Lifetime,
    pub(crate) filter: GivenFilter,
}

/// How long entries of a family live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// Until they are overwritten or deleted, all of them.
    Endless,
    /// Each as long as was said when it was written.
    OfEach,
    /// So many seconds, but for those of which something else was said.
    Seconds(u64),
}

/// The longest lifetime that is kept, in seconds: far beyond what clocks count.
const MOST_SECONDS: u64 = u64::MAX >> 2;

impl Lifetime {
    /// As one number: 0 if none of them expires.
    pub(crate) fn to_number(self) -> u64 {
        match self {
            Self::Endless => 0,
            Self::OfEach => 1,
            Self::Seconds(seconds) => 2 + seconds.min(MOST_SECONDS),
        }
    }

    pub(crate) fn from_number(number: u64) -> Self {
        match number {
            0 => Self::Endless,
            1 => Self::OfEach,
            seconds => Self::Seconds((seconds - 2).min(MOST_SECONDS)),
        }
    }
}

impl Default for FamilyOptions {
    fn default() -> Self {
        Self {
            page_fill: 100,
            cache_share: 1,
            memtable_share: 1,
            merge_operator: None,
            key_order: None,
            lifetime: Lifetime::Endless,
            filter: GivenFilter::Unsaid,
        }
    }
}

impl FamilyOptions {
    /// Percent of a leaf that a merge fills when it rewrites neighbours: 50 to 100 (the default). A change
    /// holds for what is merged from then on.
    pub fn page_fill(mut self, percent: u8) -> Self {
        self.page_fill = percent;
        self
    }

    /// Weight of this family when the read cache is split: 1 (the default) to 1000.
    pub fn cache_share(mut self, weight: u16) -> Self {
        self.cache_share = weight;
        self
    }

    /// Weight of this family when memtables and write buffers are split: 1 (the default) to 1000.
    pub fn memtable_share(mut self, weight: u16) -> Self {
        self.memtable_share = weight;
        self
    }

    /// Folds what is [merged](crate::ColumnFamily::merge) into keys of this family with `operator`, see
    /// [`MergeOperator`]. Its name is kept in the database; the operator itself is the program's, which gives
    /// it whenever it opens the database: by [`column_family_or_create`] or [`ensure_column_family`] with
    /// such options, or by [`DatabaseBuilder::merge_operator`]. Until then the family can be used, but for
    /// keys that have operands, and nothing can be merged.
    ///
    /// A family that was created without one may be given one later; one that has one keeps it: options
    /// without one leave it as it is, and one of another name is refused with
    /// [`MergeOperatorDiffers`](ErrorKind::MergeOperatorDiffers).
    ///
    /// [`column_family_or_create`]: crate::ColumnFamilyDatabase::column_family_or_create
    /// [`ensure_column_family`]: crate::ColumnFamilyDatabase::ensure_column_family
    /// [`DatabaseBuilder::merge_operator`]: crate::DatabaseBuilder::merge_operator
    pub fn merge_operator(mut self, operator: impl MergeOperator) -> Self {
        self.merge_operator = Some(NamedOperator::new(operator));
        self
    }

    /// What is written to this family from now on lives for `time`, counted in whole seconds, a part of one
    /// as a whole: then it is gone, for all that read, and what it took is used again as pages are rewritten,
    /// or by [`compact`](crate::ColumnFamilyDatabase::compact) at once. Each entry may have another lifetime,
    /// see [`ColumnFamily::put_with_ttl`](crate::ColumnFamily::put_with_ttl). What is there already stays as
    /// it is. In a family with a [merge operator](Self::merge_operator) compactions alone give the space
    /// back.
    ///
    /// Kept in the database. A family whose entries may expire stays one: options that say neither this nor
    /// [`expire_each`](Self::expire_each) leave it as it is.
    pub fn expire_after(mut self, time: Duration) -> Self {
        let seconds = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
        self.lifetime = Lifetime::Seconds(seconds.min(MOST_SECONDS));
        self
    }

    /// Entries of this family live as long as is said when they are written, by
    /// [`put_with_ttl`](crate::ColumnFamily::put_with_ttl); of others nothing expires. See
    /// [`expire_after`](Self::expire_after).
    pub fn expire_each(mut self) -> Self {
        self.lifetime = Lifetime::OfEach;
        self
    }

    /// For how long an entry of this family lives of which nothing else was said; `None` if it does not
    /// expire.
    pub fn time_to_live(&self) -> Option<Duration> {
        match self.lifetime {
            Lifetime::Endless | Lifetime::OfEach => None,
            Lifetime::Seconds(seconds) => Some(Duration::from_secs(seconds)),
        }
    }

    /// Whether entries of this family may expire.
    pub fn expires(&self) -> bool {
        self.lifetime != Lifetime::Endless
    }

    /// The name of the family's merge operator, if it has one; whether it was given since the database was
    /// opened or not.
    pub fn merge_operator_name(&self) -> Option<&str> {
        self.merge_operator.as_ref().map(NamedOperator::name)
    }

    /// Shows the entries of this family to `filter` as they are written anew, which keeps each, drops it or
    /// changes its value; see [Filters](crate#filters). `name` is what errors call it.
    ///
    /// An entry that expires keeps its expiry when it is changed; what has expired is not shown.
    ///
    /// It is shown what merges write: the entries that come from memtables, and those beside them in the
    /// leaves that are written anew for them; and by [`compact`](crate::ColumnFamilyDatabase::compact) every
    /// entry. Of keys with [operands](crate::ColumnFamily::merge) it is shown what they come to, once all of
    /// it is in the tree. What it drops is deleted from then on; snapshots, iterators and cursors that were
    /// there before see the old state.
    ///
    /// The filter is the program's and is not kept in the database. It is given when the family is created,
    /// and anew whenever the database is opened, with [`column_family_or_create`], [`ensure_column_family`]
    /// or [`set_options`]; another one takes the place of the one before. Options without one leave a family
    /// the one that it has; [`without_filter`](Self::without_filter) takes it away. Options that are read
    /// back have none, and options are the same whatever their filters.
    ///
    /// It is called by background threads, and by several at once, at any time after an entry was written,
    /// more than once for the same entry, and in no order across keys or families. What it does is no commit:
    /// it has no sequence number, is in no log, and is no [conflict](crate::ErrorKind::Conflict) for a
    /// transaction. If a crash takes a merge back, what the filter did goes with it. It must not write to the
    /// database, nor flush or compact it. While it runs the family is not merged; reads, and writes to other
    /// families, wait for nothing.
    ///
    /// Where it gives an error, panics or gives a value that is too long, it is not asked any more in what is
    /// under way: a merge goes on as if there were no filter, which is logged and counted
    /// ([`FamilyProperties::filter_failures`](crate::FamilyProperties::filter_failures)), and a compaction
    /// packs what there is and returns the error, [`FilterFailed`](ErrorKind::FilterFailed).
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
    /// use peristyle::FilterVerdict;
    ///
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// let options = FamilyOptions::default().filter("no empty values", |entry| {
    ///     Ok(if entry.value_len() == 0 { FilterVerdict::Drop } else { FilterVerdict::Keep })
    /// });
    /// let notes = db.create_column_family("notes", options)?;
    /// notes.put("a", "")?;
    /// notes.put("b", "text")?;
    /// db.compact()?;
    /// assert!(notes.get("a")?.is_none() && notes.get("b")?.is_some());
    /// # Ok(()) }
    /// ```
    ///
    /// [`column_family_or_create`]: crate::ColumnFamilyDatabase::column_family_or_create
    /// [`ensure_column_family`]: crate::ColumnFamilyDatabase::ensure_column_family
    /// [`set_options`]: crate::ColumnFamily::set_options
    pub fn filter(
        mut self,
        name: &str,
        filter: impl Fn(&FilteredEntry<'_>) -> FilterResult + Send + Sync + 'static,
    ) -> Self {
        self.filter = GivenFilter::Some(NamedFilter::new(name, filter));
        self
    }

    /// Takes the family's [filter](Self::filter) away, if it has one.
    pub fn without_filter(mut self) -> Self {
        self.filter = GivenFilter::None;
        self
    }

    /// Keeps the keys of this family in `order`, see [`KeyOrder`]. That is settled when the family is
    /// created; then the order's name is kept in the database, and options with another order, or with none,
    /// are refused with [`KeyOrderDiffers`](ErrorKind::KeyOrderDiffers), except that
    /// [`set_options`](crate::ColumnFamily::set_options) takes options with none to leave it as it is. An
    /// order that a program has made is code, which it gives whenever it opens the database: by
    /// [`column_family_or_create`] or [`ensure_column_family`] with such options, or by
    /// [`DatabaseBuilder::key_order`]. Those that come with the engine it knows by their names.
    ///
    /// [`column_family_or_create`]: crate::ColumnFamilyDatabase::column_family_or_create
    /// [`ensure_column_family`]: crate::ColumnFamilyDatabase::ensure_column_family
    /// [`DatabaseBuilder::key_order`]: crate::DatabaseBuilder::key_order
    pub fn key_order(mut self, order: KeyOrder) -> Self {
        self.key_order = Some(order);
        self
    }

    /// The name of the order in which the family keeps its keys; `None` if it is that of their bytes.
    pub fn key_order_name(&self) -> Option<&str> {
        self.key_order.as_ref().map(KeyOrder::name)
    }

    /// Refuses another order of keys than `present` has.
    pub(crate) fn check_order_of(&self, present: &Self) -> Result<()> {
        if self.key_order == present.key_order {
            return Ok(());
        }
        Err(Error::key_order_differs(present.key_order_name(), self.key_order_name()))
    }

    /// What must be known of a family with these options.
    pub(crate) fn features(&self) -> Features {
        let operands =
            if self.merge_operator.is_some() { Features::OF_OPERANDS } else { Features::default() };
        let expiry = if self.expires() { Features::OF_EXPIRY } else { Features::default() };
        let order = if self.key_order.is_some() { Features::OF_KEY_ORDER } else { Features::default() };
        operands.and(expiry).and(order)
    }

    /// These, with the merge operator, the lifetime and the order of keys of `present` if they have none.
    /// Refuses an operator or an order of another name.
    pub(crate) fn onto(mut self, present: &Self) -> Result<Self> {
        if !self.expires() {
            self.lifetime = present.lifetime;
        }
        match (&self.merge_operator, &present.merge_operator) {
            (None, own) => self.merge_operator = own.clone(),
            (Some(given), Some(own)) if given != own => {
                return Err(Error::merge_operator_differs(own.name(), given.name()));
            }
            _ => {}
        }
        if self.key_order.is_none() {
            self.key_order = present.key_order.clone();
        }
        self.check_order_of(present)?;
        Ok(self)
    }

    pub(crate) fn check(&self) -> Result<()> {
        self.merge_operator.as_ref().map_or(Ok(()), NamedOperator::check)?;
        self.key_order.as_ref().map_or(Ok(()), KeyOrder::check)?;
        let refuse = |message: String| Err(Error::new(ErrorKind::InvalidArgument, message));
        if !(50..=100).contains(&self.page_fill) {
            return refuse(format!("a page fill of {} % is not possible; 50 to 100 are", self.page_fill));
        }
        for (name, weight) in [("cache", self.cache_share), ("memtable", self.memtable_share)] {
            if !(1..=1000).contains(&weight) {
                return refuse(format!("a {name} share of {weight} is not possible; 1 to 1000 are"));
            }
        }
        Ok(())
    }

    /// The numbers alone: what else there is the record of the family says.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        for value in [u16::from(self.page_fill), self.cache_share, self.memtable_share] {
            varint::put(out, u64::from(value));
        }
    }

    pub(crate) fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let options = Self {
            page_fill: varint::take(bytes)?.try_into().ok()?,
            cache_share: varint::take(bytes)?.try_into().ok()?,
            memtable_share: varint::take(bytes)?.try_into().ok()?,
            merge_operator: None,
            lifetime: Lifetime::Endless,
            filter: GivenFilter::Unsaid,
            key_order: None,
        };
        options.check().is_ok().then_some(options)
    }
}

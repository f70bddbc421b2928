//! Creating, finding, renaming and dropping column families.

use std::collections::HashSet;

use crate::codec::ids::{FamilyId, SequenceNumber};
use crate::column_family::family::{Family, Origin, PREPARED_FAMILY, check_name};
use crate::column_family::options::FamilyOptions;
use crate::column_family::trees::TreeVersion;
use crate::column_family::view::FamilyView;
use crate::db::catalog_file::Change;
use crate::db::database::ColumnFamilyDatabase;
use crate::db::shared::{Keeper, Shared};
use crate::error::{Error, ErrorKind, Result};
use crate::segment::PartitionedStorageBackend;
use crate::sync::Arc;
use crate::txn::handle::ColumnFamily;

fn not_found(name: &str) -> Error {
    Error::new(ErrorKind::FamilyNotFound, format!("there is no column family {name:?}"))
}

fn exists(name: &str) -> Error {
    Error::new(ErrorKind::FamilyExists, format!("there is a column family {name:?} already"))
}

/// The catalog has no whole record of the family: nobody knows where its pages are.
pub(super) fn lost(name: &str, id: FamilyId) -> Error {
    let message = format!(
        "both copies of what the catalog says of column family {name:?} are damaged; it can be dropped, the others are whole"
    );
    Error::corruption(message).in_file("data").of_family(id.0)
}

/// The family is lost, and nobody gave it up yet: what cannot be read now, perhaps because of `failure`, may
/// be read later.
pub(super) fn not_given_up(name: &str, id: FamilyId, failure: Option<&Error>) -> Error {
    let ways =
        "opening with read_only reads all others, opening with give_up_lost_families gives it up for good";
    match failure {
        Some(failure) => {
            let consequence =
                format!("neither copy of what the catalog says of column family {name:?} is whole; {ways}");
            failure.clone().followed_by(&consequence).of_family(id.0)
        }
        None => {
            let message =
                format!("both copies of what the catalog says of column family {name:?} are damaged; {ways}");
            Error::corruption(message).in_file("data").of_family(id.0)
        }
    }
}

impl ColumnFamilyDatabase {
    fn handle(&self, family: Arc<Family>) -> ColumnFamily {
        ColumnFamily::new(
            family,
            Arc::clone(self.pipeline()),
            self.shared().options.durability,
            self.keeper(),
        )
    }

    /// Creates a column family. Durable when this returns; costs one small write and a sync, whatever other
    /// families hold.
    ///
    /// # Errors
    ///
    /// [`FamilyExists`](ErrorKind::FamilyExists), [`InvalidFamilyName`](ErrorKind::InvalidFamilyName) (names
    /// have 1 to 255 bytes), [`InvalidArgument`](ErrorKind::InvalidArgument) for options out of range, and
    /// those of writing.
    pub fn create_column_family(&self, name: &str, options: FamilyOptions) -> Result<ColumnFamily> {
        self.pipeline().writable()?;
        check_name(name)?;
        options.check()?;
        let mut created = self.shared().create_families(vec![(name, options.clone())])?;
        Ok(self.handle(created.swap_remove(0)))
    }

    /// Creates several column families in one step: after a crash at any time all of them are there, or none.
    /// Durable when this returns; costs two syncs, however many they are. The handles come in the order of
    /// the names.
    ///
    /// # Errors
    ///
    /// Those of [`create_column_family`](Self::create_column_family), for any of them or for a name that is
    /// given twice: then none is created.
    ///
    /// ```
    /// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
    /// # fn main() -> peristyle::Result<()> {
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// let tenants = ["ann", "ben", "cleo"];
    /// let families = db.create_column_families(tenants.map(|name| (name, FamilyOptions::default())))?;
    /// families[2].put("key", "value")?;
    /// assert_eq!(db.column_family_names(), tenants);
    /// # Ok(()) }
    /// ```
    pub fn create_column_families<N: AsRef<str>>(
        &self,
        families: impl IntoIterator<Item = (N, FamilyOptions)>,
    ) -> Result<Vec<ColumnFamily>> {
        self.pipeline().writable()?;
        let families: Vec<(N, FamilyOptions)> = families.into_iter().collect();
        for (name, options) in &families {
            check_name(name.as_ref())?;
            options.check()?;
        }
        if families.is_empty() {
            return Ok(Vec::new());
        }
        let wanted = families.iter().map(|(name, options)| (name.as_ref(), options.clone())).collect();
        let created = self.shared().create_families(wanted)?;
        Ok(created.into_iter().map(|family| self.handle(family)).collect())
    }

    /// The column family called `name`.
    ///
    /// # Errors
    ///
    /// [`FamilyNotFound`](ErrorKind::FamilyNotFound), [`InvalidFamilyName`](ErrorKind::InvalidFamilyName);
    /// [`KeyOrderMissing`](ErrorKind::KeyOrderMissing) if its keys are in an order of a program's, and that
    /// was not given since the database was opened; [`Corruption`](ErrorKind::Corruption) if both copies of
    /// what the catalog says of it are damaged.
    ///
    /// ```
    /// # use peristyle::{ColumnFamilyDatabase, ErrorKind, FamilyOptions, MemoryStorage};
    /// # fn main() -> peristyle::Result<()> {
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// let blocks = match db.column_family("blocks") {
    ///     Err(error) if error.kind() == ErrorKind::FamilyNotFound => {
    ///         db.create_column_family("blocks", FamilyOptions::default())?
    ///     }
    ///     other => other?,
    /// };
    /// assert_eq!(blocks.name(), "blocks");
    /// # Ok(()) }
    /// ```
    pub fn column_family(&self, name: &str) -> Result<ColumnFamily> {
        let family = self.found(name)?;
        match family.family().own_order().map_or(Ok(()), |order| order.check_present()) {
            Ok(()) => Ok(family),
            Err(error) => Err(error.of_family(family.id().0)),
        }
    }

    /// The column family called `name`, whether the order of its keys was given or not.
    fn found(&self, name: &str) -> Result<ColumnFamily> {
        self.pipeline().open()?;
        check_name(name)?;
        self.shared().family_named(name).map(|family| self.handle(family))
    }

    /// The column family called `name`, created with `options` if there is none.
    ///
    /// # Errors
    ///
    /// [`MergeOperatorDiffers`](ErrorKind::MergeOperatorDiffers) if there is one whose merge operator has
    /// another name, [`KeyOrderDiffers`](ErrorKind::KeyOrderDiffers) if it keeps its keys in another order;
    /// [`OptionsDiffer`](ErrorKind::OptionsDiffer) if there is one, with other options:
    /// [`ensure_column_family`](Self::ensure_column_family) gives it these,
    /// [`column_family`](Self::column_family) does not ask. And those of
    /// [`create_column_family`](Self::create_column_family).
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, ErrorKind, FamilyOptions, MemoryStorage};
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// let loose = || FamilyOptions::default().page_fill(70);
    /// db.column_family_or_create("blocks", loose())?.put("7", "a block")?;
    /// let blocks = db.column_family_or_create("blocks", loose())?;
    /// assert_eq!(blocks.get("7")?.unwrap(), "a block");
    /// let refused = db.column_family_or_create("blocks", FamilyOptions::default());
    /// assert_eq!(refused.unwrap_err().kind(), ErrorKind::OptionsDiffer);
    /// # Ok(()) }
    /// ```
    pub fn column_family_or_create(&self, name: &str, options: FamilyOptions) -> Result<ColumnFamily> {
        let family = self.find_or_create(name, &options)?;
        let present = family.options();
        let options = options.check_order_of(&present).and_then(|()| options.onto(&present));
        let options = options.map_err(|error| error.of_family(family.id().0))?;
        if present != options {
            return Err(Error::new(
                ErrorKind::OptionsDiffer,
                format!("the column family {name:?} has {present:?}, and not {options:?}"),
            )
            .of_family(family.id().0));
        }
        family.family().take_given(&options);
        family.family().take_filter(&options);
        Ok(family)
    }

    /// The column family called `name`, with `options`: created with them if there is none, and given them if
    /// it has others, durably.
    ///
    /// # Errors
    ///
    /// Those of [`create_column_family`](Self::create_column_family), and
    /// [`MergeOperatorDiffers`](ErrorKind::MergeOperatorDiffers) and
    /// [`KeyOrderDiffers`](ErrorKind::KeyOrderDiffers), which stay what they are.
    ///
    /// ```
    /// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
    /// # fn main() -> peristyle::Result<()> {
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// db.ensure_column_family("blocks", FamilyOptions::default())?;
    /// // The next version of the program wants more cache for it.
    /// let blocks = db.ensure_column_family("blocks", FamilyOptions::default().cache_share(4))?;
    /// assert_eq!(blocks.options().cache_share, 4);
    /// # Ok(()) }
    /// ```
    pub fn ensure_column_family(&self, name: &str, options: FamilyOptions) -> Result<ColumnFamily> {
        loop {
            let family = self.find_or_create(name, &options)?;
            let present = family.family().options();
            options.check_order_of(&present).map_err(|error| error.of_family(family.id().0))?;
            match family.set_options(options.clone()) {
                Err(error) if error.kind() == ErrorKind::FamilyDropped => {}
                set => return set.map(|()| family),
            }
        }
    }

    fn find_or_create(&self, name: &str, options: &FamilyOptions) -> Result<ColumnFamily> {
        options.check()?;
        loop {
            match self.found(name) {
                Err(error) if error.kind() == ErrorKind::FamilyNotFound => {}
                found => return found,
            }
            match self.create_column_family(name, options.clone()) {
                Err(error) if error.kind() == ErrorKind::FamilyExists => {}
                created => return created,
            }
        }
    }

    /// All column families, sorted by name.
    ///
    /// # Errors
    ///
    /// [`Closed`](ErrorKind::Closed).
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// for name in ["state", "blocks"] {
    ///     db.create_column_family(name, FamilyOptions::default())?.put("key", "value")?;
    /// }
    /// for family in db.column_families()? {
    ///     println!("{}: {} entries", family.name(), family.len()?);
    /// }
    /// # assert!(db.column_families()?.iter().map(|family| family.name().to_string()).eq(["blocks", "state"]));
    /// # Ok(()) }
    /// ```
    pub fn column_families(&self) -> Result<Vec<ColumnFamily>> {
        self.pipeline().open()?;
        let families: Vec<_> =
            self.shared().registry.lock().by_name().filter(|family| !family.is_internal()).cloned().collect();
        Ok(families.into_iter().map(|family| self.handle(family)).collect())
    }

    /// The names of all column families, sorted.
    pub fn column_family_names(&self) -> Vec<String> {
        if !self.is_ours() {
            return Vec::new();
        }
        let registry = self.shared().registry.lock();
        let mut names: Vec<_> =
            registry.names().filter(|name| *name != PREPARED_FAMILY).map(str::to_owned).collect();
        names.sort_unstable();
        names
    }

    /// Renames a column family. Handles to it stay good. Durable when this returns; costs one small write and
    /// a sync.
    ///
    /// # Errors
    ///
    /// [`FamilyNotFound`](ErrorKind::FamilyNotFound), [`FamilyExists`](ErrorKind::FamilyExists),
    /// [`InvalidFamilyName`](ErrorKind::InvalidFamilyName), and those of writing.
    pub fn rename_column_family(&self, from: &str, to: &str) -> Result<()> {
        self.pipeline().writable()?;
        check_name(from)?;
        check_name(to)?;
        self.shared().rename_family(from, to)
    }

    /// Drops a column family, at once: it is gone from names, new snapshots and its handles, which answer
    /// [`FamilyDropped`](ErrorKind::FamilyDropped). Snapshots and iterators that hold it read on; when the
    /// last is gone, its space is free. Durable when this returns; costs one small write and a sync.
    ///
    /// # Errors
    ///
    /// [`FamilyNotFound`](ErrorKind::FamilyNotFound), [`InvalidFamilyName`](ErrorKind::InvalidFamilyName),
    /// and those of writing.
    pub fn drop_column_family(&self, name: &str) -> Result<()> {
        self.pipeline().writable()?;
        // One of the database's own may be lost, too.
        if self.shared().registry.lock().lost_named(name).is_none() {
            check_name(name)?;
        }
        self.shared().drop_family(name)
    }
}

impl ColumnFamily {
    /// The database that the family is in.
    ///
    /// ```
    /// # use peristyle::{ColumnFamily, ColumnFamilyDatabase, FamilyOptions, MemoryStorage, WriteBatch};
    /// /// Moves an entry to a family beside this one.
    /// fn archive(orders: &ColumnFamily, key: &str) -> peristyle::Result<()> {
    ///     let db = orders.database();
    ///     let archive = db.column_family_or_create("archive", FamilyOptions::default())?;
    ///     if let Some(order) = orders.get(key)? {
    ///         let mut batch = WriteBatch::new();
    ///         batch.put(&archive, key, &order).delete(orders, key);
    ///         db.write(&batch)?;
    ///     }
    ///     Ok(())
    /// }
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// # let orders = db.create_column_family("orders", FamilyOptions::default())?;
    /// # orders.put("7", "an order")?;
    /// # archive(&orders, "7")?;
    /// # assert!(orders.is_empty()? && db.column_family("archive")?.get("7")?.is_some());
    /// # Ok::<(), peristyle::Error>(())
    /// ```
    pub fn database(&self) -> ColumnFamilyDatabase {
        match Arc::clone(self.keeper()).downcast::<Keeper>() {
            Ok(keeper) => ColumnFamilyDatabase { keeper },
            Err(_) => unreachable!("a handle is kept by something else than a database"),
        }
    }

    /// The family's options.
    pub fn options(&self) -> FamilyOptions {
        // They stand under a lock.
        if self.database().is_ours() { self.family().options() } else { FamilyOptions::default() }
    }

    /// Gives the family other options, while it is in use. Durable when this returns; costs one small write
    /// and a sync, or nothing if it has them already.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for options out of range,
    /// [`FamilyDropped`](ErrorKind::FamilyDropped), [`KeyOrderDiffers`](ErrorKind::KeyOrderDiffers) and
    /// [`MergeOperatorDiffers`](ErrorKind::MergeOperatorDiffers), and those of writing.
    ///
    /// ```
    /// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
    /// # fn main() -> peristyle::Result<()> {
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// let blocks = db.create_column_family("blocks", FamilyOptions::default().page_fill(80))?;
    /// blocks.set_options(blocks.options().cache_share(4))?;
    /// assert_eq!(blocks.options(), FamilyOptions::default().page_fill(80).cache_share(4));
    /// # Ok(()) }
    /// ```
    pub fn set_options(&self, options: FamilyOptions) -> Result<()> {
        let db = self.database();
        db.pipeline().writable()?;
        options.check()?;
        db.shared().change_options(self.family(), &options)?;
        self.family().take_filter(&options);
        Ok(())
    }
}

impl Shared {
    /// The family in which prepared transactions are kept, if there is one.
    pub(super) fn find_prepared_family(&self) -> Result<Option<Arc<Family>>> {
        match self.family_named(PREPARED_FAMILY) {
            Err(error) if error.kind() == ErrorKind::FamilyNotFound => Ok(None),
            found => found.map(Some),
        }
    }

    /// The family in which prepared transactions are kept; created, durably, if there is none.
    pub(super) fn prepared_family(&self) -> Result<Arc<Family>> {
        loop {
            if let Some(family) = self.find_prepared_family()? {
                return Ok(family);
            }
            match self.create_families(vec![(PREPARED_FAMILY, FamilyOptions::default())]) {
                Err(error) if error.kind() == ErrorKind::FamilyExists => {}
                created => return created.map(|mut created| created.swap_remove(0)),
            }
        }
    }

    fn family_named(&self, name: &str) -> Result<Arc<Family>> {
        let registry = self.registry.lock();
        match (registry.named(name), registry.lost_named(name)) {
            (Some(family), _) => Ok(Arc::clone(family)),
            (None, Some(id)) => Err(lost(name, id)),
            (None, None) => Err(not_found(name)),
        }
    }

    fn create_families(&self, wanted: Vec<(&str, FamilyOptions)>) -> Result<Vec<Arc<Family>>> {
        let _change = self.changes.lock();
        let views = self.new_families(wanted)?;
        let families: Vec<_> = views.iter().map(|view| Arc::clone(&view.family)).collect();
        let created = self.record_change(&Change::Created(&families), || {
            let mut registry = self.registry.lock();
            for family in &families {
                registry.add(family);
                registry.set_name(family.name(), family);
            }
            let shown = views.into_iter().map(|view| (view.family.slot(), Some(view)));
            self.pipeline.views.update(|views| (views.with_all(shown), ()));
        });
        if created.is_err() {
            let mut registry = self.registry.lock();
            families.iter().for_each(|family| registry.give_slot(family.slot()));
        }
        created?;
        tracing::debug!(count = families.len(), "created column families");
        Ok(families)
    }

    /// Families with numbers and slots of their own, which nobody else knows yet.
    fn new_families(&self, wanted: Vec<(&str, FamilyOptions)>) -> Result<Vec<Arc<FamilyView>>> {
        let mut registry = self.registry.lock();
        let mut names = HashSet::new();
        if let Some((name, _)) =
            wanted.iter().find(|(name, _)| registry.is_taken(name) || !names.insert(*name))
        {
            return Err(exists(name));
        }
        let new_weights: u64 = wanted.iter().map(|(_, options)| u64::from(options.memtable_share)).sum();
        let weights = self.memory.memtable_weights() + new_weights;
        let first = registry.take_numbers(wanted.len())?;
        let new = wanted.into_iter().zip(first.0..).map(|((name, options), id)| {
            let id = FamilyId(id);
            let origin = Origin {
                id,
                slot: registry.take_slot(),
                name: name.into(),
                options,
                trees: TreeVersion::default(),
                merged_through: SequenceNumber(0),
                touched: Arc::clone(&self.touched),
            };
            let (cache, memtable) = self.memory.initial(&origin.options, self.data.page_size(), weights);
            let store = PartitionedStorageBackend::new(id, Arc::clone(&self.data), cache);
            Family::create(origin, store, memtable)
        });
        Ok(new.collect())
    }

    fn rename_family(&self, from: &str, to: &str) -> Result<()> {
        let _change = self.changes.lock();
        let family = self.family_named(from)?;
        if from == to {
            return Ok(());
        }
        if self.registry.lock().is_taken(to) {
            return Err(exists(to));
        }
        self.record_change(&Change::Renamed(&family, to), || {
            family.set_name(to);
            let mut registry = self.registry.lock();
            registry.forget_name(from);
            registry.set_name(to.into(), &family);
        })
    }

    fn change_options(&self, family: &Arc<Family>, options: &FamilyOptions) -> Result<()> {
        // What goes with them is the program's: declared first, they go when no lock is held any more.
        let present;
        let _change = self.changes.lock();
        family.check_not_dropped()?;
        present = family.options();
        let options = &options.clone().onto(&present).map_err(|error| error.of_family(family.id().0))?;
        if present == *options {
            family.take_given(options);
            return Ok(());
        }
        self.record_change(&Change::Changed(family, options), || {
            self.registry.lock().set_options(family, options);
        })?;
        // While it is written to, the clock gives it its share of what others do not need, too.
        self.memory.write_share_at_rest(family);
        Ok(())
    }

    fn drop_family(&self, name: &str) -> Result<()> {
        // Declared first, it goes when no lock is held any more.
        let family;
        let change = self.changes.lock();
        let lost = self.registry.lock().lost_named(name);
        if let Some(id) = lost {
            // What it has in the file is free when the database is opened the next time: only then is it
            // known that nobody else has it.
            return self.record_change(&Change::Dropped(id), || self.registry.lock().remove_lost(name));
        }
        family = self.family_named(name)?;
        self.record_change(&Change::Dropped(family.id()), || {
            let mut registry = self.registry.lock();
            registry.remove(&family);
            registry.forget_name(name);
            family.set_dropped();
            let last = self.pipeline.views.update(|views| {
                (views.with(family.slot(), None), views.family(family.slot(), family.id()).cloned())
            });
            // Who has them is who read the family before: nobody merges them any more.
            last.iter().flat_map(|view| view.memtables()).for_each(|table| table.set_merged());
            registry.give_slot(family.slot());
            registry.dying.push(Arc::clone(&family));
        })?;
        self.pipeline.carry_no_more(&family);
        tracing::debug!(family = family.id().0, name, "dropped a column family");
        drop(change);
        self.reap();
        // The clock reaps what is still read now, and looks for it after it turned away from the family.
        self.pipeline.work.touch(&family);
        Ok(())
    }

    /// Gives the space of dropped families back once nobody reads them. Returns whether any was.
    pub(super) fn reap(&self) -> bool {
        crate::sync::epoch::collect();
        // With the last of a family goes what the program gave it: no lock is held then.
        let mut reaped = Vec::new();
        self.registry.lock().dying.retain(|family| {
            let Some(_no_merge) = family.merging.try_lock() else { return true };
            if !family.trees.lock().unread() {
                return true;
            }
            family.store().discard();
            reaped.push(Arc::clone(family));
            false
        });
        !reaped.is_empty()
    }
}

//! Creating, finding, renaming and dropping column families.

use crate::codec::ids::SequenceNumber;
use crate::column_family::family::{Family, Origin, check_name};
use crate::column_family::options::FamilyOptions;
use crate::column_family::trees::TreeVersion;
use crate::db::{ColumnFamilyDatabase, Shared, budget};
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

impl ColumnFamilyDatabase {
    fn handle(&self, family: Arc<Family>) -> ColumnFamily {
        ColumnFamily::new(
            family,
            Arc::clone(self.pipeline()),
            self.shared().options.durability,
            self.keeper(),
        )
    }

    /// Creates a column family. Durable when this returns; costs a checkpoint.
    ///
    /// # Errors
    ///
    /// [`FamilyExists`](ErrorKind::FamilyExists), [`InvalidFamilyName`](ErrorKind::InvalidFamilyName) (names have 1 to 255 bytes),
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for options out of range, and those of writing.
    pub fn create_column_family(&self, name: &str, options: FamilyOptions) -> Result<ColumnFamily> {
        self.pipeline().writable()?;
        check_name(name)?;
        options.check()?;
        Ok(self.handle(self.shared().create_family(name, options)?))
    }

    /// The column family called `name`.
    ///
    /// # Errors
    ///
    /// [`FamilyNotFound`](ErrorKind::FamilyNotFound), [`InvalidFamilyName`](ErrorKind::InvalidFamilyName).
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
        self.pipeline().open()?;
        check_name(name)?;
        let family = self.shared().family_named(name).ok_or_else(|| not_found(name))?;
        Ok(self.handle(family))
    }

    /// The column family called `name`, created with `options` if there is none.
    pub fn column_family_or_create(&self, name: &str, options: FamilyOptions) -> Result<ColumnFamily> {
        loop {
            match self.column_family(name) {
                Err(error) if error.kind() == ErrorKind::FamilyNotFound => {}
                found => return found,
            }
            match self.create_column_family(name, options.clone()) {
                Err(error) if error.kind() == ErrorKind::FamilyExists => {}
                created => return created,
            }
        }
    }

    /// The names of all column families, sorted.
    pub fn column_family_names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.shared().registry.lock().names().map(str::to_owned).collect();
        names.sort_unstable();
        names
    }

    /// Renames a column family. Handles to it stay good. Durable when this returns; costs a checkpoint.
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
    /// [`FamilyDropped`](ErrorKind::FamilyDropped). Snapshots and iterators that hold it read on; when the last is gone, its space is free.
    /// Durable when this returns; costs a checkpoint.
    ///
    /// # Errors
    ///
    /// [`FamilyNotFound`](ErrorKind::FamilyNotFound), [`InvalidFamilyName`](ErrorKind::InvalidFamilyName), and those of writing.
    pub fn drop_column_family(&self, name: &str) -> Result<()> {
        self.pipeline().writable()?;
        check_name(name)?;
        self.shared().drop_family(name)
    }
}

impl Shared {
    fn family_named(&self, name: &str) -> Option<Arc<Family>> {
        self.registry.lock().named(name).cloned()
    }

    fn create_family(&self, name: &str, options: FamilyOptions) -> Result<Arc<Family>> {
        let _change = self.changes.lock();
        let (id, slot, count) = {
            let mut registry = self.registry.lock();
            if registry.named(name).is_some() {
                return Err(exists(name));
            }
            (registry.take_number()?, registry.take_slot(), registry.families().len() + 1)
        };
        let origin = Origin {
            id,
            slot,
            name: name.into(),
            options,
            trees: TreeVersion::default(),
            merged_through: SequenceNumber(0),
        };
        let (total, own) = (&self.cache_total, &origin.options);
        let (cache, memtable) = budget::initial(&self.options, total, own, self.data.page_size(), count);
        let store = PartitionedStorageBackend::new(id, Arc::clone(&self.data), cache);
        let view = Family::create(origin, store, memtable);
        let family = Arc::clone(&view.family);
        let created = self
            .checkpoint_with(|| self.registry.lock().add(&family), || self.registry.lock().remove(&family));
        let mut registry = self.registry.lock();
        created.inspect_err(|_| registry.give_slot(slot))?;
        self.pipeline.views.update(|views| (views.with(slot, Some(view)), ()));
        registry.set_name(name.into(), &family);
        drop(registry);
        tracing::debug!(family = id.0, name, "created a column family");
        Ok(family)
    }

    fn rename_family(&self, from: &str, to: &str) -> Result<()> {
        let _change = self.changes.lock();
        let family = self.family_named(from).ok_or_else(|| not_found(from))?;
        if from == to {
            return Ok(());
        }
        if self.family_named(to).is_some() {
            return Err(exists(to));
        }
        self.checkpoint_with(|| family.set_name(to), || family.set_name(from))?;
        let mut registry = self.registry.lock();
        registry.forget_name(from);
        registry.set_name(to.into(), &family);
        Ok(())
    }

    fn drop_family(&self, name: &str) -> Result<()> {
        let _change = self.changes.lock();
        let family = self.family_named(name).ok_or_else(|| not_found(name))?;
        self.checkpoint_with(|| self.registry.lock().remove(&family), || self.registry.lock().add(&family))?;
        family.set_dropped();
        {
            let mut registry = self.registry.lock();
            self.pipeline.views.update(|views| (views.with(family.slot(), None), ()));
            registry.forget_name(name);
            registry.give_slot(family.slot());
            tracing::debug!(family = family.id().0, name, "dropped a column family");
            registry.dying.push(Arc::clone(&family));
        }
        self.reap();
        // The clock reaps what is still read now, and looks for it after it turned away from the family.
        self.pipeline.work.touch(&family);
        Ok(())
    }

    /// Gives the space of dropped families back once nobody reads them. Returns whether any was.
    pub(super) fn reap(&self) -> bool {
        crate::sync::epoch::collect();
        let mut reaped = false;
        self.registry.lock().dying.retain(|family| {
            let Some(_no_merge) = family.merging.try_lock() else { return true };
            if !family.trees.lock().unread() {
                return true;
            }
            family.store().discard();
            reaped = true;
            false
        });
        reaped
    }
}

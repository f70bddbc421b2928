//! A store of entries for a program on tokio: nothing here holds up a thread that runs tasks.
//!
//! Three rules make it so. What may wait for the disk goes to a thread that may block
//! ([`tokio::task::spawn_blocking`]). What belongs together goes there in one piece, since going there costs
//! more than most calls. And nobody waits for a sync on any thread: a commit is written as buffered, and a
//! callback completes the future once it is durable.

use peristyle::{ColumnFamily, ColumnFamilyDatabase, Durability, Error, SequenceNumber, WriteBatch};
use tokio::sync::oneshot;
use tokio::task::{JoinError, spawn_blocking};

/// Why something was not done.
#[derive(Debug)]
pub enum Failure {
    /// The database said so.
    Database(Error),
    /// The thread that did it panicked, or the runtime ended.
    Thread(JoinError),
    /// The callback that was to tell of a commit was never called: the process ends.
    Untold,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

/// Runs what may wait for the disk on a thread that may block. It is done even if nobody awaits it any more.
///
/// # Errors
/// What `work` says.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> peristyle::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    Ok(spawn_blocking(work).await.map_err(Failure::Thread)??)
}

/// Completes once every commit up to `sequence` is durable, and blocks no thread meanwhile. One sync of the
/// log serves all who wait.
///
/// # Errors
/// A failed sync.
pub async fn durable(db: &ColumnFamilyDatabase, sequence: SequenceNumber) -> Result<(), Failure> {
    let (tell, told) = oneshot::channel();
    // Whoever gave up waiting is told in vain.
    db.on_synced(sequence, move |outcome| drop(tell.send(outcome)))?;
    Ok(told.await.map_err(|_| Failure::Untold)??)
}

/// Entries by key. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    db: ColumnFamilyDatabase,
    entries: ColumnFamily,
}

impl Store {
    /// The entries of an open database.
    pub fn new(entries: &ColumnFamily) -> Self {
        Self { db: entries.database(), entries: entries.clone() }
    }

    /// The value of a key. Reads that are nearly always answered from memory may be made right here instead,
    /// without the thread.
    ///
    /// # Errors
    /// The disk's.
    pub async fn get(&self, key: impl Into<Vec<u8>>) -> Result<Option<Vec<u8>>, Failure> {
        let (entries, key) = (self.entries.clone(), key.into());
        blocking(move || Ok(entries.get(key)?.map(|value| value.to_vec()))).await
    }

    /// Sets several keys at once. Complete when that is durable.
    ///
    /// # Errors
    /// The disk's. If this is dropped before it is complete, they are set nevertheless, or not.
    pub async fn put_all(&self, entries: Vec<(Vec<u8>, Vec<u8>)>) -> Result<SequenceNumber, Failure> {
        let (db, family) = (self.db.clone(), self.entries.clone());
        // A write waits for no sync, but when there are more writes than can be merged it is slowed.
        let sequence = blocking(move || {
            let mut batch = WriteBatch::new();
            for (key, value) in &entries {
                batch.put(&family, key, value);
            }
            db.write_with(&batch, Durability::Buffered)
        })
        .await?;
        durable(&self.db, sequence).await?;
        Ok(sequence)
    }

    /// Adds to a counter, and gives what it comes to. Durable when complete.
    ///
    /// # Errors
    /// The disk's.
    pub async fn add(&self, counter: impl Into<Vec<u8>>, amount: u64) -> Result<u64, Failure> {
        let (entries, counter) = (self.entries.clone(), counter.into());
        let (sum, sequence) = blocking(move || {
            let mut sum = 0;
            let sequence = entries.update(counter, |old| {
                let old = old.and_then(|old| old.try_into().ok()).map_or(0, u64::from_be_bytes);
                sum = old + amount;
                Some(sum.to_be_bytes())
            })?;
            Ok((sum, sequence))
        })
        .await?;
        durable(&self.db, sequence).await?;
        Ok(sum)
    }

    /// All values whose keys start with `prefix`, at one moment. What is read in one go is handed over in one
    /// go.
    ///
    /// # Errors
    /// The disk's.
    pub async fn values(&self, prefix: impl Into<Vec<u8>>) -> Result<Vec<Vec<u8>>, Failure> {
        let (entries, prefix) = (self.entries.clone(), prefix.into());
        blocking(move || entries.prefix(prefix)?.map(|entry| Ok(entry?.1.to_vec())).collect()).await
    }

    /// Closes the database.
    ///
    /// # Errors
    /// What kept it from making everything durable.
    pub async fn close(self) -> Result<(), Failure> {
        blocking(move || self.db.close()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peristyle::{FamilyOptions, MemoryStorage};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn tasks_write_read_count_and_wait_for_durability() {
        let storage = MemoryStorage::new();
        let db = ColumnFamilyDatabase::builder().storage(storage.clone()).open("memory").unwrap();
        let entries = db.create_column_family("entries", FamilyOptions::default()).unwrap();
        let store = Store::new(&entries);
        let tasks: Vec<_> = (0..50u8)
            .map(|task| {
                let store = store.clone();
                tokio::spawn(async move {
                    let entries = (0..4).map(|n| (vec![b'e', task, n], vec![task]));
                    let sequence = store.put_all(entries.collect()).await.unwrap();
                    assert!(store.db.synced_through() >= sequence);
                    store.add("counter", u64::from(task)).await.unwrap();
                    store.get([b'e', task, 0]).await.unwrap()
                })
            })
            .collect();
        for (task, handle) in (0..).zip(tasks) {
            assert_eq!(handle.await.unwrap(), Some(vec![task]));
        }
        assert_eq!(store.values("e").await.unwrap().len(), 200);
        assert_eq!(store.add("counter", 0).await.unwrap(), (0..50).sum::<u64>());
        let syncs = db.statistics().log.syncs;
        assert!(syncs <= 110, "{syncs} syncs for 101 commits");
        drop((db, entries));
        store.close().await.unwrap();
    }
}

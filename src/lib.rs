//! Peristyle: an embedded storage engine. Column families live side by side in one file, each a packed
//! copy-on-write B+tree with a memtable in front of it, and share one write-ahead log.
//!
//! # A first program
//!
//! ```
//! # fn main() -> peristyle::Result<()> {
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("ledger");
//! use peristyle::{ColumnFamilyDatabase, FamilyOptions, WriteBatch};
//!
//! let db = ColumnFamilyDatabase::open(&path)?;
//! let accounts = db.column_family_or_create("accounts", FamilyOptions::default())?;
//! let journal = db.column_family_or_create("journal", FamilyOptions::default())?;
//!
//! // One atomic commit over two families.
//! let mut batch = WriteBatch::new();
//! batch.put(&accounts, "alice", "90").put(&accounts, "bob", "110");
//! batch.put(&journal, 1u64.to_be_bytes(), "alice pays bob 10");
//! db.write(&batch)?;
//!
//! // One consistent moment of both.
//! let snapshot = db.snapshot()?;
//! assert_eq!(snapshot.get(&accounts, "alice")?.unwrap(), "90");
//! for entry in snapshot.column_family(&journal)?.iter() {
//!     let (key, value) = entry?;
//!     println!("{key:?}: {}", String::from_utf8_lossy(&value));
//! }
//! db.close()?;
//! # Ok(()) }
//! ```
//!
//! # The way around
//!
//! - [`ColumnFamilyDatabase`]: open, close, families, batches, snapshots, maintenance, statistics. Settings:
//!   [`DatabaseBuilder`].
//! - [`ColumnFamily`]: reading and writing one family. Options: [`FamilyOptions`].
//! - [`WriteBatch`]: atomic writes over any number of families. What a write survives: [`Durability`]. When
//!   it does: [`on_synced`](ColumnFamilyDatabase::on_synced).
//! - [`Transaction`]: reads and writes that are committed together if nobody changed what they rely on. What
//!   each [`IsolationLevel`] allows.
//! - [`Snapshot`], [`FamilySnapshot`]: one moment, for as long as it is held.
//! - [`MergeOperator`]: values that follow from what was merged into them.
//! - [`FilteredEntry`], [`FilterVerdict`]: entries that are dropped or changed as they are written anew.
//! - [`KeyOrder`]: keys in another order than that of their bytes.
//! - [`CopyReport`], [`SpaceReport`], [`MemoryReport`]: what a copy came to, where bytes are on disk, and in
//!   memory.
//! - [`Cursor`] and [`Iter`]: walking in key order, both ways.
//! - [`Error`] and [`ErrorKind`]: what can go wrong, to match on.
//! - [`SharedResources`]: threads and memory that several databases have in common.
//! - [`StorageBackend`]: where the bytes go; [`FileStorage`] and [`MemoryStorage`], or your own.
//!
//! # Transactions
//!
//! A batch writes several things as one. A [`Transaction`] also reads: what it reads is one moment with its
//! own writes in front, and its commit is refused if another one has changed what it relies on. No lock is
//! held meanwhile, so nobody waits for anybody.
//!
//! *The loop.* A refused commit has written nothing, and the transaction is run again from its first read on.
//! [`transact`](ColumnFamilyDatabase::transact) is that loop, with pauses that grow and a limit to the number
//! of tries:
//!
//! ```
//! # fn main() -> peristyle::Result<()> {
//! # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
//! # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
//! # let accounts = db.create_column_family("accounts", FamilyOptions::default())?;
//! # accounts.put("alice", 90u64.to_be_bytes())?;
//! let balance = |value: Option<peristyle::Value>| value.map_or(0, |value| u64::from_be_bytes(value[..].try_into().unwrap()));
//! let paid = db.transact(|transaction| {
//!     let alice = balance(transaction.get(&accounts, "alice")?);
//!     let bob = balance(transaction.get(&accounts, "bob")?);
//!     if alice < 10 {
//!         return Ok(false);
//!     }
//!     transaction.put(&accounts, "alice", (alice - 10).to_be_bytes())?;
//!     transaction.put(&accounts, "bob", (bob + 10).to_be_bytes())?;
//!     Ok::<_, peristyle::Error>(true)
//! })?;
//! assert!(paid);
//! # Ok(()) }
//! ```
//!
//! *What a conflict means.* Between the moment that the transaction reads and its commit, another commit put
//! or deleted a key that this one read, or one in a range that it walked over, whether there was anything or
//! not; by a plain write, a batch, a range delete or a transaction. If none did, the commit is made, however
//! long the transaction was open. [`Error::conflict`] names the family and the key or the range. A
//! transaction that writes nothing is never refused. What stood behind its own writes it has not read: keys
//! that it had put or deleted before it asked for them or walked over them may change.
//!
//! *Which level.* [`Serializable`](IsolationLevel::Serializable), unless there is a reason: the outcome is
//! one that transactions could have had that ran one after the other, so a rule that holds after each of them
//! holds after all. [`Snapshot`](IsolationLevel::Snapshot) where much is read and a rule is only about what
//! is also written. What must not count as read is read by [`get_untracked`](Transaction::get_untracked) and
//! [`cursor_untracked`](Transaction::cursor_untracked): a hint, a statistic. With
//! [`ReadCommitted`](IsolationLevel::ReadCommitted) nothing is checked: that is a batch that can be read
//! before it is written, or one that relies on locks.
//!
//! | what can happen | `Serializable` | `Snapshot` | `ReadCommitted` |
//! |---|---|---|---|
//! | what is not committed is read | no | no | no |
//! | a commit is read in part | no | no | no, by one read |
//! | two reads of one key give two things | no | no | yes |
//! | a change made between reading and writing is lost | no | no | yes |
//! | two that read what the other writes both commit (write skew) | no | yes | yes |
//! | an entry comes into a range that was read, and both commit (phantom) | no | yes | yes |
//!
//! *Locks.* Where many change the same few keys, running again costs more than waiting. Then a transaction
//! locks what it is going to change when it reads it, by [`get_for_update`](Transaction::get_for_update), or
//! is [`pessimistic`](TransactionBuilder::pessimistic) and locks all that it writes, deleted ranges included.
//! Others who want the same wait in order of arrival, up to
//! [`lock_timeout`](TransactionBuilder::lock_timeout); plain writes do, or fail, as
//! [`locked_writes`](DatabaseBuilder::locked_writes) says, and a thread that writes plainly what its own open
//! transaction has locked waits for itself. Reads wait for nobody. At
//! [`ReadCommitted`](IsolationLevel::ReadCommitted) what is read for update is the present and stays so, and
//! no commit is refused; at the other levels it is that of the transaction's moment, and a change since then
//! is a conflict as soon as it is locked.
//!
//! ```
//! # fn main() -> peristyle::Result<()> {
//! # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
//! use peristyle::{Error, IsolationLevel, LockMode};
//!
//! # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
//! # let stock = db.create_column_family("stock", FamilyOptions::default())?;
//! # stock.put("apples", [3])?;
//! let settings = db.transaction().level(IsolationLevel::ReadCommitted).pessimistic(true);
//! let sold = settings.run(|transaction| {
//!     let left = transaction.get_for_update(&stock, "apples", LockMode::Exclusive)?;
//!     match left.map(|left| left[0]) {
//!         None | Some(0) => Ok(false),
//!         Some(left) => transaction.put(&stock, "apples", [left - 1]).map(|()| true),
//!     }
//! });
//! assert!(sold.map_err(|error: Error| error)?);
//! # Ok(()) }
//! ```
//!
//! Who locks several keys in an order of his own can meet a [`Deadlock`](ErrorKind::Deadlock): it is found at
//! once, [`Error::awaited`] has the whole circle, and [`run`](TransactionBuilder::run) begins again. Two who
//! hold a key [`Shared`](LockMode::Shared) and both go on to write it are one.
//! [`locks`](ColumnFamilyDatabase::locks) lists who holds and awaits what.
//!
//! *Who only reads* says so by [`read_only`](TransactionBuilder::read_only): then nothing is noted and
//! nothing is kept but the snapshot that it reads.
//!
//! *What it costs.* Others pay nothing for a transaction, and for its locks a load as long as there are none.
//! It pays for a snapshot, for the keys that it reads (their bytes, once), and twice for what it writes if it
//! reads it again. While one is open, what is committed stays in memory, up to
//! [`transaction_memory_bytes`](DatabaseBuilder::transaction_memory_bytes). The longer it is open, the more
//! can stand in its way: so what takes long is done before it begins.
//!
//! *Parts of it* are given up by [`rollback_to`](Transaction::rollback_to) a
//! [`savepoint`](Transaction::savepoint), all of it by dropping it.
//!
//! ## Two phases
//!
//! To commit in several databases, or in a database and elsewhere, each first promises that it can, and then
//! all do or none does. [`prepare`](Transaction::prepare) is that promise: it checks what a commit checks,
//! writes the transaction down, durably, and keeps others from writing to what it has read and written until
//! it is decided. Whoever coordinates then writes down what becomes of all of them, and tells each to
//! [`commit`](PreparedTransaction::commit) or to [`rollback`](PreparedTransaction::rollback). A process that
//! ends in between finds in [`prepared_transactions`](ColumnFamilyDatabase::prepared_transactions) what it
//! has to ask for.
//!
//! ```
//! use std::path::PathBuf;
//!
//! use peristyle::{ColumnFamilyDatabase, Durability, FamilyOptions};
//!
//! # fn main() -> peristyle::Result<()> {
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = |name: &str| directory.path().join(name);
//! /// Opens a bank, and asks the coordinator about what is not decided.
//! fn open(path: PathBuf, coordinator: &ColumnFamilyDatabase) -> peristyle::Result<ColumnFamilyDatabase> {
//!     let decided = coordinator.column_family("decided")?;
//!     let bank = ColumnFamilyDatabase::open(path)?;
//!     for transfer in bank.prepared_transactions()? {
//!         // What it did not write down is not to be.
//!         match decided.contains_key(transfer.name())? {
//!             true => drop(transfer.commit()?),
//!             false => transfer.rollback()?,
//!         }
//!     }
//!     Ok(bank)
//! }
//!
//! let coordinator = ColumnFamilyDatabase::open(path("coordinator"))?;
//! let decided = coordinator.create_column_family("decided", FamilyOptions::default())?;
//! for bank in ["here", "there"] {
//!     let bank = ColumnFamilyDatabase::open(path(bank))?;
//!     bank.create_column_family("accounts", FamilyOptions::default())?.put("ann", "100")?;
//!     bank.close()?;
//! }
//! {
//!     let (here, there) = (open(path("here"), &coordinator)?, open(path("there"), &coordinator)?);
//!     for (bank, balance) in [(&here, "90"), (&there, "110")] {
//!         let accounts = bank.column_family("accounts")?;
//!         let mut transaction = bank.begin()?;
//!         assert_eq!(transaction.get(&accounts, "ann")?.unwrap(), "100");
//!         transaction.put(&accounts, "ann", balance)?;
//!         transaction.prepare("transfer 1")?;
//!     }
//!     // Both can: from here on both will.
//!     decided.put_with("transfer 1", "", Durability::Sync)?;
//!     // Here the process ends.
//! }
//! let (here, there) = (open(path("here"), &coordinator)?, open(path("there"), &coordinator)?);
//! assert_eq!(here.column_family("accounts")?.get("ann")?.unwrap(), "90");
//! assert_eq!(there.column_family("accounts")?.get("ann")?.unwrap(), "110");
//! # Ok(()) }
//! ```
//!
//! Everybody may read meanwhile, and sees what was there before. Whoever writes to what is held waits for
//! [`decision_wait`](DatabaseBuilder::decision_wait), then fails with
//! [`AwaitsDecision`](ErrorKind::AwaitsDecision), which names family and key or range. What is prepared takes
//! the bytes of its keys in memory, and no log.
//!
//! `examples/bank.rs` in the repository transfers money in many threads, and is killed in the middle.
//!
//! # Merge operators
//!
//! A counter that is read, raised and put again costs a read, and two who do so at once lose one. A family
//! with a [`MergeOperator`] takes *operands* instead: [`merge`](ColumnFamily::merge) writes one without
//! reading, as fast as a put, and the operator makes a value of all of them when the key is read, or in the
//! background when they are merged into the tree. [`merge_operators`] has those for counters, maximum and
//! minimum, lists and sets, and makes one of a closure.
//!
//! ```
//! # fn main() -> peristyle::Result<()> {
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("views");
//! use peristyle::{ColumnFamilyDatabase, FamilyOptions, WriteBatch, merge_operators};
//!
//! let options = || FamilyOptions::default().merge_operator(merge_operators::add_u64());
//! let count = |value: &[u8]| u64::from_le_bytes(value.try_into().unwrap());
//! {
//!     let db = ColumnFamilyDatabase::open(&path)?;
//!     let views = db.column_family_or_create("views", options())?;
//!     std::thread::scope(|scope| {
//!         for _ in 0..4 {
//!             scope.spawn(|| (0..100).try_for_each(|_| views.merge("index", 1u64.to_le_bytes()).map(drop)));
//!         }
//!     });
//!     assert_eq!(count(&views.get("index")?.unwrap()), 400);
//!     let mut batch = WriteBatch::new();
//!     batch.merge(&views, "index", 1u64.to_le_bytes()).merge(&views, "help", 1u64.to_le_bytes());
//!     db.write(&batch)?;
//! }
//! // The operator is code: it is given anew whenever the database is opened.
//! let db = ColumnFamilyDatabase::open(&path)?;
//! let views = db.column_family_or_create("views", options())?;
//! assert_eq!(count(&views.get("index")?.unwrap()), 401);
//! # Ok(()) }
//! ```
//!
//! *One of your own* is a closure that takes one operand in ([`associative`](merge_operators::associative)),
//! or the trait, where it takes the value and all operands to know what comes of them. Its answers must
//! follow from these alone: they are folded once when they are read, and again, with others, when they are
//! merged.
//!
//! *An operator that fails* or panics on a key fails the reads of this key, with
//! [`MergeFailed`](ErrorKind::MergeFailed), which names it, and nothing else. No operand is lost: with the
//! operator mended all is there. A family that is opened without its operator can be used but for the keys
//! that have operands ([`MergeOperatorMissing`](ErrorKind::MergeOperatorMissing)); one of another name is
//! refused.
//!
//! ```
//! # fn main() -> peristyle::Result<()> {
//! # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
//! use peristyle::{ErrorKind, merge_operators};
//!
//! # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
//! let options = FamilyOptions::default().merge_operator(merge_operators::add_u64());
//! let sums = db.create_column_family("sums", options)?;
//! sums.merge("good", 7u64.to_le_bytes())?;
//! sums.merge("bad", "seven")?;
//! let error = sums.get("bad").unwrap_err();
//! assert_eq!((error.kind(), error.key().unwrap()), (ErrorKind::MergeFailed, &b"bad"[..]));
//! assert_eq!(sums.get("good")?.unwrap(), 7u64.to_le_bytes());
//! sums.put("bad", 0u64.to_le_bytes())?;
//! assert!(sums.get("bad")?.is_some());
//! # Ok(()) }
//! ```
//!
//! `examples/counters.rs` in the repository counts page views by minute.
//!
//! *In a transaction* a merge is a write that reads nothing: at
//! [`Serializable`](IsolationLevel::Serializable) any number of them may merge into one key at the same time,
//! and none is refused. A snapshot sees what was merged up to its moment.
//!
//! *What it costs.* A merge costs a put. A read of a key folds the operands that are not merged yet, one step
//! for each; so a key that is merged into often and read between is best in a family that is merged often
//! too, with a small [`memtable_share`](FamilyOptions::memtable_share). `len` and `contains_key` fold
//! nothing.
//!
//! # Expiry
//!
//! Sessions, codes, caches and counters by the minute are of no use after a while. A family can give all that
//! is written to it a time to live ([`expire_after`](FamilyOptions::expire_after)), or each entry its own
//! ([`put_with_ttl`](ColumnFamily::put_with_ttl), where the options say that or
//! [`expire_each`](FamilyOptions::expire_each)). At its second an entry is gone.
//!
//! ```
//! # fn main() -> peristyle::Result<()> {
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicU64, Ordering};
//! use std::time::{Duration, SystemTime};
//! use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
//!
//! // A clock that can be set, as tests like it. Without one it is that of the system.
//! let seconds = Arc::new(AtomicU64::new(1_000_000));
//! let clock = Arc::clone(&seconds);
//! let db = ColumnFamilyDatabase::builder()
//!     .storage(MemoryStorage::new())
//!     .clock(move || SystemTime::UNIX_EPOCH + Duration::from_secs(clock.load(Ordering::SeqCst)))
//!     .open("memory")?;
//! let hour = FamilyOptions::default().expire_after(Duration::from_secs(3600));
//! let sessions = db.create_column_family("sessions", hour)?;
//! sessions.put("ann", "...")?;
//! sessions.put_with_ttl("ben", "...", Duration::from_secs(60))?;
//!
//! let before = sessions.snapshot()?;
//! seconds.fetch_add(60, Ordering::SeqCst);
//! assert_eq!(sessions.get("ben")?, None);
//! assert_eq!(sessions.len()?, 1);
//! // One moment stays one moment.
//! assert!(before.contains_key("ben")?);
//! assert_eq!(before.len()?, 2);
//! # Ok(()) }
//! ```
//!
//! *When.* An expiry is a whole second, decided when the entry is written (added to a batch, or written in a
//! transaction), and rounded up: nothing is gone early. A time that no clock comes to is for ever. A
//! snapshot, cursor, iterator and transaction judges all that it sees by the second at which it was made;
//! each other read by its own, also in a transaction at [`ReadCommitted`](IsolationLevel::ReadCommitted).
//! `len` counts what has not expired, and walks the family for it.
//!
//! *The space* comes back as pages are rewritten, and with [`compact`](ColumnFamilyDatabase::compact) at
//! once; older snapshots keep what they see. In families with a merge operator `compact` alone does it. What
//! was dropped does not come back if the clock is set back; what is still stored does.
//!
//! *Overwriting* a key, by whatever means, gives it the lifetime of what is written then: `update` and
//! `compare_and_swap` that of the family. A *merge* gives a key the family's time to live from then on, or
//! leaves it the one that it has; what had expired when the operand was written counts as absent.
//!
//! *A clock that fails* by a panic fails the call that asked for the time
//! ([`ClockFailed`](ErrorKind::ClockFailed)), and nothing else. Programs none of whose families expire call
//! none.
//!
//! # Filters
//!
//! What nobody needs any more can go without being searched for, and what is stored in an old way can be
//! brought into the new one, when it is written anew in any case. A family with a
//! [`filter`](FamilyOptions::filter) shows it entries as merges write them, and every entry in
//! [`compact`](ColumnFamilyDatabase::compact); the filter keeps, drops or changes each.
//!
//! ```
//! # fn main() -> peristyle::Result<()> {
//! # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
//! use peristyle::FilterVerdict;
//!
//! // Sessions of users who have gone are dropped, and those of the first version get a field more.
//! let is_gone = |key: &[u8]| key.starts_with(b"guest/");
//! let options = FamilyOptions::default().filter("sessions", move |entry| {
//!     if is_gone(entry.key()) {
//!         return Ok(FilterVerdict::Drop);
//!     }
//!     Ok(match entry.value()?.strip_prefix(b"1:") {
//!         Some(rest) => FilterVerdict::Change([b"2:en:", rest].concat()),
//!         None => FilterVerdict::Keep,
//!     })
//! });
//!
//! # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
//! let sessions = db.column_family_or_create("sessions", options)?;
//! sessions.put("guest/7", "1:basket")?;
//! sessions.put("anna", "1:basket")?;
//! let before = sessions.snapshot()?;
//! db.compact()?;
//! assert!(sessions.get("guest/7")?.is_none());
//! assert_eq!(sessions.get("anna")?.unwrap(), "2:en:basket");
//! // A snapshot sees what was there when it was taken.
//! assert_eq!(before.get("anna")?.unwrap(), "1:basket");
//! # Ok(()) }
//! ```
//!
//! *When it is called* is not for the program to know: at any time after an entry was written, by any thread,
//! again for an entry that it has kept, changed or dropped before (a crash may take back what it did). So its
//! answers should follow from the entry alone, and what it has changed it should keep. Until an entry was
//! shown to it readers see the entry as it was written: a program that must not see such looks itself.
//!
//! *What it does* is no write: it has no sequence number, stands in no log and is no conflict for a
//! transaction. Of keys with operands it sees what these come to.
//!
//! *A filter that fails* or panics ends a compaction, which returns
//! [`FilterFailed`](ErrorKind::FilterFailed) with the key, and is not asked any more by a merge, which goes
//! on. No entry is lost or half changed; with the filter mended, or taken away, the next compaction does the
//! rest.
//!
//! *What it costs.* A call for each entry that is written to a leaf, in the background. Large values are read
//! if it asks for them. A compaction reads all leaves of the family, and writes those in which something is
//! dropped or changed.
//!
//! # Key order
//!
//! Keys stand in the order of their bytes. Most others are had by writing keys so that their bytes sort:
//! numbers big-endian, times with the year first. Where keys are what they are, a family can be created with
//! a [`KeyOrder`]: in [`reverse`](KeyOrder::reverse), as integers in the machine's own byte order
//! ([`native_u64`](KeyOrder::native_u64) and its like), or by what a function gives for each key to sort it
//! by.
//!
//! ```
//! # fn main() -> peristyle::Result<()> {
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("places");
//! use peristyle::{ColumnFamilyDatabase, FamilyOptions, KeyOrder};
//!
//! // Versions as people count them: 1.9 comes before 1.10.
//! let by_parts = || KeyOrder::new("by parts", |key, sort_key| {
//!     for part in std::str::from_utf8(key)?.split('.') {
//!         sort_key.extend(part.parse::<u32>()?.to_be_bytes());
//!     }
//!     Ok(())
//! });
//! let options = || FamilyOptions::default().key_order(by_parts());
//! {
//!     let db = ColumnFamilyDatabase::open(&path)?;
//!     let releases = db.column_family_or_create("releases", options())?;
//!     for version in ["1.10", "1.9", "2.0", "1.2.1"] {
//!         releases.put(version, "notes")?;
//!     }
//!     let between: Vec<_> = releases.range("1.2".."2")?.map(|entry| entry.unwrap().0).collect();
//!     assert_eq!(between, ["1.2.1", "1.9", "1.10"]);
//!     assert!(releases.put("next", "").is_err(), "the function has no place for it");
//! }
//! // The function is code: it is given anew whenever the database is opened.
//! let db = ColumnFamilyDatabase::open(&path)?;
//! let releases = db.column_family_or_create("releases", options())?;
//! assert_eq!(releases.last()?.unwrap().0, "2.0");
//! # Ok(()) }
//! ```
//!
//! *Everything goes by it*: walks, ranges and their bounds, range deletes, batches, transactions with what
//! they rely on and lock, `first` and `last`. Keys with a common prefix stand together in byte order and in
//! reverse; in other orders [`prefix`](ColumnFamily::prefix) and
//! [`delete_prefix`](ColumnFamily::delete_prefix) answer with [`NoPrefixes`](ErrorKind::NoPrefixes), and a
//! range takes their place.
//!
//! *It is not a comparator*: the function sees one key, and what it gives is stored with the key. So it is
//! called once where a key is named, and never while anything is searched, merged or recovered. If it fails
//! or panics, that call fails ([`KeyOrderFailed`](ErrorKind::KeyOrderFailed)) and nothing else does. Keys for
//! which it gives the same bytes are different keys, and stand in the order of their own bytes.
//!
//! *A family keeps its order.* Its name stands in the database: who opens the family with options that say
//! another order, or none, is told both names ([`KeyOrderDiffers`](ErrorKind::KeyOrderDiffers)); one of a
//! program's that was not given is asked for ([`KeyOrderMissing`](ErrorKind::KeyOrderMissing)).
//!
//! # Copies
//!
//! [`checkpoint_to`](ColumnFamilyDatabase::checkpoint_to) copies the database into another directory while it
//! is written to. The copy is what the database was at one number, all families of it, and a database of its
//! own. Where the file system shares bytes (btrfs, XFS) it takes neither time nor room to speak of.
//! [`space_report`](ColumnFamilyDatabase::space_report) says where bytes are, also those that a copy under
//! way keeps; [`approximate_size`](ColumnFamily::approximate_size) what a range of keys takes, and
//! [`split_points`](ColumnFamily::split_points) where to cut it for threads that each take a part.
//!
//! # In an async program
//!
//! Every call is a plain function, and returns when it is done. Handles, snapshots, iterators and cursors can
//! be sent to any thread and kept anywhere, so it takes no more than to know which calls wait for what:
//!
//! | calls | wait for | in an async program |
//! |---|---|---|
//! | `snapshot`, `synced_through`, `on_synced`, `statistics`, options, names | a lock for some microseconds at most | call them anywhere |
//! | `get`, `range`, `next` and other reads | the disk, where a page is not in the cache | a blocking thread, unless what is read is known to be in memory |
//! | writes with [`Buffered`](Durability::Buffered) and [`None`](Durability::None), `update`, `compare_and_swap` | as a rule for nothing; some milliseconds while merges are behind, and for as long as a merge takes when memory is full | a blocking thread |
//! | writes with [`Sync`](Durability::Sync), `sync`, `sync_through`, creating, renaming and dropping families, `set_options` | a sync | a blocking thread |
//! | `open`, `flush`, `checkpoint`, `compact`, `verify`, `checkpoint_to`, `space_report`, `wait_until_idle`, `close`, dropping the last handle | much of the disk | a blocking thread |
//!
//! *What belongs together goes to a blocking thread together*: to go there costs more than most calls do, and
//! a batch is one commit. A program with very many small writes has one thread of its own that takes them
//! from a channel and writes what has gathered there as one batch.
//!
//! *Nobody needs to wait for a sync.* A write with [`Buffered`](Durability::Buffered) gives its number at
//! once; [`on_synced`](ColumnFamilyDatabase::on_synced) takes a callback for it, and has the log synced, once
//! for all who wait then. A callback that sends into a channel is a future:
//!
//! ```
//! # mod oneshot {
//! #     // What `tokio::sync::oneshot` looks like from here.
//! #     pub fn channel<T>() -> (Sender<T>, std::sync::mpsc::Receiver<T>) {
//! #         let (sender, receiver) = std::sync::mpsc::channel();
//! #         (Sender(sender), receiver)
//! #     }
//! #     pub struct Sender<T>(std::sync::mpsc::Sender<T>);
//! #     impl<T> Sender<T> {
//! #         pub fn send(self, value: T) -> Result<(), ()> {
//! #             self.0.send(value).map_err(drop)
//! #         }
//! #     }
//! # }
//! # fn main() -> peristyle::Result<()> {
//! # use peristyle::{ColumnFamilyDatabase, Durability, FamilyOptions, MemoryStorage};
//! # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
//! # let family = db.create_column_family("log", FamilyOptions::default())?;
//! let number = family.put_with("entry", "value", Durability::Buffered)?;
//! let (tell, told) = oneshot::channel();
//! db.on_synced(number, move |outcome| drop(tell.send(outcome)))?;
//! // In an async function: told.await
//! # told.recv().unwrap()?;
//! # Ok(()) }
//! ```
//!
//! *A future that is dropped takes nothing back.* What was sent to a blocking thread is done, awaited or not.
//!
//! `examples/tokio` in the repository is such a program, with all of that.

#![warn(missing_debug_implementations)]

mod btree;
mod codec;
mod column_family;
mod db;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod key_order;
mod memtable;
mod operator;
mod options;
mod page;
#[cfg(test)]
#[path = "../tests/common/sampling.rs"]
mod sampling;
mod segment;
mod storage;
mod sync;
mod system;
mod txn;
mod wal;

pub use codec::ids::{FamilyId, SequenceNumber};
pub use codec::key_bounds::KeyBounds;
pub use column_family::options::FamilyOptions;
pub use column_family::reading::key::Key;
pub use column_family::reading::value::Value;
pub use db::{
    ColumnFamilyDatabase, CopyReport, FamilyProperties, FamilySpace, LockStatistics, Locks, LogStatistics,
    LostLog, MemoryReport, PreparedTransaction, RecoveryReport, SharedResources, SharedResourcesBuilder,
    SpaceReport, Statistics, VerifyOptions, VerifyProgress, VerifyReport, WaitStatistics, Waits,
};
pub use error::{Conflict, Error, ErrorKind, Location, Lock, LockMode, LockOwner, LockWait, Result};
pub use key_order::{KeyOrder, SortKeyResult};
pub use operator::filter::{FilterResult, FilterVerdict, FilteredEntry};
pub use operator::ready as merge_operators;
pub use operator::{MergeOperands, MergeOperator, MergeResult};
pub use options::{DatabaseBuilder, Durability, LockedWrites, RecoveryProgress};
pub use page::CacheStats;
pub use segment::Segment;
pub use storage::{
    FileHandlePoolStats, FileMode, FileStorage, MemoryStorage, SharedMapping, StorageBackend, StorageFile,
    StorageLock, Taken,
};
#[cfg(debug_assertions)]
#[doc(hidden)]
pub use system::refuse_memory;
pub use txn::batch::WriteBatch;
pub use txn::family_snapshot::FamilySnapshot;
pub use txn::handle::ColumnFamily;
pub use txn::iter::{Cursor, Iter};
pub use txn::operation::{ExpiringOperand, ExpiringValue, Operation};
pub use txn::snapshot::Snapshot;
pub use txn::transactions::level::IsolationLevel;
pub use txn::transactions::retry::TransactionBuilder;
pub use txn::transactions::transaction::{Savepoint, Transaction};
pub use txn::transactions::walk::{TransactionCursor, TransactionIter};
pub use txn::update::Swap;

//! The one error type of the crate.
//!
//! Callers match on [`Error::kind`]; the message says what happened, where, and what to do.

mod conflict;
mod locks;
mod operators;
mod orders;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use conflict::Conflict;
pub use locks::{Lock, LockMode, LockOwner, LockWait};

/// The result of a fallible operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of failure an [`Error`] is: the part that a caller matches on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused a read, write, sync or a change to a directory.
    Io,
    /// The disk is full, a quota is used up, or a file would be longer than it may be. Nothing was changed;
    /// the operation may be tried again.
    OutOfSpace,
    /// The system has no descriptor or no memory to give at the moment. Nothing was changed; the operation
    /// may be tried again.
    OutOfResources,
    /// Bytes on disk are not what was written. The error names file, offset, family and page.
    Corruption,
    /// The path holds something that is not a Peristyle database.
    NotADatabase,
    /// The database was written by a newer version of the format than this one reads.
    NewerFormat,
    /// The path holds no database, and the builder was told not to create one.
    DatabaseNotFound,
    /// The path holds a database, and the builder was told to fail then.
    DatabaseExists,
    /// Another handle, in this process or another one, has the database open.
    Locked,
    /// The database was opened, or the transaction was begun, for reading only.
    ReadOnly,
    /// An earlier write or sync failed; nothing is written until the database is opened again.
    /// The message names the first cause.
    WriteFailed,
    /// Pages of one column family cannot be read, and a merge or a compaction of it needed them. It takes no
    /// writes until the database is opened again, nothing of it is merged into its tree, and all other
    /// families go on. What it holds besides can be read, and it can be dropped. The message names the first
    /// cause.
    FamilyDamaged,
    /// The database of this snapshot, iterator or cursor was closed, and what it reads does not stand there
    /// any more: whoever opened the database again may have overwritten it.
    StaleReader,
    /// The database was closed.
    Closed,
    /// The database was opened by a process of which this one was forked. Nothing was read or written.
    ForkedChild,
    /// A column family of this name exists already.
    FamilyExists,
    /// No column family has this name.
    FamilyNotFound,
    /// The column family was dropped while this handle to it lived on.
    FamilyDropped,
    /// The column family has other options than were asked for.
    OptionsDiffer,
    /// Operands were to be written or folded, and the column family's merge operator is not there: it has
    /// none, or was opened without it. The message names it; of a read, [`Error::key`] has the key.
    MergeOperatorMissing,
    /// The column family has a merge operator of another name. The message has both.
    MergeOperatorDiffers,
    /// The column family's merge operator gave an error or panicked. Nothing is lost: what it was to fold is
    /// there, for one that is mended. [`Error::key`] has the key.
    MergeFailed,
    /// An entry was to get a time to live, and the column family's entries do not expire: its options say
    /// neither [`expire_after`](crate::FamilyOptions::expire_after) nor
    /// [`expire_each`](crate::FamilyOptions::expire_each).
    NeverExpires,
    /// The clock that the database was [given](crate::DatabaseBuilder::clock) panicked. Nothing was written.
    ClockFailed,
    /// The column family's filter gave an error, panicked, or gave a value that is too long, while a
    /// compaction showed it all entries. Nothing is lost: what it was not shown, and what it said nothing of,
    /// is as it was. The message names the filter, [`Error::key`] has the key.
    FilterFailed,
    /// The column family keeps its keys in another order than was asked for. The message names both.
    KeyOrderDiffers,
    /// The column family keeps its keys in an order of the program's, and was opened without it. The message
    /// names it.
    KeyOrderMissing,
    /// The column family's key order has no place for a key: it is not as long as the order's integers, or
    /// the program's function gave an error or panicked. Nothing was written. [`Error::key`] has the key.
    KeyOrderFailed,
    /// Keys with a common prefix do not stand together in the column family's key order.
    NoPrefixes,
    /// A column family's name is empty or longer than 255 bytes.
    InvalidFamilyName,
    /// A key is longer than 65,536 bytes, or would be as its family's [order](crate::KeyOrder) stores it.
    KeyTooLarge,
    /// A value is longer than 4 GiB - 1 bytes, or 4 GiB - 10 if it expires, or an operand than 64 MiB.
    ValueTooLarge,
    /// An option or an argument has no meaning; the message says which values do.
    InvalidArgument,
    /// A transaction was not committed, because another commit has changed what it relied on since it began.
    /// It may be run again. [`Error::conflict`] says what was changed.
    Conflict,
    /// A transaction was not committed, because what was committed since it began takes more memory than open
    /// transactions may keep
    /// ([`transaction_memory_bytes`](crate::DatabaseBuilder::transaction_memory_bytes)), and it was the
    /// oldest one.
    TransactionTooOld,
    /// A prepared transaction holds what was to be written until it is decided, and was not decided in time.
    /// Nothing was written. [`Error::conflict`] says what is held.
    AwaitsDecision,
    /// A transaction was prepared under this name, and is not decided yet.
    TransactionExists,
    /// The prepared transaction was decided already.
    TransactionNotFound,
    /// A key or a range is locked by others, and was not free within the time limit; or it is written by
    /// somebody who was not to wait. Nothing was written. [`Error::awaited`] says who holds what.
    LockTimeout,
    /// A transaction would wait for a lock for ever, since others wait, directly or in a circle, for locks of
    /// its own. Nothing was written; giving it up lets the others go on, and it may be run again.
    /// [`Error::awaited`] has the whole circle.
    Deadlock,
}

/// Where on disk a failure was met; every part may be unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Location {
    /// The database's directory, if it was met while the database was opened.
    pub directory: Option<PathBuf>,
    /// The file, relative to the database's directory.
    pub file: Option<String>,
    /// Byte offset in the file.
    pub offset: Option<u64>,
    /// Number of the column family.
    pub family: Option<u32>,
    /// Page number within the column family.
    pub page: Option<u32>,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = " (";
        let mut part = |f: &mut fmt::Formatter<'_>, text: fmt::Arguments<'_>| {
            write!(f, "{separator}{text}")?;
            separator = ", ";
            Ok(())
        };
        if let Some(directory) = &self.directory {
            part(f, format_args!("database {}", directory.display()))?;
        }
        if let Some(file) = &self.file {
            part(f, format_args!("file {file}"))?;
        }
        if let Some(offset) = self.offset {
            part(f, format_args!("offset {offset}"))?;
        }
        if let Some(family) = self.family {
            part(f, format_args!("family {family}"))?;
        }
        if let Some(page) = self.page {
            part(f, format_args!("page {page}"))?;
        }
        if separator == ", " { f.write_str(")") } else { Ok(()) }
    }
}

/// A failure: its [kind](Error::kind), a message, and where on disk it was met.
///
/// A [`std::io::Error`] can be made of it, of the kind that fits best and with the whole failure inside, so
/// that `?` takes it to where such are expected.
///
/// Cheap to clone, so that the first cause of a failed database can be handed to every later writer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}{}", .0.message, .0.location)]
pub struct Error(Box<Detail>);

#[derive(Debug, Clone)]
struct Detail {
    kind: ErrorKind,
    message: String,
    location: Location,
    source: Option<Arc<io::Error>>,
    /// Whether the message says that nothing is written any more.
    ends_writing: bool,
    conflict: Option<Conflict>,
    awaited: Vec<LockWait>,
    key: Option<Vec<u8>>,
    /// Whether something could not be read: nothing was changed by that.
    is_of_reading: bool,
    /// Whether going on with the other families would lose more.
    ends_more_than_family: bool,
}

impl Error {
    /// A failure of `kind` that `message` explains.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Detail {
            kind,
            message: message.into(),
            location: Location::default(),
            source: None,
            ends_writing: false,
            conflict: None,
            awaited: Vec::new(),
            key: None,
            is_of_reading: false,
            ends_more_than_family: false,
        }))
    }

    /// Bytes on disk are wrong in the way that `message` says.
    pub(crate) fn corruption(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corruption, message)
    }

    /// `operation` (a present participle, as in "opening the log") failed with `source`. For whatever loses
    /// nothing when it fails: opening, creating, renaming, reserving, mapping, reading, and writing what can
    /// be written again.
    pub(crate) fn io(operation: &str, source: io::Error) -> Self {
        Self::of_system(kind_of(&source), operation, source)
    }

    /// A write or a sync failed that may have lost something: whatever the system said, it is no refusal.
    pub(crate) fn lost(operation: &str, source: io::Error) -> Self {
        Self::of_system(ErrorKind::Io, operation, source)
    }

    /// A directory could not be synced. It is opened for that: where that is refused, nothing was begun.
    pub(crate) fn of_directory(operation: &str, source: io::Error) -> Self {
        let kind = match kind_of(&source) {
            ErrorKind::OutOfResources => ErrorKind::OutOfResources,
            _ => ErrorKind::Io,
        };
        Self::of_system(kind, operation, source)
    }

    fn of_system(kind: ErrorKind, operation: &str, source: io::Error) -> Self {
        let mut error = Self::new(kind, format!("{operation} failed: {source}"));
        error.0.source = Some(Arc::new(source));
        error
    }

    /// Adds the directory of the database that was being opened.
    pub(crate) fn opening(mut self, directory: &Path) -> Self {
        self.0.location.directory = Some(directory.to_owned());
        self
    }

    /// A transaction is not committed, since what it relied on in the column family of this name was changed.
    pub(crate) fn conflict_in(family_name: &str, conflict: Conflict) -> Self {
        let message = format!(
            "{conflict} of the column family \"{family_name}\" was changed by another commit since the transaction began; \
             run the transaction again"
        );
        let mut error = Self::new(ErrorKind::Conflict, message).of_family(conflict.family.0);
        error.0.conflict = Some(conflict);
        error
    }

    /// Nobody else may write to what a prepared transaction holds in the column family of this name.
    pub(crate) fn held_in(family_name: &str, held: Conflict) -> Self {
        let message = format!(
            "{held} of the column family \"{family_name}\" is held by a prepared transaction until it is decided; \
             see prepared_transactions"
        );
        let mut error = Self::new(ErrorKind::AwaitsDecision, message).of_family(held.family.0);
        error.0.conflict = Some(held);
        error
    }

    /// What `awaited` says first was not locked in time.
    pub(crate) fn lock_timeout(awaited: Vec<LockWait>) -> Self {
        let whose = awaited.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let mut error =
            Self::new(ErrorKind::LockTimeout, format!("not locked within the time limit: {whose}"));
        error.0.awaited = awaited;
        error
    }

    /// Each of `awaited` waits for the next, and the last for the first.
    pub(crate) fn deadlock(awaited: Vec<LockWait>) -> Self {
        let circle = awaited.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let message = format!("a deadlock: {circle}; drop the transaction and run it again");
        let mut error = Self::new(ErrorKind::Deadlock, message);
        error.0.awaited = awaited;
        error
    }

    /// As [`io`](Self::io), where the operation only reads.
    pub(crate) fn reading(operation: &str, source: io::Error) -> Self {
        let mut error = Self::io(operation, source);
        error.0.is_of_reading = true;
        error
    }

    /// Whether this says that something of one column family cannot be read: an error that changed nothing,
    /// and is that family's alone.
    pub(crate) fn is_damage(&self) -> bool {
        let is_unreadable = match self.0.kind {
            ErrorKind::Io => self.0.is_of_reading,
            kind => matches!(kind, ErrorKind::Corruption | ErrorKind::NewerFormat),
        };
        is_unreadable && self.0.location.family.is_some() && !self.0.ends_more_than_family
    }

    /// Whether something could not be read: nothing was changed by that.
    pub(crate) fn is_of_reading(&self) -> bool {
        self.0.is_of_reading
    }

    /// This error, which is not the [damage](Self::is_damage) of one column family: going on with the others
    /// would lose more.
    pub(crate) fn beyond_damage(mut self) -> Self {
        self.0.ends_more_than_family = true;
        self
    }

    /// The error that every writer to a column family meets after this one.
    pub(crate) fn as_damage(&self) -> Self {
        let mut later = self.clone();
        later.0.kind = ErrorKind::FamilyDamaged;
        later.0.message = format!(
            "the column family takes no writes until the database is opened again, because {}",
            self.0.message
        );
        later
    }

    /// This error, of something that was read after its database was closed.
    pub(crate) fn into_stale(mut self) -> Self {
        self.0.kind = ErrorKind::StaleReader;
        self.0.message =
            format!("the database was closed, and what is read may be overwritten since: {}", self.0.message);
        self
    }

    /// Adds to the message what follows from the failure.
    pub(crate) fn followed_by(mut self, consequence: &str) -> Self {
        self.0.message.push_str("; ");
        self.0.message.push_str(consequence);
        self
    }

    /// Whether the system refused something, which changed nothing: the one operation fails, and everything
    /// goes on.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self.kind(), ErrorKind::OutOfSpace | ErrorKind::OutOfResources)
    }

    /// Adds the file, unless a deeper layer named one.
    pub(crate) fn in_file(mut self, file: impl Into<String>) -> Self {
        self.0.location.file.get_or_insert_with(|| file.into());
        self
    }

    /// Adds the byte offset in the file, unless a deeper layer named one.
    pub(crate) fn at_offset(mut self, offset: u64) -> Self {
        self.0.location.offset.get_or_insert(offset);
        self
    }

    /// Adds the column family's number, unless a deeper layer named one.
    pub(crate) fn of_family(mut self, family: u32) -> Self {
        self.0.location.family.get_or_insert(family);
        self
    }

    /// Adds the page number, unless a deeper layer named one.
    pub(crate) fn on_page(mut self, page: u32) -> Self {
        self.0.location.page.get_or_insert(page);
        self
    }

    /// The error that every writer meets after this one ended all writing.
    pub(crate) fn as_first_cause(&self) -> Self {
        let mut later = self.clone();
        if std::mem::replace(&mut later.0.ends_writing, true) {
            return later;
        }
        later.0.kind = ErrorKind::WriteFailed;
        later.0.message =
            format!("the database takes no more writes until it is opened again, because {}", self.0.message);
        later
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Where on disk the failure was met.
    pub fn location(&self) -> &Location {
        &self.0.location
    }

    /// What was changed, if this is a [`Conflict`](ErrorKind::Conflict); what is held, if it
    /// [`AwaitsDecision`](ErrorKind::AwaitsDecision).
    pub fn conflict(&self) -> Option<&Conflict> {
        self.0.conflict.as_ref()
    }

    /// Who waits for whom: of a [`Deadlock`](ErrorKind::Deadlock) each for the owner of the next, and the
    /// last for that of the first, which met the error; of a [`LockTimeout`](ErrorKind::LockTimeout) what was
    /// in the way. Empty otherwise.
    pub fn awaited(&self) -> &[LockWait] {
        &self.0.awaited
    }

    /// The key whose value could not be had: of [`MergeFailed`](ErrorKind::MergeFailed), and of
    /// [`MergeOperatorMissing`](ErrorKind::MergeOperatorMissing) where something was read; the key that was
    /// shown: of [`FilterFailed`](ErrorKind::FilterFailed); the key that has no place: of
    /// [`KeyOrderFailed`](ErrorKind::KeyOrderFailed).
    pub fn key(&self) -> Option<&[u8]> {
        self.0.key.as_deref()
    }

    /// The operating system's error, where there is one.
    pub fn io_error(&self) -> Option<&io::Error> {
        self.0.source.as_deref()
    }
}

/// Of the kind that fits best, with the whole failure inside.
///
/// ```
/// use peristyle::{ColumnFamilyDatabase, Error};
/// use std::io;
///
/// fn open() -> io::Result<ColumnFamilyDatabase> {
///     Ok(ColumnFamilyDatabase::builder().create_if_missing(false).open("/no/such/directory")?)
/// }
///
/// let error = open().unwrap_err();
/// assert_eq!(error.kind(), io::ErrorKind::NotFound);
/// let whole = error.downcast::<Error>().unwrap();
/// assert_eq!(whole.kind(), peristyle::ErrorKind::DatabaseNotFound);
/// ```
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Io | ErrorKind::OutOfSpace | ErrorKind::OutOfResources | ErrorKind::WriteFailed => {
                match error.io_error() {
                    Some(source) => source.kind(),
                    None if error.kind() == ErrorKind::OutOfSpace => io::ErrorKind::StorageFull,
                    None => io::ErrorKind::Other,
                }
            }
            ErrorKind::Corruption | ErrorKind::NotADatabase => io::ErrorKind::InvalidData,
            ErrorKind::NewerFormat => io::ErrorKind::Unsupported,
            ErrorKind::DatabaseNotFound | ErrorKind::FamilyNotFound | ErrorKind::FamilyDropped => {
                io::ErrorKind::NotFound
            }
            ErrorKind::DatabaseExists | ErrorKind::FamilyExists => io::ErrorKind::AlreadyExists,
            ErrorKind::Locked => io::ErrorKind::ResourceBusy,
            ErrorKind::ReadOnly => io::ErrorKind::ReadOnlyFilesystem,
            ErrorKind::InvalidFamilyName
            | ErrorKind::KeyTooLarge
            | ErrorKind::ValueTooLarge
            | ErrorKind::InvalidArgument
            | ErrorKind::MergeOperatorDiffers
            | ErrorKind::MergeOperatorMissing
            | ErrorKind::KeyOrderDiffers
            | ErrorKind::KeyOrderMissing
            | ErrorKind::KeyOrderFailed
            | ErrorKind::NoPrefixes
            | ErrorKind::OptionsDiffer => io::ErrorKind::InvalidInput,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// What kind of failure the system's `error` is for whoever asked it for something and has lost nothing.
fn kind_of(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            ErrorKind::OutOfSpace
        }
        io::ErrorKind::OutOfMemory => ErrorKind::OutOfResources,
        _ if lacks_descriptor(error) => ErrorKind::OutOfResources,
        _ => ErrorKind::Io,
    }
}

/// Whether the process (`EMFILE`) or the system (`ENFILE`) has as many files open as it may.
#[cfg(unix)]
fn lacks_descriptor(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}

/// Whether the process has as many files open as it may.
#[cfg(not(unix))]
fn lacks_descriptor(error: &io::Error) -> bool {
    const ERROR_TOO_MANY_OPEN_FILES: i32 = 4;
    cfg!(windows) && error.raw_os_error() == Some(ERROR_TOO_MANY_OPEN_FILES)
}

#[cfg(all(test, not(loom), unix))]
mod tests {
    use super::*;

    #[test]
    fn as_an_error_of_io_it_has_the_kind_of_its_cause_and_stays_whole() {
        let kind = |error: Error| io::Error::from(error).kind();
        let cause = || io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(kind(Error::io("writing", cause())), io::ErrorKind::PermissionDenied);
        assert_eq!(kind(Error::io("writing", cause()).as_first_cause()), io::ErrorKind::PermissionDenied);
        assert_eq!(kind(Error::new(ErrorKind::OutOfSpace, "full")), io::ErrorKind::StorageFull);
        assert_eq!(kind(Error::new(ErrorKind::Closed, "closed")), io::ErrorKind::Other);
        let whole = io::Error::from(Error::corruption("a bit is wrong").in_file("data").on_page(7));
        assert_eq!(whole.kind(), io::ErrorKind::InvalidData);
        assert_eq!(whole.to_string(), "a bit is wrong (file data, page 7)");
        let inside = whole.downcast::<Error>().unwrap();
        assert_eq!((inside.kind(), inside.location().page), (ErrorKind::Corruption, Some(7)));
    }

    #[test]
    fn that_nothing_is_written_any_more_is_said_once() {
        let first = Error::io("syncing the log", io::ErrorKind::BrokenPipe.into());
        let told = first.as_first_cause();
        assert_eq!(told.kind(), ErrorKind::WriteFailed);
        assert_eq!(told.to_string().matches("no more writes").count(), 1);
        assert_eq!(told.as_first_cause().to_string(), told.to_string());
    }

    #[test]
    fn what_the_system_lacks_for_a_moment_is_a_refusal_unless_something_may_be_lost() {
        const EIO: i32 = 5;
        const ENOMEM: i32 = 12;
        const EROFS: i32 = 30;
        let of = |number| io::Error::from_raw_os_error(number);
        for number in [23, 24, ENOMEM] {
            assert_eq!(Error::io("opening", of(number)).kind(), ErrorKind::OutOfResources, "{number}");
            assert_eq!(Error::lost("syncing", of(number)).kind(), ErrorKind::Io);
        }
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge] {
            assert_eq!(Error::io("reserving", kind.into()).kind(), ErrorKind::OutOfSpace, "{kind}");
            assert!(Error::io("reserving", kind.into()).is_refusal());
            assert!(!Error::lost("writing", kind.into()).is_refusal());
        }
        assert!([EIO, EROFS].iter().all(|&number| !Error::io("opening", of(number)).is_refusal()));
    }
}

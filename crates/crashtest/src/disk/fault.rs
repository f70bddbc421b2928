//! Failures that a disk is told to have.

use std::io;

/// How a failed sync leaves the memory of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SyncFailure {
    /// What was written counts as clean: it is read, but no later sync writes it.
    MarkedClean,
    /// What was written is read no more: what is on the disk is.
    Reverted,
    /// As `MarkedClean`, but this sync succeeds; the next one of the file fails.
    ReportedLate,
}

/// What fails, and with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// Any call, with EIO; a sync as [`SyncFailure::MarkedClean`].
    Io,
    /// What takes up room, with ENOSPC.
    NoSpace,
    /// What opens or creates a file, with EMFILE.
    NoDescriptor,
    /// The same with ENFILE.
    NoDescriptorAnywhere,
    /// What neither writes nor syncs, with ENOMEM.
    NoMemory,
    /// Any call, with EINTR.
    Interrupted,
    /// Writes: half of the bytes arrive.
    ShortWrite,
    /// Syncs of files and directories, in one of their ways. The seed picks writes that reached the disk
    /// nevertheless.
    Sync(SyncFailure, Option<u64>),
}

impl FaultKind {
    /// Each kind, syncs in each of their ways.
    pub const ALL: [Self; 11] = [
        Self::Io,
        Self::NoSpace,
        Self::NoDescriptor,
        Self::NoDescriptorAnywhere,
        Self::NoMemory,
        Self::Interrupted,
        Self::ShortWrite,
        Self::Sync(SyncFailure::MarkedClean, None),
        Self::Sync(SyncFailure::MarkedClean, Some(1)),
        Self::Sync(SyncFailure::Reverted, None),
        Self::Sync(SyncFailure::ReportedLate, None),
    ];
}

impl FaultKind {
    /// Whether it says that the system lacks something at present, and nothing of the disk.
    pub fn is_lack(self) -> bool {
        matches!(self, Self::NoDescriptor | Self::NoDescriptorAnywhere | Self::NoMemory)
    }
}

/// A failure to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// What fails.
    pub kind: FaultKind,
    /// Which call of those that can fail so, from 0.
    pub nth: u64,
    /// Whether all later ones fail, too.
    pub lasting: bool,
}

/// What is wrong with a range of a file, until it is written anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sickness {
    /// Reads that meet it fail with EIO.
    Unreadable,
    /// Reads give it with one bit flipped in the middle.
    Flipped,
}

/// A call, by what can go wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// Reads, asks for lengths, maps.
    Read,
    /// Opens what is there, lists.
    Open,
    /// Writes into files.
    Write,
    /// Creates files.
    Create,
    /// Renames, allocates, lengthens, creates directories.
    TakeRoom,
    /// Removes, cuts, gives room back.
    GiveBack,
    /// Syncs of files and directories.
    Sync,
}

/// The fault under way and what it did.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    pub(super) fault: Option<Fault>,
    /// Calls that could have failed in the fault's way.
    pub(super) calls: u64,
    /// Calls that did.
    pub(super) struck: u64,
}

impl Faults {
    /// Counts a call; the fault's kind if it fails.
    pub(super) fn meet(&mut self, call: Call) -> Option<FaultKind> {
        let fault = self.fault?;
        let is_subject = match fault.kind {
            FaultKind::Io | FaultKind::Interrupted => true,
            FaultKind::NoSpace => matches!(call, Call::Write | Call::Create | Call::TakeRoom),
            FaultKind::NoDescriptor | FaultKind::NoDescriptorAnywhere => {
                matches!(call, Call::Open | Call::Create)
            }
            FaultKind::NoMemory => !matches!(call, Call::Write | Call::Sync),
            FaultKind::ShortWrite => call == Call::Write,
            FaultKind::Sync(..) => call == Call::Sync,
        };
        if !is_subject {
            return None;
        }
        let number = self.calls;
        self.calls += 1;
        if number == fault.nth || fault.lasting && number > fault.nth {
            self.struck += 1;
            return Some(fault.kind);
        }
        None
    }
}

impl FaultKind {
    /// What the caller is told.
    pub(super) fn error(self) -> io::Error {
        const EINTR: i32 = 4;
        const ENOMEM: i32 = 12;
        const ENFILE: i32 = 23;
        const EMFILE: i32 = 24;
        const EIO: i32 = 5;
        const ENOSPC: i32 = 28;
        match self {
            Self::Io | Self::Sync(..) => io::Error::from_raw_os_error(EIO),
            Self::NoSpace => io::Error::from_raw_os_error(ENOSPC),
            Self::NoDescriptor => io::Error::from_raw_os_error(EMFILE),
            Self::NoDescriptorAnywhere => io::Error::from_raw_os_error(ENFILE),
            Self::NoMemory => io::Error::from_raw_os_error(ENOMEM),
            Self::Interrupted => io::Error::from_raw_os_error(EINTR),
            Self::ShortWrite => io::ErrorKind::WriteZero.into(),
        }
    }
}

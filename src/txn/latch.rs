//! The latch that the first failure on the write path closes for good.

use std::sync::OnceLock;

use crate::error::{Error, ErrorKind, Result};

/// Open until the first failure; from then on every check gives that failure.
#[derive(Default)]
pub(crate) struct Latch {
    first: OnceLock<Error>,
}

impl Latch {
    /// Fails with the first cause once there is one.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        match self.first.get() {
            None => Ok(()),
            Some(first) => Err(first.clone()),
        }
    }

    /// Closes the latch, unless it is closed already; gives `error` back for the caller who met it.
    ///
    /// A disk that was met full halfway is no refusal that changed nothing: the caller is told what everyone
    /// after him is.
    pub(crate) fn close(&self, error: Error) -> Error {
        if self.first.set(error.as_first_cause()).is_ok() {
            tracing::error!(%error, "the database takes no more writes");
        }
        if error.kind() == ErrorKind::OutOfSpace { error.as_first_cause() } else { error }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn a_full_disk_that_ends_all_writing_is_not_told_as_a_refusal() {
        let latch = Latch::default();
        let full = Error::io("writing the superblock", io::ErrorKind::StorageFull.into());
        assert_eq!(full.kind(), ErrorKind::OutOfSpace);
        assert_eq!(latch.close(full).kind(), ErrorKind::WriteFailed);
        assert_eq!(latch.check().unwrap_err().kind(), ErrorKind::WriteFailed);
    }
}

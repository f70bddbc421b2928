//! The latch that the first failure on the write path closes for good.

use std::sync::OnceLock;

use crate::error::{Error, Result};

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
    pub(crate) fn close(&self, error: Error) -> Error {
        if self.first.set(error.as_first_cause()).is_ok() {
            tracing::error!(%error, "the database takes no more writes");
        }
        error
    }
}

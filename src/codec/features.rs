//! What a reader or a writer of files must know: the version of the format, and masks of features beyond it.
//!
//! A version says how the bytes are laid out. A feature says that some of them, of one family or one page
//! perhaps, mean something that the version alone does not say. What a page needs its family's record says as
//! well, and what any family or log segment needs the superblock says; so an engine that does not know a
//! feature learns it when it opens the database, and not from a page.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};

/// The version of the format that this engine writes, and the newest that it reads.
pub(crate) const FORMAT_VERSION: u32 = 2;

/// Whoever writes must keep what prepared transactions hold from being changed; in the superblock, and in the
/// record of the family in which they are kept.
pub(crate) const PREPARED: u64 = 1;

/// Whoever makes the catalog longer must bring the sum of its bytes up to date; in the superblock, where that
/// says the sum.
pub(crate) const CATALOG_SUM: u64 = 2;

/// Of a family with a merge operator, whose name its record says: operands stand in its leaves and in the log
/// in place of values. In the superblock as well.
pub(crate) const OPERANDS: u64 = 1;

/// Of a family whose entries may expire: such values stand in its leaves and in the log beside others. In the
/// superblock as well.
pub(crate) const EXPIRY: u64 = 2;

/// Of a family with an order of keys of its own, whose name its record says: what stands for keys, in its
/// leaves and in the log, are the stored keys that sort so. In the superblock as well.
pub(crate) const KEY_ORDER: u64 = 4;

/// Features that this engine knows of those without which nothing may be read.
const READ: u64 = OPERANDS | EXPIRY | KEY_ORDER;

/// Features that this engine knows of those without which nothing may be written.
const WRITE: u64 = PREPARED | CATALOG_SUM;

/// Features that are used in what this stands in, one bit each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Features {
    /// Those without which nothing may be read.
    pub(crate) read: u64,
    /// Those without which it can be read, and nothing may be written.
    pub(crate) write: u64,
}

/// The error for what only a newer engine understands. `needs` says what that is, and which version or
/// features it needs. Only for bytes that are what was written, as a checksum over them says: anything else
/// is damage.
#[cold]
pub(crate) fn newer(needs: impl fmt::Display) -> Error {
    let message =
        format!("{needs}; this engine knows format versions up to {FORMAT_VERSION}: use a newer one");
    Error::new(ErrorKind::NewerFormat, message)
}

/// The error for `what`, of which something is not as this version has it.
#[cold]
pub(crate) fn unknown(what: impl fmt::Display) -> Error {
    newer(format_args!("{what}, which needs a newer format version"))
}

/// The error for `what`, which needs features in `mask` to be `used`.
fn unknown_features(what: &str, used: &str, mask: u64) -> Error {
    newer(format_args!("{what} needs features {mask:#x} to be {used}, which are not known here"))
}

impl Features {
    /// Those of the family in which prepared transactions are kept.
    pub(crate) const OF_PREPARED: Self = Self { read: 0, write: PREPARED };

    /// Those of a family with a merge operator.
    pub(crate) const OF_OPERANDS: Self = Self { read: OPERANDS, write: 0 };

    /// Those of a family whose entries may expire.
    pub(crate) const OF_EXPIRY: Self = Self { read: EXPIRY, write: 0 };

    /// Those of a family with an order of keys of its own.
    pub(crate) const OF_KEY_ORDER: Self = Self { read: KEY_ORDER, write: 0 };

    /// These and those of `other`.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { read: self.read | other.read, write: self.write | other.write }
    }

    /// Refuses `what` if it cannot be read.
    pub(crate) fn check_reading(&self, what: &str) -> Result<()> {
        match self.read & !READ {
            0 => Ok(()),
            mask => Err(unknown_features(what, "read", mask)),
        }
    }

    /// Refuses `what` if it cannot be written to.
    pub(crate) fn check_writing(&self, what: &str) -> Result<()> {
        self.check_reading(what)?;
        match self.write & !WRITE {
            0 => Ok(()),
            mask => Err(unknown_features(what, "written to", mask)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_feature_is_named() {
        assert!(Features::default().check_writing("it").is_ok());
        assert!(Features { read: 0, write: PREPARED }.check_writing("it").is_ok());
        let features = Features { read: 0, write: 7 };
        assert!(features.check_reading("it").is_ok());
        let error = features.check_writing("it").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NewerFormat);
        assert!(error.to_string().starts_with("it needs features 0x4 to be written to"), "{error}");
        assert!(Features { read: OPERANDS, write: 0 }.check_reading("it").is_ok());
        let error = Features { read: 15, write: 6 }.check_writing("it").unwrap_err();
        assert!(error.to_string().starts_with("it needs features 0x8 to be read"), "{error}");
    }
}

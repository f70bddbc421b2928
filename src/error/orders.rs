//! What goes wrong with orders of keys.

use super::conflict::Brief;
use super::{Error, ErrorKind};

impl Error {
    /// The order of this name has no place for `key`, for a reason.
    pub(crate) fn key_order_failed(order: &str, key: &[u8], reason: &str) -> Self {
        let message = format!("the key order {order:?} has no place for the key {}: {reason}", Brief(key));
        Self::new(ErrorKind::KeyOrderFailed, message).on_key(key)
    }

    /// `key` is too long as the order of this name stores it.
    pub(crate) fn key_too_large_for(order: &str, key: &[u8]) -> Self {
        let message = format!(
            "the key {}, of {} bytes, is too long as the key order {order:?} stores it",
            Brief(key),
            key.len()
        );
        Self::new(ErrorKind::KeyTooLarge, message)
    }

    /// The family's order, of this name, was not given.
    pub(crate) fn key_order_missing(order: &str) -> Self {
        let message = format!(
            "the keys of the column family are in the order {order:?}, without which it was opened; \
             give it with the family's options or to the builder"
        );
        Self::new(ErrorKind::KeyOrderMissing, message)
    }

    /// The family has the order of one name (`None`: that of bytes), and one of another was given.
    pub(crate) fn key_order_differs(own: Option<&str>, given: Option<&str>) -> Self {
        let shown = |name: Option<&str>| {
            name.map_or_else(|| "the order of their bytes".to_owned(), |name| format!("the order {name:?}"))
        };
        let message =
            format!("the keys of the column family are in {}, and not in {}", shown(own), shown(given));
        Self::new(ErrorKind::KeyOrderDiffers, message)
    }

    /// Keys that begin alike are no neighbours in the order of this name.
    pub(crate) fn no_prefixes(order: &str) -> Self {
        let message = format!("keys with a common prefix do not stand together in the key order {order:?}");
        Self::new(ErrorKind::NoPrefixes, message)
    }

    /// No order of a program has this name.
    pub(crate) fn key_order_name(name: &str) -> Self {
        let message = format!(
            "the name of a key order has 1 to 255 bytes, and does not begin with \"peristyle.\"; {name:?} does not do"
        );
        Self::new(ErrorKind::InvalidArgument, message)
    }
}

//! What goes wrong with what families may have besides: merge operators, filters, entries that expire.

use super::conflict::Brief;
use super::{Error, ErrorKind};

impl Error {
    /// The operator of this name failed on `key` for a reason.
    pub(crate) fn merge_failed(operator: &str, key: &[u8], reason: &str) -> Self {
        let message = format!("the merge operator {operator:?} failed on the key {}: {reason}", Brief(key));
        Self::new(ErrorKind::MergeFailed, message).on_key(key)
    }

    /// The filter of this name failed on `key` for a reason.
    pub(crate) fn filter_failed(filter: &str, key: &[u8], reason: &str) -> Self {
        let message = format!("the filter {filter:?} failed on the key {}: {reason}", Brief(key));
        Self::new(ErrorKind::FilterFailed, message).on_key(key)
    }

    /// `key` has operands, and the operator, of this name if it is known, is not there.
    pub(crate) fn merge_operator_missing(operator: Option<&str>, key: &[u8]) -> Self {
        let key_shown = Brief(key);
        let message = match operator {
            Some(name) => format!(
                "the key {key_shown} has operands for the merge operator {name:?}, without which the column family was opened"
            ),
            None => format!("the key {key_shown} has operands, and the column family no merge operator"),
        };
        Self::new(ErrorKind::MergeOperatorMissing, message).on_key(key)
    }

    /// An operand was to be written to a family without an operator at hand; `operator` is the name of the
    /// one that it has.
    pub(crate) fn no_merge_operator(operator: Option<&str>) -> Self {
        let message = match operator {
            Some(name) => format!(
                "operands are for the merge operator {name:?}, without which the column family was opened"
            ),
            None => "the column family has no merge operator".to_owned(),
        };
        Self::new(ErrorKind::MergeOperatorMissing, message)
    }

    /// The family has the operator of one name, and one of another was given.
    pub(crate) fn merge_operator_differs(own: &str, given: &str) -> Self {
        let message = format!("the column family has the merge operator {own:?}, and not {given:?}");
        Self::new(ErrorKind::MergeOperatorDiffers, message)
    }

    /// An entry was to get a lifetime in a family whose entries do not expire.
    pub(crate) fn never_expires() -> Self {
        let message = "entries of the column family do not expire: its options say nothing of it";
        Self::new(ErrorKind::NeverExpires, message)
    }

    pub(super) fn on_key(mut self, key: &[u8]) -> Self {
        self.0.key = Some(key.to_vec());
        self
    }
}

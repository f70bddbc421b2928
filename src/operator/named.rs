//! What a family keeps of its merge operator, and how it is called.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{MergeOperands, MergeOperator};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Arc;

/// The longest name, in bytes.
pub(crate) const MOST_NAME: usize = 255;

/// The name of an operator, and the operator if the program gave it.
#[derive(Clone)]
pub(crate) struct NamedOperator {
    name: Arc<str>,
    code: Code,
}

/// The operator, if the program gave it. What it does when it goes is its own as well.
#[derive(Clone)]
struct Code(Option<std::sync::Arc<dyn MergeOperator>>);

impl Drop for Code {
    fn drop(&mut self) {
        if let Some(code) = self.0.take() {
            // Whoever lets go of it last has nothing to do with it.
            let _panic = guarded(|| drop(code));
        }
    }
}

impl NamedOperator {
    /// Asks it for its name.
    pub(crate) fn new(operator: impl MergeOperator) -> Self {
        Self { name: operator.name().into(), code: Code(Some(std::sync::Arc::new(operator))) }
    }

    /// One of which nothing but the name is known.
    pub(crate) fn absent(name: &str) -> Self {
        Self { name: name.into(), code: Code(None) }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it can be called.
    pub(crate) fn is_present(&self) -> bool {
        self.code.0.is_some()
    }

    pub(crate) fn check(&self) -> Result<()> {
        if (1..=MOST_NAME).contains(&self.name.len()) {
            return Ok(());
        }
        let message =
            format!("the name of a merge operator has 1 to {MOST_NAME} bytes, not {}", self.name.len());
        Err(Error::new(ErrorKind::InvalidArgument, message))
    }

    /// The value that follows from `existing` and `operands`, the oldest first. The error names the key.
    pub(crate) fn merge(&self, key: &[u8], existing: Option<&[u8]>, operands: &[&[u8]]) -> Result<Vec<u8>> {
        let Some(code) = &self.code.0 else {
            return Err(Error::merge_operator_missing(Some(&self.name), key));
        };
        let failed = |reason: &str| Error::merge_failed(&self.name, key, reason);
        let folded = guarded(|| {
            let folded = code.merge(key, existing, MergeOperands::new(operands));
            folded.map_err(|error| error.to_string())
        });
        match folded {
            Ok(Ok(value)) if u32::try_from(value.len()).is_ok() => Ok(value),
            Ok(Ok(value)) => {
                Err(failed(&format!("it gave a value of {} bytes, which is too long", value.len())))
            }
            Ok(Err(reason)) => Err(failed(&reason)),
            Err(panic) => Err(failed(&format!("it panicked: {panic}"))),
        }
    }

    /// One operand that does what `operands` do, the oldest first; `None` if they are to stay as they are.
    pub(crate) fn combine(&self, key: &[u8], operands: &[&[u8]]) -> Option<Vec<u8>> {
        let code = self.code.0.as_ref()?;
        guarded(|| code.combine(key, MergeOperands::new(operands))).ok().flatten()
    }
}

/// Two are the same if they have one name.
impl PartialEq for NamedOperator {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for NamedOperator {}

impl fmt::Debug for NamedOperator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

/// Calls what is the program's; what it panicked with, if it did, as text.
pub(crate) fn guarded<R>(call: impl FnOnce() -> R) -> std::result::Result<R, String> {
    // What the call leaves half done is its own: nothing of the engine's is lent to it to change.
    catch_unwind(AssertUnwindSafe(call)).map_err(|payload| {
        let text = text_of(&*payload);
        // To drop what a guest panicked with may panic as well.
        if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(another);
        }
        text
    })
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "with no message".to_owned())
}

//! What a check found to be wrong.

use std::fmt;

/// In which way a promise was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Something acknowledged as durable is gone, or the database does not open.
    Lost,
    /// What is there is no prefix of what was done, or a batch is there in part.
    Torn,
    /// Something that was deleted is there again, or something that was not yet written, or a number is used
    /// twice.
    Resurrected,
    /// `verify` found a fault.
    Unsound,
    /// Something wrong was read, or acknowledged after a failure.
    Wrong,
    /// The engine panicked.
    Panicked,
    /// The engine waits for ever.
    Hung,
}

/// A broken promise.
#[derive(Debug, Clone)]
pub struct Violation {
    /// In which way.
    pub kind: Kind,
    /// What was seen.
    pub message: String,
}

impl Violation {
    /// A violation of `kind`.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// With the circumstances in front.
    #[must_use]
    pub fn within(mut self, circumstances: impl fmt::Display) -> Self {
        self.message = format!("{circumstances}: {}", self.message);
        self
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.message)
    }
}

/// What a check gives.
pub type Checked<T> = Result<T, Violation>;

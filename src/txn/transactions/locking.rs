//! The locks of a transaction.

use std::time::Duration;

use crate::error::{Error, ErrorKind, LockOwner, Result};
use crate::txn::locks::owner::Owner;
use crate::txn::locks::want::{Mode, Want};
use crate::txn::pipeline::{Pipeline, Write};
use crate::txn::transactions::level::Settings;

/// What a transaction has locked.
pub(super) struct Locking {
    number: u64,
    /// As soon as it locks anything.
    owner: Option<Owner>,
    is_turned_away: bool,
}

impl Locking {
    /// Nothing, of a new transaction.
    pub(super) fn new(pipeline: &Pipeline) -> Self {
        Self { number: pipeline.locks.new_number(), owner: None, is_turned_away: false }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn mark(&self) -> usize {
        self.owner.as_ref().map_or(0, Owner::mark)
    }

    /// Gives up what was locked since `mark`.
    pub(super) fn release(&mut self, mark: usize) {
        if let Some(owner) = &mut self.owner {
            owner.release(mark);
        }
    }

    /// Locks all of `wants`. Whether not all were locked before.
    pub(super) fn acquire(&mut self, pipeline: &Pipeline, wants: Vec<Want>, limit: Duration) -> Result<bool> {
        pipeline.writable()?;
        let who = LockOwner::Transaction(self.number);
        let owner = self.owner.get_or_insert_with(|| Owner::new(&pipeline.locks, who));
        let acquired = owner.acquire(wants, limit).map_err(|refusal| pipeline.refused(refusal));
        self.is_turned_away = acquired.as_ref().is_err_and(is_passing);
        acquired
    }

    /// All that is locked.
    pub(super) fn locked(&self) -> Vec<Want> {
        self.owner.as_ref().map_or_else(Vec::new, Owner::locks)
    }

    /// Takes back what was locked since `mark`, which `error` stood against.
    pub(super) fn turn_away(&mut self, mark: usize, error: Error) -> Error {
        self.release(mark);
        self.is_turned_away = is_passing(&error);
        error
    }

    /// Whether the last lock that was asked for was refused in a way that a new beginning may mend.
    pub(super) fn is_turned_away(&self) -> bool {
        self.is_turned_away
    }

    /// Whoever has locked anything locks all that he is about to write. Whether all of it is locked now.
    pub(super) fn complete(
        &mut self,
        pipeline: &Pipeline,
        settings: &Settings,
        write: &Write<'_>,
    ) -> Result<bool> {
        if !self.owner.as_ref().is_some_and(Owner::holds) {
            return Ok(false);
        }
        if !settings.pessimistic {
            self.acquire(pipeline, write.wants(Mode::Exclusive), settings.lock_timeout)?;
        }
        Ok(true)
    }
}

/// Whether a transaction that begins anew need not meet the error again.
pub(super) fn is_passing(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Deadlock | ErrorKind::TransactionTooOld)
}

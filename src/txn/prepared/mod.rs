//! Transactions that are prepared: what they wrote is durable and not committed, whatever happens until
//! somebody decides.
//!
//! They are kept in a family of the database's own, by their names, so that log, checkpoints, recovery and
//! `verify` need to know nothing of them, and none of them keeps log.
//!
//! ```text
//! prepare(name):  lock the write locks of that family and of all that were read or written, ascending
//!                 check as a commit does; is the name free, and does nobody hold what this one uses?
//!                 hold what was read and written; append `put name -> reads, writes`; unlock; sync
//! commit:         one batch, `delete name` and all of the writes; sync; let go of what is held
//! rollback:       `delete name`; sync; let go of what is held
//! open:           hold what each that is there has read and written
//! ```
//!
//! Invariants:
//! 1. From the check at its preparation to the number of its decision, also across openings, nobody else
//!    writes to what an undecided transaction has read or written. So the check still holds when it is
//!    committed, and its place in the order of commits is that of its decision.
//! 2. A decision and what it does are one commit: after a crash the transaction is undecided or decided, in
//!    all of its families.
//! 3. Names are unique among the undecided. A name is taken before its transaction is durable, and given
//!    back after its decision is.
//! 4. Nobody who waits for a decision holds anything that a decision needs.
//!
//! Rejected: records of the log of a kind of their own. They have to be carried along whenever the log gets
//! shorter, and what is carried must never outlive its decision.
//!
//! Start reading at [`steps`], then [`stored`], [`table`] and [`waiting`].

pub(super) mod steps;
pub(super) mod stored;
pub(crate) mod table;
pub(super) mod waiting;

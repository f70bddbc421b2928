//! Transactions: when a commit is refused and when not, and histories of many at once, judged by a checker
//! that knows the one order of commits.

#[path = "../common/mod.rs"]
mod common;
mod histories;
mod history;
mod limits;
mod locks;
mod player;
mod refusals;

//! What the engines do, one file for each benchmark. Each is a [`Task`](crate::child::Task) that a child
//! process carries out, but [`tpcc`], which is done to what has transactions.

pub mod bounds;
pub mod commit_block;
pub mod large;
pub mod load;
pub mod mixed;
pub mod recovery;
pub mod signature;
pub mod table;
pub mod tpcc;
pub mod write_phase;

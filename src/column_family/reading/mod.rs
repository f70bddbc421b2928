//! How a family is read: points, ranges and the values that are found.
//!
//! Start reading at [`read`] for points, then [`cursor`], which finds where to stand in `settle` and shows
//! entries to closures in `scan`.

pub(crate) mod approximate;
pub(crate) mod cursor;
mod hidden;
pub(crate) mod key;
mod leap;
pub(crate) mod read;
mod recent;
mod scan;
mod settle;
mod short;
pub(crate) mod value;

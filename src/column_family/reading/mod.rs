//! How a family is read: points, ranges and the values that are found.
//!
//! Start reading at [`read`] for points, then [`cursor`].

pub(crate) mod cursor;
mod hidden;
pub(crate) mod key;
mod leap;
pub(crate) mod read;
mod recent;
mod short;
pub(crate) mod value;

//! The pool of descriptors onto the data file.

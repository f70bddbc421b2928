//! A database in a directory of the operating system.

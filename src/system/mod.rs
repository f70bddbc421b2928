//! What the engine asks of the operating system beside files: its unit of memory, memory that is given back
//! piece by piece, and which process this is. Calls of the system for memory stand here and in
//! `storage/mapping.rs`.
//!
//! Invariants:
//! 1. What is given back, held or let go is a whole number of the system's pages ([`page_size`]), rounded
//!    inwards: the system rounds lengths up, and what lies beyond belongs to others.
//! 2. Nothing that a process opened does anything in a child that was forked from it ([`Process`]).

mod memory;
mod pages;
mod process;

#[cfg(debug_assertions)]
pub use memory::refuse_memory;
pub(crate) use memory::{IS_LAZY, Mapping};
#[cfg_attr(
    not(target_os = "linux"),
    allow(unused_imports, reason = "nothing is given back in pages there")
)]
pub(crate) use pages::{page_size, whole_pages};
pub(crate) use process::{Inherited, Process};

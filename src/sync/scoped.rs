//! Threads that end before the scope does in which they were started.

use std::io;

#[cfg(not(shuttle))]
use std::thread::{Builder, Scope, ScopedJoinHandle};

#[cfg(shuttle)]
use shuttle::thread::{Scope, ScopedJoinHandle};

/// Starts a thread in `scope`.
///
/// # Errors
/// The system's, if it has no thread to give.
#[cfg(not(shuttle))]
pub(crate) fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    run: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    Builder::new().name(name.into()).spawn_scoped(scope, run)
}

#[cfg(shuttle)]
pub(crate) fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    _name: &str,
    run: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    Ok(scope.spawn(run))
}

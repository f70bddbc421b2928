//! Which process this is.
//!
//! A child that was forked has all memory of its parent and its open files, but none of its threads: what it
//! did to a database that the parent opened would be done to the parent's files, and a lock that one of the
//! parent's threads held is never given back. So whatever belongs to an open database knows its [`Process`];
//! in another one every call is refused, and dropping does nothing.
//!
//! One word tells processes apart: it is zero in a child, since the system wipes its page at a fork, or,
//! where the system cannot do that, since the C library calls a handler. Then the first who asks gives the
//! process the next number. Asking is a load and a comparison.

use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::sync::OnceLock;
// Not from `crate::sync`: nothing is ordered by it, and every checker's threads are of one process.
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, ErrorKind, Result};

/// A process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process {
    word: &'static AtomicU64,
    number: u64,
}

/// The number given last.
static LAST: AtomicU64 = AtomicU64::new(0);

impl Process {
    /// The process that this code runs in.
    pub(crate) fn this() -> Self {
        static WORD: OnceLock<&'static AtomicU64> = OnceLock::new();
        let word = *WORD.get_or_init(word::make);
        let mut number = word.load(Ordering::Relaxed);
        if number == 0 {
            let next = LAST.fetch_add(1, Ordering::Relaxed) + 1;
            let set = word.compare_exchange(0, next, Ordering::Relaxed, Ordering::Relaxed);
            number = set.err().unwrap_or(next);
        }
        Self { word, number }
    }

    /// Whether this code runs in it.
    #[inline]
    pub(crate) fn is_this(self) -> bool {
        self.word.load(Ordering::Relaxed) == self.number
    }

    /// Fails in a child that was forked from it.
    #[inline]
    pub(crate) fn check(self) -> Result<()> {
        if self.is_this() { Ok(()) } else { Err(refusal()) }
    }
}

#[cold]
fn refusal() -> Error {
    Error::new(
        ErrorKind::ForkedChild,
        "the database was opened by a process of which this one was forked; \
         only that one can use it, and a child opens it anew once it is closed there",
    )
}

/// What a child that was forked inherits and must not touch: in the process that made it, it is as the value
/// itself.
#[derive(Debug)]
pub(crate) struct Inherited<T> {
    value: ManuallyDrop<T>,
    process: Process,
}

impl<T> Inherited<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: ManuallyDrop::new(value), process: Process::this() }
    }

    /// Fails in a child that was forked since.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        self.process.check()
    }

    /// A value that was made of this one, and belongs to the same process.
    pub(crate) fn pass_on<U>(&self, value: U) -> Inherited<U> {
        Inherited { value: ManuallyDrop::new(value), process: self.process }
    }
}

impl<T: Clone> Clone for Inherited<T> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), process: self.process }
    }
}

impl<T> Deref for Inherited<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Inherited<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> Drop for Inherited<T> {
    fn drop(&mut self) {
        if self.process.is_this() {
            // SAFETY: the value is dropped here alone, and not used any more.
            unsafe { ManuallyDrop::drop(&mut self.value) };
        }
    }
}

mod word {
    use std::sync::atomic::AtomicU64;

    /// Where the page of the real one cannot be wiped.
    static PLAIN: AtomicU64 = AtomicU64::new(0);

    /// A word that is zero in every child that is forked from now on. To be called once.
    pub(super) fn make() -> &'static AtomicU64 {
        wiped().unwrap_or_else(|| {
            at_fork();
            &PLAIN
        })
    }

    /// A word in a page that the system wipes in children; a child of `vfork` shares it as it is.
    #[cfg(all(target_os = "linux", not(miri), not(loom)))]
    fn wiped() -> Option<&'static AtomicU64> {
        use rustix::mm::{Advice, madvise};

        let page = crate::system::memory::Mapping::new(size_of::<AtomicU64>(), align_of::<AtomicU64>())?;
        // SAFETY: the page is ours, and this advice changes nothing of what it holds here.
        unsafe { madvise(page.start().as_ptr().cast(), page.len(), Advice::LinuxWipeOnFork) }.ok()?;
        let page = std::mem::ManuallyDrop::new(page);
        // SAFETY: the mapping is zeros, aligned, and stays for ever, since it is never dropped.
        Some(unsafe { page.start().cast::<AtomicU64>().as_ref() })
    }

    #[cfg(not(all(target_os = "linux", not(miri), not(loom))))]
    fn wiped() -> Option<&'static AtomicU64> {
        None
    }

    #[cfg(all(unix, not(miri)))]
    fn at_fork() {
        extern "C" fn in_child() {
            PLAIN.store(0, std::sync::atomic::Ordering::Relaxed);
        }
        // SAFETY: the handler only stores a word, which may be done in a child at any time.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    }

    #[cfg(not(all(unix, not(miri))))]
    fn at_fork() {}
}

#[cfg(all(test, unix, not(loom), not(miri)))]
mod tests {
    use super::*;

    /// What `child` says in a process of its own that was forked; it must not allocate, lock or panic.
    fn in_fork(child: impl FnOnce() -> bool) -> bool {
        // SAFETY: the child does nothing but what `child` does, and ends.
        unsafe {
            match libc::fork() {
                0 => libc::_exit(i32::from(child())),
                pid => {
                    let mut status = 0;
                    assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
                    assert!(libc::WIFEXITED(status), "status {status}");
                    libc::WEXITSTATUS(status) == 1
                }
            }
        }
    }

    struct Told<'a>(&'a AtomicU64);

    impl Drop for Told<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_child_is_another_process_and_so_is_its_child() {
        let parent = Process::this();
        assert!(in_fork(|| {
            let child = Process::this();
            let differs = !parent.is_this() && child.is_this();
            differs && in_fork(|| !parent.is_this() && !child.is_this() && Process::this().is_this())
        }));
        assert!(parent.is_this() && Process::this().number == parent.number);
    }

    #[test]
    fn what_is_inherited_is_dropped_by_its_own_process_alone() {
        let told = AtomicU64::new(0);
        let inherited = Inherited::new(Told(&told));
        assert!(in_fork(|| {
            let is_refused = !inherited.process.is_this();
            drop(Inherited { value: ManuallyDrop::new(Told(&told)), process: inherited.process });
            is_refused && told.load(Ordering::Relaxed) == 0
        }));
        drop(inherited);
        assert_eq!(told.load(Ordering::Relaxed), 1);
    }
}

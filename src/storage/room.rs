//! Room for a file on the disk: reserved, and given back. `Unsupported` where the file system knows nothing
//! of it.

pub(super) use system::{allocate, deallocate};

#[cfg(any(target_os = "linux", target_os = "android"))]
mod system {
    use std::fs::File;
    use std::io;

    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::{Errno, retry_on_intr};

    pub(in super::super) fn allocate(file: &File, offset: u64, len: u64) -> io::Result<()> {
        call(file, FallocateFlags::empty(), offset, len)
    }

    pub(in super::super) fn deallocate(file: &File, offset: u64, len: u64) -> io::Result<()> {
        call(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len)
    }

    fn call(file: &File, flags: FallocateFlags, offset: u64, len: u64) -> io::Result<()> {
        match retry_on_intr(|| fallocate(file, flags, offset, len)) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Err(io::ErrorKind::Unsupported.into()),
            outcome => Ok(outcome?),
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod system {
    use std::fs::File;
    use std::io;

    pub(in super::super) fn allocate(_file: &File, _offset: u64, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(in super::super) fn deallocate(_file: &File, _offset: u64, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

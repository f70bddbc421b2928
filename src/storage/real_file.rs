//! A file of the operating system: reading and writing at a place, room, mappings.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::Path;

use super::backend::{SharedMapping, StorageFile, Taken};
use super::mapping::FileMapping;
use super::positioned;
use super::room;
use super::taking::within_the_system;

/// Opens what must be a regular file. Does not wait for the other end of a pipe, and gives it up again.
#[cfg_attr(not(unix), allow(unused_mut, reason = "there are no flags to set"))]
pub(super) fn open_file(mut options: OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    }
    let file = options.open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(ErrorKind::InvalidInput, "it is a directory, a pipe or a device, and no file"))
}

/// A file of the operating system.
#[derive(Debug)]
pub(super) struct RealFile {
    file: File,
}

impl RealFile {
    pub(super) fn new(file: File) -> Self {
        Self { file }
    }
}

impl StorageFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        positioned::read(&self.file, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        positioned::write(&self.file, bytes, offset)
    }

    fn write_parts_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        positioned::write_parts(&self.file, parts, offset)
    }

    #[cfg(target_os = "linux")]
    fn begin_writing(&self, offset: u64, len: u64) {
        use std::os::fd::AsRawFd;
        // Offsets that the system cannot take leave everything to the sync, as do failures: it meets them,
        // too.
        let (Ok(offset), Ok(len)) = (offset.try_into(), len.try_into()) else { return };
        // SAFETY: the call takes a descriptor, which is open, and numbers.
        unsafe { libc::sync_file_range(self.file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
    }

    #[cfg(target_os = "linux")]
    fn begin_reading(&self, offset: u64, len: u64) {
        // The system may cut off what is longer than a device reads ahead.
        const MOST: u64 = 128 << 10;

        let end = offset.saturating_add(len);
        for start in (offset..end).step_by(MOST as usize) {
            let part = MOST.min(end - start).try_into().ok();
            // What cannot be read is met by who reads it.
            let _ = rustix::fs::fadvise(&self.file, start, part, rustix::fs::Advice::WillNeed);
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if len > self.len()? {
            may_be_so_long(len)?;
        }
        self.file.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let end = end_of(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        let old_len = self.len()?;
        if end > old_len {
            may_be_so_long(end)?;
        }
        match room::allocate(&self.file, offset, len) {
            Err(error) if error.kind() == ErrorKind::Unsupported => self.fill(old_len.max(offset), end),
            Err(error) => {
                // What was reserved before the disk was full would stay reserved, for nobody.
                let fresh = old_len.max(offset);
                if fresh < end {
                    let _ = room::deallocate(&self.file, fresh, end - fresh);
                }
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    fn deallocate(&self, offset: u64, len: u64) -> io::Result<()> {
        end_of(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        match room::deallocate(&self.file, offset, len) {
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(()),
            outcome => outcome,
        }
    }

    fn as_file(&self) -> Option<&File> {
        Some(&self.file)
    }

    fn take_from(&self, source: &dyn StorageFile, from: u64, offset: u64, len: u64) -> io::Result<Taken> {
        let end = end_of(offset, len)?;
        if end > self.len()? {
            may_be_so_long(end)?;
        }
        let Some(file) = source.as_file() else {
            return self.copy_from(source, from, offset, len).map(|()| Taken::Copied);
        };
        let (done, taken) = within_the_system(&self.file, file, from, offset, len)?;
        self.copy_from(source, from + done, offset + done, len - done)?;
        Ok(if done == 0 && len > 0 { Taken::Copied } else { taken })
    }

    fn map(&self, len: u64) -> io::Result<Option<Box<dyn SharedMapping>>> {
        if !overwrites_in_place(&self.file)? {
            return Ok(None);
        }
        Ok(Some(Box::new(FileMapping::new(&self.file, len)?)))
    }
}

/// Whether the file system is one that writes bytes where they stand or where room is reserved for them.
/// Where a write may need new room, a store into a mapping on a full disk would kill the process instead of
/// failing.
#[cfg(target_os = "linux")]
fn overwrites_in_place(file: &File) -> io::Result<bool> {
    const EXT: i128 = 0xef53;
    const TMPFS: i128 = 0x0102_1994;
    Ok([EXT, TMPFS].contains(&i128::from(rustix::fs::fstatfs(file)?.f_type)))
}

#[cfg(not(target_os = "linux"))]
fn overwrites_in_place(_file: &File) -> io::Result<bool> {
    Ok(false)
}

impl RealFile {
    /// Writes zeros from `start` to `end`: the allocation of file systems that know no other. Only bytes
    /// beyond the old end are written, since what stands before it may be data.
    fn fill(&self, start: u64, end: u64) -> io::Result<()> {
        const ZEROS: &[u8] = &[0; 64 << 10];
        let mut offset = start;
        while offset < end {
            let len = (end - offset).min(ZEROS.len() as u64);
            self.write_at(&ZEROS[..len as usize], offset)?;
            offset += len;
        }
        Ok(())
    }
}

/// Refuses what is longer than the process may make a file. Whoever tried it would be sent a signal that ends
/// the process, unless it is handled or ignored.
#[cfg(unix)]
fn may_be_so_long(len: u64) -> io::Result<()> {
    let most = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
    if most.is_some_and(|most| len > most) { Err(ErrorKind::FileTooLarge.into()) } else { Ok(()) }
}

#[cfg(not(unix))]
fn may_be_so_long(_len: u64) -> io::Result<()> {
    Ok(())
}

fn end_of(offset: u64, len: u64) -> io::Result<u64> {
    offset.checked_add(len).ok_or_else(|| ErrorKind::FileTooLarge.into())
}

#[cfg(all(test, not(loom), not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn filling_leaves_what_stands_before_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
        let file = RealFile::new(file);
        file.write_at(b"data", 0).unwrap();
        file.fill(4, 200_000).unwrap();
        assert_eq!(file.len().unwrap(), 200_000);
        let mut bytes = vec![1; 200_000];
        file.read_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes[..4], b"data");
        assert!(bytes[4..].iter().all(|&byte| byte == 0));
    }
}

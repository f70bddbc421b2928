//! Bytes that go from one file of the operating system to another: shared where the file system can, else
//! copied within the system. Where neither can be done, they are read and written.

use std::fs::File;
use std::io;

use super::backend::Taken;

/// What came of the attempt to move `len` bytes without reading them: how many went, and how.
#[cfg(target_os = "linux")]
pub(super) fn within_the_system(
    file: &File,
    source: &File,
    from: u64,
    offset: u64,
    len: u64,
) -> io::Result<(u64, Taken)> {
    if share(file, source, from, offset, len).is_ok() {
        return Ok((len, Taken::Shared));
    }
    let (mut at, mut to, mut done) = (from, offset, 0);
    while done < len {
        let most = usize::try_from(len - done).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(source, Some(&mut at), file, Some(&mut to), most) {
            // The source ends, or the file system cannot: reading finds out which.
            Ok(0) => break,
            Ok(copied) => done += copied as u64,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                let error = io::Error::from(error);
                let is_lack =
                    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
                // Whatever else it is, reading and writing meets it again or does without.
                if is_lack {
                    return Err(error);
                }
                break;
            }
        }
    }
    Ok((done, Taken::InSystem))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn within_the_system(
    _file: &File,
    _source: &File,
    _from: u64,
    _offset: u64,
    _len: u64,
) -> io::Result<(u64, Taken)> {
    Ok((0, Taken::InSystem))
}

/// Has both files share the bytes until one of them is written to. An error where the file system cannot.
#[cfg(target_os = "linux")]
fn share(file: &File, source: &File, from: u64, offset: u64, len: u64) -> io::Result<()> {
    use rustix::ioctl::{Setter, ioctl, opcode};
    use std::os::fd::AsRawFd;

    /// `struct file_clone_range` of `linux/fs.h`.
    #[repr(C)]
    struct CloneRange {
        source: i64,
        from: u64,
        len: u64,
        offset: u64,
    }
    const CLONE_RANGE: rustix::ioctl::Opcode = opcode::write::<CloneRange>(0x94, 13);

    if len == 0 {
        // To the system that is all up to the end.
        return Ok(());
    }
    let range = CloneRange { source: source.as_raw_fd().into(), from, len, offset };
    // SAFETY: the operation takes this struct, as its opcode says, reads it and keeps nothing of it; the
    // descriptor in it is open, since `source` is borrowed.
    unsafe { ioctl(file, Setter::<CLONE_RANGE, CloneRange>::new(range)) }?;
    Ok(())
}

#[cfg(all(test, not(loom), not(miri)))]
mod tests {
    use super::*;
    use crate::storage::{FileMode, FileStorage, MemoryStorage, StorageBackend};

    #[test]
    fn bytes_are_taken_from_any_file_and_only_there() {
        let directory = tempfile::tempdir().unwrap();
        let disk: std::sync::Arc<dyn StorageBackend> =
            std::sync::Arc::new(FileStorage::new(directory.path()));
        let memory: std::sync::Arc<dyn StorageBackend> = std::sync::Arc::new(MemoryStorage::new());
        let content: Vec<u8> = (0..1_000_000u32).map(|n| (n / 7) as u8).collect();
        for (i, (from, to)) in
            [(&disk, &disk), (&disk, &memory), (&memory, &disk), (&memory, &memory)].into_iter().enumerate()
        {
            let source = from.open(&format!("from-{i}"), FileMode::Create).unwrap();
            source.write_at(&content, 0).unwrap();
            let file = to.open(&format!("to-{i}"), FileMode::Create).unwrap();
            file.write_at(&[9; 1_000_000], 0).unwrap();
            for (from, offset, len) in [(4096, 8192, 300_000), (12_345, 400_000, 500_000), (0, 0, 0)] {
                file.take_from(&*source, from, offset, len).unwrap();
                let mut bytes = vec![0; len as usize];
                file.read_at(&mut bytes, offset).unwrap();
                assert!(bytes == content[from as usize..(from + len) as usize], "pair {i}, {len} bytes");
            }
            let mut bytes = vec![0; 1_000_000];
            file.read_at(&mut bytes, 0).unwrap();
            let untouched = bytes[..8192].iter().chain(&bytes[308_192..400_000]).chain(&bytes[900_000..]);
            assert!(untouched.into_iter().all(|&byte| byte == 9), "pair {i}");
            let beyond = file.take_from(&*source, 999_000, 0, 2000).unwrap_err();
            assert_eq!(beyond.kind(), io::ErrorKind::UnexpectedEof, "pair {i}");
        }
    }
}

//! Reading and writing at a place of a file.

#[cfg(not(any(target_os = "linux", target_os = "android")))]
use std::fs::File;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
use std::io;

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) use system::write_parts;
pub(super) use system::{read, write};

#[cfg(unix)]
mod system {
    use std::fs::File;
    use std::io;
    use std::os::unix::fs::FileExt;

    // Both of these go on after an interruption and after a short count.
    pub(in super::super) fn read(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        file.read_exact_at(buffer, offset)
    }

    pub(in super::super) fn write(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(in super::super) fn write_parts(file: &File, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        use std::io::IoSlice;

        /// As many buffers as one call takes (`IOV_MAX`).
        const MOST: usize = 1024;

        let mut offset = offset;
        let mut vector = Vec::with_capacity(parts.len().min(MOST));
        for chunk in parts.chunks(MOST) {
            vector.clear();
            vector.extend(chunk.iter().filter(|part| !part.is_empty()).map(|part| IoSlice::new(part)));
            let mut rest = &mut vector[..];
            while !rest.is_empty() {
                match rustix::io::pwritev(file, rest, offset) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => {
                        offset += written as u64;
                        IoSlice::advance_slices(&mut rest, written);
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}

#[cfg(windows)]
mod system {
    use std::fs::File;
    use std::io::{self, ErrorKind};
    use std::os::windows::fs::FileExt;

    pub(in super::super) fn read(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match file.seek_read(buffer, offset) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    buffer = &mut buffer[read..];
                    offset += read as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(in super::super) fn write(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match file.seek_write(bytes, offset) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = &bytes[written..];
                    offset += written as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn write_parts(file: &File, parts: &[&[u8]], offset: u64) -> io::Result<()> {
    let mut offset = offset;
    for part in parts {
        write(file, part, offset)?;
        offset += part.len() as u64;
    }
    Ok(())
}

//! The files of a simulated disk, and mappings of them.

use std::fmt;
use std::io::{self, ErrorKind};

use peristyle::{SharedMapping, StorageFile};

use super::fault::Call;
use super::operation::{FileId, Operation};
use super::{FaultKind, Sickness, SimulatedDisk};

pub(super) struct SimulatedFile {
    pub(super) disk: SimulatedDisk,
    pub(super) id: FileId,
    pub(super) writable: bool,
}

impl fmt::Debug for SimulatedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedFile").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The end of a range, within what the offsets of real files can express.
fn end_of(offset: u64, len: u64) -> io::Result<u64> {
    let end = offset.checked_add(len).filter(|&end| end <= i64::MAX as u64);
    end.ok_or_else(|| ErrorKind::FileTooLarge.into())
}

impl SimulatedFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(ErrorKind::PermissionDenied.into()) }
    }
}

impl StorageFile for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.meet(Call::Read)?;
        let content = &state.files[self.id.0];
        match offset.checked_add(buffer.len() as u64) {
            _ if buffer.is_empty() => Ok(()),
            Some(end) if end <= content.len() => {
                content.read(buffer, offset);
                match state.sick_part(self.id, offset, buffer.len()) {
                    Some((Sickness::Unreadable, _)) => return Err(FaultKind::Io.error()),
                    Some((Sickness::Flipped, Some(place))) => buffer[place] ^= 4,
                    _ => {}
                }
                Ok(())
            }
            _ => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        end_of(offset, bytes.len() as u64)?;
        let mut state = self.disk.state.lock();
        if let Some(kind) = state.faults.meet(Call::Write) {
            if kind == FaultKind::ShortWrite {
                state.write(self.id, &bytes[..bytes.len() / 2], offset, false);
            }
            return Err(kind.error());
        }
        state.take_room(self.id, offset, bytes.len() as u64)?;
        state.write(self.id, bytes, offset, false);
        Ok(())
    }

    fn write_parts_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        self.write_at(&parts.concat(), offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.state.lock().sync(self.id)
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.state.lock();
        state.meet(Call::Read)?;
        Ok(state.files[self.id.0].len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        end_of(len, 0)?;
        let mut state = self.disk.state.lock();
        let grows = len > state.files[self.id.0].len();
        state.meet(if grows { Call::TakeRoom } else { Call::GiveBack })?;
        if let Some(room) = &mut state.room {
            room.give_back(self.id, len, u64::MAX);
        }
        state.content(self.id).set_len(len);
        state.log(|| Operation::SetLen(self.id, len));
        Ok(())
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let end = end_of(offset, len)?;
        let mut state = self.disk.state.lock();
        state.meet(Call::TakeRoom)?;
        if len > 0 {
            state.take_room(self.id, offset, len)?;
            state.content(self.id).extend(end);
            state.log(|| Operation::Allocate(self.id, offset, len));
        }
        Ok(())
    }

    fn deallocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check_writable()?;
        end_of(offset, len)?;
        let mut state = self.disk.state.lock();
        state.meet(Call::GiveBack)?;
        if let Some(room) = &mut state.room {
            room.give_back(self.id, offset, offset + len);
        }
        state.content(self.id).clear(offset, len);
        state.log(|| Operation::Deallocate(self.id, offset, len));
        Ok(())
    }

    fn map(&self, len: u64) -> io::Result<Option<Box<dyn SharedMapping>>> {
        let mut state = self.disk.state.lock();
        state.meet(Call::Read)?;
        if !state.maps {
            return Ok(None);
        }
        if len > state.files[self.id.0].len() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(Some(Box::new(SimulatedMapping { disk: self.disk.clone(), id: self.id, len })))
    }
}

struct SimulatedMapping {
    disk: SimulatedDisk,
    id: FileId,
    len: u64,
}

impl fmt::Debug for SimulatedMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedMapping").field("len", &self.len).finish_non_exhaustive()
    }
}

impl SharedMapping for SimulatedMapping {
    fn store(&self, offset: u64, bytes: &[u8]) {
        let end = offset.checked_add((bytes.len() as u64).next_multiple_of(8));
        assert!(
            offset.is_multiple_of(8) && end.is_some_and(|end| end <= self.len),
            "{} bytes at {offset} are outside of a mapping of {} bytes",
            bytes.len(),
            self.len
        );
        self.disk.state.lock().write(self.id, bytes, offset, true);
    }

    fn make_ready(&self, _offset: u64, _len: u64) -> bool {
        true
    }
}

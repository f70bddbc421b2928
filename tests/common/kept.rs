//! Files packed into one: runs of equal bytes take a few bytes.
//!
//! ```text
//! file:  varint length of the path, then the path; varint length of the file; pieces until that is reached
//! piece: varint length << 1, then the bytes; or varint length << 1 | 1, then the byte that is repeated
//! ```

use peristyle::{FileMode, MemoryStorage, StorageBackend};

/// Shorter runs stand among other bytes.
const LEAST_RUN: usize = 8;

/// Path and bytes of each file.
pub(crate) type Files = Vec<(String, Vec<u8>)>;

fn put(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> usize {
    let mut number = 0;
    for shift in (0..).step_by(7) {
        let byte = bytes.split_off_first().expect("a number");
        number |= usize::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            break;
        }
    }
    number
}

fn take_bytes<'a>(bytes: &mut &'a [u8], len: usize) -> &'a [u8] {
    bytes.split_off(..len).expect("as many bytes")
}

pub(crate) fn pack(files: &Files) -> Vec<u8> {
    let mut out = Vec::new();
    for (path, bytes) in files {
        put(&mut out, path.len());
        out.extend(path.as_bytes());
        put(&mut out, bytes.len());
        let mut literal = 0;
        let mut at = 0;
        let flush = |out: &mut Vec<u8>, piece: &[u8]| {
            if !piece.is_empty() {
                put(out, piece.len() << 1);
                out.extend(piece);
            }
        };
        while at < bytes.len() {
            let run = bytes[at..].iter().take_while(|&&byte| byte == bytes[at]).count();
            if run >= LEAST_RUN {
                flush(&mut out, &bytes[literal..at]);
                put(&mut out, run << 1 | 1);
                out.push(bytes[at]);
                literal = at + run;
            }
            at += run;
        }
        flush(&mut out, &bytes[literal..]);
    }
    out
}

pub(crate) fn unpack(mut packed: &[u8]) -> Files {
    let mut files = Vec::new();
    while !packed.is_empty() {
        let path_len = take(&mut packed);
        let path = String::from_utf8(take_bytes(&mut packed, path_len).to_vec()).expect("a path");
        let len = take(&mut packed);
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let piece = take(&mut packed);
            match piece & 1 {
                0 => bytes.extend(take_bytes(&mut packed, piece >> 1)),
                _ => bytes.resize(bytes.len() + (piece >> 1), take_bytes(&mut packed, 1)[0]),
            }
        }
        files.push((path, bytes));
    }
    files
}

/// A disk in memory that holds a database of these files.
pub(crate) fn storage(files: &Files) -> MemoryStorage {
    let storage = MemoryStorage::new();
    storage.create_directory("").expect("a directory");
    storage.create_directory("wal").expect("a directory");
    for (path, bytes) in files {
        let file = storage.open(path, FileMode::Create).expect("a new file");
        file.write_at(bytes, 0).expect("room in memory");
    }
    storage
}

/// The files of a database, but for its lock.
pub(crate) fn files(storage: &MemoryStorage) -> Files {
    let mut paths = vec!["data".to_owned()];
    let logs = storage.list("wal").expect("a directory");
    paths.extend(logs.into_iter().map(|name| format!("wal/{name}")));
    let read = |path: String| {
        let file = storage.open(&path, FileMode::Read).expect("a file");
        let mut bytes = vec![0; file.len().expect("a length") as usize];
        file.read_at(&mut bytes, 0).expect("bytes in memory");
        (path, bytes)
    };
    paths.into_iter().map(read).collect()
}

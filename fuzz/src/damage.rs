//! Changes to the bytes of files.

use std::ops::Range;

use crate::format::{put, segment_id, segment_path};
use crate::input::Input;
use crate::sample::Files;

/// The most changes of one input.
const MAX_CHANGES: usize = 24;
/// The most bytes that files grow by.
const MAX_GROWTH: usize = 64 << 10;

/// Where changes may strike, and which.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Number of a file, and a part of it that means something.
    pub regions: &'a [(usize, Range<usize>)],
    /// Whether bytes may be chosen freely. If not, a change moves, repeats or flips what is there: nothing
    /// that could forge a checksum.
    pub may_forge: bool,
}

/// Makes the changes that the bytes stand for.
pub fn damage(files: &mut Files, target: Target<'_>, input: &mut Input<'_>) {
    let most = files.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() + MAX_GROWTH;
    for _ in 0..MAX_CHANGES {
        if input.is_empty() || files.is_empty() {
            break;
        }
        change(files, target, input);
        let total: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
        if total > most {
            break;
        }
    }
    files.sort();
}

/// A place: a file, and an offset in it. Nearly always in a region.
fn place(files: &Files, target: Target<'_>, input: &mut Input<'_>) -> (usize, usize) {
    let way = input.u8();
    if way < 8 || target.regions.is_empty() {
        let file = input.below(files.len());
        return (file, input.place(files[file].1.len()));
    }
    let (file, region) = &target.regions[input.below(target.regions.len())];
    // What begins a region is what means most.
    let near = if way < 160 { region.len().min(96) } else { region.len() };
    (*file % files.len(), region.start + input.place(near))
}

/// A number that is likely to be nonsense, or likely to be none.
fn number(input: &mut Input<'_>) -> u64 {
    match input.below(12) {
        0 => 0,
        1 => u64::MAX,
        2 => 1 << 31,
        3 => u64::from(u32::MAX),
        4 => 1 << 56,
        5 => (1 << 56) - 1,
        6 => 1 << 63,
        7 => 4096,
        8 => u64::from(input.u16()),
        9 => u64::from(input.u32()),
        10 => input.u64(),
        _ => u64::from(input.u8()),
    }
}

fn run(bytes: &[u8], start: usize, len: usize) -> Range<usize> {
    start.min(bytes.len())..(start.saturating_add(len)).min(bytes.len())
}

fn change(files: &mut Files, target: Target<'_>, input: &mut Input<'_>) {
    let kind = input.u8() % 20;
    let (file, at) = place(files, target, input);
    let bytes = &mut files[file].1;
    match kind {
        0 | 1 => {
            let bit = input.below(8);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        2 | 3 => {
            let value = input.u8();
            put(bytes, at, &[value]);
        }
        4..=8 => {
            let width = [1, 2, 4, 4, 8][usize::from(kind - 4)];
            let value = number(input).to_le_bytes();
            // Sequence numbers and the like are told apart by little.
            let step = input.u8();
            if target.may_forge {
                if step & 1 == 1 {
                    let old = bytes.get(at).copied().unwrap_or(0);
                    put(bytes, at, &[old.wrapping_add(step >> 1)]);
                } else {
                    put(bytes, at, &value[..width]);
                }
            }
        }
        9 => {
            let (len, byte) = (input.u16(), input.u8());
            let run = run(bytes, at, usize::from(len));
            bytes[run].fill(byte);
        }
        10 => {
            let len = usize::from(input.u16());
            let (other, to) = place(files, target, input);
            let taken = files[file].1[run(&files[file].1, at, len)].to_vec();
            let into = run(&files[other].1, to, taken.len());
            let swapped = files[other].1[into.clone()].to_vec();
            put(&mut files[file].1, at, &swapped);
            files[other].1[into.clone()].copy_from_slice(&taken[..into.len()]);
        }
        11 => {
            let len = usize::from(input.u16());
            let (other, to) = place(files, target, input);
            let taken = files[file].1[run(&files[file].1, at, len)].to_vec();
            let into = run(&files[other].1, to, taken.len());
            files[other].1[into.clone()].copy_from_slice(&taken[..into.len()]);
        }
        12 => bytes.truncate(at),
        13 => {
            let (len, byte) = (usize::from(input.u16()), input.u8());
            let tail = bytes[run(bytes, at, len)].to_vec();
            bytes.extend(if byte == 0 { tail } else { vec![byte; len] });
        }
        14 => {
            let literal_len = usize::from(input.u8());
            let literal = input.take(literal_len);
            if target.may_forge {
                put(bytes, at, literal);
            }
        }
        15 => {
            // The rest moves.
            let (len, byte) = (input.below(64), input.u8());
            let at = at.min(bytes.len());
            if byte & 1 == 0 {
                bytes.drain(run(bytes, at, len));
            } else {
                bytes.splice(at..at, vec![byte >> 1; len]);
            }
        }
        16 => {
            // One region over another.
            if let [_, ..] = target.regions {
                let (from, source) = &target.regions[input.below(target.regions.len())];
                let (to, goal) = &target.regions[input.below(target.regions.len())];
                let (from, to) = (from % files.len(), to % files.len());
                let taken = files[from].1[run(&files[from].1, source.start, source.len())].to_vec();
                let into = run(&files[to].1, goal.start, goal.len().min(taken.len()));
                files[to].1[into.clone()].copy_from_slice(&taken[..into.len()]);
            }
        }
        17 => {
            files.remove(file);
        }
        18 => {
            let other = input.below(files.len());
            let content = std::mem::take(&mut files[file].1);
            let content = std::mem::replace(&mut files[other].1, content);
            files[file].1 = content;
        }
        _ => {
            // A log segment, or a copy of it, under another name.
            let (id, is_copy) = (1 + u64::from(input.u8() % 16), input.bool());
            let path = segment_path(id);
            if segment_id(&files[file].0).is_some() && files.iter().all(|(other, _)| *other != path) {
                if is_copy {
                    let copy = files[file].1.clone();
                    files.push((path, copy));
                } else {
                    files[file].0 = path;
                }
            }
        }
    }
}

//! The inputs that fuzzing begins with: one for each thing that a target can do, so that mutation has
//! something to combine.

use crate::input::Output;
use crate::operations::{Kind, SHARES};

/// Every target's name, its function, and its seeds by name.
pub type Target = (&'static str, fn(&[u8]), Vec<(String, Vec<u8>)>);

pub fn all() -> Vec<Target> {
    vec![
        ("differential", crate::differential::run, differential()),
        ("crash_recovery", crate::crash_recovery::run, crash_recovery()),
        ("corrupt_database", crate::corrupt_database::run, corrupt_database()),
        ("log_replay", crate::log_replay::run, log_replay()),
        ("node", crate::node::run, node()),
    ]
}

/// A number from 0 to 255 that looks like chance and is the same each time.
fn scattered(n: usize) -> u8 {
    ((n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

fn scatter(start: usize, len: usize) -> Vec<u8> {
    (start * 1000..start * 1000 + len).map(scattered).collect()
}

/// Entries in two families, some merged; then each kind of operation, with different details; then a kill.
fn differential() -> Vec<(String, Vec<u8>)> {
    let fill = |out: Output, family: u8, start: u16| {
        out.u8(Kind::Fill.byte()).u8(family).u16(start).u16(250).u8(1).u8(60).u8(family)
    };
    let mut seeds = Vec::new();
    for (number, (kind, _)) in SHARES.into_iter().enumerate() {
        for automatic in [0, 3] {
            let out = fill(Output::default().u8(automatic), 0, 100).u8(Kind::Flush.byte());
            let mut out = fill(fill(out, 0, 200), 1, 0);
            for variant in 0..3 {
                out = out.u8(kind.byte()).bytes(&scatter(number * 3 + variant, 24));
            }
            let out = out.u8(Kind::Checkpoint.byte()).u8(Kind::Reopen.byte()).u8(2).u8(Kind::Verify.byte());
            seeds.push((format!("{kind:?}_{automatic}").to_lowercase(), out.0));
        }
    }
    seeds
}

/// Commits, then each kind of step, then each kind of crash, a crash inside recovery, and commits again.
fn crash_recovery() -> Vec<(String, Vec<u8>)> {
    // One put with a short value into family 0 or 1, synced or not.
    let commit = |out: Output, n: u8| out.u8(0).u8(0).u8(n % 2).u8(n).u8(0).u8(20).u8(n / 2 % 2);
    let crash =
        |out: Output, back: u8, kind: u8| out.u8(back).u8(kind).u8(24).bytes(&scatter(usize::from(back), 24));
    let mut seeds = Vec::new();
    for step in 0..40 {
        let out = Output::default().u8(if step % 8 == 7 { 6 } else { step % 2 }).u8(8);
        let out = (0..4).fold(out, commit).u8(step).bytes(&[2, 0, 9, 40, 0, 30, 1, 1]);
        let out = crash((4..6).fold(out, commit), step % 12, step % 8);
        let out = crash(out.u8(0), 3 + step % 5, 4);
        let out = crash((6..9).fold(out.u8(3), commit), step % 3, 5);
        seeds.push((format!("step_{step}"), out.0));
    }
    seeds
}

/// Each kind of change to each sample, with each set of repairs that belong together.
fn corrupt_database() -> Vec<(String, Vec<u8>)> {
    let repairs = [0, 0b0011_1111, 0b0000_1101, 0b0011_0000];
    let mut seeds = vec![("sound".to_owned(), vec![0, 0, 2])];
    for sample in 0..4 {
        for change in 0..20 {
            let repair = repairs[usize::from(sample + change) % repairs.len()];
            let details = scatter(usize::from(change) * 4 + usize::from(sample), 12);
            let out =
                Output::default().u8(sample).u8(repair).u8(change * 7 + sample).u8(change).bytes(&details);
            seeds.push((format!("sample_{sample}_change_{change}"), out.0));
        }
    }
    seeds
}

fn log_replay() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for change in 0..20 {
        for (name, repair) in [("left", 0), ("repaired", 0b0011_0000)] {
            let sample = change % 3;
            let out = Output::default().u8(0).u8(sample).u8(repair).u8(0).u8(change);
            let out = out.bytes(&scatter(usize::from(change), 12));
            seeds.push((format!("{name}_{change}"), out.0));
        }
    }
    // Three segments of two records each, as a log writes them; then with fields of chance.
    let segment = |out: Output, usual: u8| {
        let record = |out: Output| out.u8(0).u8(8).bytes(&[2, 1, 1, b'k', 0, 0, 0, 0]);
        record(record(out.u8(usual).u8(2)))
    };
    let sound = Output::default().u8(2).bytes(&[1, 3, 0]).u8(2);
    seeds.push(("chain".into(), (0..3).fold(sound.clone(), |out, _| segment(out, 0)).0));
    for usual in [1, 2, 4, 8, 16] {
        let out = segment(sound.clone(), 0);
        seeds.push((format!("forged_{usual}"), segment(segment(out, 0), usual).bytes(&scatter(9, 20)).0));
    }
    let out = Output::default().u8(3).bytes(&[1, 1, 0]).u8(0b0011_0000).u8(1);
    seeds.push(("arbitrary".into(), out.bytes(b"PERISLOG").bytes(&[1, 0, 0, 0]).bytes(&scatter(5, 200)).0));
    seeds
}

fn node() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for level in 0..3u8 {
        // Two entries, no prefix, then bytes of chance.
        let body = Output::default().u16(2).u16(0).u16(0).u16(0).bytes(&scatter(usize::from(level), 120)).0;
        let out = Output::default().u8(0).u8(level).u8(0).u8(1).u8(1).u8(0x10).bytes(b"0001").bytes(&body);
        seeds.push((format!("arbitrary_{level}"), out.0));
        for change in 0..8 {
            let out = Output::default().u8(1).u8(level).u8(change).u8(7).u8(1).u8(0x21).bytes(b"00000400");
            let out = out.u8(1).u8(change).bytes(&scatter(usize::from(change), 12));
            seeds.push((format!("forged_{level}_{change}"), out.0));
        }
    }
    for fill in [0, 25, 50] {
        let mut out = Output::default().u8(3).u8(fill).u8(2);
        for merge in 0..3 {
            out = out.u8(0).u8(0).u16(merge * 100).u16(40).u8(1).u8(150);
            out = out.u8(3).bytes(&scatter(usize::from(merge), 30));
        }
        seeds.push((format!("built_{fill}"), out.0));
    }
    seeds
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    #[test]
    fn the_seeds_are_those_that_are_kept_and_nothing_fails_on_them() {
        for (target, run, seeds) in super::all() {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
            for (name, bytes) in &seeds {
                let kept = fs::read(directory.join(name)).expect("seeds are kept: cargo run --example seeds");
                assert!(kept == *bytes, "{target}/{name} is not what the generator writes");
            }
            for file in fs::read_dir(&directory).expect("a directory of seeds") {
                let path = file.expect("a seed").path();
                println!("{}", path.display());
                run(&fs::read(path).expect("a seed"));
            }
        }
    }
}

//! Loss of power and killed processes, at random moments of random runs.

use super::*;
use crate::wal::testing::Random;

/// What a database would know: everything appended, the number up to which it was acknowledged as durable,
/// and its superblock, with the number up to which it no longer needs the log.
#[derive(Clone)]
struct Run {
    appended: Records,
    durable: u64,
    checkpointed: u64,
    mark: LogMark,
}

/// What a restarted database finds must hold what was acknowledged and nothing that was not appended, in
/// order, without holes.
fn check(records: &Records, run: &Run, seed: u64) {
    let first = records.first().map_or(run.checkpointed + 1, |record| record.0);
    let (before, expected) = run.appended.split_at(run.appended.partition_point(|record| record.0 < first));
    let missed = before.last().map_or(0, |record| record.0);
    assert!(missed <= run.checkpointed, "seed {seed}: {missed} was lost, {} checkpointed", run.checkpointed);
    assert!(records.len() <= expected.len(), "seed {seed}: more was replayed than appended");
    assert_eq!(records[..], expected[..records.len()], "seed {seed}: not what was appended");
    let lost = expected.get(records.len()).map_or(u64::MAX, |record| record.0);
    assert!(lost > run.durable, "seed {seed}: {lost} was lost, {} was durable", run.durable);
}

fn random_run(seed: u64) {
    let mut random = Random::new(seed);
    let mut disk = Disk::new();
    let mut run = Run { appended: Records::new(), durable: 0, checkpointed: 0, mark: LogMark::default() };
    for _generation in 0..6 {
        let (records, report) = match replay_from(&disk, run.mark) {
            Ok(replayed) => replayed,
            Err(error) => panic!("seed {seed}: {error}"),
        };
        check(&records, &run, seed);
        let last_sequence = report.last_sequence.max(SequenceNumber(run.checkpointed));
        // What was not replayed is gone for good.
        run.appended.retain(|record| record.0 <= last_sequence.0);
        if random.below(2) == 0 {
            disk.power_for(random.below(100));
        }
        let _ = generation(&disk, &mut run, LogEnd { last_sequence, ..report.end }, &report, &mut random);
        disk = if random.below(3) == 0 {
            let killed = disk.after_kill();
            // A killed process loses nothing that was written.
            let written = Run { durable: run.appended.last().map_or(0, |record| record.0), ..run.clone() };
            check(&replay_from(&killed, run.mark).unwrap().0, &written, seed);
            killed
        } else {
            disk.after_power_loss(&mut random)
        };
    }
    check(&replay_from(&disk, run.mark).unwrap().0, &run, seed);
}

/// From a start to the first failure, or for some operations.
fn generation(
    disk: &Disk,
    run: &mut Run,
    end: LogEnd,
    report: &ReplayReport,
    random: &mut Random,
) -> Result<()> {
    make_durable(disk, report)?;
    let options = LogOptions { first_segment_bytes: 512, max_segment_bytes: 1 << 10, ..small() };
    let log = Log::start(Arc::new(disk.clone()), options, end)?;
    // What was replayed is shown to callers from here on.
    run.durable = end.last_sequence.0;
    for _ in 0..random.below(60) {
        match random.below(16) {
            0 => run.durable = log.sync()?.0,
            1 => {
                let last = log.last_assigned().0;
                log.sync_through(SequenceNumber(run.durable + random.below(last - run.durable + 1)))?;
                run.durable = log.durable().0;
            }
            2 => log.prepare()?,
            3 => {
                log.assign()?;
            }
            4 => {
                // A checkpoint: what was appended before it is durable elsewhere.
                let first = log.segment_of_next();
                run.durable = log.sync()?.0;
                run.checkpointed = run.durable;
                run.mark = log.mark(first);
                log.release_before(run.mark.first_segment)?;
            }
            _ => {
                let payload = payload(random.below(1 << 20), random.below(200) as usize);
                let sequence = log.append(&payload, 0, random.below(2) == 0)?;
                run.appended.push((sequence.0, payload));
            }
        }
    }
    Ok(())
}

#[test]
fn what_was_acknowledged_survives_the_loss_of_power() {
    for seed in 0..if cfg!(miri) { 3 } else { 500 } {
        random_run(seed);
    }
}

#[test]
fn power_lost_again_and_again_while_starting_loses_nothing() {
    for seed in 0..if cfg!(miri) { 2 } else { 100 } {
        let mut random = Random::new(seed);
        let mut disk = Disk::new();
        let (_, log) = fresh(disk.clone(), small());
        for i in 0..10 {
            log.append(&payload(i, 100), 0, false).unwrap();
        }
        let durable = log.sync().unwrap().0;
        for i in 0..10 {
            log.append(&payload(i, 100), 0, false).unwrap();
        }
        drop(log);
        let mut seen = u64::MAX;
        for _ in 0..5 {
            disk = disk.after_power_loss(&mut random);
            let (records, report) = replay_all(&disk);
            let last = records.len() as u64;
            assert!((durable..=20).contains(&last), "seed {seed}: {last} of {durable} to 20");
            // Once a start has made a cut durable, it stays where it is.
            assert!(last <= seen, "seed {seed}: {last} records after {seen}");
            seen = last;
            make_durable(&disk, &report).unwrap();
            drop(Log::start(Arc::new(disk.clone()), small(), report.end).unwrap());
        }
    }
}

#[test]
fn power_lost_while_a_start_removes_orphans_loses_nothing() {
    let (seeds, mut tried) = (if cfg!(miri) { 3 } else { 100 }, 0);
    for seed in 0..seeds {
        let mut random = Random::new(seed);
        let disk = Disk::new();
        let (_, log) = fresh(disk.clone(), small());
        for i in 0..60 {
            log.append(&payload(i, 100), 0, false).unwrap();
        }
        drop(log);
        let disk = disk.after_power_loss(&mut random);
        let (records, report) = replay_all(&disk);
        let orphans = segment::list(&disk).unwrap().into_iter().filter(|&id| id > report.end.segment).count();
        if orphans < 2 {
            continue;
        }
        tried += 1;
        for changes in 0..16 {
            let again = disk.after_kill();
            again.power_for(changes);
            let storage: Arc<dyn StorageBackend> = Arc::new(again.clone());
            let started =
                make_durable(&again, &report).and_then(|()| Log::start(storage, small(), report.end));
            drop(started);
            let (found, _) = replay_all(&again.after_power_loss(&mut random));
            assert_eq!(found, records, "seed {seed}, power for {changes} changes");
        }
    }
    assert!(tried > seeds / 4, "there were orphans for {tried} of {seeds} seeds");
}

//! The oracle accepts what is right and finds what is planted.

use peristyle::Durability::{Buffered, Sync};
use peristyle_crashtest::campaign::{base, random};
use peristyle_crashtest::disk::{Everything, Nothing, SimulatedDisk};
use peristyle_crashtest::ledger::{Crash, Ledger, Recovered};
use peristyle_crashtest::recovery::{look, read_state, reopen};
use peristyle_crashtest::run::{Run, Setup};
use peristyle_crashtest::step::{Step, Write};
use peristyle_crashtest::tally::Tally;
use peristyle_crashtest::violation::Kind;
use peristyle_crashtest::writer::Writer;

const SETUP: Setup = Setup::MANUAL;

fn put(key: u16, durability: peristyle::Durability) -> Step {
    Step::Commit(vec![Write::Put(0, key, 50), Write::Put(1, key, 50)], durability)
}

/// A workload: the disk, what was done, and the length of the disk's log after each step.
fn perform(steps: &[Step]) -> (SimulatedDisk, Ledger, Vec<usize>) {
    let disk = SimulatedDisk::from_image(&base());
    let run = Run::open(&disk, SETUP).unwrap();
    let mut writer = Writer::new(0, &read_state(&run.db()).unwrap());
    let mut moments = Vec::new();
    for step in steps {
        writer.perform(&run, step).unwrap();
        moments.push(disk.operations());
    }
    run.forsake();
    (disk, run.ledger(vec![writer]), moments)
}

fn recover(disk: &SimulatedDisk, moment: usize, all: bool) -> Recovered {
    let image = if all { disk.crash(moment, &mut Everything) } else { disk.crash(moment, &mut Nothing) };
    look(&reopen(&SimulatedDisk::from_image(&image), SETUP).unwrap()).unwrap()
}

#[test]
fn what_is_right_is_accepted() {
    let (disk, ledger, moments) = perform(&[put(1, Sync), put(2, Buffered), Step::Flush, put(3, Buffered)]);
    for moment in moments {
        ledger.check(&recover(&disk, moment, false), moment, Crash::PowerLoss).unwrap();
        ledger.check(&recover(&disk, moment, true), moment, Crash::PowerLoss).unwrap();
        ledger.check(&recover(&disk, moment, true), moment, Crash::Kill).unwrap();
    }
}

#[test]
fn a_synced_commit_that_is_gone_is_lost() {
    let (disk, ledger, moments) = perform(&[put(1, Sync), put(2, Sync)]);
    let planted = recover(&disk, moments[0], false);
    ledger.check(&planted, moments[0], Crash::PowerLoss).unwrap();
    assert_eq!(ledger.check(&planted, moments[1], Crash::PowerLoss).unwrap_err().kind, Kind::Lost);
}

#[test]
fn a_buffered_commit_may_go_with_the_power_but_not_with_the_process() {
    let (disk, ledger, moments) = perform(&[put(1, Sync), put(2, Buffered)]);
    let planted = recover(&disk, moments[0], false);
    ledger.check(&planted, moments[1], Crash::PowerLoss).unwrap();
    assert_eq!(ledger.check(&planted, moments[1], Crash::Kill).unwrap_err().kind, Kind::Lost);
}

#[test]
fn a_commit_that_was_not_made_yet_is_resurrected() {
    let (disk, ledger, moments) = perform(&[put(1, Sync), put(2, Sync)]);
    let planted = recover(&disk, moments[1], true);
    assert_eq!(ledger.check(&planted, moments[0], Crash::PowerLoss).unwrap_err().kind, Kind::Resurrected);
}

#[test]
fn a_batch_of_which_a_part_is_gone_is_torn() {
    let (disk, ledger, moments) = perform(&[put(1, Sync), put(2, Sync)]);
    let mut planted = recover(&disk, moments[1], true);
    let older = recover(&disk, moments[0], true);
    planted.sums.families.insert("b".into(), older.sums.families["b"]);
    assert_eq!(ledger.check(&planted, moments[1], Crash::PowerLoss).unwrap_err().kind, Kind::Torn);
}

#[test]
fn a_family_that_is_gone_or_has_another_name_is_not_overlooked() {
    let (disk, ledger, moments) = perform(&[Step::Create(2), Step::Rename(2, 3)]);
    let right = recover(&disk, moments[1], false);
    ledger.check(&right, moments[1], Crash::PowerLoss).unwrap();
    let mut gone = right.clone();
    gone.sums.families.remove("w0-3").unwrap();
    assert_eq!(ledger.check(&gone, moments[1], Crash::PowerLoss).unwrap_err().kind, Kind::Lost);
    let renamed = recover(&disk, moments[0], false);
    assert_eq!(ledger.check(&renamed, moments[1], Crash::PowerLoss).unwrap_err().kind, Kind::Lost);
}

#[test]
fn a_number_that_does_not_count_the_commits_is_noticed() {
    let (disk, ledger, moments) = perform(&[put(1, Sync), put(2, Sync)]);
    let right = recover(&disk, moments[1], false);
    for wrong in [right.last_sequence - 1, right.last_sequence + 1] {
        let planted = Recovered { last_sequence: wrong, ..right.clone() };
        assert!(ledger.check(&planted, moments[1], Crash::PowerLoss).is_err());
    }
}

#[test]
fn unlogged_commits_may_go_until_they_are_flushed() {
    let unlogged = Step::Unlogged(Write::Put(0, 1, 50));
    let (disk, ledger, moments) = perform(&[unlogged, Step::Flush]);
    ledger.check(&recover(&disk, moments[0], false), moments[0], Crash::Kill).unwrap();
    ledger.check(&recover(&disk, moments[1], false), moments[1], Crash::PowerLoss).unwrap();
    let planted = recover(&disk, moments[0], false);
    assert_eq!(ledger.check(&planted, moments[1], Crash::PowerLoss).unwrap_err().kind, Kind::Lost);
}

#[test]
fn some_random_workloads_crash_and_lose_nothing() {
    let (tally, base) = (Tally::default(), base());
    for seed in 0..2 {
        random::run_seed(seed, &base, &tally);
    }
    let findings: Vec<String> = tally.findings().iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

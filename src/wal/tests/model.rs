//! Random operations against a vector of records.

use super::*;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Operation {
    Append { len: usize, sync_soon: bool },
    Assign,
    Sync,
    Prepare,
    Checkpoint,
    Reopen,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let operation = prop_oneof![
        8 => (prop_oneof![0usize..300, 0usize..6000], any::<bool>())
            .prop_map(|(len, sync_soon)| Operation::Append { len, sync_soon }),
        1 => Just(Operation::Assign),
        1 => Just(Operation::Sync),
        1 => Just(Operation::Prepare),
        1 => Just(Operation::Checkpoint),
        1 => Just(Operation::Reopen),
    ];
    prop::collection::vec(operation, 1..80)
}

proptest! {
    #![proptest_config(crate::sampling::config(128))]

    #[test]
    fn the_log_holds_what_was_appended_since_the_last_checkpoint(operations in operations()) {
        let backend: Arc<dyn StorageBackend> = Arc::new(MemoryStorage::new());
        let mut log = Log::start(Arc::clone(&backend), small(), LogEnd::default()).unwrap();
        let mut model = Records::new();
        let mut mark = LogMark::default();
        let mut checkpointed = 0;
        for (i, operation) in operations.into_iter().enumerate() {
            match operation {
                Operation::Append { len, sync_soon } => {
                    let payload = payload(i as u64, len);
                    let sequence = log.append(&payload, 0, sync_soon).unwrap();
                    prop_assert!(model.last().is_none_or(|last| last.0 < sequence.0));
                    model.push((sequence.0, payload));
                }
                Operation::Assign => {
                    log.assign().unwrap();
                }
                Operation::Sync => {
                    let last = log.sync().unwrap();
                    prop_assert_eq!(log.durable(), last);
                }
                Operation::Prepare => log.prepare().unwrap(),
                Operation::Checkpoint => {
                    checkpointed = log.sync().unwrap().0;
                    mark = log.mark(log.segment_of_next());
                    log.release_before(mark.first_segment).unwrap();
                }
                Operation::Reopen => {
                    drop(log);
                    let (reopened, records) = reopen(&backend, small(), mark);
                    check(&records, &model, checkpointed)?;
                    log = reopened;
                }
            }
        }
        drop(log);
        check(&replay_from(&*backend, mark).unwrap().0, &model, checkpointed)?;
    }
}

/// The log may begin before the checkpoint, since segments are released whole.
fn check(records: &Records, model: &Records, checkpointed: u64) -> std::result::Result<(), TestCaseError> {
    let tail = &model[model.len() - records.len().min(model.len())..];
    prop_assert_eq!(&records[..], tail);
    let needed = model.iter().filter(|record| record.0 > checkpointed).count();
    prop_assert!(records.len() >= needed, "{} records of {needed}", records.len());
    Ok(())
}

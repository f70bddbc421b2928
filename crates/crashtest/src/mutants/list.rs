//! What is broken on purpose, one thing at a time: what a mutation is, which files have some, and their lists
//! by area. A mutation stands in the list of the area whose promise it breaks.

mod copies;
mod database;
mod durable;
mod expiry;
mod log;
mod memtable;
mod merging;
mod orders;
mod space;
mod transactions;
mod tree;
mod writes;

/// What must notice a mutation.
#[derive(Debug, Clone, Copy)]
pub enum Suite {
    /// The campaigns.
    Crashes,
    /// The engine's own tests whose names contain this: crash images cannot show it.
    Tests(&'static str),
    /// The tests of the public interface in the file, or folder, of this name.
    File(&'static str),
}

/// One mutation.
#[derive(Debug, Clone, Copy)]
pub struct Mutation {
    /// What it breaks.
    pub what: &'static str,
    /// The file, from the root of the workspace.
    pub file: &'static str,
    /// Text that must occur in it exactly once.
    pub original: &'static str,
    /// What it becomes.
    pub mutated: &'static str,
    /// Who must notice.
    pub suite: Suite,
}

const fn crashes(
    what: &'static str,
    file: &'static str,
    original: &'static str,
    mutated: &'static str,
) -> Mutation {
    Mutation { what, file, original, mutated, suite: Suite::Crashes }
}

const fn tests(
    what: &'static str,
    file: &'static str,
    original: &'static str,
    mutated: &'static str,
    test: &'static str,
) -> Mutation {
    Mutation { what, file, original, mutated, suite: Suite::Tests(test) }
}

const fn file(
    what: &'static str,
    file: &'static str,
    original: &'static str,
    mutated: &'static str,
    tests: &'static str,
) -> Mutation {
    Mutation { what, file, original, mutated, suite: Suite::File(tests) }
}

const PREPARED: &str = "src/txn/prepared/steps.rs";
const HELD: &str = "src/column_family/held.rs";
const CHANGED: &str = "src/memtable/changed.rs";
const REMEMBERED: &str = "src/column_family/remembered.rs";
const CHECK: &str = "src/txn/transactions/check.rs";
const OWN: &str = "src/txn/transactions/own.rs";
const READS: &str = "src/txn/transactions/reads.rs";
const WALK: &str = "src/txn/transactions/walk.rs";
const TRANSACTION: &str = "src/txn/transactions/transaction.rs";
const FOR_UPDATE: &str = "src/txn/transactions/for_update.rs";
const LOCKS_HELD: &str = "src/txn/locks/held.rs";
const LOCKS_RANGES: &str = "src/txn/locks/ranges.rs";
const LOCKS_LINE: &str = "src/txn/locks/line.rs";
const LOCKS_STATE: &str = "src/txn/locks/state.rs";
const EPOCH: &str = "src/sync/epoch.rs";
const DAMAGE: &str = "src/column_family/damage.rs";
const CARRY: &str = "src/txn/carry.rs";
const HANDLE: &str = "src/txn/handle.rs";
const VERIFY: &str = "src/db/verify.rs";
const PARTITIONED: &str = "src/segment/partitioned.rs";
const FRAME_TABLE: &str = "src/page/table.rs";
const POOL: &str = "src/storage/pool.rs";
const CHECKPOINT: &str = "src/db/checkpoint.rs";
const WRITE_CATALOG: &str = "src/db/write_catalog.rs";
const READ_CATALOG: &str = "src/db/read_catalog.rs";
const CATALOG: &str = "src/column_family/catalog.rs";
const FRAME: &str = "src/column_family/frame.rs";
const OPEN: &str = "src/db/open.rs";
const RECOVERY: &str = "src/db/recovery.rs";
const REPLAY_PART: &str = "src/db/replay_part.rs";
const LOG_LENGTH: &str = "src/db/log_length.rs";
const LOG_PACE: &str = "src/txn/log_pace.rs";
const WEIGHT: &str = "src/wal/weight.rs";
const BACKGROUND: &str = "src/db/background.rs";
const BELL: &str = "src/sync/bell.rs";
const CREW: &str = "src/db/crew.rs";
const DESK: &str = "src/column_family/merging/desk.rs";
const COMMIT: &str = "src/txn/commit.rs";
const PIPELINE: &str = "src/txn/pipeline.rs";
const APPLY: &str = "src/txn/apply.rs";
const BATCH: &str = "src/txn/batch.rs";
const UPDATE: &str = "src/txn/update.rs";
const SYNCED: &str = "src/db/synced.rs";
const CATALOG_FILE: &str = "src/db/catalog_file.rs";
const MEMTABLE_TABLE: &str = "src/memtable/table.rs";
const SUPERBLOCK: &str = "src/segment/superblock.rs";
const SPACE: &str = "src/segment/space.rs";
const PAGE_BITS: &str = "src/segment/page_bits.rs";
const RELOCATE: &str = "src/btree/relocate.rs";
const PACK: &str = "src/btree/pack.rs";
const COST: &str = "src/btree/cost.rs";
const TREE_CHECK: &str = "src/btree/check.rs";
const CACHED_FILE: &str = "src/page/cached_file.rs";
const ESTIMATE: &str = "src/btree/estimate.rs";
const APPROXIMATE: &str = "src/column_family/reading/approximate.rs";
const COPY: &str = "src/db/copy.rs";
const COPY_LAYOUT: &str = "src/db/copy_layout.rs";
const WAL_HELD: &str = "src/wal/held.rs";
const SPACE_REPORT: &str = "src/db/space_report.rs";
const NODE: &str = "src/btree/node.rs";
const FILL: &str = "src/btree/fill.rs";
const REPACK: &str = "src/btree/repack.rs";
const LEAF_LEVEL: &str = "src/btree/leaf_level.rs";
const ALLOCATOR: &str = "src/segment/allocator.rs";
const GIVE_BACK: &str = "src/segment/give_back.rs";
const MAINTAIN: &str = "src/db/maintain.rs";
const TREES: &str = "src/column_family/trees.rs";
const DB_SPACE: &str = "src/db/space.rs";
const WAL_RESERVE: &str = "src/wal/reserve.rs";
const DB_FULL_DISK: &str = "src/db/full_disk.rs";
const TXN_FULL_DISK: &str = "src/txn/full_disk.rs";
const ERROR: &str = "src/error.rs";
const COMPACTION: &str = "src/column_family/merging/compaction.rs";
const KEPT: &str = "src/column_family/kept.rs";
const CHANGE: &str = "src/column_family/merging/change.rs";
const DELTA: &str = "src/column_family/delta.rs";
const DRAIN: &str = "src/column_family/merging/drain.rs";
const GATHER: &str = "src/column_family/merging/gather.rs";
const JOIN: &str = "src/column_family/merging/join.rs";
const HIDDEN: &str = "src/column_family/reading/hidden.rs";
const MERGE: &str = "src/column_family/merging/merge.rs";
const FREEZE: &str = "src/column_family/freeze.rs";
const FAMILY: &str = "src/column_family/family.rs";
const CURSOR: &str = "src/column_family/reading/cursor.rs";
const SETTLE: &str = "src/column_family/reading/settle.rs";
const MEMTABLE_CURSOR: &str = "src/memtable/cursor.rs";
const MEMTABLE_TREE: &str = "src/memtable/tree.rs";
const DEAD: &str = "src/memtable/dead.rs";
const LEAP: &str = "src/column_family/reading/leap.rs";
const GONE: &str = "src/column_family/gone.rs";
const STALL: &str = "src/column_family/stall.rs";
const LARGE: &str = "src/txn/large.rs";
const TABLE: &str = "src/memtable/table.rs";
const LOG: &str = "src/wal/log.rs";
const REPLAY: &str = "src/wal/replay.rs";
const READER: &str = "src/wal/reader.rs";
const RECORD: &str = "src/wal/record.rs";
const ROTATION: &str = "src/wal/rotation.rs";
const START: &str = "src/wal/start.rs";
const STOCK: &str = "src/wal/stock.rs";
const FRAMES: &str = "src/page/frames.rs";
const SEGMENT: &str = "src/wal/segment.rs";
const PAGES: &str = "src/system/pages.rs";
const SHARED: &str = "src/db/shared.rs";
const PLACE: &str = "src/db/place.rs";
const FILE_LOCK: &str = "src/storage/file_lock.rs";
const REAL_FILE: &str = "src/storage/real_file.rs";
const HEADER: &str = "src/page/header.rs";
const ITER: &str = "src/txn/iter.rs";
const TALLY: &str = "src/txn/tally.rs";
const FAMILIES: &str = "src/db/families.rs";
const KEY_ORDER_FORM: &str = "src/key_order/form.rs";
const FAMILY_ORDER: &str = "src/column_family/order.rs";
const FAMILY_RECORD: &str = "src/column_family/record.rs";
const FAMILY_OPTIONS: &str = "src/column_family/options.rs";
const FAMILY_OPERANDS: &str = "src/column_family/operands.rs";
const FAMILY_SNAPSHOT: &str = "src/txn/family_snapshot.rs";

/// All mutations.
pub(super) fn all() -> impl Iterator<Item = &'static Mutation> {
    let areas = [
        durable::MUTATIONS,
        space::MUTATIONS,
        log::MUTATIONS,
        tree::MUTATIONS,
        memtable::MUTATIONS,
        merging::MUTATIONS,
        orders::MUTATIONS,
        expiry::MUTATIONS,
        writes::MUTATIONS,
        transactions::MUTATIONS,
        database::MUTATIONS,
        copies::MUTATIONS,
    ];
    areas.into_iter().flatten()
}

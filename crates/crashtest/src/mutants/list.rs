//! What is broken on purpose, one thing at a time.

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

const CHANGED: &str = "src/memtable/changed.rs";
const REMEMBERED: &str = "src/column_family/remembered.rs";
const CHECK: &str = "src/txn/transactions/check.rs";
const OWN: &str = "src/txn/transactions/own.rs";
const READS: &str = "src/txn/transactions/reads.rs";
const WALK: &str = "src/txn/transactions/walk.rs";
const TRANSACTION: &str = "src/txn/transactions/transaction.rs";
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
const LEAF_LEVEL: &str = "src/btree/leaf_level.rs";
const ALLOCATOR: &str = "src/segment/allocator.rs";
const GIVE_BACK: &str = "src/segment/give_back.rs";
const MAINTAIN: &str = "src/db/maintain.rs";
const TREES: &str = "src/column_family/trees.rs";
const DB_SPACE: &str = "src/db/space.rs";
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
const STORAGE_FILE: &str = "src/storage/file.rs";
const HEADER: &str = "src/page/header.rs";

/// All mutations.
pub const MUTATIONS: &[Mutation] = &[
    // Syncs.
    crashes(
        "the data file is not synced before the superblock",
        CHECKPOINT,
        "        self.data.pool().sync()?;\n",
        "",
    ),
    crashes(
        "the superblock is not synced between its slots",
        SUPERBLOCK,
        "        pool.sync()?;\n        write(1 - first)",
        "        write(1 - first)",
    ),
    crashes("a checkpoint does not sync the log", CHECKPOINT, "            log.sync()?;\n", ""),
    crashes(
        "a synced commit is acknowledged before the sync",
        COMMIT,
        "            log.sync_through(sequence).map_err(|error| self.fail(error))?;\n",
        "",
    ),
    crashes(
        "a sync of the log passes over the segments before the current one",
        LOG,
        "        for segment in &work.unsynced {\n            self.sync_segment(segment)?;\n        }\n",
        "",
    ),
    crashes(
        "the directory is not synced after a segment of the log was made",
        STOCK,
        "        self.sync_directory()?;\n        Ok(Arc::new(Segment::new(id, body)))",
        "        Ok(Arc::new(Segment::new(id, body)))",
    ),
    crashes(
        "the header of the first segment is not synced at a start",
        START,
        "segment.write_header(&header).and_then(|()| segment.body.file.sync())",
        "segment.write_header(&header)",
    ),
    crashes("a recovered log is not synced", REPLAY, "            .and_then(|()| file.sync())\n", ""),
    crashes(
        "a recovered log is synced and not written again before",
        REPLAY,
        "rewrite(&*file, read.durable, read.end)\n            .and_then(|()| file.sync())",
        "file.sync()",
    ),
    crashes(
        "a superblock that is in one slot only is not stored again at an open",
        OPEN,
        "if !options.read_only && !is_in_both_slots {",
        "if false {",
    ),
    // Orders.
    crashes(
        "the superblock is written before the data file is synced",
        CHECKPOINT,
        "        self.data.pool().sync()?;\n        // What was met since this began may need the log that the superblock lets go of.\n        self.pipeline.latch.check()?;\n",
        "        self.pipeline.latch.check()?;\n",
    ),
    crashes(
        "of two superblocks the older one is taken",
        SUPERBLOCK,
        "Ok(if b.checkpoint > a.checkpoint { (b, 0) } else { (a, 1) })",
        "Ok(if b.checkpoint < a.checkpoint { (b, 0) } else { (a, 1) })",
    ),
    crashes(
        "a data file gets its name before it is synced",
        OPEN,
        "    superblock.store(&pool, 0)?;\n    pool.sync()?;\n    drop(pool);\n    backend.rename(NEW_DATA, DATA).map_err(file)?;",
        "    backend.rename(NEW_DATA, DATA).map_err(file)?;\n    superblock.store(&pool, 0)?;\n    pool.sync()?;\n    drop(pool);",
    ),
    crashes(
        "a record counts as written before it is",
        LOG,
        "        let written = segment.write_record(&header, payload, offset, stored);",
        "        self.written.complete(sequence);\n        std::thread::sleep(std::time::Duration::from_micros(300));\n        let written = segment.write_record(&header, payload, offset, stored);\n        if written.is_ok() {\n            std::mem::forget(pending);\n            return Ok(SequenceNumber(sequence));\n        }",
    ),
    crashes(
        "a memtable is frozen outside of the lock, between a commit's number and its entries",
        COMMIT,
        "        apply(write, families, sides, sequence);\n",
        "        for side in sides.iter_mut() {\n            MutexGuard::unlocked(side, || std::thread::sleep(std::time::Duration::from_micros(300)));\n        }\n        apply(write, families, sides, sequence);\n",
    ),
    crashes(
        "the log's segment of a memtable is let go before the memtable is seen as frozen",
        FREEZE,
        "        let first_segment = self.active_segment();\n",
        "        let first_segment = self.active_segment.swap(u64::MAX, Ordering::SeqCst);\n        std::thread::sleep(std::time::Duration::from_micros(300));\n",
    ),
    crashes(
        "a commit is published before it has a record",
        PIPELINE,
        "            let appended = log.append(write.payload, write.operations, durability == Durability::Sync);\n",
        "            let appended = log.assign();\n            let _ = log.append(write.payload, write.operations, durability == Durability::Sync);\n",
    ),
    crashes(
        "a short commit is published before it has a record",
        LOG,
        "        let written = segment.write_record(&header.encode(id, offset), payload, offset, stored);\n        if let Err(error) = written {\n            drop(tail);",
        "        let written = segment.write_record(&header.encode(id, offset), &[], offset, stored);\n        if let Err(error) = written {\n            drop(tail);",
    ),
    tests(
        "orphans are removed before the segment that cuts them off is durable",
        START,
        "        let segment = stock.make(len).map_err(unlatched)?;\n",
        "        for &id in &orphans {\n            let orphan = Retired { id, used: 0, last_sequence: 0, body: None };\n            stock.let_go(orphan).map_err(unlatched)?;\n        }\n        let segment = stock.make(len).map_err(unlatched)?;\n",
        "power_lost_while_a_start_removes_orphans_loses_nothing",
    ),
    // Checksums.
    crashes("a page's checksum is ignored", HEADER, "    if computed != stated {", "    if false {"),
    crashes(
        "a page that a pointer does not mean is taken for it",
        HEADER,
        "    if stated != pointer.checksum {",
        "    if false {",
    ),
    crashes(
        "a record's payload is not summed",
        READER,
        "if crc32(&[payload]) != header.payload_checksum {",
        "if false {",
    ),
    tests(
        "a record's header is not summed",
        RECORD,
        "        if half(0) != bound_checksum(bytes, segment, offset) {\n            return None;\n        }\n",
        "        let _ = (segment, offset, half(0));\n",
        "a_header_with_any_bit_flipped_is_none",
    ),
    crashes(
        "a superblock's checksum is ignored",
        SUPERBLOCK,
        "    crc32(&[&bytes[..AT_CHECKSUM]]) == u32_at(bytes, AT_CHECKSUM)",
        "    bytes.starts_with(&MAGIC)",
    ),
    tests(
        "a record of the catalog is not summed",
        FRAME,
        "(crc32(&[body]) == self.body_checksum && zeros.iter().all(|&byte| byte == 0)).then_some(body)",
        "zeros.iter().all(|&byte| byte == 0).then_some(body)",
        "every_flipped_bit_is_found",
    ),
    tests(
        "frames of the catalog are bound to no place",
        FRAME,
        "    crc32(&[fields, &catalog.to_le_bytes(), &(at as u64).to_le_bytes()])",
        "    let _ = at;\n    crc32(&[fields, &catalog.to_le_bytes()])",
        "a_header_comes_back_in_its_catalog_and_at_its_place_only",
    ),
    tests(
        "the second copy of the catalog does not serve",
        CATALOG,
        "let Some(header) = first.or(second) else {",
        "let Some(header) = first else {",
        "damage_anywhere_in_one_copy_costs_nothing",
    ),
    tests(
        "the catalog has one copy",
        WRITE_CATALOG,
        "        for page in place.copies.into_iter().flatten() {\n",
        "        for page in place.copies.into_iter().flatten().take(1) {\n",
        "a_damaged_copy_is_written_anew_by_the_next_opening",
    ),
    tests(
        "an older record of a family serves where a newer one is lost",
        CATALOG,
        "let before = self.families.remove(&family).map(|family| family.name);",
        "let before = self.families.get(&family).map(|family| family.name.clone());",
        "an_older_record_of_a_lost_family_does_not_serve",
    ),
    tests(
        "an opening gives up a lost family though nobody asked for it",
        OPEN,
        "loss.filter(|_| !options.read_only && !options.gives_up_lost_families)",
        "loss.filter(|_| false)",
        "a_record_that_cannot_be_read_for_a_while_costs_nothing_unless_its_family_is_given_up",
    ),
    tests(
        "pages of a lost family are handed out",
        OPEN,
        "        space.keep_what_is_free();\n",
        "",
        "a_lost_family_is_refused_until_it_is_dropped_and_its_pages_stay",
    ),
    tests(
        "an unreadable slot of the superblock counts as one of a newer engine",
        SUPERBLOCK,
        "return Slot { decoded: Err(error), is_whole: false };",
        "return Slot { decoded: Err(Error::new(ErrorKind::NewerFormat, error.to_string())), is_whole: true };",
        "a_slot_that_cannot_be_read_costs_nothing",
    ),
    tests(
        "a page with unknown features is read",
        HEADER,
        "    features.check_reading(\"the page\")?;\n",
        "    let _ = features;\n",
        "a_page_with_features_that_nobody_here_knows",
    ),
    tests(
        "a record of an unknown kind is replayed",
        READER,
        "        if let Some(unknown) = unknown {",
        "        if let Some(unknown) = unknown.filter(|_| false) {",
        "a_record_that_only_a_newer_engine_understands",
    ),
    // Bounds.
    crashes(
        "the first commit that is not merged counts as merged",
        REPLAY_PART,
        "sequence > known.merged_through)?",
        "sequence.0 > known.merged_through.0 + 1)?",
    ),
    crashes(
        "a segment of the log is let go one too early",
        ROTATION,
        "partition_point(|retired| retired.id < limit)",
        "partition_point(|retired| retired.id <= limit)",
    ),
    crashes(
        "the log's segment of a memtable is not noted",
        PIPELINE,
        "                family.note_segment(segment);\n",
        "                let _ = (family, segment);\n",
    ),
    crashes(
        "the log's segments of frozen memtables are forgotten by a checkpoint",
        CHECKPOINT,
        "                segment = segment.min(frozen.first_segment);\n",
        "                let _ = frozen.first_segment;\n",
    ),
    tests(
        "a mark of the log may name a segment that is not durable",
        LOG,
        "        let first_segment = first_segment.min(place.segment);\n",
        "",
        "segments_that_the_mark_needs_are_kept",
    ),
    crashes(
        "of the keys with one head only the first is looked at",
        "src/btree/search.rs",
        "        Some(above) => lower_bound(heads, above),",
        "        Some(_) => lower_bound(heads, head),",
    ),
    crashes(
        "a range deletion covers its end, too, within a batch",
        APPLY,
        ".next_back().is_some_and(|(_, end)| key::compare(key, end).is_lt())",
        ".next_back().is_some_and(|(_, end)| key::compare(key, end).is_le())",
    ),
    // The catalog and the families that changed.
    crashes(
        "a commit does not touch its family",
        FAMILY,
        "            self.active_segment.store(segment, Ordering::SeqCst);\n            self.touch();\n",
        "            self.active_segment.store(segment, Ordering::SeqCst);\n",
    ),
    crashes(
        "a merge does not touch its family",
        FAMILY,
        "        self.touch();\n        self.touched.count_installed();\n",
        "        self.touched.count_installed();\n",
    ),
    crashes(
        "a family whose memtables need log is looked at once",
        CHECKPOINT,
        "        noted.with_log.iter().for_each(|family| family.touch());\n",
        "",
    ),
    tests(
        "a checkpoint that is refused forgets what it looked at",
        CHECKPOINT,
        "        noted.families.iter().chain(touched).for_each(|family| family.touch());\n",
        "        let _ = touched;\n",
        "a_checkpoint_that_found_no_room_leaves_the_log",
    ),
    crashes(
        "segments that are given back are not recorded",
        FAMILY,
        "        trees.set_recorded(false);\n",
        "        let _ = &mut trees;\n",
    ),
    crashes(
        "the record in the superblock is passed over",
        READ_CATALOG,
        "        record => Some(catalog.apply(record)?),\n",
        "        _ => None,\n",
    ),
    tests(
        "the record that the superblock held at an open is forgotten by the next checkpoint",
        CHECKPOINT,
        "            let mut records: Vec<_> = state.catalog.unlisted.iter().cloned().collect();\n",
        "            let mut records: Vec<Record> = Vec::new();\n",
        "whatever_becomes_of_families_is_there_after_every_kill",
    ),
    crashes(
        "the superblock names several families before they are synced",
        WRITE_CATALOG,
        "                self.data.pool().sync()?;\n",
        "",
    ),
    crashes(
        "the superblock names the part that its own sync is to make durable",
        WRITE_CATALOG,
        "            Some(record) => Superblock { catalog: named, record, ..superblock },\n",
        "            Some(_) => Superblock { catalog: CatalogExtent { ..state.catalog.extent() }, record: CatalogRecord::default(), ..{ let _ = named; superblock } },\n",
    ),
    crashes(
        "the superblock begins with the same slot every time",
        WRITE_CATALOG,
        "        state.first_slot = 1 - state.first_slot;\n",
        "",
    ),
    crashes(
        "a family is dropped before what was committed is durable",
        WRITE_CATALOG,
        "            log.sync()?;\n",
        "            let _ = log;\n",
    ),
    // Space.
    crashes(
        "pages that the durable superblock reaches are handed out",
        PAGE_BITS,
        "        in_use[word] | durable[word] | pending[word]\n",
        "        let _ = durable;\n        in_use[word] | pending[word]\n",
    ),
    tests(
        "pages that a checkpoint under way reaches are handed out",
        PAGE_BITS,
        "        in_use[word] | durable[word] | pending[word]\n",
        "        let _ = pending;\n        in_use[word] | durable[word]\n",
        "no_page_is_handed_out_that_anything_reaches",
    ),
    crashes(
        "a family goes on using pages that it gave back",
        GIVE_BACK,
        "        self.set_map(map);\n",
        "        let _ = map;\n",
    ),
    tests(
        "pages are given back that a superblock reaches",
        GIVE_BACK,
        "        cut.iter().for_each(|segment| allocator.pages.check_unused(segment));\n",
        "        let first = map.segments().first().map(|first| first.first_page);\n        let reached = first.map(|first| map.cut(first, 1));\n        let cut: Vec<_> = cut.into_iter().chain(reached).collect();\n",
        "what_views_and_superblocks_reach_stays_as_it_was",
    ),
    tests(
        "a compaction that finds nothing to rewrite does not sync the log",
        MAINTAIN,
        "        self.sync_log().map_err(|error| self.pipeline.fail(error))\n",
        "        Ok(())\n",
        "a_compaction_of_one_family_makes_durable",
    ),
    crashes(
        "what was moved to the front keeps its old place",
        RELOCATE,
        "                self.out.retire_checked(pointer)?;\n",
        "",
    ),
    crashes(
        "a node above one that was moved points to the old place",
        RELOCATE,
        "                patches.push((node.child_at(i), Child { pointer, ..child }.encode().to_vec()));\n",
        "                patches.push((node.child_at(i), Child { pointer: if level > 1 { pointer } else { child.pointer }, ..child }.encode().to_vec()));\n",
    ),
    tests(
        "moved pages may go behind the line",
        ALLOCATOR,
        "            Self::Before(end) => segment.end().min(*end).max(first),\n",
        "            Self::Before(_) => segment.end(),\n",
        "no_page_is_handed_out_that_anything_reaches",
    ),
    tests(
        "what is moved to the front of the file may go behind the line",
        ALLOCATOR,
        "            Self::Below(file_page) => first + below(segment, *file_page),\n",
        "            Self::Below(_) => segment.end(),\n",
        "no_page_is_handed_out_that_anything_reaches",
    ),
    tests(
        "a step of a compaction skips the keys that it ended before",
        COMPACTION,
        "            (fresh, position) = (segments, next);\n",
        "            (fresh, position) = (segments, next.filter(|_| false));\n",
        "merges_go_on_between_the_steps_of_a_compaction",
    ),
    tests(
        "extents are free as soon as they are given back",
        SPACE,
        "        extents.waiting.push((first, pages));",
        "        extents.add_free(first, pages);",
        "an_extent_is_reused_only_after_a_later_checkpoint_is_durable",
    ),
    tests(
        "extents given back before a checkpoint are free when it begins",
        SPACE,
        "        extents.closing.extend(waiting);",
        "        for (first, pages) in waiting {\n            extents.add_free(first, pages);\n        }",
        "an_extent_is_reused_only_after_a_later_checkpoint_is_durable",
    ),
    crashes(
        "pages are freed while somebody reads them",
        TREES,
        "        let numbers = std::mem::take(&mut *self.let_go.0.lock());\n",
        "        self.let_go.0.lock().clear();\n        let numbers: Vec<u64> = self.replaced.keys().copied().collect();\n",
    ),
    tests(
        "a page counts as younger than the version that wrote it",
        KEPT,
        "self.births.note(first, number + 1)",
        "self.births.note(first, number + 2)",
        "a_page_is_kept_exactly_as_long_as_a_held_version_reaches_it",
    ),
    tests(
        "pages of the next older version are freed with those of the one that is let go",
        KEPT,
        "                && born > older\n",
        "                && born >= older\n",
        "a_page_is_kept_exactly_as_long_as_a_held_version_reaches_it",
    ),
    tests(
        "pages that the last checkpoint alone keeps are not counted",
        ALLOCATOR,
        "            self.superseded += cleared - self.bits.count_free(from, from + cleared);\n",
        "",
        "no_page_is_handed_out_that_anything_reaches",
    ),
    tests(
        "no checkpoint is due for what it would free",
        DB_SPACE,
        "if kept < space.pages_reachable / 4 * 3 { 0 }",
        "if kept < u64::MAX { 0 }",
        "a_checkpoint_is_due_once_it_would_free_much_beside_what_readers_keep",
    ),
    tests(
        "pages stay until no older version at all is held",
        KEPT,
        "                && born > older\n",
        "                && born > number + older\n",
        "what_came_and_went_under_a_held_version_is_free",
    ),
    tests(
        "a checkpoint does not hold the trees that it writes",
        CHECKPOINT,
        "        noted.held.push(Arc::clone(trees.current()));\n",
        "        noted.held.push(Arc::new(TreeVersion::new(trees.current().tree, trees.current().deltas.clone())));\n",
        "a_checkpoint_writes_the_trees_that_it_names",
    ),
    // Replay.
    crashes(
        "the replay goes on past a torn record",
        REPLAY,
        "            Found::Record { .. } | Found::Torn { .. } => return Ok(Stop { offset, torn: true }),",
        "            Found::Torn { header } => offset += super::record::record_len(header.payload_len),\n            Found::Record { .. } => return Ok(Stop { offset, torn: true }),",
    ),
    tests(
        "a record is bound to no segment",
        RECORD,
        "    place[..8].copy_from_slice(&segment.to_le_bytes());\n",
        "    let _ = segment;\n",
        "a_header_comes_back_at_its_place_only",
    ),
    tests(
        "the oldest successor of a segment is followed",
        REPLAY,
        "self.segments.range(segment + 1..).rev();",
        "self.segments.range(segment + 1..);",
        "a_cut_holds_although_the_orphans_are_still_there",
    ),
    tests(
        "a stop where more was durable goes unnoticed",
        REPLAY,
        "if (mark.newest_segment, mark.durable_bytes) > (segment, offset) {",
        "if (mark.newest_segment, mark.durable_bytes) == (u64::MAX, u64::MAX) {",
        "a_log_shorter_than_the_superblock_says_is_reported",
    ),
    crashes(
        "of a batch, only the first operation is replayed",
        REPLAY_PART,
        "in Operations::new(payload).enumerate() {",
        "in Operations::new(payload).enumerate().take(1) {",
    ),
    crashes(
        "range deletions are not replayed",
        REPLAY_PART,
        "            if let Some(place) = place {\n",
        "            if let Some(place) = place.filter(|_| !matches!(operation, Operation::DeleteRange { .. })) {\n",
    ),
    crashes(
        "sequence numbers are used again after a recovery",
        OPEN,
        "let through = superblock.last_sequence.max(report.last_sequence).max(merged);",
        "let through = report.last_sequence;\n    let _ = merged;",
    ),
    crashes(
        "commits after a failed one are acknowledged",
        "src/txn/latch.rs",
        "            Some(first) => Err(first.clone()),",
        "            Some(_) => Ok(()),",
    ),
    // Deltas.
    crashes(
        "a delta keeps no deletions",
        CHANGE,
        "keep_deletions: true, ..self.options",
        "keep_deletions: false, ..self.options",
    ),
    crashes(
        "ranges deleted in memtables stay in deltas",
        MERGE,
        "            change.delete_from_deltas(0..change.deltas.len(), deletions)?;\n",
        "",
    ),
    crashes(
        "a checkpoint forgets the deltas",
        CHECKPOINT,
        "deltas: trees.current().deltas.iter().map(|delta| delta.tree).collect(),",
        "deltas: Vec::new(),",
    ),
    crashes(
        "more is taken out of deltas than was drained",
        DRAIN,
        "end: range.end.as_deref() }",
        "end: None }",
    ),
    crashes(
        "the oldest delta speaks for a key that is drained",
        GATHER,
        "        let is_lower = |(_, lowest): (usize, &Source)| {\n            source.head < lowest.head\n",
        "        let is_lower = |(_, lowest): (usize, &Source)| {\n            source.head <= lowest.head\n",
    ),
    tests(
        "more is taken out of deltas than was joined",
        JOIN,
        "end: range.end.as_deref() }",
        "end: None }",
        "join_tests",
    ),
    tests(
        "deltas are joined in front of newer ones",
        CHANGE,
        "        let at = leaving.end;",
        "        let at = leaving.start;",
        "join_tests",
    ),
    tests(
        "what a change that failed has written stays",
        CHANGE,
        "            self.store.abandon(&self.written);\n",
        "",
        "a_change_that_is_given_up_leaves_no_pages",
    ),
    // Cursors.
    tests(
        "a cursor goes on to an entry beyond its range",
        CURSOR,
        "        self.range.goes_on_at(key, wanted).then_some(place)",
        "        Some(place)",
        "walked_without_a_look_at_those_beyond_it",
    ),
    tests(
        "a cursor steps over what is newer beyond its range",
        MEMTABLE_CURSOR,
        "            position = next.filter(|_| self.range.goes_on_at(newest.key(), way));",
        "            position = next;",
        "walked_without_a_look_at_those_beyond_it",
    ),
    tests(
        "a cursor whose move failed goes on",
        CURSOR,
        "            self.place = Place::Failed;",
        "            self.place = Place::Nowhere;",
        "says_so_until_it_is_placed_anew",
    ),
    tests(
        "a value goes into a leaf that stays marked as dead",
        MEMTABLE_TREE,
        "        let revives = !deletes && leaf.is_dead();",
        "        let revives = false && !deletes && leaf.is_dead();",
        "dead_tests",
    ),
    tests(
        "a branch is dead as soon as one way through it is",
        DEAD,
        "branch.child(branch.index_for(key)), key, sequence) && branch.is_dead(),",
        "branch.child(branch.index_for(key)), key, sequence),",
        "dead_tests",
    ),
    tests(
        "a mark counts for readers of before",
        "src/memtable/node.rs",
        "        since != ALIVE && since <= at.0",
        "        since != ALIVE && at.0 > 0",
        "dead_tests",
    ),
    tests(
        "a memtable's deletions are passed that hide something",
        LEAP,
        "        let until = self.first_of(&self.recent[present + 1..]);",
        "        let until = self.first_of(&self.recent[self.recent.len()..]);",
        "gone_tests",
    ),
    tests(
        "what came into a stretch since it was noted is passed",
        LEAP,
        "            if !recent.valid() || !recent.may_hold_later_than(stretch.since) {",
        "            if recent.valid() {",
        "gone_tests",
    ),
    tests(
        "a note serves readers of before",
        GONE,
        "stretch.since <= at && stretch.holds(key)",
        "stretch.holds(key)",
        "gone",
    ),
    tests(
        "a filter is built for a part of a delta's keys",
        DELTA,
        "            filter.add(filter.spot(cursor.key()));\n            count += 1;",
        "            if count % 2 == 0 {\n                filter.add(filter.spot(cursor.key()));\n            }\n            count += 1;",
        "get_filters_also_for_reading_only",
    ),
    tests(
        "nobody asks for a merge of what readers pass",
        "src/db/watch.rs",
        "        self.passed_lately = passed - self.passed;",
        "        self.passed_lately = 0 * (passed - self.passed);",
        "merged_though_it_is_written_to",
    ),
    // Pace, filters.
    tests(
        "writers are not slowed while a merge is due",
        STALL,
        "        if since > 0 || behind > 0 {\n            self.slow_down_by",
        "        if behind > 0 {\n            self.slow_down_by",
        "writers_are_slowed_only_while_a_merge_is_due",
    ),
    tests(
        "versions of a delta share a place for a filter",
        DELTA,
        "            self.filter = Arc::default();\n",
        "",
        "a_filter_that_is_built_while_deltas_are_drained",
    ),
    // Large batches.
    tests(
        "a memtable shows a commit before its number",
        TABLE,
        "            whole if whole <= at.0 => SequenceNumber::MAX,\n",
        "            whole if whole > 0 => SequenceNumber::MAX,\n",
        "a_memtable_that_gets_its_number_late",
    ),
    crashes(
        "a large part is put behind what was written before it",
        FREEZE,
        "            frozen.extend(part.iter().cloned());\n            if writer.is_some() {\n                frozen.push(Frozen { table: Arc::clone(&old.active), first_segment });\n            }\n",
        "            if writer.is_some() {\n                frozen.push(Frozen { table: Arc::clone(&old.active), first_segment });\n            }\n            frozen.extend(part.iter().cloned());\n",
    ),
    crashes(
        "the log of a large part is let go before it is merged",
        LARGE,
        "if durability == Durability::None { u64::MAX } else { segment }",
        "if durability == Durability::None { segment } else { u64::MAX }",
    ),
    // Old versions and range deletions in memtables.
    tests(
        "a search for an old version jumps over the newest that may be seen",
        "src/memtable/entry.rs",
        ".find(|entry| entry.sequence() > at)",
        ".find(|entry| entry.sequence() >= at)",
        "the_version_of_any_moment_is_found",
    ),
    tests(
        "branches of range deletions do not know of gaps further down",
        "src/memtable/ranges.rs",
        "            Target::Node(node) => BranchRef::new(node).has_gap(),\n",
        "            Target::Node(_) => false,\n",
        "stretches_of_any_moment",
    ),
    tests(
        "range deletions hide what is in their own memtable, whenever it was written",
        HIDDEN,
        "hiding.age < age",
        "hiding.age <= age",
        "snapshots_see_their_moment_through_all_ranges",
    ),
    tests(
        "a cursor takes all of the tree's keys for visible once it stood on one that is",
        CURSOR,
        "Some(self.hidden.next(key).map_or(u64::MAX, key::head8))",
        "Some(u64::MAX)",
        "snapshots_see_their_moment_through_all_ranges",
    ),
    tests(
        "what was counted is believed though something was written since",
        "src/column_family/reading/read.rs",
        "(then == at || self.is_all_seen_at(then.min(at)))",
        "(then <= at || self.is_all_seen_at(then.min(at)))",
        "readers_pay_for_range_deletions",
    ),
    tests(
        "hidden keys of the tree are counted",
        "src/column_family/reading/read.rs",
        "            count = count.saturating_add(within);\n",
        "",
        "snapshots_see_their_moment_through_all_ranges",
    ),
    // Memory.
    tests(
        "a cache gives away what it holds though nobody wants it",
        "src/db/budget.rs",
        "        None => cache.share.saturating_sub(cache.held),",
        "        None => cache.share,",
        "what_is_not_used_goes_first",
    ),
    tests(
        "a write does not wake the clock",
        PIPELINE,
        "        self.work.touch(family);\n",
        "",
        "an_idle_database_sleeps_and_a_write_wakes_it",
    ),
    tests(
        "what a control group above allows does not count",
        "src/options/machine.rs",
        "        let limits = below.ancestors()",
        "        let limits = below.ancestors().take(1)",
        "the_least_limit_of_all_groups_above_counts",
    ),
    tests(
        "a bell that is rung before its thread lies down is not heard",
        BELL,
        "        if !self.rung.load(Ordering::Acquire) {",
        "        if true {",
        "who_was_called_while_awake_does_not_sleep",
    ),
    // Databases that share threads and memory.
    tests(
        "who called of several is not told",
        BELL,
        "        self.called.load(Ordering::Relaxed) && self.called.swap(false, Ordering::AcqRel)",
        "        false & self.called.swap(false, Ordering::AcqRel)",
        "who_is_called_by_several_finds_out_by_whom",
    ),
    tests(
        "a database that brings much keeps the threads to itself",
        DESK,
        "                self.merge_turns.remove(at);\n",
        "",
        "databases_take_turns_however_much_one_brings",
    ),
    tests(
        "a merge that was put off is tried at once, over and over",
        DESK,
        "!patient || since.elapsed() >= PATIENCE",
        "!patient || since.elapsed() < PATIENCE",
        "a_merge_that_was_put_off_lets_others_go_first",
    ),
    tests(
        "a database is gone while a thread is at it",
        CREW,
        "        while state.inside.iter().any(|thread| *thread != me) {",
        "        while state.inside.iter().any(|thread| *thread == me) {",
        "who_leaves_waits_for_those_who_are_inside",
    ),
    tests(
        "a panic in the background leaves writers waiting",
        CREW,
        "        if served.is_none() {\n            // A broken",
        "        if false {\n            // A broken",
        "a_panic_ends_writing_to_the_database_that_it_was_met_for",
    ),
    tests(
        "what is closed keeps its part of the memory",
        "src/db/registry.rs",
        "        if std::mem::replace(&mut self.counts, false) {",
        "        if false & std::mem::replace(&mut self.counts, false) {",
        "a_family_counts_whichever_database_it_is_in",
    ),
    tests(
        "each of several replays takes all that is left for writing",
        "src/db/budget.rs",
        "lent, lent + bytes, Ordering",
        "lent, lent, Ordering",
        "replays_under_way_share_what_is_left",
    ),
    tests(
        "nobody calls who keeps the log when he rests",
        BACKGROUND,
        "            && self.log_rests.swap(false, Ordering::SeqCst)",
        "            && !self.log_rests.swap(false, Ordering::SeqCst)",
        "what_is_written_while_whoever_keeps_the_log_rests",
    ),
    // Readers that wait, and memory that waits for readers.
    tests(
        "guards of other code hold back what is reclaimed",
        EPOCH,
        "COLLECTOR.get_or_init(Collector::new).register()",
        "COLLECTOR.get_or_init(|| crossbeam_epoch::default_collector().clone()).register()",
        "a_guard_of_a_stranger_holds_nothing_back",
    ),
    tests(
        "what is deferred while reclaiming stays with the thread",
        EPOCH,
        "            participant.has_later.set(true);\n",
        "",
        "draining_runs_what_threads_deferred_that_never_come_by_again",
    ),
    tests(
        "nobody reclaims for a database that is gone",
        EPOCH,
        "        for _ in 0..ROUNDS {",
        "        for _ in 0..0 {",
        "nothing_stays_in_memory_once_the_last_handle_is_gone",
    ),
    tests(
        "a descent keeps its epoch while it waits for the disk",
        PARTITIONED,
        "        *guard = None;\n",
        "",
        "a_look_at_a_page_that_is_not_in_memory_leaves_the_epoch",
    ),
    tests(
        "a piece of the frame table is let go while a page enters it",
        FRAME_TABLE,
        "piece.users.compare_exchange(0, GONE, Ordering::AcqRel, Ordering::Relaxed).is_err()",
        "piece.users.swap(GONE, Ordering::AcqRel) == GONE",
        "pieces_that_come_and_go_beside_readers_lose_no_page",
    ),
    tests(
        "pieces of the frame table stay when their pages leave",
        FRAME_TABLE,
        "        if users > 1 || ",
        "        if users > 0 || ",
        "memory_follows_what_is_cached_and_not_the_file",
    ),
    tests(
        "all families beyond the cap use one descriptor",
        POOL,
        "table.descriptors.iter_mut().min_by_key(|shared| shared.handles)",
        "table.descriptors.first_mut()",
        "families_beyond_the_cap_share_evenly_and_open_nothing",
    ),
    tests(
        "a descriptor is given up while others use it",
        POOL,
        "        if table.descriptors[place].handles > 0 {\n            return;\n        }\n",
        "",
        "a_descriptor_is_closed_after_its_last_handle",
    ),
    // The end.
    tests(
        "maintenance goes on after the files were given back",
        PIPELINE,
        "        if self.ended.load(Ordering::Acquire) {",
        "        if false {",
        "nothing_is_written_after_the_files_were_given_back",
    ),
    // The log's length, and its replay in parts.
    tests(
        "a part of the log that the replay does not come to counts",
        RECOVERY,
        "        let part = starts.partition_point(|&start| start <= report.end.segment).saturating_sub(1);\n        turns",
        "        let part = starts.len() - 1;\n        turns",
        "recovery_tests",
    ),
    tests(
        "a part of the log that is replayed beside others is left out",
        REPLAY_PART,
        "            if !table.is_empty() {\n",
        "            if false {\n",
        "recovery_tests",
    ),
    tests(
        "what is read twice may differ",
        RECOVERY,
        "        if stop != expected {",
        "        if false {",
        "what_is_read_twice_has_to_be_read_alike",
    ),
    tests(
        "writers go on beyond the log's limit",
        LOG_PACE,
        "saturating_add(weight) <= self.limit;",
        "saturating_add(weight) <= u64::MAX;",
        "log_length_tests",
    ),
    tests(
        "tiny operations weigh nothing",
        WEIGHT,
        "    record_len(payload_len) + operations * OPERATION",
        "    record_len(payload_len) + operations * 0",
        "log_length_tests",
    ),
    tests(
        "who waits for a shorter log is not told of a full disk",
        LOG_PACE,
        "        self.rounds.lock().obstacle = Some(error);",
        "        drop(error);",
        "log_length_tests",
    ),
    tests(
        "small segments of the log are never gathered",
        LOG_LENGTH,
        "        if self.recovery.segments < MANY_SEGMENTS {",
        "        if true {",
        "processes_that_write_little",
    ),
    tests(
        "a trickle of puts is merged one by one",
        BACKGROUND,
        "watched.is_patient() && self.keeps_little(family)",
        "watched.is_patient() && false",
        "one_put_now_and_then",
    ),
    // What writers are told, and what depends on a key's value.
    tests(
        "a callback is called before its commit is durable",
        SYNCED,
        "        let through = if failure.is_some() { SequenceNumber::MAX } else { log.durable() };",
        "        let through = SequenceNumber::MAX;",
        "synced_tests",
    ),
    tests(
        "a failed sync is told as one that succeeded",
        SYNCED,
        "Some(error) if sequence > log.durable() =>",
        "Some(error) if sequence > SequenceNumber::MAX =>",
        "synced_tests",
    ),
    tests(
        "what was written to a key meanwhile is overwritten",
        UPDATE,
        "is_none_or(|newest| newest <= seen.at)",
        "is_none_or(|newest| newest <= SequenceNumber::MAX)",
        "update_tests",
    ),
    tests(
        "what was written to a key meanwhile and is merged is overwritten",
        UPDATE,
        "            if !Arc::ptr_eq(&now.tree, &seen.view.tree) {",
        "            if false {",
        "update_tests",
    ),
    tests(
        "a key deleted by range meanwhile is overwritten",
        MEMTABLE_TABLE,
        "let newest = entry.map(EntryRef::sequence).max(covered)?;",
        "let newest = entry.map(EntryRef::sequence).max(covered.filter(|_| false))?;",
        "update_tests",
    ),
    tests(
        "what a large batch wrote to a key meanwhile is overwritten",
        MEMTABLE_TABLE,
        "            whole => Some(SequenceNumber(whole)),",
        "            _ => Some(newest),",
        "update_tests",
    ),
    tests(
        "what an appended batch deletes by range stays",
        BATCH,
        "        self.has_range_deletions |= other.has_range_deletions;",
        "",
        "batch_tests",
    ),
    tests(
        "a rollback of a batch leaves the families of what it took back",
        BATCH,
        "        self.families.truncate(savepoint.families);",
        "",
        "batch_tests",
    ),
    tests(
        "changed options are lost when the catalog is written whole",
        CATALOG_FILE,
        "                        record.options = (*new_options).clone();",
        "",
        "options_tests",
    ),
    // How long leaves are.
    tests(
        "a move that finds no room for a pointer keeps what it moved",
        RELOCATE,
        "                if self.out.take_back(&before) {\n",
        "                if !patches.is_empty() {\n",
        "what_would_point_to_what_moved",
    ),
    tests(
        "leaves of large entries end at the first page that is full",
        PACK,
        "        !is_full && !ends_early",
        "        false",
        "space_tests",
    ),
    tests(
        "small entries never leave the leaf of a large one",
        PACK,
        "        !is_full && !ends_early",
        "        !is_full",
        "small_entries_s",
    ),
    tests(
        "every long value gets a run of its own",
        PACK,
        "        if pages >= MANY_PAGES || gain >= 0 {\n            return true;",
        "        if pages >= MANY_PAGES || gain < i64::MAX {\n            return true;",
        "space_tests",
    ),
    tests("credit is not spent", PACK, "            self.credit += gain;\n", "", "a_value_gets_a_run"),
    tests(
        "a value that leaves its run is another one's",
        LEAF_LEVEL,
        "        self.first_value += inlined as u32;\n",
        "",
        "values_in_runs_that_they_do_not_fill",
    ),
    // Transactions.
    tests(
        "a transaction does not look for deleted ranges among what has changed in a range",
        CHANGED,
        "            if steps.covering(from).is_some_and(|sequence| self.came_after(sequence, since)) {\n                return true;\n            }\n",
        "",
        "memtable::changed",
    ),
    tests(
        "a transaction looks at the first key of a range alone",
        CHANGED,
        "            stands = walk.next(self);",
        "            stands = false;",
        "memtable::changed",
    ),
    tests(
        "the key behind a range counts as part of it",
        CHANGED,
        "key::compare(key, end).is_ge());",
        "key::compare(key, end).is_gt());",
        "memtable::changed",
    ),
    tests(
        "a transaction misses commits that got their numbers late",
        TABLE,
        "            whole => whole > since.0,\n",
        "            _ => sequence > since,\n",
        "memtable::changed",
    ),
    tests(
        "what a transaction relies on and does not write may be written before it has its number",
        PIPELINE,
        "    others.extend(also.map(|other| other.write.lock()));\n",
        "    drop(also);\n",
        "db::transactions_tests",
    ),
    tests(
        "what no open transaction needs is kept",
        REMEMBERED,
        "oldest.is_none_or(|oldest| last <= oldest)",
        "oldest.is_none()",
        "column_family::remembered",
    ),
    tests(
        "open transactions may keep any amount of memory",
        REMEMBERED,
        "        while state.bytes > self.most {",
        "        while state.bytes > usize::MAX - 1 {",
        "column_family::remembered",
    ),
    file(
        "a merge keeps nothing for open transactions",
        MERGE,
        "        tables_of(view).for_each(|table| context.remembered.keep(self.id(), table));\n",
        "",
        "transactions",
    ),
    file(
        "a transaction looks into no merged memtable",
        CHECK,
        "            .chain(&merged)\n",
        "",
        "transactions",
    ),
    file(
        "a transaction that lost its place commits",
        CHECK,
        "        if !place.is_kept() {",
        "        if false {",
        "transactions",
    ),
    file(
        "a cursor notes for others what is deleted in its transaction alone",
        CURSOR,
        "        if run.is_long() && !self.has_own {",
        "        if run.is_long() {",
        "transactions",
    ),
    file(
        "an index of own writes outlives a rollback",
        OWN,
        "            *index = Index::default();\n",
        "",
        "transactions",
    ),
    file(
        "of several own writes to a key the first counts",
        OWN,
        "        says.last().map(value_of)",
        "        says.take(1).last().map(value_of)",
        "transactions",
    ),
    file(
        "a transaction does not see its own deleted ranges in front of the family",
        CURSOR,
        "            hidden.add_at(age, table, at);",
        "            hidden.add(age, table);",
        "transactions",
    ),
    file(
        "the gap behind the last entry of a range does not count as read",
        READS,
        "            stretch.end_at_least(end);\n        }\n    }\n\n    /// The cursor went down",
        "            let _ = (stretch, end);\n        }\n    }\n\n    /// The cursor went down",
        "transactions",
    ),
    file(
        "the gap before the first entry of a range does not count as read",
        WALK,
        "                    walked.down_to(if stands { self.cursor.key() } else { &self.start });",
        "                    walked.down_to(self.cursor.key());",
        "transactions",
    ),
    file(
        "the gap where the two ends of an iterator meet does not count as read",
        WALK,
        "                    walked.place(&self.start, self.end.as_deref());\n                }\n",
        "                }\n",
        "transactions",
    ),
    file(
        "a key that a transaction asked for is not noted",
        TRANSACTION,
        "        self.note(family, key);\n        self.read(family, |view, at| view.get(key, at))",
        "        self.read(family, |view, at| view.get(key, at))",
        "transactions",
    ),
    tests(
        "a commit is taken for one that panics because its thread unwinds",
        PIPELINE,
        "        if !self.is_over {",
        "        if std::thread::panicking() {",
        "a_commit_while_its_thread_unwinds",
    ),
    tests(
        "a thread that ends cannot write",
        HANDLE,
        "PAYLOAD.try_with(RefCell::take).unwrap_or_default()",
        "PAYLOAD.with(RefCell::take)",
        "a_commit_while_its_thread_ends",
    ),
    tests(
        "damage of one family is nobody's",
        DAMAGE,
        "        if !error.is_damage() {",
        "        if true {",
        "a_damaged_leaf_ends_writing_to_its_family_alone",
    ),
    tests(
        "a damaged family takes writes",
        FAMILY,
        "        self.damage.check()\n",
        "        Ok(())\n",
        "a_damaged_leaf_ends_writing_to_its_family_alone",
    ),
    tests(
        "what a damaged family cannot write is not in the log",
        CARRY,
        "        if !payload.is_empty() {",
        "        if payload.is_empty() {",
        "what_of_a_damaged_family_cannot_be_written",
    ),
    tests(
        "what is carried along is deleted by what it came after",
        CARRY,
        "[ranges, entries].concat()",
        "[entries, ranges].concat()",
        "what_of_a_damaged_family_cannot_be_written",
    ),
    tests(
        "what is carried along keeps the log that it was in",
        CARRY,
        "            family.set_segment(&side, segment, &self.views);\n",
        "",
        "what_of_a_damaged_family_cannot_be_written",
    ),
    tests(
        "a verification holds the version of a part while it waits",
        VERIFY,
        "                drop(version);\n                self.pause(read)?;\n",
        "                self.pause(read)?;\n                drop(version);\n",
        "a_verification_keeps_nothing_between_its_parts",
    ),
    // The system, other processes, and the place of a database.
    tests(
        "memory goes back in units of 4 KiB, whatever a page of the system is",
        PAGES,
        "    let page = page_size();\n    let start",
        "    let page = 4096;\n    let start",
        "tests_pass_with_pages_of_16_and_64_kib",
    ),
    tests(
        "a page of the system stays in memory although all frames in it are free",
        FRAMES,
        "slab.with_bare_neighbours(slots, page_size().div_ceil(stride))",
        "slots",
        "no_memory_stays_once_all_frames_are_free",
    ),
    tests(
        "records are stored where no memory is ready",
        SEGMENT,
        "        offset + len <= self.ready.load(Ordering::Acquire)",
        "        offset + len <= self.body.len && self.body.mapping.is_some()",
        "records_are_stored_only_where",
    ),
    tests(
        "memory is let go while records are stored into it",
        ROTATION,
        "behind.sequence <= written)",
        "behind.sequence <= u64::MAX || written > 0)",
        "records_are_stored_only_where",
    ),
    tests(
        "memory of a segment's last life is let go in its next one",
        ROTATION,
        "        let preparing = self.preparing.lock();\n        self.let_go_of(&mut self.behind.lock());\n",
        "        let preparing = ();\n",
        "memory_of_a_segments_last_life",
    ),
    file("a child that was forked commits", PIPELINE, "        self.process.check()?;\n", "", "forked"),
    file(
        "a child that was forked ends its parent's database in good order",
        SHARED,
        "        if self.shared.check().is_ok() {",
        "        if true {",
        "forked",
    ),
    file(
        "a child that was forked unlocks its parent's database",
        STORAGE_FILE,
        "            && self.process.is_this()\n",
        "",
        "forked",
    ),
    file(
        "the data file is not locked",
        PLACE,
        "        self.data = Some(data);",
        "        drop(data);",
        "place",
    ),
    file(
        "nobody looks whether the data file is where it was",
        MAINTAIN,
        "locks.is_none_or(|locks| locks.are_in_place())",
        "locks.is_none_or(|locks| locks.are_in_place() || true)",
        "place",
    ),
    tests(
        "a pipe is opened as if it were a file",
        STORAGE_FILE,
        "    if file.metadata()?.is_file() {",
        "    if true {",
        "what_is_no_file_is_neither_opened_nor_locked",
    ),
    file(
        "a first opening that fails leaves what it made",
        PLACE,
        "        if self.stage >= Stage::Parts {",
        "        if false {",
        "place",
    ),
    tests(
        "the log does not say where it goes on",
        ROTATION,
        "        let noted = tail.segment.write_end(tail.offset, next.id);",
        "        let noted = tail.segment.write_end(u64::MAX / 2, next.id);",
        "a_missing_segment_is_reported",
    ),
    tests(
        "the first segment of a process is not missed",
        OPEN,
        "        shared.name_log(given_up.is_some_and(|given_up| given_up.segment == 0))?;\n",
        "",
        "the_only_segment_of_a_process_is_missed",
    ),
    tests(
        "what is given up of a log is thrown away",
        RECOVERY,
        "            wal::keep_aside(backend, segment.max(1), directory)?;",
        "            let _ = directory;",
        "a_damaged_record_ends_the_log_for_who_asks_for_it",
    ),
];

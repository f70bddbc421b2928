//! Memtables, the memory they take, and who waits for whom there.

use super::*;

pub(super) const MUTATIONS: &[Mutation] = &[
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
        SETTLE,
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
    // Readers that wait, and memory that waits for readers.
    tests(
        "guards of other code hold back what is reclaimed",
        EPOCH,
        "collector: Collector::new(),",
        "collector: crossbeam_epoch::default_collector().clone(),",
        "a_guard_of_a_stranger_holds_nothing_back",
    ),
    tests(
        "a child that was forked reclaims with its parent's collector",
        EPOCH,
        "                process: Process::this(),\n                collector: Collector::new(),",
        "                process: Process::this(),\n                \
         collector: FIRST.get().map_or_else(Collector::new, |first| first.collector.clone()),",
        "a_child_reclaims_although_a_thread_of_its_parent_was_in_an_epoch",
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
];

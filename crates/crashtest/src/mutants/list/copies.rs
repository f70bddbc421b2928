//! Copies of the live database.

use super::*;

pub(super) const MUTATIONS: &[Mutation] = &[
    file(
        "the log recycles what a copy reads",
        STOCK,
        "if shelf.holds.iter().any(|&first| first <= retired.id) {",
        "if shelf.holds.iter().any(|&first| first < retired.id && false) {",
        "copies",
    ),
    file(
        "pages that a copy reads are reused",
        COPY,
        "            trees_held.push(Arc::clone(trees.current()));",
        "            trees_held.push(Arc::new(TreeVersion::default()));",
        "copies",
    ),
    file(
        "a copy is made of what is in the file, without what is dirty",
        COPY,
        "            let written = family.store().write_dirty();",
        "            let written = Ok::<(), Error>(()).and_then(|()| if family.is_dropped() { family.store().write_dirty() } else { Ok(()) });",
        "copies",
    ),
    file(
        "a copy holds the log before the trees",
        COPY,
        "            first_segment = first_segment.min(segment);\n",
        "            let _ = segment;\n",
        "copies",
    ),
    file(
        "what is written after a copy began is in its log",
        WAL_HELD,
        "        self.copy_segment(source, target, id, end, database_id, count)?;\n        let synced",
        "        self.copy_segment(source, target, id, end + (1 << 40), database_id, count)?;\n        let synced",
        "copies",
    ),
    file(
        "a copy has the id of its source",
        COPY,
        "        let database_id = random_id();",
        "        let database_id = self.checkpoint.lock().superblock.database_id;",
        "copies",
    ),
    file(
        "nothing says that a copy is unfinished",
        PLACE,
        "            made => drop(made.map_err(failed)?),",
        "            made => drop(made.map_err(failed).and_then(|_| backend.remove(UNFINISHED).map_err(failed))?),",
        "copies",
    ),
    file(
        "a copy of a database that was closed meanwhile counts",
        COPY,
        "        self.check_copied()?;\n",
        "",
        "copies",
    ),
    file("commits without a record are in no copy", COPY, "            self.drain_all()?;\n", "", "copies"),
    tests(
        "a run of pages that goes on in the next segment is cut off",
        COPY_LAYOUT,
        "Some(source.end()..run.end)",
        "reached.next()",
        "without_what_is_free_at_their_ends",
    ),
    file(
        "a copy does not look again whether somebody has the directory",
        "src/db/place.rs",
        "            Ok(Some(name)) => Some(foreign(name)),",
        "            Ok(Some(_)) => None,",
        "copies",
    ),
    file(
        "a copy of a closed database removes files of whoever has the directory",
        "src/wal/held.rs",
        "        *self.given_up.lock() = true;",
        "        *self.given_up.lock() = false;",
        "copies",
    ),
    tests(
        "a copy wants segments that hold nothing",
        "src/wal/held.rs",
        " && retired.used > 0",
        "",
        "a_segment_that_was_passed_over_is_no_part_of_a_copy",
    ),
];

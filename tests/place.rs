//! The directory of a database: what stands in the way of one, and what others do to it while it is open.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::storage::TestStorage;
use common::{assert_clean, failure, shrunken};
use peristyle::{ColumnFamilyDatabase, ErrorKind, FamilyOptions};

fn fresh() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("database");
    (directory, path)
}

fn populate(path: &Path) {
    let db = shrunken().open(path).unwrap();
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    for n in 0..500u32 {
        family.put(n.to_be_bytes(), [n as u8; 200]).unwrap();
    }
    db.close().unwrap();
}

/// Names in a directory, sorted.
fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Names and bytes of all files below a directory.
fn content(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut content = Vec::new();
    for name in names(path) {
        let path = path.join(name);
        if path.is_dir() {
            content.extend(self::content(&path));
        } else {
            content.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    content
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in names(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() { copy(&from, &to) } else { fs::copy(&from, &to).map(drop).unwrap() }
    }
}

#[cfg(unix)]
fn make_pipe(path: &Path) {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the path ends with a zero byte.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_an_error_wherever_a_file_belongs() {
    type Make = fn(&Path);
    let things: [(&str, Make); 3] = [
        ("a directory", |path| fs::create_dir(path).unwrap()),
        ("a pipe", make_pipe),
        ("a device", |path| std::os::unix::fs::symlink("/dev/zero", path).unwrap()),
    ];
    for (what, make) in things {
        for name in ["data", "LOCK", "data.new", "wal"] {
            if what == "a directory" && name == "wal" {
                continue;
            }
            // Before there is a database, and where there is one.
            for existing in [false, true] {
                let (_directory, path) = fresh();
                fs::create_dir(&path).unwrap();
                if existing {
                    populate(&path);
                    let own = path.join(name);
                    if own.is_dir() {
                        fs::remove_dir_all(&own).unwrap()
                    } else {
                        let _ = fs::remove_file(&own);
                    }
                }
                make(&path.join(name));
                let before = names(&path);
                for builder in [shrunken(), shrunken().read_only(true)] {
                    let error = failure(builder.open(&path), ErrorKind::NotADatabase);
                    assert!(!error.to_string().is_empty(), "{what} called {name}");
                }
                assert_eq!(names(&path), before, "{what} called {name}");
            }
        }
        let (_directory, path) = fresh();
        populate(&path);
        let log = path.join("wal").join(&names(&path.join("wal"))[0]);
        fs::remove_file(&log).unwrap();
        make(&log);
        for builder in [shrunken(), shrunken().read_only(true)] {
            assert!(builder.open(&path).is_err(), "{what} instead of a segment of the log");
        }
    }
}

#[test]
fn a_directory_that_holds_what_is_not_ours_is_not_taken() {
    for folder in ["photos", ".git", "wal/old", "data.d"] {
        let (_directory, path) = fresh();
        fs::create_dir_all(path.join(folder)).unwrap();
        let before = names(&path);
        failure(shrunken().open(&path), ErrorKind::NotADatabase);
        failure(shrunken().read_only(true).open(&path), ErrorKind::NotADatabase);
        assert_eq!(names(&path), before);
    }
    // What a file system makes by itself, and what a crash leaves of a database that was never complete.
    let (_directory, path) = fresh();
    fs::create_dir_all(path.join("lost+found")).unwrap();
    fs::create_dir_all(path.join("wal")).unwrap();
    fs::write(path.join("LOCK"), "").unwrap();
    fs::write(path.join("data.new"), "half").unwrap();
    populate(&path);
    // Beside a database others may stand.
    fs::create_dir_all(path.join("photos")).unwrap();
    fs::write(path.join("notes.txt"), "mine").unwrap();
    let db = shrunken().open(&path).unwrap();
    assert_clean(&db);
    db.close().unwrap();
    assert_eq!(fs::read(path.join("notes.txt")).unwrap(), b"mine");
}

#[test]
fn a_first_opening_that_fails_leaves_nothing_behind() {
    // A directory instead of what the last step makes: found by trying what a database makes when it is new.
    let (directory, path) = fresh();
    let nested = path.join("a/b");
    let storage = peristyle::MemoryStorage::with_capacity_limit(70 << 10);
    failure(shrunken().storage(storage.clone()).open("memory"), ErrorKind::OutOfSpace);
    assert_eq!(peristyle::StorageBackend::list(&storage, "").unwrap(), [""; 0]);
    assert_eq!(storage.used_bytes(), 0);
    storage.set_capacity_limit(u64::MAX);
    shrunken().storage(storage).open("memory").unwrap();

    let limited = Limited::new(&nested);
    for allowed in 0.. {
        limited.left.store(allowed, std::sync::atomic::Ordering::SeqCst);
        match shrunken().storage(limited.clone()).open(&nested) {
            Ok(db) => {
                assert!(allowed > 3, "a database is made with {allowed} changes");
                db.close().unwrap();
                break;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Io, "{error}"),
        }
        if nested.join("data").exists() {
            // It is whole, and empty.
            let db = shrunken().create_if_missing(false).open(&nested).unwrap();
            assert!(db.column_family_names().is_empty());
            drop(db);
            fs::remove_dir_all(directory.path().join("database")).unwrap();
        }
        assert_eq!(names(directory.path()), [""; 0], "after {allowed} changes");
    }
    // One that exists stays, and so does an empty directory that was there before.
    limited.left.store(2, std::sync::atomic::Ordering::SeqCst);
    let before = content(&nested);
    let _ = shrunken().storage(limited.clone()).open(&nested);
    assert_eq!(content(&nested).len(), before.len());
    let empty = directory.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let limited = Limited::new(&empty);
    limited.left.store(3, std::sync::atomic::Ordering::SeqCst);
    assert!(shrunken().storage(limited).open(&empty).is_err());
    assert_eq!(names(directory.path()), ["database", "empty"]);
    assert_eq!(names(&empty), [""; 0]);
}

/// A directory in which so many changes succeed, and no more but for removals.
#[derive(Debug, Clone)]
struct Limited {
    inner: peristyle::FileStorage,
    left: std::sync::Arc<std::sync::atomic::AtomicI64>,
}

impl Limited {
    fn new(path: &Path) -> Self {
        Self { inner: peristyle::FileStorage::new(path), left: Default::default() }
    }

    fn spend(&self) -> std::io::Result<()> {
        if self.left.fetch_sub(1, std::sync::atomic::Ordering::SeqCst) > 0 {
            return Ok(());
        }
        Err(std::io::Error::other("nothing can be changed"))
    }
}

impl peristyle::StorageBackend for Limited {
    fn open(
        &self,
        path: &str,
        mode: peristyle::FileMode,
    ) -> std::io::Result<std::sync::Arc<dyn peristyle::StorageFile>> {
        if mode == peristyle::FileMode::Create {
            self.spend()?;
        }
        self.inner.open(path, mode)
    }

    fn list(&self, directory: &str) -> std::io::Result<Vec<String>> {
        self.inner.list(directory)
    }

    fn list_others(&self, directory: &str) -> std::io::Result<Vec<String>> {
        self.inner.list_others(directory)
    }

    fn create_directory(&self, directory: &str) -> std::io::Result<()> {
        self.inner.create_directory(directory)?;
        self.spend()
    }

    fn remove_directory(&self, directory: &str) -> std::io::Result<()> {
        self.inner.remove_directory(directory)
    }

    fn sync_directory(&self, directory: &str) -> std::io::Result<()> {
        self.inner.sync_directory(directory)
    }

    fn rename(&self, from: &str, to: &str) -> std::io::Result<()> {
        self.spend()?;
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &str) -> std::io::Result<()> {
        self.inner.remove(path)
    }

    fn lock(&self, path: &str, shared: bool) -> std::io::Result<Box<dyn peristyle::StorageLock>> {
        self.spend()?;
        self.inner.lock(path, shared)
    }

    fn lock_existing(&self, path: &str, shared: bool) -> std::io::Result<Box<dyn peristyle::StorageLock>> {
        self.spend()?;
        self.inner.lock_existing(path, shared)
    }
}

#[test]
fn who_removes_the_lock_lets_nobody_in() {
    let (_directory, path) = fresh();
    let db = shrunken().open(&path).unwrap();
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    for again in 0..2u8 {
        fs::remove_file(path.join("LOCK")).unwrap();
        failure(shrunken().open(&path), ErrorKind::Locked);
        failure(shrunken().read_only(true).open(&path), ErrorKind::Locked);
        family.put("key", [again]).unwrap();
        db.flush().unwrap();
        // Made by who was not let in.
        assert!(path.join("LOCK").exists());
    }
    drop((family, db));
    let reader = shrunken().read_only(true).open(&path).unwrap();
    fs::remove_file(path.join("LOCK")).unwrap();
    failure(shrunken().open(&path), ErrorKind::Locked);
    shrunken().read_only(true).open(&path).unwrap();
    drop(reader);
    assert_eq!(
        shrunken().open(&path).unwrap().column_family("family").unwrap().get("key").unwrap().unwrap(),
        [1]
    );
}

/// Does `harm` to an open database, sees writing end, and `where_all_is_new` that nothing happens to what
/// stands there then.
fn harmed(path: &Path, harm: impl FnOnce(), by_checkpoint: bool, where_all_is_new: bool) {
    let db = shrunken().automatic_maintenance(!by_checkpoint).open(path).unwrap();
    let family = db.column_family("family").unwrap();
    family.put("before", "value").unwrap();
    harm();
    let after = path.exists().then(|| content(path));
    if by_checkpoint {
        family.put("after", "value").unwrap();
        let error = failure(db.flush(), ErrorKind::WriteFailed);
        assert!(error.to_string().contains("replaced"), "{error}");
    } else {
        let begun = Instant::now();
        while family.put("after", "value").is_ok() {
            assert!(begun.elapsed() < Duration::from_secs(60), "nobody noticed");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let error = failure(family.put("later", "value"), ErrorKind::WriteFailed);
    // Where the directory is gone, the log may meet that first.
    let said = error.to_string();
    assert!(said.contains("replaced") || !path.exists() && said.contains("a segment of the log"), "{said}");
    assert_eq!(family.get("before").unwrap().unwrap(), "value");
    assert!(db.close().is_err());
    if let Some(after) = after {
        let now = content(path);
        let list =
            |content: &[(PathBuf, Vec<u8>)]| content.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
        assert_eq!(list(&now), list(&after));
        assert!(!where_all_is_new || now == after, "what stands there now was changed");
    } else {
        assert!(!path.exists(), "a directory that was removed is there again");
    }
}

#[cfg(unix)]
#[test]
fn a_data_file_that_was_replaced_or_removed_ends_all_writing_and_nothing_is_damaged() {
    for by_checkpoint in [true, false] {
        // A copy of before is put in its place.
        let (directory, path) = fresh();
        populate(&path);
        let backup = directory.path().join("backup");
        copy(&path, &backup);
        let harm = || {
            fs::rename(&path, directory.path().join("old")).unwrap();
            copy(&backup, &path);
        };
        harmed(&path, harm, by_checkpoint, true);
        let db = shrunken().open(&path).unwrap();
        assert_eq!(db.column_family("family").unwrap().len().unwrap(), 500);
        assert_clean(&db);
        drop(db);
        // The one that was moved away is whole as well.
        let db = shrunken().open(directory.path().join("old")).unwrap();
        assert_eq!(db.column_family("family").unwrap().get("before").unwrap().unwrap(), "value");
        assert_clean(&db);

        // All of it is gone.
        let (_directory, path) = fresh();
        populate(&path);
        harmed(&path, || fs::remove_dir_all(&path).unwrap(), by_checkpoint, true);

        // The data file alone.
        let (_directory, path) = fresh();
        populate(&path);
        harmed(&path, || fs::remove_file(path.join("data")).unwrap(), by_checkpoint, false);
    }
}

#[cfg(unix)]
#[test]
fn a_database_is_one_by_whatever_path() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(OsStr::from_bytes(b"not \xff text"));
    populate(&path);
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let elsewhere = directory.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(path.join("data"), elsewhere.join("data")).unwrap();
    std::os::unix::fs::symlink(path.join("wal"), elsewhere.join("wal")).unwrap();
    let db = shrunken().open(&link).unwrap();
    for path in [&path, &link, &elsewhere] {
        failure(shrunken().open(path), ErrorKind::Locked);
    }
    drop(db);
    let db = shrunken().open(&path).unwrap();
    assert_eq!(db.column_family("family").unwrap().len().unwrap(), 500);
    // Where the link leads to does not matter any more to who opened the database by its own path.
    fs::remove_file(&link).unwrap();
    db.column_family("family").unwrap().put("key", "value").unwrap();
    db.flush().unwrap();
    db.close().unwrap();
}

#[test]
fn a_backend_that_knows_no_places_is_never_found_to_be_elsewhere() {
    let db = shrunken().storage(TestStorage::new()).open("memory").unwrap();
    db.create_column_family("family", FamilyOptions::default()).unwrap();
    db.flush().unwrap();
    db.close().unwrap();
}

#[cfg(unix)]
#[test]
fn a_log_that_is_cut_by_others_is_no_end_of_the_process_without_its_mapping() {
    let (_directory, path) = fresh();
    let db =
        ColumnFamilyDatabase::builder().mapped_log(false).automatic_maintenance(false).open(&path).unwrap();
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    for n in 0..2000u32 {
        family.put(n.to_be_bytes(), "value").unwrap();
        if n == 1000 {
            for name in names(&path.join("wal")) {
                fs::File::options()
                    .write(true)
                    .open(path.join("wal").join(name))
                    .unwrap()
                    .set_len(0)
                    .unwrap();
            }
        }
    }
    db.flush().unwrap();
    assert_eq!(family.len().unwrap(), 2000);
}

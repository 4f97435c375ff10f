//! What may happen to the file from outside: copies while it is written, bytes that change, a log
//! that is gone, commits that fail.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use cloudai_model::{AttemptId, AttemptNo, Cause, Event, Hold, JobShape, Journal, Outcome};
use cloudai_model::{Numbers, Session, Snapshot, TaskId, Timestamp, WorkerId};
use tempfile::TempDir;

use super::tests::{query, refusal, registered, submitted};
use super::{FILE_NAME, SqliteStore, copy_store};
use crate::{MemoryStore, Store, StoreError, TaskQuery};

/// A job that is placed and ended, and one that waits, in one batch.
fn batch(number: u64) -> Vec<Event> {
    let (ends, waits) = (2 * number - 1, 2 * number);
    let attempt = AttemptId { task: TaskId::single(ends), no: AttemptNo::FIRST };
    let at = Timestamp(number);
    let worker = WorkerId::new("w1").unwrap();
    let hold = Hold { worker, session: Session(1), placed_at: at };
    let outcome = Outcome::new(Cause::Exit(0), "");
    vec![
        submitted(ends, &format!("image-{number}"), JobShape::Single),
        Event::AttemptPlaced { attempt, hold },
        Event::TaskFinished { attempt, outcome, finished_at: at, at },
        submitted(waits, &format!("image-{number}"), JobShape::Single),
    ]
}

fn filled(dir: &Path, batches: u64) -> SqliteStore {
    let mut store = SqliteStore::open(dir).unwrap();
    store.commit(&[registered()]).unwrap();
    for number in 1..=batches {
        store.commit(&batch(number)).unwrap();
    }
    store
}

/// Everything that can be asked of a store.
fn everything(store: &mut SqliteStore) -> Result<(Snapshot, String), StoreError> {
    let snapshot = store.load()?;
    let tasks = store.reader()?.tasks(&TaskQuery { limit: 1_000, ..TaskQuery::default() })?;
    let counts = store.reader()?.counts()?;
    Ok((snapshot, format!("{counts:?} {tasks:?}")))
}

#[test]
fn a_copy_of_a_store_that_is_written_is_one_moment_of_it() {
    let (dir, homes) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut store = filled(dir.path(), 1);
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 2.. {
                store.commit(&batch(number)).unwrap();
                if enough.load(Ordering::Relaxed) && number > 50 {
                    return number;
                }
            }
            unreachable!("the range has no end");
        });
        for copy in 0..5 {
            let home = homes.path().join(copy.to_string());
            fs::create_dir(&home).unwrap();
            let copied = copy_store(dir.path(), &home.join(FILE_NAME), &mut |_, _| {}).unwrap();
            assert_eq!(fs::read_dir(&home).unwrap().count(), 1, "one file is the whole copy");
            let batches = copied.numbers.last_job / 2;
            let mut want = MemoryStore::default();
            want.commit(&[registered()]).unwrap();
            (1..=batches).for_each(|number| want.commit(&batch(number)).unwrap());
            let mut store = SqliteStore::open(&home).unwrap();
            assert_eq!(store.load().unwrap(), want.load().unwrap());
            assert_eq!(store.reader().unwrap().counts().unwrap(), copied.tasks);
        }
        enough.store(true, Ordering::Relaxed);
        assert!(writer.join().unwrap() > 50);
    });
}

#[test]
fn a_copy_changes_nothing_of_a_store_whose_master_was_killed() {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let store = filled(dir.path(), 3);
    let names = [FILE_NAME, "cloudai.db-wal"];
    let killed = TempDir::new().unwrap();
    for name in names {
        fs::copy(dir.path().join(name), killed.path().join(name)).unwrap();
    }
    drop(store);
    let bytes = || names.map(|name| fs::read(killed.path().join(name)).unwrap());
    let before = bytes();
    let copied = copy_store(killed.path(), &other.path().join(FILE_NAME), &mut |_, _| {}).unwrap();
    assert_eq!(copied.numbers.last_job, 6);
    assert!(bytes() == before, "the files of the killed master changed");
}

#[test]
fn where_there_is_no_store_there_is_nothing_to_copy() {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let to = other.path().join("copy");
    for empty in [false, true] {
        if empty {
            fs::write(dir.path().join(FILE_NAME), "").unwrap();
        }
        let error = copy_store(dir.path(), &to, &mut |_, _| {}).unwrap_err();
        assert!(matches!(error, StoreError::Missing { .. }), "{error}");
        assert!(!to.exists());
    }
}

#[test]
fn numbers_are_raised_and_never_lowered() {
    let dir = TempDir::new().unwrap();
    let mut store = filled(dir.path(), 2);
    let before = store.load().unwrap();
    let higher = before.numbers.after_loss(None, 5_000).unwrap();
    store.skip_numbers(higher).unwrap();
    assert_eq!(store.load().unwrap(), Snapshot { numbers: higher, ..before });
    let lower = Numbers { last_job: higher.last_job - 1, ..higher };
    assert!(matches!(store.skip_numbers(lower), Err(StoreError::Corrupt(_))));
    assert_eq!(store.load().unwrap().numbers, higher);
    assert!(store.commit(&[submitted(5, "i", JobShape::Single)]).is_err());
    store.commit(&[submitted(higher.last_job + 1, "i", JobShape::Single)]).unwrap();
}

#[test]
fn a_file_without_the_log_that_belongs_to_it_is_refused() {
    let dir = TempDir::new().unwrap();
    let store = filled(dir.path(), 3);
    let alone = TempDir::new().unwrap();
    // What "cp cloudai.db" of a running master makes.
    fs::copy(dir.path().join(FILE_NAME), alone.path().join(FILE_NAME)).unwrap();
    for _ in 0..2 {
        let error = refusal(alone.path());
        assert!(matches!(error, StoreError::LogMissing { .. }), "{error}");
        for words in ["Put that file back", "cloudai restore BACKUP", "empty --data-dir"] {
            assert!(error.to_string().contains(words), "{error}");
        }
        // Nor does a copy make a whole store of it.
        let to = alone.path().join("copy");
        let error = copy_store(alone.path(), &to, &mut |_, _| {}).unwrap_err();
        assert!(matches!(error, StoreError::LogMissing { .. }), "{error}");
        assert!(!to.exists());
    }
    // With it, everything is there; and after a clean stop the file is whole alone.
    let log = "cloudai.db-wal";
    fs::copy(dir.path().join(log), alone.path().join(log)).unwrap();
    assert_eq!(SqliteStore::open(alone.path()).unwrap().load().unwrap().numbers.last_job, 6);
    drop(store);
    let clean = TempDir::new().unwrap();
    fs::copy(dir.path().join(FILE_NAME), clean.path().join(FILE_NAME)).unwrap();
    assert_eq!(SqliteStore::open(clean.path()).unwrap().load().unwrap().numbers.last_job, 6);
}

#[test]
fn a_damaged_sector_is_refused_or_did_no_harm() {
    let dir = TempDir::new().unwrap();
    let mut store = filled(dir.path(), 100);
    let whole = everything(&mut store).unwrap();
    drop(store);
    let path = dir.path().join(FILE_NAME);
    let bytes = fs::read(&path).unwrap();
    let (mut refused, mut harmless) = (0, 0);
    for fill in [0, 0xa5] {
        for at in (0..bytes.len() / 512).step_by(7) {
            let mut damaged = bytes.clone();
            damaged[at * 512..][..512].fill(fill);
            fs::write(&path, &damaged).unwrap();
            match SqliteStore::open(dir.path()).and_then(|mut store| everything(&mut store)) {
                Ok(found) => {
                    assert_eq!(found, whole, "sector {at} of {} with {fill}", bytes.len() / 512);
                    harmless += 1;
                }
                Err(error) => {
                    assert!(error.to_string().contains("cloudai restore"), "{at}: {error:?}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > harmless && harmless > 0, "{refused} {harmless}");
}

#[test]
fn a_changed_byte_never_loses_a_task_unseen() {
    let dir = TempDir::new().unwrap();
    let mut store = filled(dir.path(), 20);
    let count = |found: &Snapshot| (found.jobs.len(), found.workers.len());
    let whole = everything(&mut store).unwrap();
    drop(store);
    let path = dir.path().join(FILE_NAME);
    let bytes = fs::read(&path).unwrap();
    // Not aligned to anything.
    for at in (0..bytes.len()).step_by(127) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x81;
        fs::write(&path, &damaged).unwrap();
        match SqliteStore::open(dir.path()).and_then(|mut store| everything(&mut store)) {
            Ok((found, _)) => assert_eq!(count(&found), count(&whole.0), "byte {at}"),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

#[test]
fn a_commit_that_fails_at_any_page_leaves_no_trace() {
    let dir = TempDir::new().unwrap();
    let mut store = filled(dir.path(), 30);
    let before = everything(&mut store).unwrap();
    let turn: Vec<Event> = (31..80).flat_map(batch).collect();
    let pages = query(dir.path(), "PRAGMA page_count");
    let mut refused = 0;
    for room in 0.. {
        store.writer.connection.pragma_update(None, "max_page_count", pages + room).unwrap();
        match store.commit(&turn) {
            Ok(()) => break,
            Err(error) => assert!(matches!(error, StoreError::Full { .. }), "{error:?}"),
        }
        assert_eq!(everything(&mut store).unwrap(), before, "with room for {room} pages");
        refused += 1;
    }
    assert!(refused > 3, "it failed at {refused} pages only");
    assert_eq!(store.load().unwrap().numbers.last_job, 2 * 79);
    drop(store);
    let jobs = SqliteStore::open(dir.path()).unwrap().load().unwrap().jobs;
    assert_eq!(jobs.len(), 79);
}

//! What only the file backend promises: the lock, the versions, damage, a full disk, and sizes.

use std::fs;
use std::path::Path;

use cloudai_model::{AttemptId, AttemptNo, Cause, Journal, TaskSpec, Timestamp};
use cloudai_model::{Event, Hold, JobId, JobShape, Outcome, Session, TaskId, WorkerId};
use cloudai_model::{Resources, WorkerKind, WorkerRecord};
use rusqlite::Connection;
use tempfile::TempDir;

use super::{FILE_NAME, SqliteStore};
use crate::conformance::{Backend, conformance};
use crate::{Store, StoreError};

struct Dir(TempDir);

impl Backend for Dir {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn open(&self) -> Box<dyn Store> {
        Box::new(SqliteStore::open(self.0.path()).unwrap())
    }
}

conformance!(Dir);

pub(super) fn submitted(job: u64, image: &str, shape: JobShape) -> Event {
    Event::JobSubmitted {
        job: JobId(job),
        spec: TaskSpec::new(image, TaskSpec::DEFAULT_NEEDS).into(),
        shape,
        request: None,
        at: Timestamp(job),
    }
}

pub(super) fn registered() -> Event {
    Event::WorkerRegistered {
        worker: WorkerRecord {
            id: WorkerId::new("w1").unwrap(),
            session: Session(1),
            kind: WorkerKind::Session,
            address: String::new(),
            capacity: Resources::default(),
            volumes: [].into(),
            version: String::new(),
            registered_at: Timestamp(1),
        },
    }
}

pub(super) fn query(dir: &Path, sql: &str) -> i64 {
    Connection::open(dir.join(FILE_NAME)).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

pub(super) fn refusal(dir: &Path) -> StoreError {
    SqliteStore::open(dir).map(|store| store.describe()).unwrap_err()
}

#[test]
fn a_second_master_is_refused_and_told_who_has_the_directory() {
    let dir = TempDir::new().unwrap();
    let first = SqliteStore::open(dir.path()).unwrap();
    let error = refusal(dir.path());
    let text = error.to_string();
    assert!(matches!(error, StoreError::InUse { .. }), "{text}");
    assert!(text.contains(&dir.path().display().to_string()), "{text}");
    assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
    drop(first);
    SqliteStore::open(dir.path()).unwrap();
}

#[test]
fn a_store_of_a_newer_version_is_refused_and_left_alone() {
    let dir = TempDir::new().unwrap();
    drop(SqliteStore::open(dir.path()).unwrap());
    let path = dir.path().join(FILE_NAME);
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let before = fs::read(&path).unwrap();
    let text = refusal(dir.path()).to_string();
    assert!(text.contains("made by a newer CloudAI (schema 99, this one knows 1)"), "{text}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_database_of_another_program_is_refused() {
    let dir = TempDir::new().unwrap();
    let other = Connection::open(dir.path().join(FILE_NAME)).unwrap();
    other.execute_batch("CREATE TABLE theirs (x)").unwrap();
    drop(other);
    assert!(matches!(refusal(dir.path()), StoreError::Foreign { .. }));
}

#[test]
fn a_damaged_file_is_refused_with_what_to_do() {
    let dir = TempDir::new().unwrap();
    let mut store = SqliteStore::open(dir.path()).unwrap();
    let events: Vec<Event> =
        (1..2_000).map(|job| submitted(job, &format!("i{job}"), JobShape::Single)).collect();
    store.commit(&events).unwrap();
    drop(store);
    let path = dir.path().join(FILE_NAME);
    let whole = fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    for page in damaged.chunks_mut(4_096).skip(20).step_by(3) {
        page[..200].fill(0xa5);
    }
    let noise = vec![0x5a; 8_192];
    for bytes in [&damaged[..], &noise[..], &whole[..whole.len() / 2]] {
        fs::write(&path, bytes).unwrap();
        let error = refusal(dir.path());
        let text = error.to_string();
        assert!(matches!(error, StoreError::Damaged { .. }), "{text}");
        assert!(text.contains("cloudai restore BACKUP --data-dir NEW"), "{text}");
    }
    fs::write(&path, whole).unwrap();
    assert_eq!(SqliteStore::open(dir.path()).unwrap().load().unwrap().jobs.len(), 1_999);
}

#[test]
fn a_transaction_that_was_not_committed_is_not_there() {
    let dir = TempDir::new().unwrap();
    let mut store = SqliteStore::open(dir.path()).unwrap();
    store.commit(&[submitted(1, "a", JobShape::Single)]).unwrap();
    // What a killed process leaves behind: a transaction without its end.
    store.writer.connection.execute_batch("BEGIN IMMEDIATE; UPDATE job SET open = 0").unwrap();
    let mut reader = store.reader().unwrap();
    assert_eq!(reader.find_job(JobId(1)).unwrap().unwrap().counts.queued, 1);
    drop(store);
    let mut store = SqliteStore::open(dir.path()).unwrap();
    assert_eq!(store.load().unwrap().jobs.len(), 1);
}

#[test]
fn what_was_committed_is_there_without_a_clean_close() {
    let dir = TempDir::new().unwrap();
    let copy = TempDir::new().unwrap();
    let mut store = SqliteStore::open(dir.path()).unwrap();
    store.commit(&[submitted(1, "a", JobShape::Single)]).unwrap();
    // The files as a power cut would leave them, the log still unmerged.
    for name in [FILE_NAME, "cloudai.db-wal"] {
        fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
    }
    let mut after = SqliteStore::open(copy.path()).unwrap();
    assert_eq!(after.load().unwrap(), store.load().unwrap());
    assert_eq!(after.load().unwrap().jobs.len(), 1);
}

#[test]
fn a_full_disk_refuses_the_batch_and_is_got_over() {
    let dir = TempDir::new().unwrap();
    let mut store = SqliteStore::open(dir.path()).unwrap();
    store.commit(&[submitted(1, "first", JobShape::Single)]).unwrap();
    let pages = query(dir.path(), "PRAGMA page_count");
    store.writer.connection.pragma_update(None, "max_page_count", pages).unwrap();
    let large = "x".repeat(100_000);
    let events = [submitted(2, &large, JobShape::Single)];
    for _ in 0..2 {
        let error = store.commit(&events).unwrap_err();
        assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
        assert!(error.to_string().starts_with("storage full"), "{error}");
        assert_eq!(store.load().unwrap().numbers.last_job, 1);
    }
    store.writer.connection.pragma_update(None, "max_page_count", 1_000_000).unwrap();
    store.commit(&events).unwrap();
    drop(store);
    let jobs = SqliteStore::open(dir.path()).unwrap().load().unwrap().jobs;
    assert_eq!(jobs[&JobId(2)].spec.image, large);
}

#[test]
fn a_million_tasks_that_wait_or_are_cancelled_are_a_few_rows() {
    let dir = TempDir::new().unwrap();
    let mut store = SqliteStore::open(dir.path()).unwrap();
    let shape = JobShape::Array { first: 0, last: 999_999, at_once_max: Some(50) };
    store.commit(&[submitted(1, "a", shape)]).unwrap();
    let cancel = Event::FreshCancelled { job: JobId(1), first: 0, last: 999_999, at: Timestamp(2) };
    store.commit(&[cancel]).unwrap();
    assert_eq!(query(dir.path(), "SELECT count(*) FROM task"), 0);
    assert_eq!(query(dir.path(), "SELECT count(*) FROM cancelled_span"), 1);
    assert!(store.load().unwrap().jobs.is_empty());
}

#[test]
fn equal_specs_are_one_row_and_ended_tasks_leave_the_index_of_live_ones() {
    let dir = TempDir::new().unwrap();
    let mut store = SqliteStore::open(dir.path()).unwrap();
    store.commit(&[registered()]).unwrap();
    for job in 1..=20 {
        let task = TaskId::single(job);
        let attempt = AttemptId { task, no: AttemptNo::FIRST };
        let at = Timestamp(job);
        let worker = WorkerId::new("w1").unwrap();
        let hold = Hold { worker, session: Session(1), placed_at: at };
        store.commit(&[submitted(job, "same", JobShape::Single)]).unwrap();
        store.commit(&[Event::AttemptPlaced { attempt, hold }]).unwrap();
        let outcome = Outcome::new(Cause::Exit(0), "");
        store.commit(&[Event::TaskFinished { attempt, outcome, finished_at: at, at }]).unwrap();
    }
    assert_eq!(query(dir.path(), "SELECT count(*) FROM spec"), 1);
    assert_eq!(query(dir.path(), "SELECT count(*) FROM task WHERE ended_at IS NULL"), 0);
    assert_eq!(query(dir.path(), "SELECT count(*) FROM job WHERE open = 1"), 0);
    assert_eq!(query(dir.path(), "SELECT count(*) FROM task WHERE state = 4"), 20);
}

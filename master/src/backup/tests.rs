//! Backups of real stores with files beside them, and what becomes of them.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use cloudai_database::{SqliteStore, Store as _};
use cloudai_model::{Event, JobId, JobShape, Journal as _, Session, TaskSpec, Timestamp};
use tempfile::TempDir;

use super::*;

/// A data directory with `jobs` jobs, each with a log and a file, in a place of its own.
struct Place {
    root: TempDir,
}

impl Place {
    fn new(jobs: u64) -> Self {
        let place = Self { root: tempfile::tempdir().unwrap() };
        let mut store = SqliteStore::open(&place.data()).unwrap();
        for job in 1..=jobs {
            store.commit(&[submitted(job)]).unwrap();
            place.write(job, "log", &format!("log of {job}"));
            place.write(job, "output/a/b.txt", "result");
        }
        place
    }

    fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    fn backup(&self) -> PathBuf {
        self.root.path().join("backups/first")
    }

    fn write(&self, job: u64, name: &str, text: &str) {
        let path = self.data().join(format!("tasks/{job}/0-a1")).join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn take(&self, store_only: bool) -> Result<Manifest, BackupError> {
        let request = BackupRequest { data_dir: self.data(), to: self.backup(), store_only };
        back_up(&request, &mut |_| {})
    }

    fn bring_back(&self, to: &str) -> Result<Restored, BackupError> {
        restore(&self.backup(), &self.root.path().join(to), &mut |_| {})
    }
}

fn submitted(job: u64) -> Event {
    let spec = TaskSpec::new("busybox", TaskSpec::DEFAULT_NEEDS).into();
    let (shape, at) = (JobShape::Single, Timestamp(job));
    Event::JobSubmitted { job: JobId(job), spec, shape, request: None, at }
}

fn names(dir: &Path) -> BTreeSet<String> {
    let name = |entry: io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
    std::fs::read_dir(dir).unwrap().map(|it| name(it).into_string().unwrap()).collect()
}

#[test]
fn what_a_killed_backup_left_stands_in_nobodys_way() {
    let place = Place::new(1);
    let home = place.root.path().join("backups");
    let left = home.join(format!(".first.partial-{}", std::process::id()));
    for left in [left.clone(), left.with_file_name(format!("{}-1", name(&left)))] {
        std::fs::create_dir_all(left.join("tasks")).unwrap();
    }
    place.take(false).unwrap();
    assert_eq!(names(&home).len(), 3, "{:?}", names(&home));
    assert!(names(&home).contains("first"));
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[test]
fn what_is_backed_up_is_what_is_restored_and_the_numbers_go_on_higher() {
    let place = Place::new(3);
    // A job that the copied store does not know, a link, and a folder that is none of ours.
    place.write(9, "log", "of the future");
    symlink("/etc/passwd", place.data().join("tasks/1/0-a1/output/link")).unwrap();
    std::fs::create_dir_all(place.data().join("tasks/other")).unwrap();
    let manifest = place.take(false).unwrap();
    assert_eq!((manifest.store.last_job, manifest.store.tasks.queued), (3, 3));
    let log_bytes = "log of 1".len() as u64 * 3 + "result".len() as u64 * 3;
    assert_eq!(manifest.files, Some(FilesPart { count: 6, bytes: log_bytes }));
    assert_eq!(names(&place.backup()), set(["backup.json", "cloudai.db", "tasks"]));
    assert_eq!(names(&place.root.path().join("backups")), set(["first"]));
    let restored = place.bring_back("new").unwrap();
    assert_eq!(restored.manifest, manifest);
    let new = place.root.path().join("new");
    assert_eq!(names(&new), set(["cloudai.db", "cloudai.lock", "tasks"]));
    assert_eq!(names(&new.join("tasks")), set(["1", "2", "3"]));
    let log = std::fs::read_to_string(new.join("tasks/2/0-a1/log")).unwrap();
    assert_eq!(log, "log of 2");
    let mut store = SqliteStore::open(&new).unwrap();
    let snapshot = store.load().unwrap();
    assert_eq!(snapshot.numbers, restored.numbers);
    assert_eq!(snapshot.jobs.len(), 3);
    assert!(restored.numbers.last_job > manifest.store.last_job, "{:?}", restored.numbers);
    assert!(Session(restored.numbers.last_session).epoch() > manifest.store.epoch);
}

#[test]
fn each_restore_of_a_backup_goes_on_behind_the_one_before() {
    let place = Place::new(1);
    place.take(true).unwrap();
    let first = place.bring_back("first").unwrap().numbers;
    let second = place.bring_back("second").unwrap().numbers;
    assert!(second.last_job > first.last_job, "{first:?} {second:?}");
    assert!(second.epoch() > first.epoch(), "{first:?} {second:?}");
    assert!(second.attempt_floor > first.attempt_floor, "{first:?} {second:?}");
}

#[test]
fn a_backup_of_the_store_alone_restores_without_files() {
    let place = Place::new(1);
    assert_eq!(place.take(true).unwrap().files, None);
    place.bring_back("new").unwrap();
    let new = place.root.path().join("new");
    assert_eq!(names(&new), set(["cloudai.db", "cloudai.lock"]));
}

#[test]
fn a_backup_is_never_written_over_anything_nor_into_what_it_copies() {
    let place = Place::new(1);
    std::fs::create_dir_all(place.backup()).unwrap();
    std::fs::write(place.backup().join("mine"), "").unwrap();
    assert!(matches!(place.take(false), Err(BackupError::NotEmpty { .. })));
    assert_eq!(names(&place.backup()), set(["mine"]));
    std::fs::remove_file(place.backup().join("mine")).unwrap();
    place.take(false).unwrap();
    assert!(matches!(place.take(false), Err(BackupError::NotEmpty { .. })));
    let inside = BackupRequest {
        data_dir: place.data(),
        to: place.data().join("backup"),
        store_only: false,
    };
    assert!(matches!(back_up(&inside, &mut |_| {}), Err(BackupError::Inside { .. })));
    let nowhere = BackupRequest {
        data_dir: place.root.path().join("nowhere"),
        to: place.root.path().join("backups/second"),
        store_only: false,
    };
    let error = back_up(&nowhere, &mut |_| {}).unwrap_err();
    assert!(matches!(error, BackupError::Store(StoreError::Missing { .. })), "{error}");
    assert_eq!(names(&place.root.path().join("backups")), set(["first"]));
}

#[test]
fn nothing_is_restored_over_data_or_under_a_master() {
    let place = Place::new(1);
    place.take(false).unwrap();
    let occupied = place.bring_back("data").unwrap_err();
    assert!(matches!(occupied, BackupError::Occupied { .. }), "{occupied}");
    let running = SqliteStore::open(&place.data()).unwrap();
    let in_use = place.bring_back("data").unwrap_err();
    assert!(matches!(in_use, BackupError::Store(StoreError::InUse { .. })), "{in_use}");
    drop(running);
    // What workers keep on this machine, and what a restore that was killed left.
    for folder in ["new/workers/w1", "new/restoring/tasks"] {
        std::fs::create_dir_all(place.root.path().join(folder)).unwrap();
    }
    place.bring_back("new").unwrap();
    let new = place.root.path().join("new");
    assert_eq!(names(&new), set(["cloudai.db", "cloudai.lock", "tasks", "workers"]));
    assert!(matches!(place.bring_back("new"), Err(BackupError::Occupied { .. })));
}

#[test]
fn a_backup_that_changed_is_refused_and_nothing_is_made() {
    let place = Place::new(2);
    place.take(false).unwrap();
    let (store, manifest) = (place.backup().join(STORE), place.backup().join("backup.json"));
    let (bytes, text) =
        (std::fs::read(&store).unwrap(), std::fs::read_to_string(&manifest).unwrap());
    let refuse = |want: &str| {
        let error = place.bring_back("new").unwrap_err().to_string();
        assert!(error.contains(want), "'{want}' is missing in '{error}'");
        assert!(!place.root.path().join("new").exists(), "{want}");
    };
    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() ^= 1;
    std::fs::write(&store, changed).unwrap();
    refuse("its SHA-256 differs");
    std::fs::write(&store, &bytes[..bytes.len() / 2]).unwrap();
    refuse("bytes and not");
    std::fs::remove_file(&store).unwrap();
    refuse("cloudai.db is missing");
    std::fs::write(&store, &bytes).unwrap();
    for (other, want) in [
        (text.replace("\"format\": 1", "\"format\": 2"), "whose backups this one cannot read"),
        (text.replace("\"made_at_ms\": 1", "\"made_at_ms\": 9"), "in the future"),
        (text[..text.len() / 2].to_owned(), "cannot be understood"),
        ("x".repeat(2 << 20), "backup.json has 2097152 bytes"),
    ] {
        std::fs::write(&manifest, other).unwrap();
        refuse(want);
    }
    std::fs::remove_file(&manifest).unwrap();
    refuse("is not a backup: backup.json cannot be read");
    std::fs::write(&manifest, &text).unwrap();
    std::fs::remove_dir_all(place.backup().join(TASKS)).unwrap();
    refuse("the folder tasks is missing");
}

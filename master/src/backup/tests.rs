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
        self.bring_back_with(to, false)
    }

    fn bring_back_with(&self, to: &str, skip_damaged: bool) -> Result<Restored, BackupError> {
        let data_dir = self.root.path().join(to);
        restore(&RestoreRequest { backup: self.backup(), data_dir, skip_damaged }, &mut |_| {})
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
    let files = manifest.files.as_ref().unwrap();
    assert_eq!((files.count, files.bytes), (6, log_bytes));
    let whole = ["backup.json", "cloudai.db", "files.sha256", "tasks"];
    assert_eq!(names(&place.backup()), set(whole));
    assert_eq!(names(&place.root.path().join("backups")), set(["first"]));
    let restored = place.bring_back("new").unwrap();
    assert_eq!((&restored.manifest, restored.left_out.len()), (&manifest, 0));
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
}

#[test]
fn a_log_or_file_that_changed_is_named_and_can_be_left_out() {
    let place = Place::new(3);
    place.write(1, "output/two\nlines", "odd");
    place.take(false).unwrap();
    let in_backup = |path: &str| place.backup().join(TASKS).join(path);
    // The tool that everybody has reads the list.
    let mut check = std::process::Command::new("sha256sum");
    check.args(["--check", "--quiet", "files.sha256"]).current_dir(place.backup());
    assert!(check.status().unwrap().success());
    let refuse = |want: &str| {
        let error = place.bring_back("new").unwrap_err().to_string();
        assert!(error.contains(want) && error.contains("--skip-damaged"), "'{want}': '{error}'");
        assert_eq!(names(&place.root.path().join("new")), set(["cloudai.lock"]));
    };
    std::fs::write(in_backup("1/0-a1/log"), "log of 7").unwrap();
    refuse("tasks/1/0-a1/log is not what was backed up (its SHA-256 differs)");
    std::fs::remove_file(in_backup("1/0-a1/log")).unwrap();
    refuse("tasks/1/0-a1/log is missing");
    std::fs::write(in_backup("2/0-a1/log"), "log of 2 and more").unwrap();
    // What was never backed up is not restored.
    std::fs::write(in_backup("2/0-a1/foreign"), "").unwrap();
    let left_out = place.bring_back_with("new", true).unwrap().left_out;
    let mut words: Vec<String> = left_out.iter().map(ToString::to_string).collect();
    words.sort();
    let differs = "is not what was backed up (its SHA-256 differs)";
    let want = ["tasks/1/0-a1/log is missing", &format!("tasks/2/0-a1/log {differs}")];
    assert_eq!(words, want);
    let restored = |path: &str| place.root.path().join("new/tasks").join(path);
    assert_eq!(std::fs::read_to_string(restored("1/0-a1/output/two\nlines")).unwrap(), "odd");
    assert_eq!(std::fs::read_to_string(restored("3/0-a1/log")).unwrap(), "log of 3");
    assert_eq!(names(&restored("2/0-a1")), set(["output"]));
}

#[test]
fn without_its_list_a_backup_gives_only_the_store_and_only_when_asked() {
    let place = Place::new(2);
    place.take(false).unwrap();
    let list = place.backup().join("files.sha256");
    let text = std::fs::read_to_string(&list).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    std::fs::write(&list, format!("{}\nnonsense\n{}\n", lines[0], lines[1])).unwrap();
    let error = place.bring_back("first").unwrap_err().to_string();
    assert!(error.contains("files.sha256 is not what was backed up"), "{error}");
    // What it still names is checked all the same.
    let restored = place.bring_back_with("second", true).unwrap();
    assert_eq!(restored.left_out.len(), 2, "{restored:?}");
    assert!(restored.left_out[1].to_string().contains("'nonsense'"), "{restored:?}");
    std::fs::remove_file(&list).unwrap();
    let restored = place.bring_back_with("third", true).unwrap();
    assert!(restored.left_out[0].to_string().contains("files.sha256 cannot be used"));
    assert_eq!(names(&place.root.path().join("third")), set(["cloudai.db", "cloudai.lock"]));
}

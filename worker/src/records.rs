//! The worker's durable memory of its attempts: one small file each, which only grows by whole
//! steps (accepted, created, stopping, ended) and is gone when the master said forget. It must
//! never lose a step that was acted upon. A damaged record is moved aside; one that cannot be read
//! now, or not by this version, is not damaged: the worker does not start, for its container may
//! still run.
//!
//! A stop and the end are synced: what a power failure takes of the rest is told by the boot id.
//! Read next: `records/file.rs` (how a step lies on the disk) and `adopt.rs` (what a restarted
//! worker makes of its records).

mod file;

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use cloudai_model::{AttemptId, Cause, Session, TaskSpec, Timestamp};
use cloudai_proto::convert::record::RecordStep;

use self::file::{append, create};
pub(crate) use self::file::{file_name, read_all};
use crate::executor::Ended;
use crate::logs;

/// The hand of one attempt on its record.
#[derive(Debug, Clone)]
pub struct AttemptRecord {
    /// `None` keeps nothing.
    places: Option<Places>,
    /// Held while a step is added: a slow disk may still be at one that nobody waits for any more.
    adding: Arc<Mutex<()>>,
}

/// What of an attempt lies where.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(crate) record: PathBuf,
    pub(crate) spool: PathBuf,
    pub(crate) output: PathBuf,
}

/// What an earlier process knew of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) attempt: AttemptId,
    pub(crate) session: Session,
    pub(crate) boot_id: String,
    pub(crate) spec: Arc<TaskSpec>,
    pub(crate) phase: Phase,
    /// The stop that had begun: an end that is not recorded is that of the stop.
    pub(crate) stop: Option<BegunStop>,
}

/// A stop whose signal the container has had, or was about to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BegunStop {
    /// Why.
    pub cause: Cause,
    /// When it began: what ended before has an end of its own.
    pub begun_at: Timestamp,
    /// When the container gets SIGKILL.
    pub kill_at: Timestamp,
}

/// How far it had come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It may have asked the engine for a container, and started none.
    Accepted,
    /// It has had a container, which may have been started.
    Created,
    /// It was over.
    Ended(Ended),
}

impl AttemptRecord {
    /// A record that is not kept: nothing of the attempt survives the process.
    pub fn unkept() -> Self {
        Self { places: None, adding: Arc::default() }
    }

    pub(crate) fn at(places: Places) -> Self {
        Self { places: Some(places), adding: Arc::default() }
    }

    /// Before anything of it exists.
    pub(crate) async fn accepted(
        &self,
        attempt: AttemptId,
        session: Session,
        boot_id: &str,
        spec: Arc<TaskSpec>,
    ) -> io::Result<()> {
        let boot_id = boot_id.to_owned();
        let step = RecordStep::Accepted { attempt, session, boot_id, spec };
        self.add(move |places| create(&places.record, &step)).await
    }

    /// When its container exists, before it is started.
    pub(crate) async fn created(&self) -> io::Result<()> {
        self.add(|places| append(&places.record, &RecordStep::Created).map(drop)).await
    }

    /// Before its container gets the signal that ends it.
    pub(crate) async fn stopping(&self, stop: BegunStop) -> io::Result<()> {
        let BegunStop { cause, begun_at, kill_at } = stop;
        self.add(move |places| {
            append(&places.record, &RecordStep::Stopping { cause, begun_at, kill_at })?.sync_data()
        })
        .await
    }

    /// When it is over, before its container is removed: the end, its log and its files are safe on
    /// the disk when this returns.
    pub(crate) async fn ended(&self, ended: &Ended) -> io::Result<()> {
        let Ended { started_at, outcome, at, files } = ended.clone();
        let paths = files.clone();
        let files = files.iter().map(|file| file.to_string_lossy().into_owned()).collect();
        let step = RecordStep::Ended { started_at, outcome, at, files };
        self.add(move |places| {
            logs::sync(&places.spool)?;
            sync_folder_of(&places.spool)?;
            sync_files(&places.output, &paths)?;
            append(&places.record, &step)?.sync_data()?;
            sync_folder_of(&places.record)
        })
        .await
    }

    /// Whether the record is gone: the master has the end, and nobody needs it here.
    pub(crate) async fn is_forgotten(&self) -> bool {
        let Some(places) = &self.places else { return true };
        matches!(tokio::fs::try_exists(&places.record).await, Ok(false))
    }

    async fn add(
        &self,
        add: impl FnOnce(&Places) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let Some(places) = self.places.clone() else { return Ok(()) };
        let adding = Arc::clone(&self.adding);
        let added = tokio::task::spawn_blocking(move || {
            let _adding = adding.lock().unwrap_or_else(PoisonError::into_inner);
            add(&places)
        })
        .await;
        added.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

/// The files, and the folders that name them.
fn sync_files(output: &Path, files: &[PathBuf]) -> io::Result<()> {
    let mut folders = BTreeSet::new();
    for file in files {
        File::open(output.join(file))?.sync_data()?;
        folders.extend(file.ancestors().skip(1).map(|folder| output.join(folder)));
    }
    for folder in &folders {
        File::open(folder)?.sync_all()?;
    }
    if files.is_empty() { Ok(()) } else { sync_folder_of(output) }
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// What the steps come to. One that is there twice, because it was written and could not be synced,
/// says nothing new.
fn replay(steps: Vec<RecordStep>) -> Result<Kept, String> {
    let mut steps = steps.into_iter();
    let Some(RecordStep::Accepted { attempt, session, boot_id, spec }) = steps.next() else {
        return Err("its beginning is missing".to_owned());
    };
    let (mut phase, mut stop) = (Phase::Accepted, None);
    for step in steps {
        phase = match (phase, step) {
            (Phase::Ended(ended), _) => Phase::Ended(ended),
            (_, RecordStep::Created) => Phase::Created,
            (phase, RecordStep::Stopping { cause, begun_at, kill_at }) => {
                stop.get_or_insert(BegunStop { cause, begun_at, kill_at });
                phase
            }
            (_, RecordStep::Ended { started_at, outcome, at, files }) => {
                let files = files.into_iter().map(PathBuf::from).collect();
                Phase::Ended(Ended { outcome, started_at, at, files })
            }
            (_, RecordStep::Accepted { .. }) => return Err("it begins twice".to_owned()),
        };
    }
    Ok(Kept { attempt, session, boot_id, spec, phase, stop })
}

#[cfg(test)]
mod tests {
    use super::file::{DAMAGED_END, DAMAGED_LEN_MAX, FRAME_HEADER_LEN, RECORD_END};
    use super::*;
    use cloudai_model::Outcome;

    fn places(root: &Path, attempt: &str) -> Places {
        for folder in ["attempts", "spool", "output"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        Places {
            record: root.join("attempts").join(file_name(attempt.parse().unwrap())),
            spool: root.join("spool").join(attempt),
            output: root.join("output").join(attempt),
        }
    }

    fn end(files: &[&str]) -> Ended {
        Ended {
            started_at: Some(Timestamp(5)),
            outcome: Outcome::new(Cause::Exit(3), "words"),
            at: Timestamp(9),
            files: files.iter().map(PathBuf::from).collect(),
        }
    }

    async fn accept(root: &Path, attempt: &str) -> AttemptRecord {
        let record = AttemptRecord::at(places(root, attempt));
        let spec = Arc::new(TaskSpec::new("busybox", TaskSpec::DEFAULT_NEEDS));
        let attempt = attempt.parse().unwrap();
        record.accepted(attempt, Session(7), "boot-1", spec).await.unwrap();
        record
    }

    fn phases(root: &Path) -> String {
        let kept = read_all(&root.join("attempts")).unwrap();
        let told = kept.iter().map(|kept| match &kept.phase {
            Phase::Accepted => format!("{} accepted", kept.attempt),
            Phase::Created => format!("{} created", kept.attempt),
            Phase::Ended(ended) => {
                format!("{} {} {:?}", kept.attempt, ended.outcome.cause, ended.files)
            }
        });
        told.collect::<Vec<_>>().join(", ")
    }

    #[tokio::test]
    async fn a_record_says_how_far_an_attempt_came_and_what_it_runs() {
        let root = tempfile::tempdir().unwrap();
        let record = accept(root.path(), "task-1-a1").await;
        assert_eq!(phases(root.path()), "task-1-a1 accepted");
        record.created().await.unwrap();
        assert_eq!(phases(root.path()), "task-1-a1 created");
        let output = root.path().join("output/task-1-a1/a");
        std::fs::create_dir_all(&output).unwrap();
        std::fs::write(output.join("b"), "x").unwrap();
        record.ended(&end(&["a/b"])).await.unwrap();
        let kept = read_all(&root.path().join("attempts")).unwrap().pop().unwrap();
        assert_eq!(
            (kept.session, &*kept.boot_id, &*kept.spec.image),
            (Session(7), "boot-1", "busybox")
        );
        assert_eq!(kept.phase, Phase::Ended(end(&["a/b"])));
    }

    #[tokio::test]
    async fn a_stop_that_began_is_known_until_the_end_and_the_first_one_counts() {
        let root = tempfile::tempdir().unwrap();
        let record = accept(root.path(), "task-1-a1").await;
        let stop = |cause| BegunStop { cause, begun_at: Timestamp(7), kill_at: Timestamp(8) };
        record.created().await.unwrap();
        record.stopping(stop(Cause::Cancelled)).await.unwrap();
        record.stopping(stop(Cause::WorkerLost)).await.unwrap();
        let kept = read_all(&root.path().join("attempts")).unwrap().pop().unwrap();
        assert_eq!((kept.phase, kept.stop), (Phase::Created, Some(stop(Cause::Cancelled))));
        record.ended(&end(&[])).await.unwrap();
        assert_eq!(phases(root.path()), "task-1-a1 exit(3) []");
    }

    #[tokio::test]
    async fn an_end_whose_files_are_not_safe_is_not_recorded() {
        let root = tempfile::tempdir().unwrap();
        let record = accept(root.path(), "task-1-a1").await;
        record.ended(&end(&["missing"])).await.unwrap_err();
        assert_eq!(phases(root.path()), "task-1-a1 accepted");
    }

    #[tokio::test]
    async fn a_step_behind_one_whose_writing_failed_half_way_is_read() {
        let root = tempfile::tempdir().unwrap();
        let record = accept(root.path(), "task-1-a1").await;
        let path = places(root.path(), "task-1-a1").record;
        let accepted = std::fs::read(&path).unwrap();
        record.ended(&end(&[])).await.unwrap();
        let ended = std::fs::read(&path).unwrap();
        for length in accepted.len()..ended.len() {
            std::fs::write(&path, &ended[..length]).unwrap();
            record.created().await.unwrap();
            record.ended(&end(&[])).await.unwrap();
            assert_eq!(phases(root.path()), "task-1-a1 exit(3) []", "failed at {length}");
        }
    }

    #[tokio::test]
    async fn what_is_forgotten_is_not_recorded_anew() {
        let root = tempfile::tempdir().unwrap();
        let record = accept(root.path(), "task-1-a1").await;
        assert!(!record.is_forgotten().await);
        std::fs::remove_file(places(root.path(), "task-1-a1").record).unwrap();
        record.ended(&end(&[])).await.unwrap_err();
        assert!(record.is_forgotten().await);
    }

    #[tokio::test]
    async fn a_torn_step_has_not_happened_and_the_next_one_is_read() {
        let root = tempfile::tempdir().unwrap();
        let record = accept(root.path(), "task-1-a1").await;
        record.created().await.unwrap();
        let path = places(root.path(), "task-1-a1").record;
        let whole = std::fs::read(&path).unwrap();
        record.ended(&end(&[])).await.unwrap();
        let ended = std::fs::read(&path).unwrap();
        for length in whole.len()..ended.len() {
            std::fs::write(&path, &ended[..length]).unwrap();
            assert_eq!(phases(root.path()), "task-1-a1 created", "cut at {length}");
            record.ended(&end(&[])).await.unwrap();
            assert_eq!(phases(root.path()), "task-1-a1 exit(3) []", "cut at {length}");
        }
    }

    #[tokio::test]
    async fn what_is_no_record_is_moved_aside_and_others_are_read() {
        let root = tempfile::tempdir().unwrap();
        accept(root.path(), "task-1-a1").await;
        accept(root.path(), "task-2-a1").await;
        accept(root.path(), "task-3-a1").await;
        let path = |attempt: &str| places(root.path(), attempt).record;
        let mut bytes = std::fs::read(path("task-1-a1")).unwrap();
        bytes[FRAME_HEADER_LEN + 3] ^= 1;
        std::fs::write(path("task-1-a1"), &bytes).unwrap();
        std::fs::rename(path("task-2-a1"), path("task-9-a1")).unwrap();
        std::fs::write(path("task-4-a1"), "").unwrap();
        std::fs::write(path("task-5-a1"), [0; 4096]).unwrap();
        assert_eq!(phases(root.path()), "task-3-a1 accepted");
        for attempt in ["task-1-a1", "task-9-a1", "task-4-a1", "task-5-a1"] {
            assert!(path(attempt).with_extension(DAMAGED_END).exists(), "{attempt}");
        }
        // As it was, for people to look at.
        let aside = std::fs::read(path("task-1-a1").with_extension(DAMAGED_END)).unwrap();
        assert_eq!(aside, bytes);
    }

    #[tokio::test]
    async fn a_damaged_step_with_a_whole_one_behind_it_is_not_cut_off() {
        let root = tempfile::tempdir().unwrap();
        let record = accept(root.path(), "task-1-a1").await;
        let path = places(root.path(), "task-1-a1").record;
        let accepted = std::fs::read(&path).unwrap().len();
        record.created().await.unwrap();
        let created = std::fs::read(&path).unwrap().len();
        record.ended(&end(&[])).await.unwrap();
        let whole = std::fs::read(&path).unwrap();
        for at in accepted..created {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            record.ended(&end(&[])).await.unwrap_err();
            assert_eq!(phases(root.path()), "", "damaged at {at}");
            let aside = path.with_extension(DAMAGED_END);
            assert_eq!(std::fs::read(&aside).unwrap(), bytes);
            std::fs::remove_file(aside).unwrap();
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_now_or_by_this_version_is_no_damage() {
        let root = tempfile::tempdir().unwrap();
        accept(root.path(), "task-1-a1").await;
        let path = places(root.path(), "task-2-a1").record;
        // A step of field 9, which nobody has written yet.
        let later = [0x4a, 0];
        let mut bytes = 2_u32.to_le_bytes().to_vec();
        bytes.extend_from_slice(&crc32fast::hash(&later).to_le_bytes());
        bytes.extend_from_slice(&later);
        std::fs::write(&path, &bytes).unwrap();
        let error = read_all(&root.path().join("attempts")).unwrap_err().to_string();
        assert!(error.contains("task-2-a1.record: it is whole, but this version"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        std::fs::remove_file(&path).unwrap();
        // Whoever runs this, a folder cannot be read as a file.
        std::fs::create_dir(&path).unwrap();
        let error = read_all(&root.path().join("attempts")).unwrap_err().to_string();
        assert!(error.contains("task-2-a1.record: "), "{error}");
        assert!(path.exists());
    }

    #[test]
    fn damaged_records_are_kept_up_to_their_bound() {
        let root = tempfile::tempdir().unwrap();
        for job in 0..=DAMAGED_LEN_MAX {
            std::fs::write(root.path().join(format!("task-{job}-a1.{RECORD_END}")), "x").unwrap();
        }
        assert_eq!(read_all(root.path()).unwrap(), []);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), DAMAGED_LEN_MAX);
    }

    #[tokio::test]
    async fn what_is_not_kept_costs_no_file() {
        let record = AttemptRecord::unkept();
        record.created().await.unwrap();
        record.ended(&end(&["missing"])).await.unwrap();
    }
}

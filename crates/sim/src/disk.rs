//! The master's disk: the real stores behind it, which survive a master, can fail a commit, and
//! lose nothing else.

use std::path::PathBuf;

use cloudai_database::{MemoryStore, SqliteStore, Store, StoreError};
use cloudai_model::{
    Cause, Event, JobId, JobShape, Journal, LossCause, Outcome, RequestId, Snapshot,
};

use crate::scenario::StoreKind;

/// A store, and what survives of it when its master dies.
pub(crate) struct Disk {
    store: Box<dyn Store>,
    files: Option<Files>,
    memory: MemoryStore,
    /// How the next commit fails: whether it is stored all the same.
    pub(crate) fails: Option<bool>,
    /// What the last commit stored although it failed.
    pub(crate) kept: Option<Vec<Event>>,
    /// Nothing can be stored for want of room, until then at most.
    pub(crate) is_full: bool,
    pub(crate) full_until_ms: u64,
    /// The next commit is answered and not stored: a planted bug.
    pub(crate) forgets: bool,
    /// An end by a budget that is used up is stored as one more loss: a planted bug.
    pub(crate) ignores_budgets: bool,
}

/// The directories of a SQLite store: one for each life of the master.
struct Files {
    root: PathBuf,
    life: u32,
}

impl Files {
    fn dir(&self) -> PathBuf {
        self.root.join(self.life.to_string())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // What is left is in the system's directory for such things.
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

impl Disk {
    /// An empty disk. `name` tells it from those of other runs of this process.
    pub(crate) fn new(kind: StoreKind, name: &str) -> Result<Self, StoreError> {
        let memory = MemoryStore::default();
        let files = (kind == StoreKind::Sqlite).then(|| Files { root: root(name), life: 0 });
        let store: Box<dyn Store> = match &files {
            None => Box::new(memory.clone()),
            Some(files) => Box::new(SqliteStore::open(&files.dir())?),
        };
        Ok(Self {
            store,
            files,
            memory,
            fails: None,
            kept: None,
            is_full: false,
            full_until_ms: 0,
            forgets: false,
            ignores_budgets: false,
        })
    }

    /// The master was killed: what the system has of the files is all that there is. The copy is
    /// taken while the store is open, so that nothing is tidied up before.
    pub(crate) fn reopen(&mut self) -> Result<(), StoreError> {
        let Some(files) = &mut self.files else {
            self.store = Box::new(self.memory.clone());
            return Ok(());
        };
        let from = files.dir();
        files.life += 1;
        let to = files.dir();
        let copied = copy_files(&from, &to);
        copied.map_err(|source| StoreError::Io { doing: "copy", path: from.clone(), source })?;
        self.store = Box::new(SqliteStore::open(&to)?);
        // The directory of the dead master; nobody reads it again.
        let _ = std::fs::remove_dir_all(from);
        Ok(())
    }

    pub(crate) fn load(&mut self) -> Result<Snapshot, StoreError> {
        self.store.load()
    }

    pub(crate) fn find_request(
        &mut self,
        request: &RequestId,
    ) -> Result<Option<(JobId, JobShape)>, StoreError> {
        self.store.find_request(request)
    }

    pub(crate) fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    pub(crate) const fn is_in_memory(&self) -> bool {
        self.files.is_none()
    }
}

impl Journal for Disk {
    type Error = StoreError;

    fn commit(&mut self, events: &[Event]) -> Result<(), StoreError> {
        if std::mem::take(&mut self.forgets) {
            return Ok(());
        }
        let path = || PathBuf::from("the simulated disk");
        if self.is_full && !events.is_empty() {
            return Err(StoreError::Full { path: path() });
        }
        let altered: Vec<Event> = events.iter().map(|event| self.alter(event)).collect();
        let fails = self.fails.take().or((altered != events).then_some(true));
        let Some(is_stored) = fails else { return self.store.commit(events) };
        self.kept = is_stored.then_some(altered);
        if let Some(events) = &self.kept {
            self.store.commit(events)?;
        }
        let source = std::io::Error::other("the simulated disk fails");
        Err(StoreError::Io { doing: "write", path: path(), source })
    }
}

impl Disk {
    /// The event as it is stored.
    fn alter(&self, event: &Event) -> Event {
        if let Event::TaskFinished { attempt, outcome: Outcome { cause, message }, at, .. } = event
            && self.ignores_budgets
            && let Some(cause) = find_loss(*cause)
        {
            let message = message.clone();
            return Event::AttemptLost { attempt: *attempt, cause, message, at: *at };
        }
        event.clone()
    }
}

/// The loss that ends a task in this way.
const fn find_loss(cause: Cause) -> Option<LossCause> {
    match cause {
        Cause::WorkerLost => Some(LossCause::WorkerLost),
        Cause::Infra => Some(LossCause::Infra),
        _ => None,
    }
}

fn root(name: &str) -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
    base.join(format!("cloudai-sim-{}-{name}", std::process::id()))
}

fn copy_files(from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        // The index of the log is made anew from the log, as after a power cut.
        let is_store = name.to_string_lossy().starts_with("cloudai.db");
        if is_store && !name.to_string_lossy().ends_with("-shm") {
            std::fs::copy(entry.path(), to.join(name))?;
        }
    }
    Ok(())
}

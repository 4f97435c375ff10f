//! A real store on a disk that does what a test says, for the tests of the heart and of the whole
//! master. It must never keep or answer anything by itself: what goes well goes to the real store.

use cloudai_database::{Reader, Store, StoreError};
use cloudai_model::{Event, JobId, JobShape, Journal, RequestId, Snapshot};

/// What the disk is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// To keep events.
    Commit,
    /// To give everything back.
    Load,
}

/// How it goes.
#[derive(Debug)]
pub(crate) enum Goes {
    /// As it should.
    Well,
    /// Nothing is done.
    Refused(StoreError),
    /// All of it is done, and nobody is told: the disk failed while it answered.
    Unanswered(StoreError),
}

/// The store, and how each call goes.
pub(crate) struct FaultyStore<S, D> {
    pub(crate) store: S,
    pub(crate) disk: D,
}

impl<S: Store, D: FnMut(Asked) -> Goes + Send> FaultyStore<S, D> {
    fn ask<T>(
        &mut self,
        asked: Asked,
        call: impl FnOnce(&mut S) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match (self.disk)(asked) {
            Goes::Well => call(&mut self.store),
            Goes::Refused(error) => Err(error),
            Goes::Unanswered(error) => call(&mut self.store).and(Err(error)),
        }
    }
}

impl<S: Store, D: FnMut(Asked) -> Goes + Send> Journal for FaultyStore<S, D> {
    type Error = StoreError;

    fn commit(&mut self, events: &[Event]) -> Result<(), StoreError> {
        self.ask(Asked::Commit, |store| store.commit(events))
    }
}

impl<S: Store, D: FnMut(Asked) -> Goes + Send> Store for FaultyStore<S, D> {
    fn load(&mut self) -> Result<Snapshot, StoreError> {
        self.ask(Asked::Load, Store::load)
    }

    fn find_request(&mut self, id: &RequestId) -> Result<Option<(JobId, JobShape)>, StoreError> {
        self.store.find_request(id)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        self.store.reader()
    }

    fn describe(&self) -> String {
        self.store.describe()
    }
}

/// The disk has no room.
pub(crate) fn full() -> StoreError {
    StoreError::Full { path: "cloudai.db".into() }
}

/// The disk does not answer.
pub(crate) fn silent() -> StoreError {
    let source = std::io::Error::other("the disk does not answer");
    StoreError::Io { doing: "use", path: "cloudai.db".into(), source }
}

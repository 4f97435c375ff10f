//! Connections of their own for whoever reads the store, on threads that may block.

use std::sync::{Arc, Mutex, PoisonError};

use cloudai_database::{Reader, Store, StoreError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most reads at once; more wait for a connection.
const READERS: usize = 4;

/// A pool of readers.
#[derive(Clone)]
pub(crate) struct Readers {
    idle: Arc<Mutex<Vec<Box<dyn Reader>>>>,
    places: Arc<Semaphore>,
}

impl std::fmt::Debug for Readers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Readers")
    }
}

impl Readers {
    /// Opens the connections.
    pub(crate) fn open(store: &dyn Store) -> Result<Self, StoreError> {
        let idle = (0..READERS).map(|_| store.reader()).collect::<Result<Vec<_>, _>>()?;
        let places = Arc::new(Semaphore::new(READERS));
        Ok(Self { idle: Arc::new(Mutex::new(idle)), places })
    }

    /// Runs `look` with a reader that nobody else uses meanwhile.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut dyn Reader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        let idle = Arc::clone(&self.idle);
        let work = tokio::task::spawn_blocking(move || {
            let taken = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut lent = Lent { reader: taken, idle, _place: place };
            look(lent.reader.as_deref_mut().expect("there are as many readers as places"))
        });
        match work.await {
            Ok(found) => found,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime shuts down: the look was dropped before it began.
                Err(cancelled) => Err(StoreError::Io {
                    doing: "read",
                    path: "the store".into(),
                    source: std::io::Error::other(cancelled),
                }),
            },
        }
    }
}

/// A reader that is out. It comes back also when the look panics, and before its place does.
struct Lent {
    reader: Option<Box<dyn Reader>>,
    idle: Arc<Mutex<Vec<Box<dyn Reader>>>>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.extend(self.reader.take());
    }
}

#[cfg(test)]
mod tests {
    use super::Readers;

    #[tokio::test]
    async fn a_look_that_panics_leaves_its_reader_to_the_next() {
        let store = cloudai_database::MemoryStore::default();
        let readers = Readers::open(&store).unwrap();
        for _ in 0..super::READERS * 2 {
            let again = readers.clone();
            let look = async move { again.read::<()>(|_| panic!("a look went wrong")).await };
            assert!(tokio::spawn(look).await.unwrap_err().is_panic());
        }
        assert_eq!(readers.read(|reader| reader.counts()).await.unwrap().total(), 0);
    }

    #[test]
    fn a_look_after_the_runtime_is_gone_is_an_error() {
        let store = cloudai_database::MemoryStore::default();
        let readers = Readers::open(&store).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let handle = runtime.handle().clone();
        drop(runtime);
        let found = handle.block_on(readers.read(|_| Ok(())));
        assert!(found.is_err());
    }
}

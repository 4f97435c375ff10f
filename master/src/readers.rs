//! Connections of their own for whoever reads the store, on threads that may block.

use std::sync::{Arc, Mutex, PoisonError};

use cloudai_database::{Reader, Store, StoreError};
use tokio::sync::Semaphore;

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
            let mut reader = taken.expect("there are as many readers as places");
            let found = look(reader.as_mut());
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
            drop(place);
            found
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

#[cfg(test)]
mod tests {
    use super::Readers;

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

//! A container that ended while the disk refuses the record of its end: it is kept, so that after a
//! restart the engine still knows what the disk does not. It must never outlive the need for it,
//! and never hold up the end of the process. Read next: `records.rs` of the worker.

use std::io;
use std::sync::Arc;

use backon::BackoffBuilder;
use cloudai_model::AttemptId;

use super::{Shared, remove};
use crate::executor::{AttemptRecord, Ended};
use crate::logs::LogWriter;

/// Such a container.
pub(super) struct Kept {
    pub(super) attempt: AttemptId,
    pub(super) container: String,
    pub(super) log: LogWriter,
    pub(super) record: AttemptRecord,
    pub(super) ended: Ended,
}

/// Records an end, the log's first: the next process looks for nothing behind it.
async fn record_end(log: &mut LogWriter, record: &AttemptRecord, ended: &Ended) -> io::Result<()> {
    log.finish().await?;
    record.ended(ended).await
}

impl Kept {
    /// Waits until the end is recorded, or was told to the master and forgotten, and removes the
    /// container. When the process ends, both get a last chance.
    pub(super) async fn until_recorded(self, shared: Arc<Shared>) {
        let Self { attempt, container, mut log, record, ended } = self;
        for pause in remove::pauses().build() {
            let slept = shared.closing.run_until_cancelled(tokio::time::sleep(pause)).await;
            match record_end(&mut log, &record, &ended).await {
                Ok(()) => break,
                Err(_) if record.is_forgotten().await => break,
                Err(error) if slept.is_none() => {
                    tracing::warn!(
                        %attempt,
                        "Container {container} is left to the next process: {error}"
                    );
                    return;
                }
                Err(error) => tracing::debug!(%attempt, "Still cannot keep the end: {error}"),
            }
        }
        shared.leftovers.end(attempt);
        remove::remove_surely(shared.docker.clone(), container).await;
    }
}

//! Calls a worker that speaks only the unary calls. A call that fails or times out decides
//! nothing: the worker's next heartbeat does.

use std::sync::Arc;
use std::time::Duration;

use cloudai_master_core::Command;
use cloudai_model::{AttemptId, AttemptReport, ReportWhat, TaskSpec, WorkerId};
use cloudai_proto::cluster::TaskId as WireTaskId;
use cloudai_proto::cluster::master_worker_client::MasterWorkerClient;
use cloudai_proto::convert::{Orders, to_wire};
use tokio::sync::{Semaphore, mpsc};
use tonic::transport::{Channel, Endpoint};

use crate::clock;
use crate::heart::HeartHandle;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Most calls to one worker at once.
const CALLS_AT_ONCE_MAX: usize = 16;

/// One worker's caller; ends when its link is dropped.
#[derive(Clone)]
pub(crate) struct UnaryCaller {
    worker: WorkerId,
    client: MasterWorkerClient<Channel>,
    heart: HeartHandle,
    places: Arc<Semaphore>,
}

impl UnaryCaller {
    /// Prepares the connection; it is made with the first call, and again when it broke.
    pub(crate) fn new(
        worker: WorkerId,
        address: &str,
        heart: HeartHandle,
    ) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT);
        let client = MasterWorkerClient::new(endpoint.connect_lazy());
        let places = Arc::new(Semaphore::new(CALLS_AT_ONCE_MAX));
        Ok(Self { worker, client, heart, places })
    }

    /// Carries out orders until nobody gives any more.
    pub(crate) async fn run(self, mut orders: mpsc::Receiver<Orders>) {
        while let Some(batch) = orders.recv().await {
            for (attempt, spec) in batch.assign {
                let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
                let caller = self.clone();
                tokio::spawn(async move {
                    caller.assign(attempt, &spec).await;
                    drop(place);
                });
            }
            for (attempt, _) in batch.stop {
                let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
                let caller = self.clone();
                tokio::spawn(async move {
                    caller.cancel(attempt).await;
                    drop(place);
                });
            }
        }
    }

    async fn assign(mut self, attempt: AttemptId, spec: &TaskSpec) {
        let task = to_wire::task(attempt, spec, &self.worker, clock::wall());
        let worker = self.worker.clone();
        let command = match self.client.assign_task(task).await.map(tonic::Response::into_inner) {
            Ok(ack) if ack.success => {
                let what = ReportWhat::Started(clock::wall());
                let changes = vec![AttemptReport { attempt, what }];
                Command::Report { worker, session: None, sequence: 0, changes, full: None }
            }
            Ok(ack) => Command::Declined { worker, attempt, message: ack.message },
            Err(status) => {
                tracing::warn!("cannot give {attempt} to worker {worker}: {}", status.message());
                return;
            }
        };
        // A heart that has stopped takes no more facts.
        drop(self.heart.command(command).await);
    }

    async fn cancel(mut self, attempt: AttemptId) {
        let task = WireTaskId { task_id: attempt.to_string() };
        if let Err(status) = self.client.cancel_task(task).await {
            tracing::warn!("cannot stop {attempt} on worker {}: {}", self.worker, status.message());
        }
    }
}

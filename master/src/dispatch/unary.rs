//! Calls a worker that speaks only the unary calls. A call that fails or times out decides
//! nothing: the worker's next heartbeat does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cloudai_master_core::Command;
use cloudai_model::{AttemptId, AttemptReport, ReportWhat, TaskSpec, WorkerId};
use cloudai_proto::cluster::TaskId as WireTaskId;
use cloudai_proto::cluster::master_worker_client::MasterWorkerClient;
use cloudai_proto::convert::{Orders, to_wire};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
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
        let mut calls = Calls::default();
        while let Some(batch) = orders.recv().await {
            for (attempt, spec) in batch.assign {
                let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
                let caller = self.clone();
                calls.begin(attempt, async move {
                    caller.assign(attempt, &spec).await;
                    drop(place);
                });
            }
            for (attempt, _) in batch.stop {
                let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
                let caller = self.clone();
                calls.begin(attempt, async move {
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

/// The calls that are being made. Those of one attempt go one after the other: a cancel that
/// overtook its assign would find nothing to stop.
#[derive(Default)]
struct Calls {
    last: HashMap<AttemptId, JoinHandle<()>>,
}

impl Calls {
    fn begin(&mut self, attempt: AttemptId, call: impl Future<Output = ()> + Send + 'static) {
        self.last.retain(|_, call| !call.is_finished());
        let before = self.last.remove(&attempt);
        let call = async move {
            if let Some(before) = before {
                // However it ended, it is over.
                drop(before.await);
            }
            call.await;
        };
        self.last.insert(attempt, tokio::spawn(call));
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_cancel_waits_for_the_assign_of_its_attempt_and_for_no_other() {
        let mut calls = Calls::default();
        let (answer, answered) = oneshot::channel::<()>();
        let (tell, mut told) = mpsc::unbounded_channel();
        let say = |word: &'static str| {
            let tell = tell.clone();
            async move { tell.send(word).unwrap() }
        };
        let assigned = say("assigned");
        calls.begin("task-1-a1".parse().unwrap(), async {
            answered.await.unwrap();
            assigned.await;
        });
        calls.begin("task-1-a1".parse().unwrap(), say("cancelled"));
        calls.begin("task-2-a1".parse().unwrap(), say("another"));
        assert_eq!(told.recv().await, Some("another"));
        let more = poll_fn(|context| Poll::Ready(told.poll_recv(context).is_ready())).await;
        assert!(!more, "the assign was not answered yet");
        answer.send(()).unwrap();
        assert_eq!(told.recv().await, Some("assigned"));
        assert_eq!(told.recv().await, Some("cancelled"));
        calls.begin("task-3-a1".parse().unwrap(), say("a third"));
        assert_eq!(told.recv().await, Some("a third"));
        assert_eq!(calls.last.len(), 1, "what is over is not kept");
    }
}

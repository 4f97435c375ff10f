//! What workers and agents speak to: both services of the wire on one port. Every message is
//! converted and checked at `cloudai_proto::convert`; the heart decides; bytes go beside it.

mod agent;
mod logs;
mod session;
mod unary;
mod upload;

pub(crate) use session::SessionStreams;
pub(crate) use unary::attach_known;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cloudai_master_core::{Answer, Command, bounds};
use cloudai_model::{AttemptId, Session, TaskState, WorkerId};
use cloudai_proto::agent::master_agent_server::MasterAgentServer;
use cloudai_proto::cluster;
use cloudai_proto::cluster::master_worker_server::{MasterWorker, MasterWorkerServer};
use tokio::net::TcpListener;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::agent_record::AgentRecord;
use crate::files::TaskFiles;
use crate::heart::{HeartError, HeartHandle};
use crate::readers::Readers;
use crate::usage::UsageTable;

/// A vanished peer is noticed after this long without an answer to a ping.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Most calls at once on one connection. A worker has one open for the log of each attempt that
/// runs, and the end of another must not wait behind those: twice what a worker may hold.
const STREAMS_PER_CONNECTION_MAX: u32 = 2 * bounds::ATTEMPTS_PER_WORKER_MAX as u32;
/// Largest message in bytes, as the wire contract's transport has it.
const MESSAGE_LEN_MAX: usize = 4 << 20;
/// Largest message of a worker in bytes: a report that names, as a change and in full, as many ends
/// as a worker holds, each with the longest message. A worker whose hello were refused for its size
/// could never come back.
const WORKER_MESSAGE_LEN_MAX: usize = 64 << 20;

/// What every call needs.
#[derive(Debug, Clone)]
pub(crate) struct Services {
    pub(crate) heart: HeartHandle,
    pub(crate) readers: Readers,
    pub(crate) files: Arc<TaskFiles>,
    pub(crate) usage: Arc<UsageTable>,
    pub(crate) agents: Arc<AgentRecord>,
    pub(crate) sessions: Arc<SessionStreams>,
    pub(crate) shutdown: CancellationToken,
}

type Outbound<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Serves until the shutdown.
pub(crate) async fn serve(
    listener: TcpListener,
    services: Services,
) -> Result<(), tonic::transport::Error> {
    let ended = services.shutdown.clone();
    // The server's own setting does nothing for a listener that is handed to it; without this every
    // order waits 40 ms for the acknowledgement of the one before.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    attach_known(&services.heart).await;
    let cluster = MasterWorkerServer::new(services.clone())
        .max_decoding_message_size(WORKER_MESSAGE_LEN_MAX)
        .max_encoding_message_size(MESSAGE_LEN_MAX);
    let agent = MasterAgentServer::new(services)
        .max_decoding_message_size(MESSAGE_LEN_MAX)
        .max_encoding_message_size(MESSAGE_LEN_MAX);
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .add_service(cluster)
        .add_service(agent)
        .serve_with_incoming_shutdown(incoming, ended.cancelled_owned())
        .await
}

impl Services {
    /// The worker that holds an attempt. Refuses bytes of one that is not the current one of its
    /// task, or that another session holds. A peer without a session is only asked for the attempt,
    /// and for a holder that is a unary worker: it lives, for it sends something.
    async fn check_holder(
        &self,
        attempt: AttemptId,
        session: Option<Session>,
    ) -> Result<WorkerId, Status> {
        let find = move |reader: &mut dyn cloudai_database::Reader| reader.find_task(attempt.task);
        let found = self.readers.read(find).await;
        let task = found.map_err(|error| Status::unavailable(error.to_string()))?;
        let Some(task) = task else {
            return Err(Status::not_found(format!("{} does not exist", attempt.task)));
        };
        let hold = match &task.state {
            TaskState::Live(live) if live.attempt == attempt.no => live.find_hold(),
            _ => None,
        };
        let Some(hold) = hold.filter(|hold| session.is_none_or(|claim| claim == hold.session))
        else {
            let words = format!("{attempt} is not the current attempt any more");
            return Err(Status::failed_precondition(words));
        };
        if session.is_none() {
            let (worker, changes) = (hold.worker.clone(), Vec::new());
            let alive = Command::Report { worker, session, sequence: 0, changes, full: None };
            let answer = self.heart.command(alive).await.map_err(|error| heart_status(&error))?;
            if let Answer::Rejected(_) = answer {
                let words = format!("{attempt} is held under a session, which this call lacks");
                return Err(Status::failed_precondition(words));
            }
        }
        Ok(hold.worker.clone())
    }
}

/// What the heart could not do, in the wire's codes.
fn heart_status(error: &HeartError) -> Status {
    match error {
        HeartError::Busy => Status::resource_exhausted(error.to_string()),
        HeartError::StorageFull(_)
        | HeartError::Storage(_)
        | HeartError::Stopped
        | HeartError::Replaced => Status::unavailable(error.to_string()),
    }
}

/// What the disk could not do: it may have room again, but what is beyond a bound stays so.
fn io_status(error: &std::io::Error) -> Status {
    let words = format!("the master cannot store it: {error}");
    match error.kind() {
        std::io::ErrorKind::FileTooLarge => Status::out_of_range(words),
        _ => Status::unavailable(words),
    }
}

/// A call of the worker's side of the service, which only workers serve.
fn not_here<T>(call: &str) -> Result<T, Status> {
    Err(Status::unimplemented(format!("{call} is served by workers; this is a master")))
}

#[tonic::async_trait]
impl MasterWorker for Services {
    type StreamTaskLogsStream = Outbound<cluster::LogChunk>;
    type SessionStream = Outbound<cluster::SessionDown>;
    type PushLogStream = Outbound<cluster::LogStored>;

    async fn register_worker(
        &self,
        request: Request<cluster::WorkerInfo>,
    ) -> Result<Response<cluster::RegisterAck>, Status> {
        unary::register(self, &request.into_inner()).await.map(Response::new)
    }

    async fn send_heartbeat(
        &self,
        request: Request<cluster::Heartbeat>,
    ) -> Result<Response<cluster::HeartbeatAck>, Status> {
        unary::heartbeat(self, &request.into_inner()).await.map(Response::new)
    }

    async fn report_task_completion(
        &self,
        request: Request<cluster::TaskResult>,
    ) -> Result<Response<cluster::Ack>, Status> {
        unary::completion(self, request.into_inner()).await.map(Response::new)
    }

    async fn assign_task(
        &self,
        _request: Request<cluster::Task>,
    ) -> Result<Response<cluster::TaskAck>, Status> {
        not_here("AssignTask")
    }

    async fn cancel_task(
        &self,
        _request: Request<cluster::TaskId>,
    ) -> Result<Response<cluster::TaskAck>, Status> {
        not_here("CancelTask")
    }

    async fn stream_task_logs(
        &self,
        _request: Request<cluster::TaskLogRequest>,
    ) -> Result<Response<Self::StreamTaskLogsStream>, Status> {
        not_here("StreamTaskLogs")
    }

    async fn upload_task_files(
        &self,
        request: Request<Streaming<cluster::FileChunk>>,
    ) -> Result<Response<cluster::FileUploadAck>, Status> {
        upload::receive(self, request.into_inner()).await.map(Response::new)
    }

    async fn session(
        &self,
        request: Request<Streaming<cluster::SessionUp>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        Ok(Response::new(session::open(self.clone(), request.into_inner())))
    }

    async fn push_log(
        &self,
        request: Request<Streaming<cluster::LogPart>>,
    ) -> Result<Response<Self::PushLogStream>, Status> {
        Ok(Response::new(logs::receive(self.clone(), request.into_inner())))
    }
}

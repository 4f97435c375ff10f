//! The worker's own server: the unary calls of the wire contract, for masters that call their
//! workers, and for people with a generic client. It must never touch the ledger: what a session
//! holds can be read and stopped here, and nothing more. Read next: `unary.rs`, which runs what is
//! assigned here.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use cloudai_model::{Cause, Timestamp};
use cloudai_proto::cluster::master_worker_server::{MasterWorker, MasterWorkerServer};
use cloudai_proto::cluster::{
    Ack, FileChunk, FileUploadAck, Heartbeat, HeartbeatAck, LogChunk, LogPart, LogStored,
    RegisterAck, SessionDown, SessionUp, Task, TaskAck, TaskId, TaskLogRequest, TaskResult,
    WorkerInfo,
};
use cloudai_proto::log_record::{Decoder, Record};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::config::WorkerError;
use crate::executor::StopRequest;
use crate::logs::{LogLength, LogSpool};
use crate::run::LiveRun;
use crate::unary::Unary;

/// How many pieces of a log wait for their reader.
const CHUNKS_WAITING_MAX: usize = 8;
/// Most streams that one connection may have open.
const STREAMS_MAX: u32 = 256;
/// Bytes that are read from a spool at once.
const READ_LEN: usize = 64 << 10;

/// Takes the port, so that a port in use is known before anything else is done.
pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener, WorkerError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => WorkerError::PortInUse { address },
        _ => WorkerError::Listen { address, source },
    })
}

/// Serves until `shutdown` is ready.
pub(crate) async fn serve(
    listener: TcpListener,
    unary: Arc<Unary>,
    shutdown: impl Future<Output = ()>,
) {
    let service = MasterWorkerServer::new(Service { unary });
    let served = tonic::transport::Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .add_service(service)
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            shutdown,
        )
        .await;
    if let Err(error) = served {
        tracing::error!("The worker's gRPC server ended: {error}");
    }
}

struct Service {
    unary: Arc<Unary>,
}

impl Service {
    fn run_of(&self, task_id: &str) -> Result<LiveRun, Status> {
        self.unary.context().live.find(task_id).ok_or_else(|| {
            let shown = task_id.chars().take(80).collect::<String>();
            Status::not_found(format!(
                "no task '{}' on this worker; the log of one that ended is on its master",
                shown.escape_debug()
            ))
        })
    }
}

/// The calls that a master serves, not a worker.
fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("this is a worker: ask its master"))
}

#[tonic::async_trait]
impl MasterWorker for Service {
    async fn assign_task(&self, request: Request<Task>) -> Result<Response<TaskAck>, Status> {
        let (success, message) = match self.unary.assign(request.into_inner()) {
            Ok(message) => (true, message.to_owned()),
            Err(message) => (false, message),
        };
        Ok(Response::new(TaskAck { success, message }))
    }

    async fn cancel_task(&self, request: Request<TaskId>) -> Result<Response<TaskAck>, Status> {
        let run = self.run_of(&request.get_ref().task_id)?;
        let request = StopRequest { cause: Cause::Cancelled, grace_ms: run.grace_ms };
        let stops = run.request_stop(request);
        let message = if stops { "Task is being stopped" } else { "Task is already being stopped" };
        Ok(Response::new(TaskAck { success: true, message: message.to_owned() }))
    }

    type StreamTaskLogsStream = ReceiverStream<Result<LogChunk, Status>>;

    async fn stream_task_logs(
        &self,
        request: Request<TaskLogRequest>,
    ) -> Result<Response<Self::StreamTaskLogsStream>, Status> {
        let TaskLogRequest { task_id, follow, .. } = request.into_inner();
        let run = self.run_of(&task_id)?;
        let (chunks, receiver) = mpsc::channel(CHUNKS_WAITING_MAX);
        let reader = LogReader { task_id, spool: run.spool, chunks };
        tokio::spawn(reader.run(follow));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn register_worker(
        &self,
        _: Request<WorkerInfo>,
    ) -> Result<Response<RegisterAck>, Status> {
        not_here()
    }

    async fn send_heartbeat(
        &self,
        _: Request<Heartbeat>,
    ) -> Result<Response<HeartbeatAck>, Status> {
        not_here()
    }

    async fn report_task_completion(
        &self,
        _: Request<TaskResult>,
    ) -> Result<Response<Ack>, Status> {
        not_here()
    }

    async fn upload_task_files(
        &self,
        _: Request<Streaming<FileChunk>>,
    ) -> Result<Response<FileUploadAck>, Status> {
        not_here()
    }

    type SessionStream = tokio_stream::Empty<Result<SessionDown, Status>>;

    async fn session(
        &self,
        _: Request<Streaming<SessionUp>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        not_here()
    }

    type PushLogStream = tokio_stream::Empty<Result<LogStored, Status>>;

    async fn push_log(
        &self,
        _: Request<Streaming<LogPart>>,
    ) -> Result<Response<Self::PushLogStream>, Status> {
        not_here()
    }
}

/// Reads one log for one caller. It ends when the caller goes away.
struct LogReader {
    task_id: String,
    spool: LogSpool,
    chunks: mpsc::Sender<Result<LogChunk, Status>>,
}

/// The caller went away.
struct Gone;

impl LogReader {
    async fn run(self, follow: bool) {
        let chunks = self.chunks.clone();
        let Self { task_id, mut spool, .. } = self;
        let reading = async {
            let status = copy(&task_id, &mut spool, follow, &chunks).await?;
            let last = chunk(&task_id, String::new(), crate::clock::wall(), true, status);
            chunks.send(Ok(last)).await.map_err(|_| Gone)
        };
        tokio::select! {
            _ = reading => {}
            () = self.chunks.closed() => {}
        }
    }
}

/// Copies what there is, or with `follow` all that comes; the status of the task at the end.
async fn copy(
    task_id: &str,
    spool: &mut LogSpool,
    follow: bool,
    chunks: &mpsc::Sender<Result<LogChunk, Status>>,
) -> Result<&'static str, Gone> {
    let (mut decoder, mut read, mut reader) = (Decoder::default(), 0, spool.reader());
    loop {
        let (length, is_final) = match (follow, spool.wait_now_or_beyond(follow, read).await) {
            (_, LogLength::Final(length)) => (length, true),
            (false, LogLength::Open(length)) if read == length => return Ok("running"),
            (_, LogLength::Open(length)) => (length, false),
        };
        if is_final && read == length {
            return Ok("completed");
        }
        let piece = match reader.read(read, READ_LEN).await {
            Ok(piece) if !piece.is_empty() => piece,
            // The spool was removed meanwhile: its log is on the master.
            _ => return Ok("completed"),
        };
        read += piece.len() as u64;
        decoder.push(&piece);
        while let Ok(Some(Record { at, bytes, .. })) = decoder.next_record() {
            let content = String::from_utf8_lossy(&bytes).into_owned();
            let chunk = chunk(task_id, content, at, false, "running");
            chunks.send(Ok(chunk)).await.map_err(|_| Gone)?;
        }
    }
}

fn chunk(
    task_id: &str,
    content: String,
    at: Timestamp,
    is_complete: bool,
    status: &str,
) -> LogChunk {
    let at =
        i64::try_from(at.unix_ms()).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    LogChunk {
        task_id: task_id.to_owned(),
        content,
        timestamp: at.unwrap_or_default().to_string(),
        is_complete,
        status: status.to_owned(),
    }
}

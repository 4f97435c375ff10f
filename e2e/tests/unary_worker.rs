//! A worker written by somebody who has read nothing but the wire contract: only the unary calls,
//! only the fields with numbers below 20. Here it is a server of the test that runs nothing and
//! says what it likes. The tests block their own thread; the server has others.
#![allow(clippy::unwrap_used, reason = "all of this is a test, its small functions as well")]

use std::sync::{Arc, Mutex};

use cloudai_e2e::{Cluster, PATIENCE, until};
use cloudai_proto::cluster::master_worker_client::MasterWorkerClient;
use cloudai_proto::cluster::master_worker_server::{MasterWorker, MasterWorkerServer};
use cloudai_proto::cluster::{
    Ack, FileChunk, FileUploadAck, Heartbeat, HeartbeatAck, LogChunk, LogPart, LogStored,
    RegisterAck, RunningTask, SessionDown, SessionUp, Task, TaskAck, TaskId, TaskLogRequest,
    TaskResult, WorkerInfo,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status, Streaming};

type Answer<T> = Result<Response<T>, Status>;
type Nothing<T> = tokio_stream::Empty<Result<T, Status>>;

/// The calls that the master makes.
#[derive(Clone)]
struct Calls {
    assigned: mpsc::UnboundedSender<Task>,
    cancelled: mpsc::UnboundedSender<TaskId>,
    /// How many of the next assignments fail on the way.
    lost: Arc<Mutex<usize>>,
}

fn not_mine<T>() -> Answer<T> {
    Err(Status::unimplemented("a worker does not serve this"))
}

#[tonic::async_trait]
impl MasterWorker for Calls {
    async fn assign_task(&self, request: Request<Task>) -> Answer<TaskAck> {
        self.assigned.send(request.into_inner()).unwrap();
        let mut lost = self.lost.lock().unwrap();
        if *lost > 0 {
            *lost -= 1;
            return Err(Status::unavailable("lost on the way"));
        }
        Ok(Response::new(TaskAck { success: true, message: "Task accepted".to_owned() }))
    }

    async fn cancel_task(&self, request: Request<TaskId>) -> Answer<TaskAck> {
        self.cancelled.send(request.into_inner()).unwrap();
        Ok(Response::new(TaskAck { success: true, message: "Task is being stopped".to_owned() }))
    }

    async fn register_worker(&self, _: Request<WorkerInfo>) -> Answer<RegisterAck> {
        not_mine()
    }

    async fn send_heartbeat(&self, _: Request<Heartbeat>) -> Answer<HeartbeatAck> {
        not_mine()
    }

    async fn report_task_completion(&self, _: Request<TaskResult>) -> Answer<Ack> {
        not_mine()
    }

    type StreamTaskLogsStream = Nothing<LogChunk>;

    async fn stream_task_logs(
        &self,
        _: Request<TaskLogRequest>,
    ) -> Answer<Self::StreamTaskLogsStream> {
        not_mine()
    }

    async fn upload_task_files(&self, _: Request<Streaming<FileChunk>>) -> Answer<FileUploadAck> {
        not_mine()
    }

    type SessionStream = Nothing<SessionDown>;

    async fn session(&self, _: Request<Streaming<SessionUp>>) -> Answer<Self::SessionStream> {
        not_mine()
    }

    type PushLogStream = Nothing<LogStored>;

    async fn push_log(&self, _: Request<Streaming<LogPart>>) -> Answer<Self::PushLogStream> {
        not_mine()
    }
}

/// The worker: its server, and its way to the master.
struct Unary {
    master: MasterWorkerClient<Channel>,
    assigned: mpsc::UnboundedReceiver<Task>,
    cancelled: mpsc::UnboundedReceiver<TaskId>,
    lost: Arc<Mutex<usize>>,
    address: String,
}

const ID: &str = "unary-1";

impl Unary {
    async fn start(cluster: &Cluster) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (assign, assigned) = mpsc::unbounded_channel();
        let (cancel, cancelled) = mpsc::unbounded_channel();
        let lost = Arc::new(Mutex::new(0));
        let calls = Calls { assigned: assign, cancelled: cancel, lost: Arc::clone(&lost) };
        let server = Server::builder().add_service(MasterWorkerServer::new(calls));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let master = format!("http://{}", cluster.grpc_address());
        let master = MasterWorkerClient::connect(master).await.unwrap();
        Self { master, assigned, cancelled, lost, address }
    }

    async fn register(&mut self) -> RegisterAck {
        let info = WorkerInfo {
            worker_id: ID.to_owned(),
            worker_ip: self.address.clone(),
            total_cpu: 4.0,
            total_memory: 8.0,
            total_storage: 50.0,
            total_gpu: 0.0,
        };
        self.master.register_worker(info).await.unwrap().into_inner()
    }

    async fn heartbeat(&mut self, running: &[&Task]) -> Result<HeartbeatAck, Status> {
        let running = running.iter().map(|task| RunningTask {
            task_id: task.task_id.clone(),
            cpu_allocated: task.req_cpu,
            memory_allocated: task.req_memory,
            status: "running".to_owned(),
            gpu_allocated: 0.0,
        });
        let heartbeat = Heartbeat {
            worker_id: ID.to_owned(),
            cpu_usage: 12.5,
            memory_usage: 40.0,
            storage_usage: 3.0,
            running_tasks: running.collect(),
            gpu_usage: 0.0,
        };
        self.master.send_heartbeat(heartbeat).await.map(Response::into_inner)
    }

    async fn report(&mut self, task: &Task, status: &str, logs: &str) -> Ack {
        let result = TaskResult {
            task_id: task.task_id.clone(),
            worker_id: ID.to_owned(),
            status: status.to_owned(),
            logs: logs.to_owned(),
            result_location: String::new(),
            output_files: Vec::new(),
        };
        self.master.report_task_completion(result).await.unwrap().into_inner()
    }

    async fn next_task(&mut self) -> Task {
        let next = tokio::time::timeout(PATIENCE, self.assigned.recv()).await;
        let mut task = next.expect("a task is assigned in time").unwrap();
        // This worker was written before this field was.
        task.spec = None;
        task
    }
}

async fn start() -> (Cluster, Unary) {
    let cluster = Cluster::start();
    let mut worker = Unary::start(&cluster).await;
    let ack = worker.register().await;
    assert_eq!((ack.success, ack.message.as_str()), (true, "Worker registered successfully"));
    assert!(worker.heartbeat(&[]).await.unwrap().success);
    (cluster, worker)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_registers_beats_runs_and_reports() {
    let (cluster, mut worker) = start().await;
    let submit = ["--worker", ID, "--cpus", "1.5", "-m", "2GiB", "--name", "n", "--user", "u"];
    let submit = [&submit[..], &["-c", "echo hi | wc", "some/image:1"]].concat();
    let task_id = cluster.submit(&submit);
    let task = worker.next_task().await;
    assert_eq!(
        (task.docker_image.as_str(), task.command.as_str()),
        ("some/image:1", "echo hi | wc")
    );
    assert_eq!((task.req_cpu, task.req_memory, task.req_gpu), (1.5, 2.0, 0.0));
    assert_eq!((task.target_worker_id.as_str(), task.task_name.as_str()), (ID, "n"));
    assert_eq!((task.user_id.as_str(), task.sla_multiplier), ("u", 2.0));
    assert!(task.submitted_at > 1_600_000_000);
    let fits_a_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    assert!(task.task_id.chars().all(fits_a_name), "{}", task.task_id);

    worker.heartbeat(&[&task]).await.unwrap();
    cluster.wait_status("task-1", "running");
    let view = cluster.worker_view(ID);
    assert_eq!((&view["kind"], &view["status"]), (&"unary".into(), &"active".into()));
    assert_eq!((&view["usage"]["cpu"], &view["allocated"]["cpus"]), (&12.5.into(), &1.5.into()));
    assert_eq!(view["tasks"][0]["task"], task_id);

    upload(&mut worker, &task).await;
    for _ in 0..2 {
        let ack = worker.report(&task, "success", "1 1 3\n").await;
        assert_eq!((ack.success, ack.message.as_str()), (true, "Task result received"));
    }
    let detail = cluster.wait_success("task-1");
    assert_eq!(detail["worker"], ID);
    assert_eq!(detail["files"][0]["path"], "out/result.txt");
    assert_eq!(cluster.ok(&["logs", "1"]), "1 1 3");
    assert_eq!(cluster.ok(&["files", "1", "out/result.txt"]), "result");
    cluster.master().wait_for("Task completion: task-1 from worker unary-1 [Status: success]");
}

/// One file in two chunks.
async fn upload(worker: &mut Unary, task: &Task) {
    let chunk = |data: &[u8], is_last: bool| FileChunk {
        task_id: task.task_id.clone(),
        user_id: task.user_id.clone(),
        task_name: task.task_name.clone(),
        file_path: "out/result.txt".to_owned(),
        data: data.to_vec(),
        is_last_chunk: is_last,
        is_last_file: is_last,
        timestamp: 0,
        session: 0,
    };
    let chunks = tokio_stream::iter([chunk(b"res", false), chunk(b"ult\n", true)]);
    let ack = worker.master.upload_task_files(chunks).await.unwrap().into_inner();
    assert_eq!((ack.success, ack.files_received), (true, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_before_the_registration_is_told_to_register() {
    let cluster = Cluster::start();
    let mut worker = Unary::start(&cluster).await;
    let status = worker.heartbeat(&[]).await.unwrap_err();
    assert!(status.message().contains("register"), "{status}");
    worker.register().await;
    worker.heartbeat(&[]).await.unwrap();
    // The same id again is the same worker back.
    worker.register().await;
    assert_eq!(cluster.get("/status").body["workers"]["total"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assignment_that_got_lost_comes_again_as_the_same() {
    let (cluster, mut worker) = start().await;
    *worker.lost.lock().unwrap() = 1;
    cluster.submit(&["some/image"]);
    let first = worker.next_task().await;
    // The failed call decided nothing; the heartbeat says that the task did not arrive.
    worker.heartbeat(&[]).await.unwrap();
    let second = worker.next_task().await;
    assert_eq!(second, first);
    worker.heartbeat(&[&second]).await.unwrap();
    worker.report(&second, "failed", "it broke\n").await;
    let detail = cluster.wait_end("task-1");
    assert_eq!(detail["status"], "failed");
    assert_eq!(detail["attempts"].as_array().map(Vec::len), Some(1), "{detail:#}");
    assert_eq!(cluster.ok(&["logs", "1"]), "it broke");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_reaches_it() {
    let (cluster, mut worker) = start().await;
    cluster.submit(&["some/image"]);
    let task = worker.next_task().await;
    worker.heartbeat(&[&task]).await.unwrap();
    cluster.wait_status("task-1", "running");
    cluster.ok(&["cancel", "1"]);
    let cancelled = tokio::time::timeout(PATIENCE, worker.cancelled.recv()).await.unwrap().unwrap();
    assert_eq!(cancelled.task_id, task.task_id);
    worker.report(&task, "cancelled", "").await;
    let detail = cluster.wait_end("task-1");
    assert_eq!(
        (&detail["status"], &detail["outcome"]["cause"]),
        (&"cancelled".into(), &"cancelled".into())
    );
    // What it took is free again.
    until("its room is free", || {
        let view = cluster.worker_view(ID);
        (view["free"] == view["capacity"]).then_some(())
    });
}

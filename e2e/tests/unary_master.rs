//! A worker of ours and somebody who speaks to it by the unary calls alone, as a master written in
//! any language would: only the fields below 20. The tests block their own thread; the client has
//! others.
#![allow(clippy::unwrap_used, reason = "all of this is a test, its small functions as well")]

use cloudai_e2e::{BUSYBOX, Cluster, Worker, engine};
use cloudai_proto::cluster::master_worker_client::MasterWorkerClient;
use cloudai_proto::cluster::{LogChunk, Task, TaskAck, TaskId, TaskLogRequest};
use tonic::transport::Channel;
use tonic::{Code, Status};

/// What a master says to a worker.
struct Caller(MasterWorkerClient<Channel>);

impl Caller {
    async fn connect(worker: &Worker) -> Self {
        let port = worker.process.wait_for_rest("gRPC server listening on :");
        Self(MasterWorkerClient::connect(format!("http://127.0.0.1:{port}")).await.unwrap())
    }

    async fn assign(&mut self, task: &Task) -> TaskAck {
        self.0.assign_task(task.clone()).await.unwrap().into_inner()
    }

    async fn cancel(&mut self, task: &Task) -> Result<TaskAck, Status> {
        let id = TaskId { task_id: task.task_id.clone() };
        self.0.cancel_task(id).await.map(tonic::Response::into_inner)
    }

    /// Follows a log to its end.
    async fn log(&mut self, task: &Task) -> Vec<LogChunk> {
        let request =
            TaskLogRequest { task_id: task.task_id.clone(), user_id: String::new(), follow: true };
        let mut stream = self.0.stream_task_logs(request).await.unwrap().into_inner();
        let mut chunks = Vec::new();
        while let Some(chunk) = stream.message().await.unwrap() {
            chunks.push(chunk);
        }
        chunks
    }
}

fn task(id: &str, command: &str) -> Task {
    Task {
        task_id: id.to_owned(),
        docker_image: BUSYBOX.to_owned(),
        command: command.to_owned(),
        req_cpu: 0.5,
        req_memory: 0.25,
        sla_multiplier: 2.0,
        ..Task::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_of_a_unary_call_runs_once_and_its_log_can_be_followed() {
    let cluster = Cluster::start();
    let worker = cluster.worker("worker-1", &[]);
    let mut caller = Caller::connect(&worker).await;
    let given = task("other-1", "echo first; sleep 1; echo last");
    assert!(caller.assign(&given).await.success);
    assert!(caller.assign(&given).await.success, "the same again is accepted");
    let chunks = caller.log(&given).await;
    let (last, pieces) = chunks.split_last().unwrap();
    let text: String = pieces.iter().map(|chunk| chunk.content.as_str()).collect();
    assert_eq!(text, "first\nlast\n");
    assert!(last.is_complete && pieces.iter().all(|chunk| !chunk.is_complete), "{chunks:?}");
    assert!(last.timestamp.ends_with('Z') && last.timestamp.contains('T'), "{}", last.timestamp);
    worker.process.wait_for("Task completed: other-1 [Status: success");
    assert!(caller.assign(&given).await.success, "and so it is after its end");
    engine::wait_gone(&worker.label);
    let runs = worker.process.said().matches("Task received: other-1").count();
    assert_eq!(runs, 1, "it was run again:\n{}", worker.process.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_by_a_unary_call_stops_its_task() {
    let cluster = Cluster::start();
    let worker = cluster.worker("worker-1", &[]);
    let mut caller = Caller::connect(&worker).await;
    let given = task("other-2", "trap 'echo asked; exit 0' TERM; while true; do sleep 0.1; done");
    assert!(caller.assign(&given).await.success);
    worker.process.wait_for("Waiting for container");
    assert!(caller.cancel(&given).await.unwrap().success);
    worker.process.wait_for("Task completed: other-2 [Status: cancelled");
    engine::wait_gone(&worker.label);
    let status = caller.cancel(&task("other-3", "")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_makes_no_sense_is_declined_by_name() {
    let cluster = Cluster::start();
    let worker = cluster.worker("worker-1", &[]);
    let mut caller = Caller::connect(&worker).await;
    let good = task("other-4", "true");
    for (field, bad) in [
        ("task_id", Task { task_id: String::new(), ..good.clone() }),
        ("image", Task { docker_image: String::new(), ..good.clone() }),
        ("req_cpu", Task { req_cpu: f64::NAN, ..good.clone() }),
        ("req_memory", Task { req_memory: -1.0, ..good.clone() }),
        ("target_worker_id", Task { target_worker_id: "worker-9".to_owned(), ..good.clone() }),
        ("task_type", Task { task_type: "heavy".to_owned(), ..good.clone() }),
    ] {
        let ack = caller.assign(&bad).await;
        assert!(!ack.success && ack.message.contains(field), "{field}: {}", ack.message);
    }
    assert!(caller.assign(&good).await.success);
    worker.process.wait_for("Task completed: other-4 [Status: success");
}

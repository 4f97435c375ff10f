//! Peers that claim, flood or only sit there: a clear error, no panic, and others are served.
#![allow(clippy::unwrap_used, reason = "all of this is a test, its small functions as well")]

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use cloudai_e2e::Cluster;
use cloudai_proto::agent::master_agent_client::MasterAgentClient;
use cloudai_proto::agent::{Assignment, TaskAssignments};
use cloudai_proto::cluster::WorkerInfo;
use cloudai_proto::cluster::master_worker_client::MasterWorkerClient;
use serde_json::json;

const FIVE_MB: usize = 5_000_000;
/// More than a process may have open needs `ulimit -n`.
const CONNECTIONS: usize = 10_000;

/// How long the master may keep a connection that says nothing more.
const HEAR_PATIENCE: Duration = Duration::from_mins(2);

/// What a peer hears that sends this and then no more.
fn hear(address: &str, said: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(HEAR_PATIENCE)).unwrap();
    // The master may hang up before it has read everything.
    drop(stream.write_all(said));
    let mut heard = Vec::new();
    let ended = stream.read_to_end(&mut heard);
    let is_open = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
    assert!(!ended.as_ref().is_err_and(is_open), "the master keeps the connection open");
    heard
}

#[tokio::test]
async fn c17_messages_that_are_too_long_or_none_at_all_are_refused() {
    let cluster = Cluster::start();
    let address = cluster.http_address();
    let claim = format!(
        "POST /api/v1/jobs HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: 1073741824\r\n\r\n"
    );
    let blanks = vec![b' '; FIVE_MB];
    let said = [claim.as_bytes(), &blanks].concat();
    let heard = hear(&address, &said);
    // It may also be cut off before it has read the answer.
    assert!(heard.is_empty() || heard.starts_with(b"HTTP/1.1 4"), "{heard:?}");
    cluster.post_job(&blanks).check_error(413, "too_large", "");
    let grpc = format!("http://{}", cluster.grpc_address());
    let mut agent = MasterAgentClient::connect(grpc.clone()).await.unwrap();
    let long = Assignment { task_id: "t".repeat(FIVE_MB), worker_id: String::new() };
    let plan = TaskAssignments { assignments: vec![long] };
    let status = agent.submit_assignments(plan).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::OutOfRange, "{status}");
    let mut worker = MasterWorkerClient::connect(grpc).await.unwrap();
    let info = WorkerInfo { worker_id: "w".repeat(FIVE_MB), ..WorkerInfo::default() };
    let status = worker.register_worker(info).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{}", status.code());
    hear(&cluster.grpc_address(), &vec![0xff; 100_000]);
    assert_eq!(cluster.get("/tasks").body["tasks"], json!([]));
    assert!(!cluster.master().said().contains("panicked"), "{}", cluster.master().said());
}

#[test]
fn c17_ten_thousand_idle_connections_keep_nobody_out() {
    let cluster = Cluster::start();
    let addresses = [cluster.http_address(), cluster.grpc_address()];
    let connect = |number: usize| {
        TcpStream::connect(&addresses[number % 2])
            .unwrap_or_else(|error| panic!("connection {number}: {error}; see 'ulimit -n'"))
    };
    let idle = (0..CONNECTIONS).map(connect).collect::<Vec<_>>();
    cluster.ok(&["status"]);
    let _worker = cluster.worker("worker-1", &["--executor", "mock"]);
    cluster.wait_success(&cluster.submit(&["mock", "echo", "served"]));
    assert_eq!(idle.len(), CONNECTIONS);
}

//! C16: what fits nowhere stands in nobody's way, however much of it there is and however many
//! shapes it has.
#![allow(clippy::unwrap_used, reason = "all of this is a test, its small functions as well")]

use std::time::Duration;

use cloudai_e2e::{Api, Cluster, Console};
use serde_json::json;

/// Arrays of tasks that no worker can run, each with needs of its own.
const SHAPES: u64 = 100;
/// Tasks in each of them.
const TASKS: u64 = 50;

#[test]
fn c16_five_thousand_misfits_stand_in_nobodys_way() {
    let cluster = Cluster::start_with(Console::Service, &[]);
    let _worker = cluster.worker("worker-1", &["--executor", "mock", "--cpus", "2"]);
    let api = Api::new(&cluster.http_address(), Duration::from_mins(1));
    for shape in 0..SHAPES {
        let array = json!({"first": 1, "last": TASKS});
        let memory_bytes = (1 << 50) + shape;
        let job = json!({"image": "mock", "array": array, "memory_bytes": memory_bytes});
        let answer = api.post("/jobs", &job).unwrap();
        assert_eq!(answer.status, 201, "{}", answer.body);
    }
    cluster.wait_success(&cluster.submit(&["mock", "echo", "through"]));
    let explained = cluster.get(&format!("/tasks/{SHAPES}.{TASKS}/explain"));
    assert_eq!(explained.status, 200, "{}", explained.body);
    assert!(explained.body.to_string().contains("it can never run there"), "{}", explained.body);
    let status = cluster.get("/status").body;
    assert_eq!(status["tasks"]["queued"], SHAPES * TASKS, "{status}");
}

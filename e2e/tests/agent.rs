//! An external scheduling agent: it sees what waits, proposes placements, and can do no harm.
#![allow(clippy::unwrap_used, reason = "all of this is a test, its small functions as well")]

use cloudai_e2e::{Cluster, until};
use cloudai_proto::agent::master_agent_client::MasterAgentClient;
use cloudai_proto::agent::{AgentAck, Assignment, ClusterState, Empty, TaskAssignments};
use tonic::transport::Channel;

struct Agent(MasterAgentClient<Channel>);

impl Agent {
    async fn fetch(&mut self) -> ClusterState {
        self.0.fetch_cluster_state(Empty {}).await.unwrap().into_inner()
    }

    async fn propose(&mut self, pairs: &[(&str, &str)]) -> AgentAck {
        let assignments = pairs.iter().map(|(task, worker)| Assignment {
            task_id: (*task).to_owned(),
            worker_id: (*worker).to_owned(),
        });
        let proposal = TaskAssignments { assignments: assignments.collect() };
        self.0.submit_assignments(proposal).await.unwrap().into_inner()
    }
}

/// A cluster of two workers that run nothing but words, and an agent.
fn start() -> (Cluster, [cloudai_e2e::Worker; 2]) {
    let cluster = Cluster::start();
    let offer = ["--executor", "mock", "--cpus", "4", "--memory", "8GiB"];
    let workers = ["worker-1", "worker-2"].map(|id| cluster.worker(id, &offer));
    (cluster, workers)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_sees_what_waits_and_each_of_its_placements_is_checked() {
    let (cluster, _workers) = start();
    let address = format!("http://{}", cluster.grpc_address());
    let mut agent = Agent(MasterAgentClient::connect(address).await.unwrap());
    // They fit nowhere, so that they wait whoever plans.
    let typed = ["--cpus", "64", "--task-type", "cpu-heavy", "image"];
    assert_eq!(cluster.submit(&typed), "task-1");
    assert_eq!(cluster.submit(&["--cpus", "4", "-m", "100GiB", "image"]), "task-2");

    let state = agent.fetch().await;
    let tasks: Vec<_> = state.pending_tasks.iter().map(|task| task.task_id.as_str()).collect();
    assert_eq!(tasks, ["task-1", "task-2"]);
    let (first, second) = (&state.pending_tasks[0], &state.pending_tasks[1]);
    assert_eq!((first.req_cpu, first.req_memory, first.req_gpu), (64.0, 0.5, 0.0));
    assert_eq!((first.task_type.as_str(), second.req_memory), ("cpu-heavy", 100.0));
    let workers: Vec<_> = state.workers.iter().map(|worker| worker.worker_id.as_str()).collect();
    assert_eq!(workers, ["worker-1", "worker-2"]);
    let offer = &state.workers[0];
    assert_eq!((offer.cpu_available, offer.memory_available), (4.0, 8.0));
    assert_eq!(offer.status, "active");

    for (task, worker, why) in [
        ("task-1", "worker-1", "wants 64 cores"),
        ("task-2", "worker-2", "memory"),
        ("task-9", "worker-1", "task-9"),
        ("task-1", "worker-9", "worker-9"),
        ("nonsense", "worker-1", "nonsense"),
        ("task-1", "", "worker_id"),
    ] {
        let ack = agent.propose(&[(task, worker)]).await;
        assert!(!ack.success && ack.message.contains(why), "{task} on {worker}: {}", ack.message);
    }
    assert_eq!(cluster.task("task-1")["status"], "queued");
    assert_eq!(cluster.get("/status").body["agent"]["refused"], 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_placement_that_fits_is_taken_once() {
    let (cluster, _workers) = start();
    let address = format!("http://{}", cluster.grpc_address());
    let mut agent = Agent(MasterAgentClient::connect(address).await.unwrap());
    // From its first call on, planning is the agent's while it keeps calling.
    agent.fetch().await;
    let task = cluster.submit(&["-c", "sleep 2; echo placed by an agent", "image"]);
    let state = agent.fetch().await;
    assert_eq!(state.pending_tasks.len(), 1, "{state:?}");
    let ack = agent.propose(&[(&task, "worker-2"), (&task, "worker-2")]).await;
    assert!(ack.success, "{}", ack.message);
    let again = agent.propose(&[(&task, "worker-2")]).await;
    assert!(again.success, "{}", again.message);
    let elsewhere = agent.propose(&[(&task, "worker-1")]).await;
    assert!(!elsewhere.success, "{}", elsewhere.message);
    let detail = cluster.wait_success(&task);
    assert_eq!(detail["worker"], "worker-2");
    assert_eq!(detail["attempts"].as_array().map(Vec::len), Some(1));
    assert_eq!(cluster.ok(&["logs", &task]), "placed by an agent");
    // An agent that is gone leaves planning to the policy.
    let next = cluster.submit(&["image"]);
    until("the policy plans again", || {
        (cluster.task(&next)["status"] == "succeeded").then_some(())
    });
}

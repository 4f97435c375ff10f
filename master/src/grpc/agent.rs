//! External scheduling agents: they see what waits and propose placements; the core checks each.

use cloudai_master_core::{Answer, Command, PendingTask, Placement, WorkerStatus};
use cloudai_model::TaskId;
use cloudai_proto::agent::master_agent_server::MasterAgent;
use cloudai_proto::agent::{
    AgentAck, AgentWorkerInfo, Assignment, ClusterState, Empty, TaskAssignments, TaskInfo,
};
use cloudai_proto::convert::{from_wire, to_wire};
use cloudai_scheduler::Standing;
use tonic::{Request, Response, Status};

use super::{Services, heart_status};

/// Most waiting tasks that one answer shows; when they are placed, the next ones come.
const PENDING_MAX: usize = 2_000;
/// Most assignments in one proposal.
const ASSIGNMENTS_MAX: usize = 10_000;
/// Most refusals that a message names.
const REFUSALS_SHOWN_MAX: usize = 20;

#[tonic::async_trait]
impl MasterAgent for Services {
    async fn fetch_cluster_state(
        &self,
        _request: Request<Empty>,
    ) -> Result<Response<ClusterState>, Status> {
        let view = self.heart.view().await.map_err(|error| heart_status(&error))?;
        let pending = self.heart.pending(PENDING_MAX).await;
        let pending = pending.map_err(|error| heart_status(&error))?;
        self.agents.called(0, 0);
        Ok(Response::new(ClusterState {
            workers: view.workers.iter().map(worker_info).collect(),
            pending_tasks: pending.iter().map(task_info).collect(),
        }))
    }

    async fn submit_assignments(
        &self,
        request: Request<TaskAssignments>,
    ) -> Result<Response<AgentAck>, Status> {
        let proposed = request.into_inner().assignments;
        if proposed.len() > ASSIGNMENTS_MAX {
            let why = format!("more than {ASSIGNMENTS_MAX} assignments in one message");
            return Err(Status::invalid_argument(why));
        }
        let mut refused = Vec::new();
        let mut placements = Vec::new();
        for assignment in proposed {
            match placement_of(&assignment) {
                Ok(placement) => placements.push(placement),
                Err(why) => refused.push(why),
            }
        }
        let answer = self.heart.command(Command::Propose(placements)).await;
        let answer = answer.map_err(|error| heart_status(&error))?;
        let Answer::Proposed { accepted, refused: by_core } = answer else {
            return Err(Status::internal(format!("a proposal was answered with {answer:?}")));
        };
        refused.extend(by_core.into_iter().map(|refused| refused.why));
        self.agents.called(accepted, refused.len());
        Ok(Response::new(ack(accepted, &refused)))
    }
}

fn ack(accepted: usize, refused: &[String]) -> AgentAck {
    let mut message = format!("{accepted} accepted, {} refused", refused.len());
    for why in refused.iter().take(REFUSALS_SHOWN_MAX) {
        message.push_str("; ");
        message.push_str(why);
    }
    AgentAck { success: refused.is_empty(), message }
}

fn placement_of(assignment: &Assignment) -> Result<Placement, String> {
    let task: TaskId =
        assignment.task_id.parse().map_err(|error: cloudai_model::IdError| error.to_string())?;
    let worker = from_wire::worker_id(&assignment.worker_id).map_err(|error| error.to_string())?;
    Ok(Placement { task, worker })
}

fn worker_info(worker: &WorkerStatus) -> AgentWorkerInfo {
    AgentWorkerInfo {
        worker_id: worker.record.id.to_string(),
        cpu_available: to_wire::units(worker.free.cpu_milli),
        memory_available: to_wire::gib(worker.free.memory_bytes),
        gpu_available: to_wire::units(worker.free.gpu_milli),
        // Its contract has no third word: what takes no work is not active.
        status: match worker.standing {
            Standing::Active => "active",
            _ => "inactive",
        }
        .to_owned(),
    }
}

fn task_info(pending: &PendingTask) -> TaskInfo {
    let needs = pending.spec.needs;
    TaskInfo {
        task_id: pending.task.to_string(),
        req_cpu: to_wire::units(needs.cpu_milli),
        req_memory: to_wire::gib(needs.memory_bytes),
        req_gpu: to_wire::units(needs.gpu_milli),
        task_type: pending.spec.origin.task_type.map(|kind| kind.to_string()).unwrap_or_default(),
    }
}

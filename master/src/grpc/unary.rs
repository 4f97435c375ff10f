//! The calls of workers that were written by somebody who has read nothing but the wire contract.

use cloudai_master_core::{Answer, Command, FullReport, WorkerHello};
use cloudai_model::{AttemptReport, ReportWhat, WorkerId, WorkerKind};
use cloudai_proto::cluster;
use cloudai_proto::convert::{Orders, UnaryResult, from_wire};
use cloudai_proto::log_record::{LogStream, encode};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::mpsc;
use tonic::{Code, Status};

use super::{Services, heart_status, io_status};
use crate::clock;
use crate::dispatch::{LINK_LEN_MAX, Link, UnaryCaller};
use crate::heart::HeartHandle;

/// Both ends of the way to a worker that is called.
struct Line {
    link: Link,
    caller: UnaryCaller,
    given: mpsc::Receiver<Orders>,
}

impl Line {
    fn prepare(
        worker: &WorkerId,
        address: &str,
        heart: &HeartHandle,
    ) -> Result<Self, tonic::transport::Error> {
        let (orders, given) = mpsc::channel(LINK_LEN_MAX);
        let caller = UnaryCaller::new(worker.clone(), address, heart.clone())?;
        let link = Link { worker: worker.clone(), kind: WorkerKind::Unary, orders };
        Ok(Self { link, caller, given })
    }
}

/// Makes ready to call the workers that an earlier run of this master knew: they are known, so
/// their heartbeats are answered, and nothing makes them register again.
pub(crate) async fn attach_known(heart: &HeartHandle) {
    let Ok(view) = heart.view().await else { return };
    for worker in view.workers.iter().map(|worker| &worker.record) {
        if worker.kind != WorkerKind::Unary {
            continue;
        }
        match Line::prepare(&worker.id, &worker.address, heart) {
            Ok(Line { link, caller, given }) => {
                heart.attach(worker.session, link).await;
                tokio::spawn(caller.run(given));
            }
            Err(error) => tracing::warn!("cannot call worker {}: {error}", worker.id),
        }
    }
}

pub(super) async fn register(
    services: &Services,
    info: &cluster::WorkerInfo,
) -> Result<cluster::RegisterAck, Status> {
    let worker = from_wire::worker_info(info)?;
    let line = Line::prepare(&worker.id, &worker.address, &services.heart);
    let Line { link, caller, given } = line.map_err(|error| {
        Status::invalid_argument(format!("worker_ip: '{}': {error}", worker.address))
    })?;
    let command = Command::Hello(WorkerHello {
        id: worker.id,
        session: None,
        kind: WorkerKind::Unary,
        address: worker.address,
        capacity: worker.capacity,
        volumes: BTreeSet::new(),
        version: String::new(),
        held: None,
        degraded: None,
        stream: None,
    });
    match services.heart.hello(command, link).await.map_err(|error| heart_status(&error))? {
        Answer::Welcome(_) => {
            tokio::spawn(caller.run(given));
            let message = "Worker registered successfully".to_owned();
            Ok(cluster::RegisterAck { success: true, message })
        }
        Answer::Rejected(rejection) => {
            Ok(cluster::RegisterAck { success: false, message: rejection.to_string() })
        }
        other => Err(Status::internal(format!("a registration was answered with {other:?}"))),
    }
}

pub(super) async fn heartbeat(
    services: &Services,
    heartbeat: &cluster::Heartbeat,
) -> Result<cluster::HeartbeatAck, Status> {
    let heartbeat = from_wire::heartbeat(heartbeat)?;
    let worker = heartbeat.worker;
    tracing::debug!("Heartbeat from worker {worker}: {} running", heartbeat.running.len());
    let now = clock::wall();
    let started = |attempt| AttemptReport { attempt, what: ReportWhat::Started(now) };
    let held = heartbeat.running.into_iter().map(started).collect();
    let full = Some(FullReport { held, degraded: None });
    let (session, sequence) = (None, 0);
    let command =
        Command::Report { worker: worker.clone(), session, sequence, changes: Vec::new(), full };
    let answer = services.heart.command(command).await;
    if let Answer::Rejected(rejection) = answer.map_err(|error| heart_status(&error))? {
        return Err(Status::not_found(rejection.to_string()));
    }
    services.usage.set(&worker, heartbeat.usage);
    Ok(cluster::HeartbeatAck { success: true })
}

pub(super) async fn completion(
    services: &Services,
    result: cluster::TaskResult,
) -> Result<cluster::Ack, Status> {
    let result = from_wire::task_result(result)?;
    // A stale result is answered like a fresh one: the worker is to forget it. What could not be
    // looked up is not stale: the worker brings it again.
    let holder = services.check_holder(result.attempt, None).await;
    if let Err(status) = &holder
        && !matches!(status.code(), Code::NotFound | Code::FailedPrecondition)
    {
        return Err(status.clone());
    }
    if holder.is_ok() {
        keep_log(services, &result).await?;
        let what =
            ReportWhat::Ended { started_at: None, outcome: result.outcome, at: clock::wall() };
        let changes = vec![AttemptReport { attempt: result.attempt, what }];
        let (worker, session) = (result.worker, None);
        let command = Command::Report { worker, session, sequence: 0, changes, full: None };
        let answer = services.heart.command(command).await;
        if let Answer::Rejected(rejection) = answer.map_err(|error| heart_status(&error))? {
            return Err(Status::not_found(rejection.to_string()));
        }
    }
    Ok(cluster::Ack { success: true, message: "Task result received".to_owned() })
}

/// The log comes with the result; it is on disk before the end is stored.
async fn keep_log(services: &Services, result: &UnaryResult) -> Result<(), Status> {
    if result.logs.is_empty() {
        return Ok(());
    }
    let attempt = result.attempt;
    let mut records = Vec::with_capacity(result.logs.len() + 64);
    encode(LogStream::Stdout, clock::wall(), result.logs.as_bytes(), &mut records);
    let files = Arc::clone(&services.files);
    let write = move || files.keep_whole_log(attempt, &records);
    let written = tokio::task::spawn_blocking(write).await;
    written.map_err(|_| Status::aborted("the master is stopping"))?.map_err(|e| io_status(&e))
}

//! Jobs: submit, list, look, cancel.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use cloudai_api::{
    CancelResponse, ErrorBody, ErrorCode, JobPage, JobQuery, JobView, SubmitRequest,
    SubmitResponse, WaitQuery,
};
use cloudai_database as database;
use cloudai_failpoint::failpoint;
use cloudai_master_core::{Answer, CancelTarget, Command, Rejection, Submission};
use cloudai_model::JobId;

use super::convert;
use super::errors::Failure;
use super::extract::{ApiJson, ApiPath, ApiQuery, job_id, page_limit};
use super::{App, Shared, wait};
use crate::heart::Change;

/// Submits a job: one task, or an array of them. The answer comes when the job is stored.
#[utoipa::path(
    post, path = "/jobs", tag = "jobs", operation_id = "submitJob",
    request_body = SubmitRequest,
    responses(
        (status = 201, body = SubmitResponse),
        (status = 200, body = SubmitResponse, description = "An earlier submit with the same \
            request id had made it"),
        (status = "default", body = ErrorBody),
    )
)]
pub(super) async fn submit(
    State(app): State<App>,
    ApiJson(request): ApiJson<SubmitRequest>,
) -> Result<(StatusCode, Json<SubmitResponse>), Failure> {
    let submission = convert::submission(request)?;
    failpoint!("master.submit.received");
    let answer = app.heart.try_command(Command::Submit(submission.clone())).await?;
    let (job, shape, existing) = match answer {
        Answer::Submitted { job, shape, existing } => (job, shape, existing),
        other => return Err(unexpected(other)),
    };
    if existing {
        check_same(&app, job, &submission).await?;
    }
    let answer = SubmitResponse {
        job: job.0.to_string(),
        tasks: shape.task_count(),
        first_task: shape.task_id(job, shape.span().0).to_string(),
        existing,
    };
    failpoint!("master.submit.before_answer");
    let status = if existing { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(answer)))
}

/// A request id names one submit; with another content it is a mistake of the client.
async fn check_same(app: &Shared, job: JobId, submission: &Submission) -> Result<(), Failure> {
    let stored = read_job(app, job).await?;
    if stored.spec == submission.spec && stored.shape == submission.shape {
        return Ok(());
    }
    let message = format!("{job} was submitted under this request id with another content");
    Err(Failure::new(ErrorCode::Conflict, message)
        .hint("give each submit a request id of its own; nothing was created"))
}

/// The failure that an answer of the core is, where another one was due.
pub(super) fn unexpected(answer: Answer) -> Failure {
    match answer {
        Answer::Rejected(rejection) => rejection.into(),
        _ => Failure::new(ErrorCode::Internal, "the core answered another question"),
    }
}

/// Lists jobs, newest first.
#[utoipa::path(
    get, path = "/jobs", tag = "jobs", operation_id = "listJobs", params(JobQuery),
    responses((status = 200, body = JobPage), (status = "default", body = ErrorBody))
)]
pub(super) async fn list(
    State(app): State<App>,
    ApiQuery(query): ApiQuery<JobQuery>,
) -> Result<Json<JobPage>, Failure> {
    let after = query.cursor.as_deref().map(job_id).transpose();
    let asked = database::JobQuery {
        after: after.map_err(|_| Failure::field("cursor", "is not one that this API gave"))?,
        limit: page_limit(query.limit)?,
        ..database::JobQuery::default()
    };
    let page = app.readers.read(move |reader| reader.jobs(&asked)).await?;
    Ok(Json(JobPage {
        jobs: page.jobs.iter().map(convert::job_view).collect(),
        next_cursor: page.next.map(|next| next.0.to_string()),
    }))
}

/// Shows a job; with `wait_ms`, when it has ended or the time is up.
#[utoipa::path(
    get, path = "/jobs/{id}", tag = "jobs", operation_id = "showJob",
    params(("id" = String, Path, description = "`42` or `job-42`"), WaitQuery),
    responses((status = 200, body = JobView), (status = "default", body = ErrorBody))
)]
pub(super) async fn show(
    State(app): State<App>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(query): ApiQuery<WaitQuery>,
) -> Result<Json<JobView>, Failure> {
    let job = job_id(&id)?;
    let concerns = |change: &Change| match change {
        Change::Task(task) => task.job == job,
        Change::Job(id) => *id == job,
        Change::Worker(_) => false,
    };
    let read = || async { read_job(&app, job).await.map(|job| convert::job_view(&job)) };
    let view =
        wait::until(&app, (query.wait_ms, wait::JOB_PAUSE), concerns, read, |view| view.ended)
            .await?;
    Ok(Json(view))
}

/// Cancels every task of a job that has not ended.
#[utoipa::path(
    post, path = "/jobs/{id}/cancel", tag = "jobs", operation_id = "cancelJob",
    params(("id" = String, Path, description = "`42` or `job-42`")),
    responses((status = 200, body = CancelResponse), (status = "default", body = ErrorBody))
)]
pub(super) async fn cancel(
    State(app): State<App>,
    ApiPath(id): ApiPath<String>,
) -> Result<Json<CancelResponse>, Failure> {
    let job = job_id(&id)?;
    let before = read_job(&app, job).await?;
    let (cancelled, stopping) = command_cancel(&app, CancelTarget::Job(job)).await?;
    Ok(Json(CancelResponse {
        id: job.to_string(),
        cancelled,
        stopping,
        already_ended: before.counts.ended(),
    }))
}

/// How many tasks ended by the cancel, and how many are being stopped; none when all had ended.
pub(super) async fn command_cancel(
    app: &Shared,
    target: CancelTarget,
) -> Result<(u64, u64), Failure> {
    match app.heart.command(Command::Cancel(target)).await? {
        Answer::Cancelled { ended, stopping } => Ok((ended, stopping)),
        Answer::Rejected(Rejection::NotLive) => Ok((0, 0)),
        other => Err(unexpected(other)),
    }
}

pub(super) async fn read_job(app: &Shared, job: JobId) -> Result<database::JobView, Failure> {
    let found = app.readers.read(move |reader| reader.find_job(job)).await?;
    found.ok_or_else(|| Failure::no_job(job))
}

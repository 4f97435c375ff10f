//! Tasks: list, look, explain, cancel.

use axum::Json;
use axum::extract::State;
use cloudai_api::{
    CancelResponse, ErrorBody, ErrorCode, Explanation, Note, TaskDetail, TaskPage, TaskQuery,
    WaitQuery,
};
use cloudai_database::{self as database, LostAttempt, TaskCursor};
use cloudai_master_core::CancelTarget;
use cloudai_model::{AttemptId, AttemptNo, JobId, TaskId, TaskRecord, TaskState, WorkerId};

use super::errors::Failure;
use super::extract::{ApiPath, ApiQuery, job_id, page_limit, task_id};
use super::{App, Shared, convert, files, jobs, wait};
use crate::heart::Change;
use crate::log_reader;

/// Most attempts, the last ones, whose notes one answer has.
const ATTEMPTS_WITH_NOTES_MAX: usize = 20;

/// Lists tasks, newest first. A page can be short, even empty, and still name a next one.
#[utoipa::path(
    get, path = "/tasks", tag = "tasks", operation_id = "listTasks", params(TaskQuery),
    responses((status = 200, body = TaskPage), (status = "default", body = ErrorBody))
)]
pub(super) async fn list(
    State(app): State<App>,
    ApiQuery(query): ApiQuery<TaskQuery>,
) -> Result<Json<TaskPage>, Failure> {
    let worker = query.worker.as_deref().map(WorkerId::new).transpose();
    let asked = database::TaskQuery {
        job: query.job.as_deref().map(job_id).transpose()?,
        statuses: query.status.map(convert::model_status).into_iter().collect(),
        worker: worker.map_err(|error| Failure::field("worker", error))?,
        name: query.name,
        user: query.user,
        newest_first: true,
        after: query.cursor.as_deref().map(cursor).transpose()?,
        limit: page_limit(query.limit)?,
    };
    let page = app.readers.read(move |reader| reader.tasks(&asked)).await?;
    Ok(Json(TaskPage {
        tasks: page.records.iter().map(convert::task_summary).collect(),
        next_cursor: page.next.map(|next| format!("{}.{}", next.job.0, next.position)),
    }))
}

fn cursor(text: &str) -> Result<TaskCursor, Failure> {
    // It has the form of a task's id in an array, whatever kind of job it points into.
    let place: Option<TaskId> = text.parse().ok();
    place
        .and_then(|task| Some(TaskCursor { job: task.job, position: task.index? }))
        .ok_or_else(|| Failure::field("cursor", "is not one that this API gave"))
}

/// Shows a task; with `wait_ms`, when it has ended or the time is up.
#[utoipa::path(
    get, path = "/tasks/{id}", tag = "tasks", operation_id = "showTask",
    params(("id" = String, Path, description = "`42`, `task-42` or `task-42.7`"), WaitQuery),
    responses((status = 200, body = TaskDetail), (status = "default", body = ErrorBody))
)]
pub(super) async fn show(
    State(app): State<App>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(query): ApiQuery<WaitQuery>,
) -> Result<Json<TaskDetail>, Failure> {
    let task = task_id(&id)?;
    let read = || read_task(&app, task);
    let over = |record: &TaskRecord| convert::task_status(record.status()).is_ended();
    let is_mine = |change: &Change| concerns(task, change);
    let record = wait::until(&app, (query.wait_ms, wait::TASK_PAUSE), is_mine, read, over).await?;
    detail(&app, record).await.map(Json)
}

/// Whether a change may be one of this task.
pub(super) fn concerns(task: TaskId, change: &Change) -> bool {
    match change {
        Change::Task(moved) => *moved == task,
        Change::Job(job) => *job == task.job,
        Change::Worker(_) => false,
    }
}

async fn detail(app: &Shared, record: TaskRecord) -> Result<TaskDetail, Failure> {
    let task = record.id;
    let gone = app.readers.read(move |reader| reader.attempts(task)).await?;
    let last = last_no(&record, &gone);
    let files = match last.map(|no| AttemptId { task, no }) {
        Some(attempt) => files::list_output(app.files.output_dir(attempt)).await?,
        None => Vec::new(),
    };
    let spent = convert::spent(&record, &gone);
    Ok(TaskDetail {
        summary: convert::task_summary(&record),
        spec: convert::spec_view(&record.spec),
        cancel_requested: is_cancel_requested(&record),
        crashes: spent.crashes,
        infra_losses: spent.infra,
        attempts: convert::attempts(&record, &gone),
        notes: notes(app, task, last, &gone).await?,
        files,
    })
}

fn is_cancel_requested(record: &TaskRecord) -> bool {
    match &record.state {
        TaskState::Live(live) => live.cancel_requested,
        TaskState::Fresh | TaskState::Ended(_) => false,
    }
}

/// The current or last attempt; a task that was cancelled between two tries ended without one, and
/// then it is the one that was lost last.
fn last_no(record: &TaskRecord, lost: &[LostAttempt]) -> Option<AttemptNo> {
    let current = record.find_attempt().map(|attempt| attempt.no);
    current.or_else(|| lost.last().map(|lost| lost.no))
}

/// As [`last_no`], for a task whose lost attempts were not read yet.
pub(super) async fn last_attempt(
    app: &Shared,
    record: &TaskRecord,
) -> Result<Option<AttemptId>, Failure> {
    let task = record.id;
    let lost = match record.state {
        TaskState::Ended(_) => app.readers.read(move |reader| reader.attempts(task)).await?,
        TaskState::Fresh | TaskState::Live(_) => Vec::new(),
    };
    Ok(last_no(record, &lost).map(|no| AttemptId { task, no }))
}

/// The notes of the last attempts, in the order of their times.
async fn notes(
    app: &Shared,
    task: TaskId,
    last: Option<AttemptNo>,
    gone: &[LostAttempt],
) -> Result<Vec<Note>, Failure> {
    let before = gone.iter().rev().map(|lost| lost.no).filter(|no| Some(*no) != last);
    let mut notes = Vec::new();
    for no in last.into_iter().chain(before).take(ATTEMPTS_WITH_NOTES_MAX) {
        let path = app.files.notes_path(AttemptId { task, no });
        let records = log_reader::read_all(&path)
            .await
            .map_err(|error| Failure::internal("the notes cannot be read", &error))?;
        notes.extend(records.into_iter().map(|record| Note {
            at_ms: record.at.unix_ms(),
            text: String::from_utf8_lossy(&record.bytes).into_owned(),
        }));
    }
    notes.sort_by_key(|note| note.at_ms);
    Ok(notes)
}

/// Tells why a task is where it is.
#[utoipa::path(
    get, path = "/tasks/{id}/explain", tag = "tasks", operation_id = "explainTask",
    params(("id" = String, Path, description = "`42`, `task-42` or `task-42.7`")),
    responses((status = 200, body = Explanation), (status = "default", body = ErrorBody))
)]
pub(super) async fn explain(
    State(app): State<App>,
    ApiPath(id): ApiPath<String>,
) -> Result<Json<Explanation>, Failure> {
    let task = task_id(&id)?;
    // The core first: a task that is not live any more has its end in the store by then.
    let live = app.heart.explain(task).await?;
    let view = app.heart.view().await?;
    let record = read_task(&app, task).await?;
    let live = live.as_ref().map(|live| (live, view.as_ref()));
    let lost = app.readers.read(move |reader| reader.attempts(task)).await?;
    Ok(Json(convert::explanation(&record, live, lost.last())))
}

/// Cancels a task. One that a worker holds ends when its container is gone.
#[utoipa::path(
    post, path = "/tasks/{id}/cancel", tag = "tasks", operation_id = "cancelTask",
    params(("id" = String, Path, description = "`42`, `task-42` or `task-42.7`")),
    responses((status = 200, body = CancelResponse), (status = "default", body = ErrorBody))
)]
pub(super) async fn cancel(
    State(app): State<App>,
    ApiPath(id): ApiPath<String>,
) -> Result<Json<CancelResponse>, Failure> {
    let task = task_id(&id)?;
    read_task(&app, task).await?;
    let (cancelled, stopping) = jobs::command_cancel(&app, CancelTarget::Task(task)).await?;
    let already_ended = u64::from(cancelled + stopping == 0);
    Ok(Json(CancelResponse { id: task.to_string(), cancelled, stopping, already_ended }))
}

/// The task as the store has it. One of an array that is named without its index, or the other way
/// round, is explained.
pub(super) async fn read_task(app: &Shared, task: TaskId) -> Result<TaskRecord, Failure> {
    let found = app
        .readers
        .read(move |reader| match reader.find_task(task)? {
            Some(record) => Ok(Ok(record)),
            None => reader.find_job(task.job).map(Err),
        })
        .await?;
    found.map_err(|job| no_task(task, job.as_ref()))
}

fn no_task(task: TaskId, job: Option<&database::JobView>) -> Failure {
    let Some(job) = job else { return Failure::no_task(task) };
    let JobId(number) = job.id;
    let (first, last) = job.shape.span();
    let words = match (job.shape.task_id(job.id, first).index, task.index) {
        (Some(_), None) => format!("{task} is an array: its tasks are {number}.{first} to {last}"),
        (Some(_), Some(_)) => format!("there is no {task}: its job has {first} to {last}"),
        (None, _) => format!("there is no {task}: its job is one task, task-{number}"),
    };
    Failure::new(ErrorCode::TaskNotFound, words).hint("name one task, or use its job")
}

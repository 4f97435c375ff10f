//! The reading half: rows of the file as the words of the model.

use std::sync::Arc;

use cloudai_model::{
    AttemptNo, JobId, JobShape, LiveTask, Numbers, RequestId, Resources, Session, TaskSpec,
    TaskState, WorkerId, WorkerRecord,
};
use rusqlite::{OptionalExtension, Params, Row};

use super::codec::{self, CauseColumns, HoldColumns, TaskColumns, timestamp};
use super::spec_row;
use super::tx::{Fault, Tx};
use crate::rows::{CancelledSpan, Cluster, JobRow, Order, Rows, SpecNo, Walk, Which};
use crate::{LostAttempt, StatusCounts, StoreError};

macro_rules! job_sql {
    ($rest:literal) => {
        concat!(
            "SELECT id, spec, array, first, last, at_once_max, submitted_at, fresh_from, fresh, ",
            "assigned, running, succeeded, failed, cancelled, request FROM job ",
            $rest
        )
    };
}

macro_rules! task_sql {
    ($rest:literal) => {
        concat!(
            "SELECT job, position, state, attempt, worker, session, placed_at, started_at, ",
            "cancel_requested, failures, crashes, infra, lost, cause, exit_code, lost_at, ",
            "message, finished_at, ended_at FROM task ",
            $rest
        )
    };
}

const NEXT_JOB: [[&str; 2]; 4] = [
    [
        job_sql!("WHERE id > ? ORDER BY id LIMIT 1"),
        job_sql!("WHERE id < ? ORDER BY id DESC LIMIT 1"),
    ],
    [
        job_sql!("INDEXED BY job_open WHERE open = 1 AND id > ? ORDER BY id LIMIT 1"),
        job_sql!("INDEXED BY job_open WHERE open = 1 AND id < ? ORDER BY id DESC LIMIT 1"),
    ],
    [
        job_sql!(
            "WHERE id = (SELECT job FROM task INDEXED BY task_live
             WHERE ended_at IS NULL AND job > ? ORDER BY job LIMIT 1)"
        ),
        job_sql!(
            "WHERE id = (SELECT job FROM task INDEXED BY task_live
             WHERE ended_at IS NULL AND job < ? ORDER BY job DESC LIMIT 1)"
        ),
    ],
    [
        job_sql!(
            "INDEXED BY job_unsuccessful WHERE failed + cancelled > 0 AND id > ?
             ORDER BY id LIMIT 1"
        ),
        job_sql!(
            "INDEXED BY job_unsuccessful WHERE failed + cancelled > 0 AND id < ?
             ORDER BY id DESC LIMIT 1"
        ),
    ],
];

const TASKS: [[&str; 2]; 3] = [
    [
        task_sql!("WHERE job = ? AND position BETWEEN ? AND ? ORDER BY position LIMIT ?"),
        task_sql!("WHERE job = ? AND position BETWEEN ? AND ? ORDER BY position DESC LIMIT ?"),
    ],
    [
        task_sql!(
            "INDEXED BY task_live WHERE ended_at IS NULL AND job = ?
             AND position BETWEEN ? AND ? ORDER BY position LIMIT ?"
        ),
        task_sql!(
            "INDEXED BY task_live WHERE ended_at IS NULL AND job = ?
             AND position BETWEEN ? AND ? ORDER BY position DESC LIMIT ?"
        ),
    ],
    [
        task_sql!(
            "INDEXED BY task_unsuccessful WHERE state >= 5 AND job = ?
             AND position BETWEEN ? AND ? ORDER BY position LIMIT ?"
        ),
        task_sql!(
            "INDEXED BY task_unsuccessful WHERE state >= 5 AND job = ?
             AND position BETWEEN ? AND ? ORDER BY position DESC LIMIT ?"
        ),
    ],
];

impl Tx<'_> {
    fn one<T>(
        &mut self,
        sql: &'static str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, Fault> {
        Ok(self.statement(sql)?.query_row(params, read).optional()?)
    }

    fn all<T>(
        &mut self,
        sql: &'static str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, Fault> {
        let rows = self.statement(sql)?.query_map(params, read)?;
        Ok(rows.collect::<rusqlite::Result<Vec<T>>>()?)
    }

    /// The worker with this number.
    fn worker(&mut self, no: i64) -> Result<WorkerId, Fault> {
        if let Some(id) = self.known.worker_ids.get(&no) {
            return Ok(id.clone());
        }
        let text: Option<String> =
            self.one("SELECT id FROM worker WHERE no = ?", [no], |row| row.get(0))?;
        let text =
            text.ok_or_else(|| StoreError::corrupt(format!("there is no worker number {no}")))?;
        let id = worker_id(&text)?;
        self.known.worker(no, id.clone());
        Ok(id)
    }

    /// The number of this worker.
    pub(super) fn find_worker_no(&mut self, id: &WorkerId) -> Result<Option<i64>, Fault> {
        if let Some(no) = self.known.worker_nos.get(id) {
            return Ok(Some(*no));
        }
        let no: Option<i64> =
            self.one("SELECT no FROM worker WHERE id = ?", [id.as_str()], |row| row.get(0))?;
        if let Some(no) = no {
            self.known.worker(no, id.clone());
        }
        Ok(no)
    }

    fn task_rows(
        &mut self,
        sql: &'static str,
        params: impl Params,
    ) -> Result<Vec<(JobId, u32, TaskState)>, Fault> {
        let rows = self.all(sql, params, |row| {
            Ok((job_id(row.get(0)?), row.get::<_, u32>(1)?, TaskColumns::read(row, 2)?))
        })?;
        let mut tasks = Vec::with_capacity(rows.len());
        for (job, position, columns) in rows {
            tasks.push((job, position, columns.into_state(|no| self.worker(no))?));
        }
        Ok(tasks)
    }
}

/// A job's number as a key; one that is too large for the file has no row.
pub(super) fn job_key(job: JobId) -> i64 {
    i64::try_from(job.0).unwrap_or(-1)
}

const fn job_id(key: i64) -> JobId {
    JobId(key.cast_unsigned())
}

fn worker_id(text: &str) -> Result<WorkerId, StoreError> {
    WorkerId::new(text).map_err(|error| StoreError::corrupt(error.to_string()))
}

fn count(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(at).map(i64::cast_unsigned)
}

fn job_row(row: &Row<'_>) -> rusqlite::Result<JobRow> {
    let (first, last) = (row.get(3)?, row.get(4)?);
    let array: bool = row.get(2)?;
    let shape = if array {
        JobShape::Array { first, last, at_once_max: row.get(5)? }
    } else {
        JobShape::Single
    };
    let mut counts = StatusCounts {
        queued: 0,
        assigned: count(row, 9)?,
        running: count(row, 10)?,
        succeeded: count(row, 11)?,
        failed: count(row, 12)?,
        cancelled: count(row, 13)?,
    };
    counts.queued = shape.task_count().saturating_sub(counts.total());
    Ok(JobRow {
        id: job_id(row.get(0)?),
        spec: SpecNo(row.get(1)?),
        shape,
        submitted_at: timestamp(row.get(6)?),
        fresh_from: row.get(7)?,
        fresh: count(row, 8)?,
        counts,
    })
}

/// A worker's row but its volumes, which are JSON.
fn worker_row(row: &Row<'_>) -> rusqlite::Result<(String, String, i64, WorkerRow)> {
    let rest = WorkerRow {
        session: row.get(1)?,
        address: row.get(3)?,
        capacity: Resources {
            cpu_milli: count(row, 4)?,
            memory_bytes: count(row, 5)?,
            storage_bytes: count(row, 6)?,
            gpu_milli: count(row, 7)?,
        },
        version: row.get(9)?,
        registered_at: row.get(10)?,
    };
    Ok((row.get(0)?, row.get(8)?, row.get(2)?, rest))
}

struct WorkerRow {
    session: i64,
    address: String,
    capacity: Resources,
    version: String,
    registered_at: i64,
}

const fn way(order: Order) -> usize {
    match order {
        Order::Up => 0,
        Order::Down => 1,
    }
}

fn limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

impl Rows for Tx<'_> {
    type Error = Fault;

    fn cluster(&mut self) -> Result<Cluster, Fault> {
        let sql = "SELECT last_job, last_session, attempt_floor, queued, assigned, running, \
                   succeeded, failed, cancelled FROM cluster";
        let cluster = self.one(sql, [], |row| {
            Ok(Cluster {
                numbers: Numbers {
                    last_job: count(row, 0)?,
                    last_session: count(row, 1)?,
                    attempt_floor: row.get(2)?,
                },
                counts: StatusCounts {
                    queued: count(row, 3)?,
                    assigned: count(row, 4)?,
                    running: count(row, 5)?,
                    succeeded: count(row, 6)?,
                    failed: count(row, 7)?,
                    cancelled: count(row, 8)?,
                },
            })
        })?;
        Ok(cluster.ok_or_else(|| StoreError::corrupt("the table 'cluster' is empty"))?)
    }

    fn workers(&mut self) -> Result<Vec<WorkerRecord>, Fault> {
        let sql = "SELECT id, session, kind, address, cpu_milli, memory_bytes, storage_bytes, \
                   gpu_milli, volumes, version, registered_at FROM worker ORDER BY no";
        let rows = self.all(sql, [], worker_row)?;
        let record = |(id, volumes, kind, rest): (String, String, i64, WorkerRow)| {
            Ok(WorkerRecord {
                id: worker_id(&id)?,
                session: Session(rest.session.cast_unsigned()),
                kind: codec::kind(kind)?,
                address: rest.address,
                capacity: rest.capacity,
                volumes: serde_json::from_str(&volumes)
                    .map_err(|e| StoreError::corrupt(format!("volumes of worker '{id}': {e}")))?,
                version: rest.version,
                registered_at: timestamp(rest.registered_at),
            })
        };
        rows.into_iter().map(record).collect()
    }

    fn has_worker(&mut self, worker: &WorkerId) -> Result<bool, Fault> {
        Ok(self.find_worker_no(worker)?.is_some())
    }

    fn spec(&mut self, SpecNo(no): SpecNo) -> Result<Arc<TaskSpec>, Fault> {
        if let Some(spec) = self.known.specs.get(&no) {
            return Ok(Arc::clone(spec));
        }
        let json: Option<String> =
            self.one("SELECT json FROM spec WHERE no = ?", [no], |row| row.get(0))?;
        let json =
            json.ok_or_else(|| StoreError::corrupt(format!("there is no spec number {no}")))?;
        let spec = Arc::new(spec_row::decode(&json)?);
        self.known.spec(no, Arc::clone(&spec));
        Ok(spec)
    }

    fn find_job(&mut self, job: JobId) -> Result<Option<JobRow>, Fault> {
        self.one(job_sql!("WHERE id = ?"), [job_key(job)], job_row)
    }

    fn find_request(&mut self, request: &RequestId) -> Result<Option<JobRow>, Fault> {
        self.one(job_sql!("WHERE request = ?"), [request.as_str()], job_row)
    }

    fn next_job(
        &mut self,
        walk: Walk,
        after: Option<JobId>,
        order: Order,
    ) -> Result<Option<JobRow>, Fault> {
        let walk = match walk {
            Walk::All => 0,
            Walk::Open => 1,
            Walk::Live => 2,
            Walk::Unsuccessful => 3,
        };
        let start = if order == Order::Up { 0 } else { i64::MAX };
        let after = after.map_or(start, |job| i64::try_from(job.0).unwrap_or(i64::MAX));
        self.one(NEXT_JOB[walk][way(order)], [after], job_row)
    }

    fn open_jobs(
        &mut self,
        after: Option<JobId>,
        most: usize,
    ) -> Result<Vec<(JobRow, Option<RequestId>)>, Fault> {
        let sql = job_sql!("INDEXED BY job_open WHERE open = 1 AND id > ? ORDER BY id LIMIT ?");
        let params = [after.map_or(0, job_key), limit(most)];
        let rows =
            self.all(sql, params, |row| Ok((job_row(row)?, row.get::<_, Option<String>>(14)?)))?;
        let with_request = |(row, request): (JobRow, Option<String>)| {
            let request = request.map(|text| RequestId::new(&text)).transpose();
            let request = request.map_err(|e| StoreError::corrupt(format!("{}: {e}", row.id)))?;
            Ok((row, request))
        };
        rows.into_iter().map(with_request).collect()
    }

    fn live_tasks(
        &mut self,
        after: Option<(JobId, u32)>,
        most: usize,
    ) -> Result<Vec<(JobId, u32, LiveTask)>, Fault> {
        let sql = task_sql!(
            "INDEXED BY task_live WHERE ended_at IS NULL AND (job, position) > (?, ?)
             ORDER BY job, position LIMIT ?"
        );
        let (job, position) =
            after.map_or((0, -1), |(job, position)| (job_key(job), i64::from(position)));
        let rows = self.task_rows(sql, [job, position, limit(most)])?;
        let live = |(job, position, state)| match state {
            TaskState::Live(live) => Ok((job, position, live)),
            other => {
                let what = format!("position {position} of {job} should live, but is {other:?}");
                Err(StoreError::corrupt(what).into())
            }
        };
        rows.into_iter().map(live).collect()
    }

    fn find_task(&mut self, job: JobId, position: u32) -> Result<Option<TaskState>, Fault> {
        if let Some(live) = self.known.live_tasks.get(&(job_key(job), position)) {
            return Ok(Some(TaskState::Live(live.clone())));
        }
        let sql = task_sql!("WHERE job = ? AND position = ?");
        let params = [job_key(job), i64::from(position)];
        let columns = self.one(sql, params, |row| TaskColumns::read(row, 2))?;
        columns.map(|columns| columns.into_state(|no| self.worker(no))).transpose()
    }

    fn tasks(
        &mut self,
        job: JobId,
        which: Which,
        (low, high): (u32, u32),
        order: Order,
        most: usize,
    ) -> Result<Vec<(u32, TaskState)>, Fault> {
        let which = match which {
            Which::All => 0,
            Which::Live => 1,
            Which::Unsuccessful => 2,
        };
        let params = [job_key(job), i64::from(low), i64::from(high), limit(most)];
        let rows = self.task_rows(TASKS[which][way(order)], params)?;
        Ok(rows.into_iter().map(|(_, position, state)| (position, state)).collect())
    }

    fn positions(&mut self, job: JobId, (low, high): (u32, u32)) -> Result<Vec<u32>, Fault> {
        let sql = "SELECT position FROM task WHERE job = ? AND position BETWEEN ? AND ? \
                   ORDER BY position";
        self.all(sql, [job_key(job), i64::from(low), i64::from(high)], |row| row.get(0))
    }

    fn cancelled_spans(&mut self, job: JobId) -> Result<Vec<CancelledSpan>, Fault> {
        let sql = "SELECT first, last, at FROM cancelled_span WHERE job = ? ORDER BY first";
        self.all(sql, [job_key(job)], |row| {
            Ok(CancelledSpan { first: row.get(0)?, last: row.get(1)?, at: timestamp(row.get(2)?) })
        })
    }

    fn attempts(&mut self, job: JobId, position: u32) -> Result<Vec<LostAttempt>, Fault> {
        let sql = "SELECT attempt, worker, session, placed_at, lost, cause, exit_code, message, \
                   started_at, lost_at FROM attempt_lost WHERE job = ? AND position = ? \
                   ORDER BY attempt";
        let rows = self.all(sql, [job_key(job), i64::from(position)], |row| {
            let times: (Option<i64>, i64) = (row.get(8)?, row.get(9)?);
            let hold = HoldColumns::read(row, 1)?;
            Ok((row.get::<_, u32>(0)?, hold, CauseColumns::read(row, 4)?, row.get(7)?, times))
        })?;
        let mut attempts = Vec::with_capacity(rows.len());
        for (no, hold, cause, message, (started_at, lost_at)) in rows {
            let hold = hold.to_hold(|no| self.worker(no))?;
            let hold = hold.ok_or_else(|| StoreError::corrupt("a lost attempt had no worker"))?;
            attempts.push(LostAttempt {
                no: AttemptNo(no),
                cause: cause.to_loss()?,
                message,
                hold,
                started_at: started_at.map(timestamp),
                lost_at: timestamp(lost_at),
            });
        }
        Ok(attempts)
    }
}

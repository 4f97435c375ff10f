//! The writing half: the changes of one batch, each row once, in the order of their keys.

use std::sync::Arc;

use cloudai_model::{JobId, JobShape, RequestId, TaskSpec, WorkerId, WorkerRecord};
use rusqlite::{ToSql, params};

use super::codec::{self, CauseColumns, HoldColumns, TaskColumns, time};
use super::read::job_key;
use super::spec_row;
use super::tx::{Fault, Tx};
use crate::rows::{CancelledSpan, Cluster, JobRow};
use crate::turn::{Changes, Submit, TaskChange};
use crate::{LostAttempt, StoreError};

const INSERT_TASK: &str = "INSERT INTO task (job, position, state, attempt, worker, session, \
    placed_at, started_at, cancel_requested, failures, crashes, infra, lost, cause, exit_code, \
    lost_at, message, finished_at, ended_at) \
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// Does not name `ended_at`, so that the index of live tasks is left alone.
const UPDATE_LIVE_TASK: &str = "UPDATE task SET state = ?3, attempt = ?4, worker = ?5, \
    session = ?6, placed_at = ?7, started_at = ?8, cancel_requested = ?9, failures = ?10, \
    crashes = ?11, infra = ?12, lost = ?13, cause = ?14, exit_code = ?15, lost_at = ?16 \
    WHERE job = ?1 AND position = ?2";

const UPDATE_ENDED_TASK: &str = "UPDATE task SET state = ?3, attempt = ?4, worker = ?5, \
    session = ?6, placed_at = ?7, started_at = ?8, cancel_requested = ?9, failures = ?10, \
    crashes = ?11, infra = ?12, lost = ?13, cause = ?14, exit_code = ?15, lost_at = ?16, \
    message = ?17, finished_at = ?18, ended_at = ?19 WHERE job = ?1 AND position = ?2";

/// How many of a task's columns a live row can change, the key included.
const LIVE_COLUMNS: usize = 16;

const INSERT_JOB: &str = "INSERT INTO job (id, fresh_from, fresh, assigned, running, succeeded, \
    failed, cancelled, spec, array, first, last, at_once_max, request, submitted_at, open) \
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// Does not name `open`, so that the index of open jobs is left alone.
const UPDATE_OPEN_JOB: &str = "UPDATE job SET fresh_from = ?2, fresh = ?3, assigned = ?4, \
    running = ?5, succeeded = ?6, failed = ?7, cancelled = ?8 WHERE id = ?1";

const UPDATE_ENDED_JOB: &str = "UPDATE job SET fresh_from = ?2, fresh = ?3, assigned = ?4, \
    running = ?5, succeeded = ?6, failed = ?7, cancelled = ?8, open = 0 WHERE id = ?1";

impl Tx<'_> {
    /// Writes everything that a batch changed.
    pub(super) fn write(&mut self, changes: &Changes) -> Result<(), Fault> {
        for worker in changes.workers.values() {
            self.write_worker(worker)?;
        }
        for change in changes.jobs.values() {
            match &change.submit {
                Some(submit) => self.insert_job(&change.row, submit)?,
                None => self.update_job(&change.row)?,
            }
        }
        for ((job, position), change) in &changes.tasks {
            self.write_task(*job, *position, change)?;
        }
        for (job, span) in &changes.spans {
            self.insert_span(*job, *span)?;
        }
        for (job, position, lost) in &changes.losses {
            self.insert_lost(*job, *position, lost)?;
        }
        self.write_cluster(&changes.cluster)
    }

    /// Exactly one row, or the store is not what it was when the changes were made.
    fn put(&mut self, sql: &'static str, params: &[&dyn ToSql]) -> Result<(), Fault> {
        match self.statement(sql)?.execute(params)? {
            1 => Ok(()),
            rows => Err(StoreError::corrupt(format!("{rows} rows instead of 1: {sql}")).into()),
        }
    }

    fn write_worker(&mut self, worker: &WorkerRecord) -> Result<(), Fault> {
        let sql = "INSERT INTO worker (id, session, kind, address, cpu_milli, memory_bytes, \
                   storage_bytes, gpu_milli, volumes, version, registered_at) \
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET \
                   session = excluded.session, kind = excluded.kind, address = excluded.address, \
                   cpu_milli = excluded.cpu_milli, memory_bytes = excluded.memory_bytes, \
                   storage_bytes = excluded.storage_bytes, gpu_milli = excluded.gpu_milli, \
                   volumes = excluded.volumes, version = excluded.version, \
                   registered_at = excluded.registered_at";
        let volumes = serde_json::to_string(&worker.volumes)
            .map_err(|e| StoreError::corrupt(format!("volumes of worker '{}': {e}", worker.id)))?;
        let capacity = worker.capacity;
        self.put(
            sql,
            params![
                worker.id.as_str(),
                worker.session.0.cast_signed(),
                codec::kind_number(worker.kind),
                worker.address,
                capacity.cpu_milli.cast_signed(),
                capacity.memory_bytes.cast_signed(),
                capacity.storage_bytes.cast_signed(),
                capacity.gpu_milli.cast_signed(),
                volumes,
                worker.version,
                time(worker.registered_at),
            ],
        )
    }

    fn worker_no(&mut self, id: &WorkerId) -> Result<i64, Fault> {
        let no = self.find_worker_no(id)?;
        Ok(no.ok_or_else(|| StoreError::corrupt(format!("there is no worker '{id}'")))?)
    }

    /// The number of an equal spec, or of this one after it was stored.
    fn intern(&mut self, spec: &Arc<TaskSpec>) -> Result<i64, Fault> {
        if let Some(no) = self.known.spec_nos.get(spec) {
            return Ok(*no);
        }
        let json = spec_row::encode(spec)?;
        let hash = hash(json.as_bytes()).cast_signed();
        let found = {
            let find = "SELECT no FROM spec WHERE hash = ? AND json = ?";
            let mut rows = self.statement(find)?.query(params![hash, json])?;
            rows.next()?.map(|row| row.get::<_, i64>(0)).transpose()?
        };
        let no = if let Some(no) = found {
            no
        } else {
            let insert = "INSERT INTO spec (hash, json) VALUES (?, ?)";
            self.statement(insert)?.insert(params![hash, json])?
        };
        self.known.spec(no, Arc::clone(spec));
        Ok(no)
    }

    fn insert_job(&mut self, row: &JobRow, submit: &Submit) -> Result<(), Fault> {
        let spec = self.intern(&submit.spec)?;
        let (first, last) = row.shape.span();
        let (array, at_once_max) = match row.shape {
            JobShape::Single => (false, None),
            JobShape::Array { at_once_max, .. } => (true, at_once_max),
        };
        if row.id.0 > i64::MAX.cast_unsigned() {
            return Err(StoreError::corrupt(format!("{} is too large", row.id)).into());
        }
        let [id, fresh_from, fresh, assigned, running, succeeded, failed, cancelled] = numbers(row);
        let request = submit.request.as_ref().map(RequestId::as_str);
        self.put(
            INSERT_JOB,
            params![
                id,
                fresh_from,
                fresh,
                assigned,
                running,
                succeeded,
                failed,
                cancelled,
                spec,
                array,
                first,
                last,
                at_once_max,
                request,
                time(row.submitted_at),
                row.is_open(),
            ],
        )
    }

    fn update_job(&mut self, row: &JobRow) -> Result<(), Fault> {
        let sql = if row.is_open() { UPDATE_OPEN_JOB } else { UPDATE_ENDED_JOB };
        let numbers = numbers(row);
        self.put(sql, &numbers.each_ref().map(|number| number as &dyn ToSql))
    }

    fn write_task(&mut self, job: JobId, position: u32, change: &TaskChange) -> Result<(), Fault> {
        let task = TaskColumns::of(&change.state, |id| self.worker_no(id))?;
        let job = job_key(job);
        let params = params![
            job,
            position,
            task.state,
            task.attempt,
            task.hold.worker,
            task.hold.session,
            task.hold.placed_at,
            task.started_at,
            task.cancel_requested,
            task.spent.failures,
            task.spent.crashes,
            task.spent.infra,
            task.cause.lost,
            task.cause.cause,
            task.cause.exit_code,
            task.lost_at,
            task.message,
            task.finished_at,
            task.ended_at,
        ];
        if !change.stored {
            self.put(INSERT_TASK, params)?;
        } else if task.ended_at.is_some() {
            self.put(UPDATE_ENDED_TASK, params)?;
        } else {
            self.put(UPDATE_LIVE_TASK, &params[..LIVE_COLUMNS])?;
        }
        self.known.wrote_task(job, position, &change.state);
        Ok(())
    }

    fn insert_span(&mut self, job: JobId, span: CancelledSpan) -> Result<(), Fault> {
        let sql = "INSERT INTO cancelled_span (job, first, last, at) VALUES (?, ?, ?, ?)";
        self.put(sql, params![job_key(job), span.first, span.last, time(span.at)])
    }

    fn insert_lost(&mut self, job: JobId, position: u32, lost: &LostAttempt) -> Result<(), Fault> {
        let sql = "INSERT INTO attempt_lost (job, position, attempt, lost, cause, exit_code, \
                   message, worker, session, placed_at, started_at, lost_at) \
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let cause = CauseColumns::of_loss(lost.cause);
        let hold = HoldColumns::of(&lost.hold, |id| self.worker_no(id))?;
        self.put(
            sql,
            params![
                job_key(job),
                position,
                lost.no.0,
                cause.lost,
                cause.cause,
                cause.exit_code,
                lost.message,
                hold.worker,
                hold.session,
                hold.placed_at,
                lost.started_at.map(time),
                time(lost.lost_at),
            ],
        )
    }

    pub(super) fn write_cluster(&mut self, cluster: &Cluster) -> Result<(), Fault> {
        let sql = "UPDATE cluster SET last_job = ?, last_session = ?, attempt_floor = ?, \
                   queued = ?, assigned = ?, running = ?, succeeded = ?, failed = ?, cancelled = ?";
        let counts = cluster.counts;
        let numbers = [
            cluster.numbers.last_job,
            cluster.numbers.last_session,
            cluster.numbers.attempt_floor.into(),
            counts.queued,
            counts.assigned,
            counts.running,
            counts.succeeded,
            counts.failed,
            counts.cancelled,
        ]
        .map(u64::cast_signed);
        self.put(sql, &numbers.each_ref().map(|number| number as &dyn ToSql))
    }
}

/// The columns of a job that change during its life, behind its key.
fn numbers(row: &JobRow) -> [i64; 8] {
    let counts = row.counts;
    [
        row.id.0,
        u64::from(row.fresh_from),
        row.fresh,
        counts.assigned,
        counts.running,
        counts.succeeded,
        counts.failed,
        counts.cancelled,
    ]
    .map(u64::cast_signed)
}

/// FNV-1a: stays the same in every build, unlike the hashes of the standard library.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

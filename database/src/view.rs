//! What a whole store, one task or one job looks like, made from a backend's rows.

use std::collections::BTreeMap;

use cloudai_model::{
    Cause, Ended, JobId, JobRecord, Outcome, Ranges, Snapshot, TaskId, TaskRecord, TaskState,
    Timestamp,
};

use crate::rows::{CancelledSpan, JobRow, Rows};
use crate::{JobView, LostAttempt, StoreError};

/// Rows that are fetched at a time while the store is loaded.
const LOAD_CHUNK: usize = 4_096;

/// Everything that the core works on. Its cost follows what is open, never what has ended.
pub(crate) fn load<R: Rows>(rows: &mut R) -> Result<Snapshot, R::Error> {
    let cluster = rows.cluster()?;
    let workers = rows.workers()?;
    let jobs = open_jobs(rows)?;
    let mut snapshot = Snapshot {
        numbers: cluster.numbers,
        workers: workers.into_iter().map(|worker| (worker.id.clone(), worker)).collect(),
        jobs,
    };
    let mut after = None;
    loop {
        let chunk = rows.live_tasks(after, LOAD_CHUNK)?;
        let last_chunk = chunk.len() < LOAD_CHUNK;
        for (id, position, task) in chunk {
            after = Some((id, position));
            let job = snapshot.jobs.get_mut(&id).ok_or_else(|| {
                StoreError::corrupt(format!("position {position} of {id} lives, but not its job"))
            })?;
            job.live.insert(position, task);
        }
        if last_chunk {
            return Ok(snapshot);
        }
    }
}

fn open_jobs<R: Rows>(rows: &mut R) -> Result<BTreeMap<JobId, JobRecord>, R::Error> {
    let mut jobs = BTreeMap::new();
    let mut after = None;
    loop {
        let chunk = rows.open_jobs(after, LOAD_CHUNK)?;
        let last_chunk = chunk.len() < LOAD_CHUNK;
        for (row, request) in chunk {
            after = Some(row.id);
            let record = JobRecord {
                id: row.id,
                spec: rows.spec(row.spec)?,
                shape: row.shape,
                request,
                submitted_at: row.submitted_at,
                fresh: fresh(rows, &row)?,
                live: BTreeMap::new(),
                ended: row.ended(),
            };
            jobs.insert(row.id, record);
        }
        if last_chunk {
            return Ok(jobs);
        }
    }
}

/// The fresh positions of a job.
fn fresh<R: Rows>(rows: &mut R, job: &JobRow) -> Result<Ranges, R::Error> {
    let last = job.shape.span().1;
    let mut fresh = Ranges::from_span(job.fresh_from, last);
    if !job.fresh_is_whole() {
        for span in rows.cancelled_spans(job.id)? {
            fresh.remove_span(span.first, span.last);
        }
        for position in rows.positions(job.id, (job.fresh_from, last))? {
            fresh.remove(position);
        }
    }
    if fresh.count() != job.fresh {
        let (id, found, noted) = (job.id, fresh.count(), job.fresh);
        let what = format!("{id} has {found} fresh tasks, but {noted} are noted");
        return Err(StoreError::corrupt(what).into());
    }
    Ok(fresh)
}

/// One task, with or without a row.
pub(crate) fn find_task<R: Rows>(rows: &mut R, id: TaskId) -> Result<Option<TaskRecord>, R::Error> {
    let Some(job) = rows.find_job(id.job)? else { return Ok(None) };
    let Some(position) = job.shape.find_position(id) else { return Ok(None) };
    let state = match rows.find_task(id.job, position)? {
        Some(state) => state,
        None if job.counts.cancelled == 0 => TaskState::Fresh,
        None => rows
            .cancelled_spans(id.job)?
            .iter()
            .find(|span| (span.first..=span.last).contains(&position))
            .map_or(TaskState::Fresh, |span| cancelled(span.at)),
    };
    let spec = rows.spec(job.spec)?;
    Ok(Some(TaskRecord { id, spec, submitted_at: job.submitted_at, state }))
}

/// The state of a task in a span that was cancelled.
pub(crate) fn cancelled(at: Timestamp) -> TaskState {
    let outcome = Outcome { cause: Cause::Cancelled, message: String::new() };
    TaskState::Ended(Ended { outcome, ended_at: at, by: None })
}

/// One job with its counts, by its id.
pub(crate) fn find_job<R: Rows>(rows: &mut R, id: JobId) -> Result<Option<JobView>, R::Error> {
    rows.find_job(id)?.map(|row| job(rows, &row)).transpose()
}

/// The lost attempts of a task.
pub(crate) fn attempts<R: Rows>(rows: &mut R, id: TaskId) -> Result<Vec<LostAttempt>, R::Error> {
    let position = rows.find_job(id.job)?.and_then(|job| job.shape.find_position(id));
    position.map_or(Ok(Vec::new()), |position| rows.attempts(id.job, position))
}

/// One job with its counts.
pub(crate) fn job<R: Rows>(rows: &mut R, row: &JobRow) -> Result<JobView, R::Error> {
    Ok(JobView {
        id: row.id,
        spec: rows.spec(row.spec)?,
        shape: row.shape,
        submitted_at: row.submitted_at,
        counts: row.counts,
    })
}

/// Where the positions of a job that have no row stand: the job's whole span, cut into segments.
pub(crate) fn segments(job: &JobRow, spans: &[CancelledSpan]) -> Vec<Segment> {
    let (first, last) = job.shape.span();
    let mut segments = Vec::with_capacity(2 * spans.len() + 2);
    let plain = |low: u32, high: Option<u32>, out: &mut Vec<Segment>| {
        let Some(high) = high.filter(|high| low <= *high) else { return };
        if low < job.fresh_from {
            let high = high.min(job.fresh_from - 1);
            out.push(Segment { low, high, absent: Absent::Nowhere });
        }
        if high >= job.fresh_from {
            out.push(Segment { low: low.max(job.fresh_from), high, absent: Absent::Fresh });
        }
    };
    let mut low = first;
    for span in spans {
        plain(low, span.first.checked_sub(1), &mut segments);
        let absent = Absent::Cancelled(span.at);
        segments.push(Segment { low: span.first, high: span.last, absent });
        low = span.last + 1;
    }
    plain(low, Some(last), &mut segments);
    segments
}

/// Positions whose tasks without a row all stand alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) low: u32,
    pub(crate) high: u32,
    pub(crate) absent: Absent,
}

/// What it means that a position has no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absent {
    /// It cannot be: every position of the segment has one.
    Nowhere,
    /// The task was never placed.
    Fresh,
    /// The task was cancelled at this time with its whole span.
    Cancelled(Timestamp),
}

#[cfg(test)]
mod tests {
    use cloudai_model::JobShape;

    use super::*;

    #[test]
    fn a_job_is_cut_at_its_cancelled_spans_and_where_fresh_ones_begin() {
        let shape = JobShape::Array { first: 0, last: 9, at_once_max: None };
        let mut job = JobRow::new(JobId(1), shape, Timestamp(1));
        job.fresh_from = 4;
        let at = Timestamp(7);
        let spans =
            [CancelledSpan { first: 2, last: 2, at }, CancelledSpan { first: 8, last: 9, at }];
        let text: Vec<String> = segments(&job, &spans)
            .iter()
            .map(|s| format!("{}-{} {:?}", s.low, s.high, s.absent))
            .collect();
        let want =
            ["0-1 Nowhere", "2-2 Cancelled(@7)", "3-3 Nowhere", "4-7 Fresh", "8-9 Cancelled(@7)"];
        assert_eq!(text, want);
    }
}

//! Pages of tasks and jobs. Queued parts of arrays have no rows, so a page merges rows and
//! segments without rows in order, and stops as soon as it is full or has looked at
//! [`SCANNED_MAX`] things: a page costs what it shows, not what the store holds.

use std::sync::Arc;

use cloudai_model::{TaskRecord, TaskSpec, TaskState, TaskStatus};

use crate::rows::{JobRow, Order, Rows, Walk, Which};
use crate::view::{self, Absent, Segment};
use crate::{JobPage, JobQuery, PAGE_LEN_MAX, TaskCursor, TaskPage, TaskQuery};

/// Most jobs and rows that one page looks at.
pub(crate) const SCANNED_MAX: usize = 10_000;
/// Most rows that are fetched at a time.
const CHUNK: usize = 256;

/// Jobs, newest first.
pub(crate) fn jobs<R: Rows>(rows: &mut R, query: &JobQuery) -> Result<JobPage, R::Error> {
    let limit = query.limit.clamp(1, PAGE_LEN_MAX);
    let walk = if query.open_only { Walk::Open } else { Walk::All };
    let mut page = JobPage::default();
    let mut after = query.after;
    for _ in 0..SCANNED_MAX {
        let Some(row) = rows.next_job(walk, after, Order::Down)? else { return Ok(page) };
        let view = view::job(rows, &row)?;
        if spec_matches(&view.spec, query.name.as_deref(), query.user.as_deref()) {
            if page.jobs.len() == limit {
                page.next = after;
                return Ok(page);
            }
            page.jobs.push(view);
        }
        after = Some(row.id);
    }
    page.next = after;
    Ok(page)
}

/// Tasks by job and position, in either direction.
pub(crate) fn tasks<R: Rows>(rows: &mut R, query: &TaskQuery) -> Result<TaskPage, R::Error> {
    let mut scan = Scan {
        query,
        order: if query.newest_first { Order::Down } else { Order::Up },
        limit: query.limit.clamp(1, PAGE_LEN_MAX),
        scanned: 0,
        records: Vec::new(),
        at: query.after,
        full: false,
    };
    scan.run(rows)?;
    let next = if scan.full { scan.at } else { None };
    Ok(TaskPage { records: scan.records, next })
}

fn spec_matches(spec: &TaskSpec, name: Option<&str>, user: Option<&str>) -> bool {
    let name_matches = |part| spec.name.as_deref().is_some_and(|name| name.contains(part));
    name.is_none_or(name_matches) && user.is_none_or(|user| spec.origin.user == user)
}

/// A page in the making.
struct Scan<'q> {
    query: &'q TaskQuery,
    order: Order,
    limit: usize,
    scanned: usize,
    records: Vec<TaskRecord>,
    /// The last place that was looked at and is done.
    at: Option<TaskCursor>,
    /// Set when there may be more behind `at`.
    full: bool,
}

/// The job whose tasks are being looked at.
struct Current {
    row: JobRow,
    spec: Arc<TaskSpec>,
}

impl Scan<'_> {
    fn run<R: Rows>(&mut self, rows: &mut R) -> Result<(), R::Error> {
        if let Some(id) = self.query.job {
            let resumes = match self.at {
                Some(at) if at.job == id => Some(at.position),
                // The cursor is of another job: this one is either all behind it or all before.
                Some(at) if (at.job > id) == (self.order == Order::Up) => return Ok(()),
                _ => None,
            };
            return match rows.find_job(id)? {
                Some(row) => self.job(rows, row, resumes),
                None => Ok(()),
            };
        }
        if let Some(at) = self.at
            && let Some(row) = rows.find_job(at.job)?
        {
            self.job(rows, row, Some(at.position))?;
        }
        let mut after = self.at.map(|at| at.job);
        while !self.full {
            let Some(row) = rows.next_job(self.walk(), after, self.order)? else { return Ok(()) };
            after = Some(row.id);
            self.job(rows, row, None)?;
            if !self.full {
                let (low, high) = row.shape.span();
                let position = if self.order == Order::Up { high } else { low };
                self.done(TaskCursor { job: row.id, position });
            }
        }
        Ok(())
    }

    fn wants(&self, status: TaskStatus) -> bool {
        self.query.statuses.is_empty() || self.query.statuses.contains(&status)
    }

    /// Whether only statuses of this list are asked for.
    fn only(&self, list: &[TaskStatus]) -> bool {
        let asked = &self.query.statuses;
        !asked.is_empty() && asked.iter().all(|status| list.contains(status))
    }

    /// The shortest walk that passes every job with a match.
    fn walk(&self) -> Walk {
        use TaskStatus::{Assigned, Cancelled, Failed, Queued, Running};
        if self.only(&[Assigned, Running]) {
            Walk::Live
        } else if self.only(&[Queued, Assigned, Running]) {
            Walk::Open
        } else if self.only(&[Failed, Cancelled]) {
            Walk::Unsuccessful
        } else {
            Walk::All
        }
    }

    /// The fewest rows that hold every match.
    fn which(&self) -> Which {
        match self.walk() {
            Walk::Live | Walk::Open => Which::Live,
            Walk::Unsuccessful => Which::Unsuccessful,
            Walk::All => Which::All,
        }
    }

    /// Looks at the tasks of one job, from behind `resumes` on.
    fn job<R: Rows>(
        &mut self,
        rows: &mut R,
        row: JobRow,
        resumes: Option<u32>,
    ) -> Result<(), R::Error> {
        let asked = |status: &TaskStatus| self.wants(*status) && row.counts.of(*status) > 0;
        if !TaskStatus::ALL.iter().any(asked) {
            return Ok(());
        }
        let spec = rows.spec(row.spec)?;
        if !spec_matches(&spec, self.query.name.as_deref(), self.query.user.as_deref()) {
            return Ok(());
        }
        let spans =
            if row.counts.cancelled > 0 { rows.cancelled_spans(row.id)? } else { Vec::new() };
        let mut segments = view::segments(&row, &spans);
        if self.order == Order::Down {
            segments.reverse();
        }
        let current = Current { row, spec };
        for mut segment in segments {
            match (resumes, self.order) {
                (Some(at), _) if (segment.low..=segment.high).contains(&at) => {
                    let Some(rest) = behind(segment, at, self.order) else { continue };
                    segment = rest;
                }
                (Some(at), Order::Up) if segment.high < at => continue,
                (Some(at), Order::Down) if segment.low > at => continue,
                _ => {}
            }
            self.segment(rows, &current, segment)?;
            if self.full {
                break;
            }
        }
        Ok(())
    }

    fn segment<R: Rows>(
        &mut self,
        rows: &mut R,
        current: &Current,
        segment: Segment,
    ) -> Result<(), R::Error> {
        let absent = match segment.absent {
            Absent::Fresh if self.wants(TaskStatus::Queued) => Some(TaskState::Fresh),
            Absent::Cancelled(at) if self.wants(TaskStatus::Cancelled) => Some(view::cancelled(at)),
            _ => None,
        };
        // A task without a row never had a worker.
        let absent = absent.filter(|_| self.query.worker.is_none());
        let which = if absent.is_some() { Which::All } else { self.which() };
        let mut rest = Some(segment);
        while let Some(part) = rest.filter(|_| !self.full) {
            let span = (part.low, part.high);
            let found = rows.tasks(current.row.id, which, span, self.order, CHUNK)?;
            let end = match found.last() {
                Some((position, _)) if found.len() == CHUNK => *position,
                _ if self.order == Order::Up => part.high,
                _ => part.low,
            };
            match &absent {
                Some(absent) => self.merge(current, part, end, found, absent),
                None => self.filter(current, found),
            }
            rest = behind(part, end, self.order);
        }
        Ok(())
    }

    /// Looks at every position up to `end`; those without a row are `absent`.
    fn merge(
        &mut self,
        current: &Current,
        part: Segment,
        end: u32,
        found: Vec<(u32, TaskState)>,
        absent: &TaskState,
    ) {
        let mut found = found.into_iter().peekable();
        let mut position = if self.order == Order::Up { part.low } else { part.high };
        loop {
            let row = found.next_if(|(at, _)| *at == position);
            let state = row.map_or_else(|| absent.clone(), |(_, state)| state);
            self.look(current, position, state);
            if self.full || position == end {
                return;
            }
            position = if self.order == Order::Up { position + 1 } else { position - 1 };
        }
    }

    fn filter(&mut self, current: &Current, found: Vec<(u32, TaskState)>) {
        for (position, state) in found {
            self.look(current, position, state);
            if self.full {
                return;
            }
        }
    }

    /// Takes one task into the page when it matches, or ends the page before it.
    fn look(&mut self, current: &Current, position: u32, state: TaskState) {
        let id = current.row.shape.task_id(current.row.id, position);
        if self.wants(state.status()) && self.worker_matches(&state) {
            if self.records.len() == self.limit {
                self.full = true;
                return;
            }
            let spec = Arc::clone(&current.spec);
            let submitted_at = current.row.submitted_at;
            self.records.push(TaskRecord { id, spec, submitted_at, state });
        }
        self.done(TaskCursor { job: current.row.id, position });
    }

    fn worker_matches(&self, state: &TaskState) -> bool {
        let Some(worker) = &self.query.worker else { return true };
        let hold = match state {
            TaskState::Fresh => None,
            TaskState::Live(live) => live.find_hold(),
            TaskState::Ended(ended) => ended.by.as_ref().map(|by| &by.hold),
        };
        hold.is_some_and(|hold| hold.worker == *worker)
    }

    fn done(&mut self, at: TaskCursor) {
        self.at = Some(at);
        self.scanned += 1;
        self.full = self.scanned >= SCANNED_MAX;
    }
}

/// What is left of a segment behind a position.
fn behind(segment: Segment, at: u32, order: Order) -> Option<Segment> {
    match order {
        Order::Up if at < segment.high => Some(Segment { low: at + 1, ..segment }),
        Order::Down if at > segment.low => Some(Segment { high: at - 1, ..segment }),
        _ => None,
    }
}

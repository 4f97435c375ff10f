//! States and causes as the numbers in the file, and back. These numbers are a promise: they are
//! never given a new meaning.

use cloudai_model::{
    AttemptEnd, AttemptNo, Cause, Ended, Hold, LiveState, LiveTask, LossCause, Outcome, Queued,
    Session, Spent, TaskState, TaskStatus, Timestamp, WorkerId, WorkerKind,
};
use rusqlite::Row;

use super::tx::Fault;
use crate::StoreError;

/// The columns of `task` without its key.
pub(super) struct TaskColumns {
    pub(super) state: i64,
    pub(super) attempt: u32,
    pub(super) hold: HoldColumns,
    pub(super) started_at: Option<i64>,
    pub(super) cancel_requested: bool,
    pub(super) spent: Spent,
    pub(super) cause: CauseColumns,
    pub(super) lost_at: Option<i64>,
    pub(super) message: Option<String>,
    pub(super) finished_at: Option<i64>,
    pub(super) ended_at: Option<i64>,
}

/// Who holds or held an attempt; all empty when nobody does.
#[derive(Default)]
pub(super) struct HoldColumns {
    pub(super) worker: Option<i64>,
    pub(super) session: Option<i64>,
    pub(super) placed_at: Option<i64>,
}

/// Why an attempt or a task ended.
#[derive(Default)]
pub(super) struct CauseColumns {
    pub(super) lost: Option<i64>,
    pub(super) cause: Option<i64>,
    pub(super) exit_code: Option<i32>,
}

/// Times and sessions are stored bit by bit: what a worker's clock says is never refused.
pub(super) const fn time(at: Timestamp) -> i64 {
    at.0.cast_signed()
}

pub(super) const fn timestamp(at: i64) -> Timestamp {
    Timestamp(at.cast_unsigned())
}

pub(super) const fn state_number(status: TaskStatus) -> i64 {
    match status {
        TaskStatus::Queued => 1,
        TaskStatus::Assigned => 2,
        TaskStatus::Running => 3,
        TaskStatus::Succeeded => 4,
        TaskStatus::Failed => 5,
        TaskStatus::Cancelled => 6,
    }
}

pub(super) const fn kind_number(kind: WorkerKind) -> i64 {
    match kind {
        WorkerKind::Session => 1,
        WorkerKind::Unary => 2,
    }
}

pub(super) fn kind(number: i64) -> Result<WorkerKind, StoreError> {
    match number {
        1 => Ok(WorkerKind::Session),
        2 => Ok(WorkerKind::Unary),
        other => Err(StoreError::corrupt(format!("{other} is no kind of worker"))),
    }
}

impl CauseColumns {
    fn of_cause(cause: Cause) -> Self {
        let (number, exit_code) = match cause {
            Cause::Exit(code) => (1, Some(code)),
            Cause::Oom => (2, None),
            Cause::Timeout => (3, None),
            Cause::Image => (4, None),
            Cause::WorkerLost => (5, None),
            Cause::Infra => (6, None),
            Cause::Cancelled => (7, None),
        };
        Self { lost: None, cause: Some(number), exit_code }
    }

    pub(super) fn of_loss(cause: LossCause) -> Self {
        match cause {
            LossCause::WorkerLost => Self { lost: Some(1), ..Self::default() },
            LossCause::Infra => Self { lost: Some(2), ..Self::default() },
            LossCause::WorkerStopped => Self { lost: Some(4), ..Self::default() },
            LossCause::Failed(cause) => Self { lost: Some(3), ..Self::of_cause(cause) },
        }
    }

    /// From three columns that begin at `at`.
    pub(super) fn read(row: &Row<'_>, at: usize) -> rusqlite::Result<Self> {
        Ok(Self { lost: row.get(at)?, cause: row.get(at + 1)?, exit_code: row.get(at + 2)? })
    }

    fn to_cause(&self) -> Result<Cause, StoreError> {
        match (self.cause, self.exit_code) {
            (Some(1), Some(code)) => Ok(Cause::Exit(code)),
            (Some(2), None) => Ok(Cause::Oom),
            (Some(3), None) => Ok(Cause::Timeout),
            (Some(4), None) => Ok(Cause::Image),
            (Some(5), None) => Ok(Cause::WorkerLost),
            (Some(6), None) => Ok(Cause::Infra),
            (Some(7), None) => Ok(Cause::Cancelled),
            other => Err(StoreError::corrupt(format!("{other:?} is no cause"))),
        }
    }

    pub(super) fn to_loss(&self) -> Result<LossCause, StoreError> {
        match self.lost {
            Some(1) => Ok(LossCause::WorkerLost),
            Some(2) => Ok(LossCause::Infra),
            Some(3) => Ok(LossCause::Failed(self.to_cause()?)),
            Some(4) => Ok(LossCause::WorkerStopped),
            other => Err(StoreError::corrupt(format!("{other:?} is no cause of a loss"))),
        }
    }
}

impl HoldColumns {
    pub(super) fn of<E>(
        hold: &Hold,
        worker_no: impl FnOnce(&WorkerId) -> Result<i64, E>,
    ) -> Result<Self, E> {
        Ok(Self {
            worker: Some(worker_no(&hold.worker)?),
            session: Some(hold.session.0.cast_signed()),
            placed_at: Some(time(hold.placed_at)),
        })
    }

    /// From three columns that begin at `at`.
    pub(super) fn read(row: &Row<'_>, at: usize) -> rusqlite::Result<Self> {
        Ok(Self { worker: row.get(at)?, session: row.get(at + 1)?, placed_at: row.get(at + 2)? })
    }

    /// `None` when nobody holds it.
    pub(super) fn to_hold(
        &self,
        worker: impl FnOnce(i64) -> Result<WorkerId, Fault>,
    ) -> Result<Option<Hold>, Fault> {
        let Some(no) = self.worker else { return Ok(None) };
        let (Some(session), Some(placed_at)) = (self.session, self.placed_at) else {
            return Err(StoreError::corrupt("an attempt has a worker but no session").into());
        };
        let session = Session(session.cast_unsigned());
        Ok(Some(Hold { worker: worker(no)?, session, placed_at: timestamp(placed_at) }))
    }
}

impl TaskColumns {
    /// The columns of a state; [`TaskState::Fresh`] has no row.
    pub(super) fn of<E: From<StoreError>>(
        state: &TaskState,
        worker_no: impl FnOnce(&WorkerId) -> Result<i64, E>,
    ) -> Result<Self, E> {
        match state {
            TaskState::Fresh => Err(StoreError::corrupt("a task that was never placed").into()),
            TaskState::Live(live) => Self::of_live(live, state.status(), worker_no),
            TaskState::Ended(ended) => Self::of_ended(ended, state.status(), worker_no),
        }
    }

    fn of_live<E>(
        live: &LiveTask,
        status: TaskStatus,
        worker_no: impl FnOnce(&WorkerId) -> Result<i64, E>,
    ) -> Result<Self, E> {
        let (hold, started_at, queued) = match &live.state {
            LiveState::Queued(queued) => (HoldColumns::default(), None, Some(queued)),
            LiveState::Assigned(hold) => (HoldColumns::of(hold, worker_no)?, None, None),
            LiveState::Running { hold, started_at } => {
                (HoldColumns::of(hold, worker_no)?, Some(time(*started_at)), None)
            }
        };
        Ok(Self {
            state: state_number(status),
            attempt: live.attempt.0,
            hold,
            started_at,
            cancel_requested: live.cancel_requested,
            spent: live.spent,
            cause: queued.map(|queued| CauseColumns::of_loss(queued.lost)).unwrap_or_default(),
            lost_at: queued.map(|queued| time(queued.lost_at)),
            message: None,
            finished_at: None,
            ended_at: None,
        })
    }

    fn of_ended<E>(
        ended: &Ended,
        status: TaskStatus,
        worker_no: impl FnOnce(&WorkerId) -> Result<i64, E>,
    ) -> Result<Self, E> {
        let by = ended.by.as_ref();
        let message = &ended.outcome.message;
        Ok(Self {
            state: state_number(status),
            attempt: by.map_or(0, |by| by.attempt.0),
            hold: match by {
                Some(by) => HoldColumns::of(&by.hold, worker_no)?,
                None => HoldColumns::default(),
            },
            started_at: by.and_then(|by| by.started_at).map(time),
            cancel_requested: false,
            spent: Spent::default(),
            cause: CauseColumns::of_cause(ended.outcome.cause),
            lost_at: None,
            message: (!message.is_empty()).then(|| message.clone()),
            finished_at: by.map(|by| time(by.finished_at)),
            ended_at: Some(time(ended.ended_at)),
        })
    }

    /// From seventeen columns that begin at `at`.
    pub(super) fn read(row: &Row<'_>, at: usize) -> rusqlite::Result<Self> {
        Ok(Self {
            state: row.get(at)?,
            attempt: row.get(at + 1)?,
            hold: HoldColumns::read(row, at + 2)?,
            started_at: row.get(at + 5)?,
            cancel_requested: row.get(at + 6)?,
            spent: Spent {
                failures: row.get(at + 7)?,
                crashes: row.get(at + 8)?,
                infra: row.get(at + 9)?,
            },
            cause: CauseColumns::read(row, at + 10)?,
            lost_at: row.get(at + 13)?,
            message: row.get(at + 14)?,
            finished_at: row.get(at + 15)?,
            ended_at: row.get(at + 16)?,
        })
    }

    /// The state that these columns hold.
    pub(super) fn into_state(
        self,
        worker: impl FnOnce(i64) -> Result<WorkerId, Fault>,
    ) -> Result<TaskState, Fault> {
        let hold = self.hold.to_hold(worker)?;
        let attempt = AttemptNo(self.attempt);
        let started_at = self.started_at.map(timestamp);
        let Some(ended_at) = self.ended_at.map(timestamp) else {
            let (cancel_requested, spent) = (self.cancel_requested, self.spent);
            let state = self.to_live_state(hold, started_at)?;
            let live = LiveTask { attempt, state, cancel_requested, spent };
            return Ok(TaskState::Live(live));
        };
        let cause = self.cause.to_cause()?;
        let outcome = Outcome { cause, message: self.message.unwrap_or_default() };
        let by = match (hold, self.finished_at.map(timestamp)) {
            (Some(hold), Some(finished_at)) => {
                Some(AttemptEnd { attempt, hold, started_at, finished_at })
            }
            (None, None) => None,
            other => {
                let what = format!("an ended task has {other:?}");
                return Err(StoreError::corrupt(what).into());
            }
        };
        Ok(TaskState::Ended(Ended { outcome, ended_at, by }))
    }

    fn to_live_state(
        &self,
        hold: Option<Hold>,
        started_at: Option<Timestamp>,
    ) -> Result<LiveState, StoreError> {
        match (self.state, hold, started_at, self.lost_at) {
            (1, None, None, Some(lost_at)) => Ok(LiveState::Queued(Queued {
                lost: self.cause.to_loss()?,
                lost_at: timestamp(lost_at),
            })),
            (2, Some(hold), None, None) => Ok(LiveState::Assigned(hold)),
            (3, Some(hold), Some(started_at), None) => Ok(LiveState::Running { hold, started_at }),
            other => Err(StoreError::corrupt(format!("a live task has {other:?}"))),
        }
    }
}

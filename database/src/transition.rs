//! The life of one task as one total match: which step leads from which state to which. Both the
//! state and the step are plain data; what is not in the match cannot happen and is an error that
//! names both sides.

use cloudai_model::{
    AttemptEnd, AttemptNo, Ended, Hold, LiveState, LiveTask, LossCause, Numbers, Outcome, Session,
    TaskState, Timestamp,
};

use crate::StoreError;

/// What an event does to one task.
#[derive(Debug)]
pub(crate) enum Step {
    /// With the last numbers that were given: a restore from a backup leaves some out.
    Placed {
        no: AttemptNo,
        numbers: Numbers,
        hold: Hold,
    },
    Started {
        no: AttemptNo,
        at: Timestamp,
    },
    Adopted {
        no: AttemptNo,
        session: Session,
    },
    Lost {
        no: AttemptNo,
        cause: LossCause,
        at: Timestamp,
    },
    CancelRequested,
    Finished {
        no: AttemptNo,
        outcome: Outcome,
        finished_at: Timestamp,
        at: Timestamp,
    },
}

impl Step {
    /// The attempt that the step is about; a cancel is about the task.
    const fn attempt(&self) -> Option<AttemptNo> {
        match self {
            Self::Placed { no, .. }
            | Self::Started { no, .. }
            | Self::Adopted { no, .. }
            | Self::Lost { no, .. }
            | Self::Finished { no, .. } => Some(*no),
            Self::CancelRequested => None,
        }
    }
}

/// The state after the step.
pub(crate) fn next(state: TaskState, step: Step) -> Result<TaskState, StoreError> {
    match (state, step) {
        (TaskState::Fresh, Step::Placed { no, numbers, hold })
            if no == numbers.attempt_no(AttemptNo::FIRST) =>
        {
            Ok(TaskState::Live(LiveTask::placed(no, hold)))
        }
        (TaskState::Live(live), Step::Placed { no, numbers, hold })
            if no == numbers.attempt_no(live.attempt)
                && matches!(live.state, LiveState::Queued(_)) =>
        {
            let state = LiveState::Assigned(hold);
            Ok(TaskState::Live(LiveTask { attempt: no, state, ..live }))
        }
        (TaskState::Live(live), step) if step.attempt().is_none_or(|no| no == live.attempt) => {
            next_live(live, step)
        }
        (state, step) => Err(illegal(&state, &step)),
    }
}

fn next_live(mut live: LiveTask, step: Step) -> Result<TaskState, StoreError> {
    if let (LiveState::Assigned(_) | LiveState::Running { .. }, Step::Lost { cause, at, .. }) =
        (&live.state, &step)
    {
        live.lose(*cause, *at);
        return Ok(TaskState::Live(live));
    }
    let LiveTask { attempt, state, cancel_requested, spent } = live;
    let live = |state| LiveTask { attempt, state, cancel_requested, spent };
    Ok(TaskState::Live(match (state, step) {
        (LiveState::Assigned(hold), Step::Started { at: started_at, .. }) => {
            live(LiveState::Running { hold, started_at })
        }
        (LiveState::Assigned(hold), Step::Adopted { session, .. }) => {
            live(LiveState::Assigned(Hold { session, ..hold }))
        }
        (LiveState::Running { hold, started_at }, Step::Adopted { session, .. }) => {
            live(LiveState::Running { hold: Hold { session, ..hold }, started_at })
        }
        (state, Step::CancelRequested) => LiveTask { cancel_requested: true, ..live(state) },
        (state, Step::Finished { outcome, finished_at, at, .. }) => {
            let end = |hold, started_at| AttemptEnd { attempt, hold, started_at, finished_at };
            let by = match state {
                LiveState::Queued(_) => None,
                LiveState::Assigned(hold) => Some(end(hold, None)),
                LiveState::Running { hold, started_at } => Some(end(hold, Some(started_at))),
            };
            return Ok(TaskState::Ended(Ended { outcome, ended_at: at, by }));
        }
        (state, step) => return Err(illegal(&TaskState::Live(live(state)), &step)),
    }))
}

fn illegal(state: &TaskState, step: &Step) -> StoreError {
    StoreError::corrupt(format!("{step:?} cannot happen to a task that is {state:?}"))
}

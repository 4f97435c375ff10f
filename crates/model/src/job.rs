//! How many tasks a job has and where they are numbered.

use thiserror::Error;

use crate::{JobId, Ranges, TaskId};

/// The highest index that a task of an array may have; an array has one task more at the most.
pub const ARRAY_INDEX_MAX: u32 = 9_999_999;

/// One task, or an array of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobShape {
    /// One task, without an index.
    Single,
    /// The tasks `first..=last`, of which at most `at_once_max` are assigned or running at once.
    Array {
        /// The lowest index.
        first: u32,
        /// The highest index.
        last: u32,
        /// The user's bound on tasks at once (`--array 1-100%5`).
        at_once_max: Option<u32>,
    },
}

/// An array that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ShapeError {
    /// `first > last`.
    #[error("array {first}-{last} is empty: the first index is above the last")]
    Empty {
        /// As asked.
        first: u32,
        /// As asked.
        last: u32,
    },
    /// `last` above [`ARRAY_INDEX_MAX`].
    #[error("array index {0} is too high: the highest is {max}", max = ARRAY_INDEX_MAX)]
    TooHigh(u32),
    /// `%0` would never run a task.
    #[error("array limit %0 would never run a task: give at least %1")]
    NoneAtOnce,
}

impl JobShape {
    /// Checks the bounds of an array.
    pub fn validate(self) -> Result<Self, ShapeError> {
        match self {
            Self::Array { first, last, .. } if first > last => {
                Err(ShapeError::Empty { first, last })
            }
            Self::Array { last, .. } if last > ARRAY_INDEX_MAX => Err(ShapeError::TooHigh(last)),
            Self::Array { at_once_max: Some(0), .. } => Err(ShapeError::NoneAtOnce),
            ok => Ok(ok),
        }
    }

    /// The lowest and the highest position (see [`TaskId::position`]).
    pub const fn span(self) -> (u32, u32) {
        match self {
            Self::Single => (0, 0),
            Self::Array { first, last, .. } => (first, last),
        }
    }

    /// Every position of the job.
    pub fn positions(self) -> Ranges {
        let (first, last) = self.span();
        Ranges::from_span(first, last)
    }

    /// How many tasks the job has.
    pub const fn task_count(self) -> u64 {
        let (first, last) = self.span();
        (last - first) as u64 + 1
    }

    /// How many tasks may be assigned or running at once.
    pub fn at_once_max(self) -> u64 {
        match self {
            Self::Array { at_once_max: Some(max), .. } => u64::from(max),
            _ => u64::MAX,
        }
    }

    /// The task at a position.
    pub const fn task_id(self, job: JobId, position: u32) -> TaskId {
        match self {
            Self::Single => TaskId { job, index: None },
            Self::Array { .. } => TaskId { job, index: Some(position) },
        }
    }

    /// The position of a task, when this job has it.
    pub fn find_position(self, task: TaskId) -> Option<u32> {
        match (self, task.index) {
            (Self::Single, None) => Some(0),
            (Self::Array { first, last, .. }, Some(index)) => {
                (first..=last).contains(&index).then_some(index)
            }
            _ => None,
        }
    }
}

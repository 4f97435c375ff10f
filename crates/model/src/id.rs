//! Identities and how they are written: `task-42`, `task-42.7`, `task-42.7-a2`, `worker-1`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// A text that is not the id it should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdError {
    /// Not of the form `task-42`, `42`, `task-42.7` or `42.7`.
    #[error("'{0}' is not a task id (task-42, or task-42.7 for a task of an array)")]
    Task(String),
    /// Not of the form `task-42-a1`.
    #[error("'{0}' is not an attempt id (task-42-a1)")]
    Attempt(String),
    /// Empty, too long, or with characters that a name may not have.
    #[error(
        "'{0}' is not a worker id: 1 to 64 letters, digits, '.', '_' or '-', beginning with a \
         letter or digit"
    )]
    Worker(String),
    /// Empty or too long.
    #[error("a request id has 1 to 128 printable ASCII characters")]
    Request,
}

/// What one submit created. Numbered from 1, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job-{}", self.0)
    }
}

/// One task: its job, and its index when the job is an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// The job that the task belongs to.
    pub job: JobId,
    /// The array index; `None` for the task of a job of one.
    pub index: Option<u32>,
}

impl TaskId {
    /// The task of a job of one.
    pub const fn single(job: u64) -> Self {
        Self { job: JobId(job), index: None }
    }

    /// A task of an array.
    pub const fn indexed(job: u64, index: u32) -> Self {
        Self { job: JobId(job), index: Some(index) }
    }

    /// Where the task stands in its job: the array index, or 0 in a job of one.
    pub fn position(self) -> u32 {
        self.index.unwrap_or(0)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            None => write!(f, "task-{}", self.job.0),
            Some(index) => write!(f, "task-{}.{index}", self.job.0),
        }
    }
}

impl FromStr for TaskId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let error = || IdError::Task(text.to_owned());
        let digits = text.strip_prefix("task-").unwrap_or(text);
        let (job, index) = match digits.split_once('.') {
            None => (digits, None),
            Some((job, index)) => (job, Some(number::<u32>(index).ok_or_else(error)?)),
        };
        Ok(Self { job: JobId(number(job).ok_or_else(error)?), index })
    }
}

/// Digits only, without sign; `u64::from_str` would take a '+'.
fn number<T: FromStr>(text: &str) -> Option<T> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// The number of a try, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptNo(pub u32);

impl AttemptNo {
    /// The first try of a task.
    pub const FIRST: Self = Self(1);

    /// The try after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// One try of a task. Its text (`task-42.7-a2`) fits a container name and is what a unary worker
/// gets as `task_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    /// The task that is tried.
    pub task: TaskId,
    /// Which try it is.
    pub no: AttemptNo,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-a{}", self.task, self.no.0)
    }
}

impl FromStr for AttemptId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let error = || IdError::Attempt(text.to_owned());
        let (task, no) = text.rsplit_once("-a").ok_or_else(error)?;
        let task = task.parse().map_err(|_| error())?;
        let no = number::<u32>(no).filter(|no| *no > 0).ok_or_else(error)?;
        Ok(Self { task, no: AttemptNo(no) })
    }
}

/// The stable identity of a worker: chosen by its administrator, or made from its host name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(Arc<str>);

impl WorkerId {
    /// Longest id in bytes.
    pub const LEN_MAX: usize = 64;

    /// Checks the text; see [`IdError::Worker`] for what is allowed.
    pub fn new(text: &str) -> Result<Self, IdError> {
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if first && rest && text.len() <= Self::LEN_MAX {
            Ok(Self(text.into()))
        } else {
            Err(IdError::Worker(text.chars().take(80).collect()))
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for WorkerId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::new(text)
    }
}

/// One registration of a worker process. Numbers rise over the whole cluster and are never used
/// again, so that a report of an older process can always be told from one of the present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Session(pub u64);

impl Session {
    /// Which history of the cluster it belongs to: a restore from a backup begins a new one, with
    /// a higher number, and everything that was given before it is stale.
    pub const fn epoch(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The number behind which the sessions of an epoch begin.
    pub(crate) const fn before_epoch(epoch: u32) -> Self {
        Self((epoch as u64) << 32)
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {}", self.0)
    }
}

/// The client's name for one submit: the same id again gives the same job.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// Longest id in bytes.
    pub const LEN_MAX: usize = 128;

    /// Checks that the text is 1 to 128 printable ASCII characters.
    pub fn new(text: &str) -> Result<Self, IdError> {
        let printable = text.bytes().all(|b| b.is_ascii_graphic());
        if printable && (1..=Self::LEN_MAX).contains(&text.len()) {
            Ok(Self(text.into()))
        } else {
            Err(IdError::Request)
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_task(text: &str, shown: &str) {
        assert_eq!(text.parse::<TaskId>().unwrap().to_string(), shown);
    }

    #[test]
    fn a_task_id_is_read_with_and_without_its_prefix() {
        check_task("42", "task-42");
        check_task("task-42", "task-42");
        check_task("42.7", "task-42.7");
        check_task("task-42.0", "task-42.0");
    }

    #[test]
    fn what_is_no_task_id_is_refused() {
        for text in ["", "task-", "x", "4x", "+4", "-4", "4.", ".4", "4.x", "4.4294967296", "4 "] {
            assert_eq!(text.parse::<TaskId>(), Err(IdError::Task(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn an_attempt_id_survives_its_text() {
        for attempt in [
            AttemptId { task: TaskId::single(42), no: AttemptNo(1) },
            AttemptId { task: TaskId::indexed(42, 7), no: AttemptNo(12) },
        ] {
            assert_eq!(attempt.to_string().parse(), Ok(attempt));
        }
        for text in ["", "task-42", "task-42-a0", "task-42-a", "task-42-b1", "-a1"] {
            assert!(text.parse::<AttemptId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_worker_id_is_a_plain_name() {
        assert!(WorkerId::new("worker-1").is_ok());
        assert!(WorkerId::new(&"w".repeat(64)).is_ok());
        for text in ["", "-w", "a b", "../x", "w\n", "ü", &"w".repeat(65)] {
            assert!(WorkerId::new(text).is_err(), "{text}");
        }
    }
}

//! Ids as people type them: `42`, `task-42`, `job-42`, `42.7`, `task-42.7`.

use std::fmt;
use std::str::FromStr;

/// A task, or the job of one that a number alone names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskRef {
    job: u64,
    index: Option<u32>,
}

impl TaskRef {
    /// The job that the id names, when it names no index.
    pub fn find_job(self) -> Option<JobRef> {
        self.index.is_none().then_some(JobRef(self.job))
    }
}

impl FromStr for TaskRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = text.strip_prefix("task-").or_else(|| text.strip_prefix("job-"));
        let (job, index) = match plain.unwrap_or(text).split_once('.') {
            None => (plain.unwrap_or(text), None),
            Some((job, index)) => (job, Some(index)),
        };
        let job = digits(job);
        let index = index.map(digits::<u32>);
        match (job, index) {
            (Some(job), None) => Ok(Self { job, index: None }),
            (Some(job), Some(Some(index))) => Ok(Self { job, index: Some(index) }),
            _ => Err(format!("'{text}' is not a task: give 42, or 42.7 for a task of an array")),
        }
    }
}

impl fmt::Display for TaskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            None => write!(f, "task-{}", self.job),
            Some(index) => write!(f, "task-{}.{index}", self.job),
        }
    }
}

/// A job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobRef(u64);

impl JobRef {
    /// Its number, as the API has it.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl FromStr for JobRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = text.strip_prefix("job-").or_else(|| text.strip_prefix("task-"));
        digits(plain.unwrap_or(text))
            .map(Self)
            .ok_or_else(|| format!("'{text}' is not a job: give a number, for example 42"))
    }
}

impl fmt::Display for JobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

fn digits<T: FromStr>(text: &str) -> Option<T> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_taken_with_and_without_their_prefix() {
        for (text, shown) in
            [("42", "task-42"), ("task-42", "task-42"), ("job-42", "task-42"), ("4.7", "task-4.7")]
        {
            assert_eq!(text.parse::<TaskRef>().unwrap().to_string(), shown);
        }
        for text in ["", "x", "+4", "4.", ".4", "4.x", "task-", "4.7.1", "worker-1"] {
            assert!(text.parse::<TaskRef>().is_err(), "{text}");
        }
        assert_eq!("task-7".parse::<JobRef>().unwrap().number(), 7);
        assert!("7.1".parse::<JobRef>().is_err());
    }
}

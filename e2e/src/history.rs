//! What clients asked and were told, with the time of each, while faults happened. Written down by
//! those who ask; judged by [`crate::judge`], which sees nothing else but the world that is left.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::web::Api;

/// How a task ended: its status, its cause, and its exit code when it has one.
pub type End = (String, String, Option<i64>);

/// What a client asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// A job, which carries its request id as its name.
    Submit(String),
    /// That a task does not run.
    Cancel(String),
    /// How a task stands.
    Look(String),
}

/// What a client was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The job is stored, and this is its first task.
    Submitted(String),
    /// The cancel is stored: how many tasks ended by it at once, are stopped, had ended already.
    Cancelled([u64; 3]),
    /// How the task ended; `None` when it had not.
    Seen(Option<End>),
    /// No, and nothing was done.
    Refused(String),
    /// No answer: it may have been done or not, or may be done later.
    Unknown,
}

/// One call with its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What was asked.
    pub call: Call,
    /// What was told.
    pub told: Told,
    /// When it was asked, since the history began.
    pub begun: Duration,
    /// When the answer was there.
    pub done: Duration,
}

/// A history that is being written, by many at once.
pub struct History {
    since: Instant,
    entries: Mutex<Vec<Entry>>,
}

impl Default for History {
    fn default() -> Self {
        Self { since: Instant::now(), entries: Mutex::default() }
    }
}

impl History {
    /// Everything until now, in the order in which the answers came.
    pub fn entries(&self) -> Vec<Entry> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks, and writes down what came of it.
    fn ask(&self, call: Call, ask: impl FnOnce() -> Told) -> Told {
        let begun = self.since.elapsed();
        let told = ask();
        let entry = Entry { call, told: told.clone(), begun, done: self.since.elapsed() };
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        told
    }

    /// Submits a job under its name.
    pub fn submit(&self, api: &Api, name: &str, request: &Value) -> Told {
        let mut request = request.clone();
        (request["name"], request["request_id"]) = (json!(name), json!(name));
        self.ask(Call::Submit(name.to_owned()), || match api.post("/jobs", &request) {
            Some(answer) if matches!(answer.status, 200 | 201) => {
                let task = answer.body["first_task"].as_str().unwrap_or_default();
                Told::Submitted(task.to_owned())
            }
            other => declined(other),
        })
    }

    /// Cancels a task.
    pub fn cancel(&self, api: &Api, task: &str) -> Told {
        let path = format!("/tasks/{task}/cancel");
        self.ask(Call::Cancel(task.to_owned()), || match api.post(&path, &Value::Null) {
            Some(answer) if answer.status == 200 => {
                let count = |name: &str| answer.body[name].as_u64().unwrap_or_default();
                Told::Cancelled([count("cancelled"), count("stopping"), count("already_ended")])
            }
            other => declined(other),
        })
    }

    /// Looks how a task stands.
    pub fn look(&self, api: &Api, task: &str) -> Told {
        let path = format!("/tasks/{task}");
        self.ask(Call::Look(task.to_owned()), || match api.get(&path) {
            Some(answer) if answer.status == 200 => Told::Seen(end_of(&answer.body)),
            other => declined(other),
        })
    }
}

/// A server that is busy or stopping says that nothing was done; what else went wrong may have been
/// done all the same.
fn declined(answer: Option<crate::Answer>) -> Told {
    match answer {
        Some(answer) if (400..500).contains(&answer.status) => {
            Told::Refused(answer.body.to_string())
        }
        _ => Told::Unknown,
    }
}

/// How the task of this answer ended, if it has.
pub fn end_of(task: &Value) -> Option<End> {
    let outcome = task["outcome"].as_object()?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let code = outcome.get("exit_code").and_then(Value::as_i64);
    Some((text(&task["status"]), text(&outcome["cause"]), code))
}

//! What really happened in the containers, as the engines and executors saw it.

use std::collections::{BTreeMap, BTreeSet};

use cloudai_model::{AttemptId, Cause, Outcome};

/// The fate of every attempt that came to an engine.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    starts: BTreeMap<AttemptId, usize>,
    exits: BTreeMap<AttemptId, i32>,
    ends: BTreeMap<AttemptId, Vec<Cause>>,
    /// What each machine has recorded and not been told to drop.
    kept: BTreeSet<(usize, AttemptId)>,
}

impl Truth {
    /// A container was started; an error when the attempt had been started before.
    pub(crate) fn started(&mut self, attempt: AttemptId, worker: usize) -> Result<(), String> {
        match self.starts.insert(attempt, worker) {
            None => Ok(()),
            Some(_) => Err(format!("no attempt is started twice: {attempt} was")),
        }
    }

    /// A container ended by itself.
    pub(crate) fn exited(&mut self, attempt: AttemptId, code: i32) {
        self.exits.insert(attempt, code);
    }

    /// An executor said how an attempt ended.
    pub(crate) fn ended(&mut self, attempt: AttemptId, outcome: &Outcome) {
        self.ends.entry(attempt).or_default().push(outcome.cause);
    }

    /// A worker has a record of an attempt.
    pub(crate) fn recorded(&mut self, worker: usize, attempt: AttemptId) {
        self.kept.insert((worker, attempt));
    }

    /// The record is gone, in good order.
    pub(crate) fn dropped(&mut self, worker: usize, attempt: AttemptId) {
        self.kept.remove(&(worker, attempt));
    }

    /// Whether a worker that starts names everything that it has recorded.
    pub(crate) fn check_restart(&self, worker: usize, names: &[AttemptId]) -> Result<(), String> {
        let mut kept = self.kept.iter().filter(|(machine, _)| *machine == worker);
        match kept.find(|(_, attempt)| !names.contains(attempt)) {
            None => Ok(()),
            Some((_, attempt)) => {
                Err(format!("a restarted worker takes up what it recorded: {attempt} is not named"))
            }
        }
    }

    /// Whether this attempt ended with this cause; an error in words when it did not.
    pub(crate) fn check(&self, attempt: AttemptId, cause: Cause) -> Result<(), String> {
        let said = self.ends.get(&attempt).is_some_and(|causes| causes.contains(&cause));
        let exited = match cause {
            Cause::Exit(code) => self.exits.get(&attempt) == Some(&code),
            _ => true,
        };
        if said && exited {
            return Ok(());
        }
        let (exit, ends) = (self.exits.get(&attempt), self.ends.get(&attempt));
        Err(format!(
            "the recorded outcome is the one that the current attempt produced: {cause} was \
             recorded for {attempt}, whose container exited with {exit:?} and whose executor said \
             {ends:?}"
        ))
    }
}

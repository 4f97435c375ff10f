//! What the engine was asked, and what really happened: the ground on which a test judges.

use std::collections::BTreeMap;

use super::fault::{Call, Fault};

/// One call, in the order of arrival.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Which.
    pub call: Call,
    /// The name of the container, or the image; empty when the call is about neither.
    pub subject: String,
    /// The signal of a kill; empty for all other calls.
    pub detail: String,
    /// What went wrong with it.
    pub fault: Option<Fault>,
}

/// Everything that happened. Attempts are those of the containers' labels.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    /// Every call.
    pub asked: Vec<Asked>,
    /// How often a container of an attempt was created.
    pub created: BTreeMap<String, u32>,
    /// How often a container of an attempt began to run.
    pub started: BTreeMap<String, u32>,
    /// The exit code of each attempt whose container ran to its end.
    pub exits: BTreeMap<String, i32>,
    /// How often an image was pulled.
    pub pulls: BTreeMap<String, u32>,
    /// The most pulls of an image that were under way at once.
    pub pulls_at_once_max: BTreeMap<String, u32>,
    /// The attempts whose removal ended a container that still ran.
    pub removed_running: Vec<String>,
}

impl Journal {
    /// How often a call was made for a subject with `part` in its name.
    pub fn count(&self, call: Call, part: &str) -> usize {
        self.asked.iter().filter(|asked| asked.call == call && asked.subject.contains(part)).count()
    }

    /// The signals that containers with `part` in their name were sent.
    pub fn signals(&self, part: &str) -> Vec<&str> {
        let kills = self.asked.iter().filter(|asked| asked.call == Call::Kill);
        kills.filter(|asked| asked.subject.contains(part)).map(|asked| &*asked.detail).collect()
    }

    /// How many faults struck.
    pub fn faults(&self) -> usize {
        self.asked.iter().filter(|asked| asked.fault.is_some()).count()
    }

    /// Fails unless no attempt was started twice.
    #[track_caller]
    pub fn check_started_once(&self) {
        let twice: Vec<_> = self.started.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "started more than once: {twice:?}");
    }

    /// Fails unless no image was pulled by two at once.
    #[track_caller]
    pub fn check_pulled_one_by_one(&self) {
        let doubled: Vec<_> =
            self.pulls_at_once_max.iter().filter(|(_, count)| **count > 1).collect();
        assert!(doubled.is_empty(), "pulled at the same time: {doubled:?}");
    }
}

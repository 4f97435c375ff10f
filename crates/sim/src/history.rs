//! What happened, as lines for people and as one number for comparing two runs.

use std::fmt::{self, Write as _};

use cloudai_model::Event;

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// The history of a run.
#[derive(Debug)]
pub(crate) struct History {
    hash: u64,
    line: String,
    lines: Option<Vec<String>>,
}

impl History {
    pub(crate) fn new(keeps_lines: bool) -> Self {
        let lines = keeps_lines.then(Vec::new);
        Self { hash: OFFSET, line: String::new(), lines }
    }

    /// The same for the same history (FNV-1a over its lines).
    pub(crate) const fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }

    pub(crate) fn say(&mut self, at_ms: u64, what: fmt::Arguments<'_>) {
        self.line.clear();
        let (seconds, ms) = (at_ms / 1_000, at_ms % 1_000);
        write!(self.line, "{seconds:>4}.{ms:03} {what}").expect("a text can be written to");
        for byte in self.line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(PRIME);
        }
        if let Some(lines) = &mut self.lines {
            lines.push(self.line.clone());
        }
    }

    pub(crate) fn say_event(&mut self, at_ms: u64, event: &Event) {
        match event {
            Event::WorkerRegistered { worker } => {
                self.say(at_ms, format_args!("stored: {} is {}", worker.id, worker.session));
            }
            Event::JobSubmitted { job, shape, spec, .. } => {
                let (count, needs) = (shape.task_count(), spec.needs);
                let cpu_milli = needs.cpu_milli;
                self.say(at_ms, format_args!("stored: {job}, {count} tasks of {cpu_milli} mcpu"));
            }
            Event::AttemptPlaced { attempt, hold } => {
                self.say(at_ms, format_args!("stored: {attempt} placed on {}", hold.worker));
            }
            Event::AttemptStarted { attempt, .. } => {
                self.say(at_ms, format_args!("stored: {attempt} started"));
            }
            Event::AttemptAdopted { attempt, session } => {
                self.say(at_ms, format_args!("stored: {attempt} adopted by {session}"));
            }
            Event::AttemptLost { attempt, cause, message, .. } => {
                self.say(at_ms, format_args!("stored: {attempt} lost, {cause:?}: {message}"));
            }
            Event::CancelRequested { task, .. } => {
                self.say(at_ms, format_args!("stored: {task} is to be cancelled"));
            }
            Event::FreshCancelled { job, first, last, .. } => {
                self.say(at_ms, format_args!("stored: {job} {first}-{last} cancelled"));
            }
            Event::TaskFinished { attempt, outcome, .. } => {
                self.say(at_ms, format_args!("stored: {attempt} ended: {}", outcome.cause));
            }
        }
    }
}

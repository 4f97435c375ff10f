//! How a task ended, and why.

use std::fmt;

/// Why a task ended as it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// The process ended by itself with this code; 0 is success.
    Exit(i32),
    /// The kernel ended it because it used more memory than it asked for.
    Oom,
    /// It ran longer than its time-out.
    Timeout,
    /// Its image could not be had.
    Image,
    /// Its worker was lost, and so were the tries that its job allows.
    WorkerLost,
    /// The worker's engine or disk failed, and so did the tries that such failures allow.
    Infra,
    /// A user cancelled it.
    Cancelled,
}

impl Cause {
    /// Whether the task did what it was asked.
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Exit(0))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "exit({code})"),
            Self::Oom => f.write_str("oom"),
            Self::Timeout => f.write_str("timeout"),
            Self::Image => f.write_str("image"),
            Self::WorkerLost => f.write_str("worker_lost"),
            Self::Infra => f.write_str("infra"),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

/// The end of an attempt: the cause, and words for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Why it ended.
    pub cause: Cause,
    /// What the engine or the registry said, or empty. At most [`Outcome::MESSAGE_LEN_MAX`] bytes.
    pub message: String,
}

impl Outcome {
    /// Longest message in bytes; the rest is cut off and marked.
    pub const MESSAGE_LEN_MAX: usize = 2048;

    /// An outcome whose message is cut to its bound, at a character's border.
    pub fn new(cause: Cause, message: impl Into<String>) -> Self {
        const MARK: &str = " …(cut)";
        let mut message = message.into();
        if message.len() > Self::MESSAGE_LEN_MAX {
            let mut end = Self::MESSAGE_LEN_MAX - MARK.len();
            while !message.is_char_boundary(end) {
                end -= 1;
            }
            message.truncate(end);
            message.push_str(MARK);
        }
        Self { cause, message }
    }
}

/// Why an attempt went away without an outcome of its own; the task is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LossCause {
    /// The worker died or fell silent with it: the lease ended, by the master's clock or its own,
    /// it came back without it, or somebody stopped the container there.
    WorkerLost,
    /// The worker shuts down in good order and lived to tell.
    WorkerStopped,
    /// The engine or the disk of the worker failed.
    Infra,
    /// The task itself failed and its user allowed another try.
    Failed(Cause),
}

/// How often a task may lose attempts is counted apart for each kind of loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Budget {
    /// It failed by itself.
    Retries,
    /// Its worker died or fell silent while it ran: it may be what kills workers.
    Crashes,
    /// An engine, a disk, or a worker that was lost before the container started.
    Infra,
}

impl LossCause {
    /// What the loss counts against; `None` when nobody is to blame. `started` says whether the
    /// attempt's container had started.
    pub const fn budget(self, started: bool) -> Option<Budget> {
        match self {
            Self::Failed(_) => Some(Budget::Retries),
            Self::WorkerLost if started => Some(Budget::Crashes),
            Self::WorkerLost | Self::Infra => Some(Budget::Infra),
            Self::WorkerStopped => None,
        }
    }
}

/// What a task has used of its budgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    /// Of [`Budget::Retries`].
    pub failures: u32,
    /// Of [`Budget::Crashes`].
    pub crashes: u32,
    /// Of [`Budget::Infra`].
    pub infra: u32,
}

impl Spent {
    /// How much of one budget is used.
    pub const fn of(self, budget: Budget) -> u32 {
        match budget {
            Budget::Retries => self.failures,
            Budget::Crashes => self.crashes,
            Budget::Infra => self.infra,
        }
    }

    /// One more loss, counted against its budget, when it has one.
    pub const fn count(&mut self, budget: Option<Budget>) {
        let used = match budget {
            None => return,
            Some(Budget::Retries) => &mut self.failures,
            Some(Budget::Crashes) => &mut self.crashes,
            Some(Budget::Infra) => &mut self.infra,
        };
        *used = used.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_loss_counts_against_one_budget_or_none() {
        let check = |cause: LossCause, started: bool, want: &str| {
            let mut spent = Spent::default();
            spent.count(cause.budget(started));
            let Spent { failures, crashes, infra } = spent;
            let got = format!("{failures} failures, {crashes} crashes, {infra} infra");
            assert_eq!(got, want, "{cause:?}, started: {started}");
        };
        for started in [false, true] {
            let failed = LossCause::Failed(Cause::Oom);
            check(failed, started, "1 failures, 0 crashes, 0 infra");
            check(LossCause::Infra, started, "0 failures, 0 crashes, 1 infra");
            check(LossCause::WorkerStopped, started, "0 failures, 0 crashes, 0 infra");
        }
        check(LossCause::WorkerLost, true, "0 failures, 1 crashes, 0 infra");
        check(LossCause::WorkerLost, false, "0 failures, 0 crashes, 1 infra");
    }

    #[test]
    fn a_long_message_is_cut_at_its_bound_and_says_so() {
        let exact = "x".repeat(Outcome::MESSAGE_LEN_MAX);
        assert_eq!(Outcome::new(Cause::Infra, exact.clone()).message, exact);
        let cut = Outcome::new(Cause::Infra, "ü".repeat(Outcome::MESSAGE_LEN_MAX)).message;
        assert!(cut.len() <= Outcome::MESSAGE_LEN_MAX && cut.ends_with("…(cut)"));
    }
}

//! What a simulated container does: it stands in the task's command, so that the engine knows it
//! from the spec alone, as a real one does.

use cloudai_model::{AttemptId, Invocation, TaskSpec};

/// A container's behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Program {
    /// Shortest run, in milliseconds.
    pub(crate) least_ms: u64,
    /// Longest run, in milliseconds.
    pub(crate) most_ms: u64,
    /// How many runs of a hundred end with another exit code than 0.
    pub(crate) fail_percent: u8,
    /// Whether it ignores SIGTERM.
    pub(crate) is_deaf: bool,
}

impl Program {
    /// The command that says so.
    pub(crate) fn invocation(self) -> Invocation {
        let deaf = if self.is_deaf { "deaf" } else { "obeys" };
        let words = [
            "work".to_owned(),
            self.least_ms.to_string(),
            self.most_ms.to_string(),
            self.fail_percent.to_string(),
            deaf.to_owned(),
        ];
        Invocation::Arguments(words.into())
    }

    /// What the command of a spec says.
    pub(crate) fn of(spec: &TaskSpec) -> Self {
        let Invocation::Arguments(words) = &spec.invocation else {
            panic!("every simulated task has a program")
        };
        let number = |index: usize| words[index].parse::<u64>().expect("written above");
        Self {
            least_ms: number(1),
            most_ms: number(2),
            fail_percent: u8::try_from(number(3)).expect("written above"),
            is_deaf: words[4] == "deaf",
        }
    }

    /// How long this attempt runs, and its exit code: the same whenever it is asked.
    pub(crate) fn fate(self, seed: u64, attempt: AttemptId) -> (u64, i32) {
        let AttemptId { task, no } = attempt;
        let mix = [task.job.0, u64::from(task.position()), u64::from(no.0)];
        let mixed = mix.iter().fold(seed, |mixed, part| {
            (mixed ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
        });
        let mut random = fastrand::Rng::with_seed(mixed);
        let run_ms = random.u64(self.least_ms..=self.most_ms);
        let fails = random.u8(0..100) < self.fail_percent;
        (run_ms, if fails { random.i32(1..128) } else { 0 })
    }
}

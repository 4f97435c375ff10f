//! Exit codes. They are a promise: scripts rely on them, so none changes its meaning.
//!
//! As with `docker run`, a command that runs a task ends with the code of the task's process, and
//! the codes from 124 up say that there is none.
//!
//! | code | when |
//! |---|---|
//! | 0 | done; for `run` and `wait`: the task succeeded |
//! | 1 | the answer is no: `doctor` found a problem, tasks of an array failed |
//! | the task's | `run`, `wait`: its process ended with this code |
//! | 2 | the command line makes no sense; nothing was done |
//! | 124 | `run`, `wait`: the task, or the wait itself, ran out of time |
//! | 125 | CloudAI could not do it: no master, refused, image, engine or worker lost |
//! | 130 | Ctrl-C; a task that was submitted goes on, or was cancelled, as was said then |
//! | 137 | `run`, `wait`: the task used more memory than it asked for and was killed |
//! | 143 | `run`, `wait`: the task was cancelled |

use cloudai_api::{Cause, OutcomeView};

/// Done.
pub const OK: u8 = 0;
/// The answer is no.
pub const NO: u8 = 1;
/// The command line makes no sense.
pub const USAGE: u8 = 2;
/// The task, or the wait itself, ran out of time.
pub const TIMEOUT: u8 = 124;
/// CloudAI could not do it.
pub const FAILED: u8 = 125;
/// Ctrl-C.
pub const INTERRUPTED: u8 = 130;
/// The task was killed for its memory.
pub const OOM: u8 = 137;
/// The task was cancelled.
pub const CANCELLED: u8 = 143;

/// The table above, as the help shows it.
pub const HELP: &str = "\
Exit codes:
  0    done; for run and wait: the task succeeded
  1    the answer is no: doctor found a problem, tasks of an array failed
  2    the command line makes no sense; nothing was done
  124  run, wait: out of time
  125  CloudAI could not do it: no master, refused, image, engine or worker lost
  130  Ctrl-C
  137  run, wait: the task used more memory than it asked for
  143  run, wait: the task was cancelled
  else run, wait: the exit code of the task's process";

/// The code for a task that ended like this.
pub fn of_outcome(outcome: &OutcomeView) -> u8 {
    match outcome.cause {
        // A process has codes from 0 to 255; anything else comes from a worker that is not ours.
        Cause::Exit => outcome.exit_code.map_or(FAILED, |code| u8::try_from(code).unwrap_or(NO)),
        Cause::Oom => OOM,
        Cause::Timeout => TIMEOUT,
        Cause::Cancelled => CANCELLED,
        Cause::Image | Cause::WorkerLost | Cause::Infra => FAILED,
    }
}

//! An error as its user sees it: what happened and why, what to do, and the exit code.

use std::io;

use crate::exit;

/// Why a command did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What happened and why, in one sentence without a full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The process's exit code; see [`crate::exit`].
    pub exit: u8,
    /// The API's code, when a master refused.
    pub code: Option<cloudai_api::ErrorCode>,
}

impl Failure {
    /// CloudAI could not do it.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, exit: exit::FAILED, code: None }
    }

    /// The command line makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: exit::USAGE, ..Self::new(message) }
    }

    /// The same failure with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether the reader of our output went away, as `head` does: no failure for anyone.
    pub fn is_broken_pipe(&self) -> bool {
        self.message == BROKEN_PIPE
    }
}

const BROKEN_PIPE: &str = "the reader of the output went away";

impl From<io::Error> for Failure {
    /// The error of writing our own output; everything else is mapped where it happens.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { exit: exit::OK, ..Self::new(BROKEN_PIPE) };
        }
        Self::new(format!("cannot write the output: {error}"))
    }
}

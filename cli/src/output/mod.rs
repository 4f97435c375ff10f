//! Where output goes and how it looks: data to one side, messages to the other.
//!
//! Everything is readable without colour. Text that comes from a task or an engine is made
//! harmless before it is shown in a table or a message; a log is data and passes as it is.

mod json;
mod table;
mod view;

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use anstream::{AutoStream, ColorChoice};

pub use json::write_json;
pub use table::Table;
pub(crate) use view::show_cause;
pub use view::{
    show_explanation, show_files, show_job, show_queue, show_status, show_task, show_tasks,
    show_time, show_worker, show_workers,
};

use crate::failure::Failure;

/// The two sides of a terminal, or of whatever stands in for it. What is written to a side itself
/// arrives byte for byte: the output of a task may be anything.
pub struct Screen {
    /// Data.
    pub out: Box<dyn Write + Send>,
    /// Messages and progress.
    pub err: Box<dyn Write + Send>,
    /// Whether our own words may be coloured.
    pub colour: bool,
    /// Whether moving progress may be shown on the standard error.
    pub progress: bool,
    /// Whether a person can be asked: input and messages are a terminal.
    pub ask: bool,
}

impl Screen {
    /// Standard output and error.
    pub fn standard() -> Self {
        let terminal = io::stderr().is_terminal();
        Self {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            colour: AutoStream::choice(&io::stderr()) != ColorChoice::Never,
            progress: terminal,
            ask: terminal && io::stdin().is_terminal(),
        }
    }

    /// Everything to standard output, as a dialogue.
    pub fn dialogue() -> Self {
        Self {
            out: Box::new(io::stdout()),
            err: Box::new(io::stdout()),
            colour: AutoStream::choice(&io::stdout()) != ColorChoice::Never,
            progress: false,
            ask: false,
        }
    }

    /// A line of data.
    pub fn line(&mut self, text: impl AsRef<str>) -> Result<(), Failure> {
        let text = self.styled(text.as_ref());
        writeln!(self.out, "{text}")?;
        Ok(self.out.flush()?)
    }

    /// A message. Messages are never worth failing for.
    pub fn message(&mut self, text: impl AsRef<str>) {
        let text = self.styled(text.as_ref());
        let _ = writeln!(self.err, "{text}");
        let _ = self.err.flush();
    }

    /// The text without its colours, where they do not belong.
    fn styled<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if self.colour {
            return Cow::Borrowed(text);
        }
        Cow::Owned(anstream::adapter::strip_str(text).to_string())
    }

    /// An error with what to do about it.
    pub fn failure(&mut self, failure: &Failure) {
        if failure.is_broken_pipe() {
            return;
        }
        self.message(format!("\x1b[1;31merror:\x1b[0m {}", harmless(&failure.message)));
        if let Some(hint) = &failure.hint {
            self.message(format!("\x1b[36mhint:\x1b[0m {}", harmless(hint)));
        }
    }
}

/// Text without control characters: what a task or an engine said cannot move the cursor.
pub fn harmless(text: &str) -> String {
    text.trim_end()
        .chars()
        .map(|c| match c {
            '\n' | '\t' => ' ',
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn words_of_others_cannot_move_the_cursor() {
        assert_eq!(harmless("a\x1b[2Jb\nc\r\n"), "a\u{fffd}[2Jb c");
    }
}

//! Where output goes and how it looks: data to one side, messages to the other.
//!
//! Everything is readable without colour. Text that comes from a task or an engine is made
//! harmless before it is shown in a table or a message; a log is data and passes as it is.

mod json;
mod table;
mod view;

use std::io::{self, IsTerminal, Write};

pub use json::write_json;
pub use table::Table;
pub(crate) use view::show_cause;
pub use view::{
    show_explanation, show_files, show_job, show_queue, show_status, show_task, show_tasks,
    show_worker, show_workers,
};

use crate::failure::Failure;

/// The two sides of a terminal, or of whatever stands in for it.
pub struct Screen {
    /// Data.
    pub out: Box<dyn Write + Send>,
    /// Messages and progress.
    pub err: Box<dyn Write + Send>,
    /// Whether moving progress may be shown on the standard error.
    pub progress: bool,
    /// Whether a person can be asked: input and messages are a terminal.
    pub ask: bool,
}

impl Screen {
    /// Standard output and error. Colours are dropped where they do not belong.
    pub fn standard() -> Self {
        let terminal = io::stderr().is_terminal();
        Self {
            out: Box::new(anstream::stdout()),
            err: Box::new(anstream::stderr()),
            progress: terminal,
            ask: terminal && io::stdin().is_terminal(),
        }
    }

    /// Everything to standard output, as a dialogue.
    pub fn dialogue() -> Self {
        Self {
            out: Box::new(anstream::stdout()),
            err: Box::new(anstream::stdout()),
            progress: false,
            ask: false,
        }
    }

    /// A line of data.
    pub fn line(&mut self, text: impl AsRef<str>) -> Result<(), Failure> {
        writeln!(self.out, "{}", text.as_ref())?;
        Ok(self.out.flush()?)
    }

    /// A message. Messages are never worth failing for.
    pub fn message(&mut self, text: impl AsRef<str>) {
        let _ = writeln!(self.err, "{}", text.as_ref());
        let _ = self.err.flush();
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

//! Where lines come from: an editor on a terminal, plain lines elsewhere.

use std::borrow::Cow;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;

use reedline::{
    ColumnarMenu, Emacs, ExternalPrinter, FileBackedHistory, KeyCode, KeyModifiers, MenuBuilder,
    Prompt, PromptEditMode, PromptHistorySearch, Reedline, ReedlineEvent, ReedlineMenu, Signal,
    default_emacs_keybindings,
};

use super::complete::Words;
use super::printer::LINES_MAX;
use super::{Printer, ReplOptions, ReplStop};
use crate::client::Client;

const HISTORY_LINES: usize = 1000;
const LINE_BYTES_MAX: u64 = 64 << 10;
const MENU: &str = "completion_menu";

/// What came.
pub(super) enum Line {
    /// A line.
    Text(String),
    /// There is no more input.
    End,
    /// Ctrl-C at the prompt.
    Interrupt,
    /// The process ends.
    Stopped,
}

/// A source of lines.
pub(super) enum Input {
    /// A person at a terminal.
    Editor(Box<Editor>),
    /// A script, a pipe, anything else.
    Plain,
}

/// The line editor and what belongs to it.
pub(super) struct Editor {
    engine: Reedline,
    sender: SyncSender<String>,
    printer: Printer,
    stop: ReplStop,
}

impl Input {
    pub(super) fn open(options: &ReplOptions, client: &Client) -> Self {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Self::Plain;
        }
        let external = ExternalPrinter::new(LINES_MAX);
        let sender = external.sender();
        let mut keys = default_emacs_keybindings();
        keys.add_binding(
            KeyModifiers::NONE,
            KeyCode::Tab,
            ReedlineEvent::UntilFound(vec![
                ReedlineEvent::Menu(MENU.to_owned()),
                ReedlineEvent::MenuNext,
            ]),
        );
        let menu = Box::new(ColumnarMenu::default().with_name(MENU));
        let mut editor = Reedline::create()
            .with_external_printer(external)
            .with_break_signal(Arc::clone(&options.stop.0))
            .with_completer(Box::new(Words::new(client.clone())))
            .with_menu(ReedlineMenu::EngineCompleter(menu))
            .with_edit_mode(Box::new(Emacs::new(keys)));
        // A history that cannot be kept is no reason to do without a prompt.
        if let Some(file) = &options.history_file
            && let Ok(history) = FileBackedHistory::with_file(HISTORY_LINES, file.clone())
        {
            editor = editor.with_history(Box::new(history));
        }
        let (printer, stop) = (options.printer.clone(), options.stop.clone());
        Self::Editor(Box::new(Editor { engine: editor, sender, printer, stop }))
    }

    pub(super) fn next(&mut self) -> Line {
        match self {
            Self::Editor(editor) => editor.next(),
            Self::Plain => plain(&mut io::stdin().lock(), &mut io::stdout()),
        }
    }
}

impl Editor {
    fn next(&mut self) -> Line {
        loop {
            if self.stop.0.load(Ordering::SeqCst) {
                return Line::Stopped;
            }
            self.printer.attach(self.sender.clone());
            let read = self.engine.read_line(&MasterPrompt);
            self.printer.detach();
            return match read {
                Ok(Signal::Success(text)) => Line::Text(text),
                Ok(Signal::CtrlC) => Line::Interrupt,
                // Too easily typed to stop a cluster by.
                Ok(Signal::CtrlD) => {
                    let _ = writeln!(io::stdout(), "'exit' stops the master");
                    continue;
                }
                Ok(Signal::ExternalBreak(_)) => Line::Stopped,
                Ok(_) => continue,
                Err(_) => Line::End,
            };
        }
    }
}

/// Reads a plain line. The prompt and the line are written too, so that the output of a script
/// reads like a dialogue.
fn plain(input: &mut impl BufRead, output: &mut impl Write) -> Line {
    let _ = write!(output, "master> ");
    let _ = output.flush();
    let mut bytes = Vec::new();
    let read = input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes);
    let ended = !matches!(read, Ok(length) if length > 0);
    let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
    let _ = writeln!(output, "{text}");
    if ended { Line::End } else { Line::Text(text) }
}

struct MasterPrompt;

impl Prompt for MasterPrompt {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        "master".into()
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        "".into()
    }

    fn render_prompt_indicator(&self, _mode: PromptEditMode) -> Cow<'_, str> {
        "> ".into()
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        "      > ".into()
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        format!("(search '{}') ", search.term).into()
    }
}

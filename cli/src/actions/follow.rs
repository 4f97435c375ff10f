//! A task's output, as it comes.
//!
//! One thread reads the log and goes on where it was when the connection breaks; the command
//! itself waits for whatever comes first: a piece, Ctrl-C, an answer of the person, or a tick.

use std::fmt::Write as _;
use std::io::Write;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cloudai_api::{LogEnd, LogItem, LogLine, LogStream};

use super::{Session, explain_missing};
use crate::client::{Client, LogReader};
use crate::exit;
use crate::failure::Failure;
use crate::grammar::LogsArgs;
use crate::id::TaskRef;
use crate::output::{harmless, write_json};

/// Pieces that may wait for a slow terminal before the connection is left to wait.
const PIECES_MAX: usize = 64;

/// Waits between the tries to reach a master that went away: half a minute in all.
const RECONNECT_MS: [u64; 9] = [100, 300, 1_000, 2_000, 4_000, 5_000, 5_000, 5_000, 8_000];

/// What a follower hears.
pub(super) enum Heard {
    /// A piece of the log.
    Piece(LogLine),
    /// The log's end.
    End(LogEnd),
    /// The log cannot be read any more.
    Lost(Failure),
    /// Ctrl-C.
    Interrupt,
    /// A line that the person typed.
    Answer(String),
    /// Nothing for a while.
    Tick,
}

/// A log that is being followed.
pub(super) struct Follower {
    heard: Receiver<Heard>,
    sender: SyncSender<Heard>,
    _listening: crate::interrupt::Listening,
}

impl Follower {
    /// Begins to read the log. The first connection must succeed.
    pub(super) fn start(session: &Session, task: TaskRef, query: String) -> Result<Self, Failure> {
        let (sender, heard) = sync_channel(PIECES_MAX);
        let client = session.client.clone();
        let first = client
            .logs(&task, &query)
            .map_err(|failure| explain_missing(&client, task, failure))?;
        let reader = Reader { client, task, query, sender: sender.clone(), attempt: 0, passed: 0 };
        std::thread::spawn(move || reader.read(first));
        let raise = sender.clone();
        // A full channel loses a Ctrl-C; the person presses it again.
        let listening = session.interrupts.listen(move || drop(raise.try_send(Heard::Interrupt)));
        Ok(Self { heard, sender, _listening: listening })
    }

    /// What comes next, or a tick after `patience`.
    pub(super) fn next(&self, patience: Duration) -> Heard {
        match self.heard.recv_timeout(patience) {
            Ok(heard) => heard,
            Err(RecvTimeoutError::Timeout) => Heard::Tick,
            Err(RecvTimeoutError::Disconnected) => Heard::Lost(Failure::new("the log ended early")),
        }
    }

    /// Reads one line of the person and tells it as an answer.
    pub(super) fn ask(&self) {
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            let mut line = String::new();
            if std::io::stdin().read_line(&mut line).is_ok() {
                drop(sender.send(Heard::Answer(line)));
            }
        });
    }
}

/// The thread that reads.
struct Reader {
    client: Client,
    task: TaskRef,
    query: String,
    sender: SyncSender<Heard>,
    /// The attempt of the last piece.
    attempt: u32,
    /// How many pieces of that attempt were told.
    passed: u64,
}

impl Reader {
    fn read(mut self, first: LogReader) {
        let mut log = first;
        let mut skip = 0;
        loop {
            match log.next_item() {
                Some(LogItem::End(end)) => return drop(self.sender.send(Heard::End(end))),
                Some(LogItem::Line(line)) => {
                    if line.attempt == self.attempt && skip > 0 {
                        skip -= 1;
                        continue;
                    }
                    if line.attempt != self.attempt {
                        (self.attempt, self.passed, skip) = (line.attempt, 0, 0);
                    }
                    self.passed += 1;
                    if self.sender.send(Heard::Piece(line)).is_err() {
                        return;
                    }
                }
                None => match self.reconnect() {
                    Ok(again) => (log, skip) = (again, self.passed),
                    Err(failure) => return drop(self.sender.send(Heard::Lost(failure))),
                },
            }
        }
    }

    fn reconnect(&self) -> Result<LogReader, Failure> {
        let mut waits = RECONNECT_MS.into_iter();
        loop {
            match (self.client.logs(&self.task, &self.query), waits.next()) {
                (Ok(log), _) => return Ok(log),
                (Err(failure), None) => {
                    return Err(failure.hint(format!(
                        "{} goes on without us: 'cloudai logs -f {}' when the master is back",
                        self.task, self.task
                    )));
                }
                (Err(_), Some(ms)) => std::thread::sleep(Duration::from_millis(ms)),
            }
        }
    }
}

/// How pieces are shown.
#[derive(Default)]
pub(super) struct Printer {
    timestamps: bool,
    /// Whether the last byte of each side was no newline, so that the next piece goes on with it.
    open: [bool; 2],
}

impl Printer {
    /// Shows a piece: output to output, errors to errors, our notes as messages.
    pub(super) fn print(&mut self, session: &mut Session, line: &LogLine) -> Result<(), Failure> {
        if session.json {
            let text = serde_json::to_string(line)
                .map_err(|error| Failure::new(format!("cannot write JSON: {error}")))?;
            return session.screen.line(text);
        }
        let bytes = bytes_of(line)?;
        let (side, out) = match line.stream {
            LogStream::Note => {
                let text = String::from_utf8_lossy(&bytes);
                session.screen.message(format!("[cloudai] {}", harmless(&text)));
                return Ok(());
            }
            LogStream::Stdout => (0, &mut session.screen.out),
            LogStream::Stderr => (1, &mut session.screen.err),
        };
        if self.timestamps {
            let at = moment(line.at_ms);
            for part in bytes.split_inclusive(|byte| *byte == b'\n') {
                if !self.open[side] {
                    write!(out, "{at} ")?;
                }
                out.write_all(part)?;
                self.open[side] = !part.ends_with(b"\n");
            }
        } else {
            out.write_all(&bytes)?;
            self.open[side] = !bytes.ends_with(b"\n") && !bytes.is_empty();
        }
        Ok(out.flush()?)
    }
}

fn moment(at_ms: u64) -> String {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(at_ms).unwrap_or(i64::MAX));
    at.map_or_else(|_| at_ms.to_string(), |at| format!("{at:.3}"))
}

fn bytes_of(line: &LogLine) -> Result<Vec<u8>, Failure> {
    match (&line.text, &line.base64) {
        (Some(text), _) => Ok(text.clone().into_bytes()),
        (None, Some(text)) => STANDARD
            .decode(text)
            .map_err(|error| Failure::new(format!("cannot read a piece of the log: {error}"))),
        (None, None) => Ok(Vec::new()),
    }
}

/// `logs`.
pub(super) fn logs(session: &mut Session, args: &LogsArgs) -> Result<u8, Failure> {
    let mut query = format!("follow={}", args.follow);
    if let Some(attempt) = args.attempt {
        let _ = write!(query, "&attempt={attempt}");
    }
    match (args.stdout, args.stderr) {
        (true, _) => query.push_str("&stream=stdout"),
        (_, true) => query.push_str("&stream=stderr"),
        _ => {}
    }
    let follower = Follower::start(session, args.task, query)?;
    let mut printer = Printer { timestamps: args.timestamps, ..Printer::default() };
    loop {
        match follower.next(Duration::from_hours(1)) {
            Heard::Piece(line) => printer.print(session, &line)?,
            Heard::End(end) => {
                if session.json {
                    write_json(&mut session.screen, &end)?;
                }
                return Ok(exit::OK);
            }
            Heard::Lost(failure) => return Err(failure),
            Heard::Interrupt => return Ok(exit::INTERRUPTED),
            Heard::Answer(_) | Heard::Tick => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_text_or_base64() {
        let piece = |text: Option<&str>, base64: Option<&str>| LogLine {
            stream: LogStream::Stdout,
            attempt: 1,
            at_ms: 0,
            text: text.map(str::to_owned),
            base64: base64.map(str::to_owned),
        };
        assert_eq!(bytes_of(&piece(Some("a\n"), None)).unwrap(), b"a\n");
        assert_eq!(bytes_of(&piece(None, Some("/wA="))).unwrap(), [0xff, 0]);
        assert!(bytes_of(&piece(None, Some("?"))).is_err());
    }
}

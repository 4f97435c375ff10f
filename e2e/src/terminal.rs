//! A terminal for a process under test: a pseudo-terminal whose other side is the test. It answers
//! what a line editor asks a terminal, and leaves out what only moves the cursor.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// "Where is the cursor?" and an answer.
const ASKS_CURSOR: &[u8] = b"\x1b[6n";
const CURSOR_IS: &[u8] = b"\x1b[1;1R";

/// An open pseudo-terminal.
pub(crate) struct Terminal {
    ours: File,
    theirs: File,
}

/// Opens a terminal of 30 lines with 120 columns.
pub(crate) fn open() -> Terminal {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal can be made");
    grantpt(&ours).and_then(|()| unlockpt(&ours)).expect("a terminal can be unlocked");
    let name = ptsname(&ours, Vec::new()).expect("a terminal has a name");
    let path = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
    let theirs = File::options().read(true).write(true).open(path).expect("a terminal opens");
    let size = Winsize { ws_row: 30, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&ours, size).expect("a terminal has a size");
    Terminal { ours: File::from(ours), theirs }
}

impl Terminal {
    /// Starts a copy of `command` with this as its controlling terminal.
    pub(crate) fn start(&self, name: &str, command: &Command) -> Child {
        let side = || Stdio::from(self.theirs.try_clone().expect("a handle can be doubled"));
        let mut at_terminal = Command::new("setsid");
        at_terminal.arg("--ctty").arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => at_terminal.env(key, value),
                None => at_terminal.env_remove(key),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            at_terminal.current_dir(folder);
        }
        at_terminal.env("TERM", "xterm").stdin(side()).stdout(side()).stderr(side());
        at_terminal.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"))
    }

    /// The side that reads and the side that types.
    pub(crate) fn into_sides(self) -> (impl Read + Send, impl Write + Send + Sync) {
        let writer = self.ours.try_clone().expect("a handle can be doubled");
        (Screen { terminal: self.ours, in_escape: None }, writer)
    }
}

/// Reads what would be seen on the screen.
struct Screen {
    terminal: File,
    /// The escape sequence that has begun.
    in_escape: Option<Vec<u8>>,
}

impl Read for Screen {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.terminal.read(into)?;
            if count == 0 {
                return Ok(0);
            }
            let mut kept = 0;
            for place in 0..count {
                if self.is_seen(into[place])? {
                    into[kept] = into[place];
                    kept += 1;
                }
            }
            if kept > 0 {
                return Ok(kept);
            }
        }
    }
}

impl Screen {
    fn is_seen(&mut self, byte: u8) -> io::Result<bool> {
        let Some(mut escape) = self.in_escape.take() else {
            if byte == 0x1b {
                self.in_escape = Some(vec![byte]);
            }
            return Ok(byte != 0x1b && byte != b'\r');
        };
        escape.push(byte);
        if escape == ASKS_CURSOR {
            self.terminal.write_all(CURSOR_IS)?;
        }
        // CSI and OSC sequences go on until their last byte; all others have two.
        let goes_on = match escape[1] {
            b'[' => escape.len() == 2 || !(0x40..=0x7e).contains(&byte),
            b']' => byte != 0x07 && !escape.ends_with(b"\x1b\\"),
            _ => false,
        };
        if goes_on {
            self.in_escape = Some(escape);
        }
        Ok(false)
    }
}

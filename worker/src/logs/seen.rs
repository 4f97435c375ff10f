//! How much output there was: what is counted, and the words that tell how much of it is missing.
//! A log that is reopened counts its bytes again, and those that are missing from these words: what
//! `words` writes, `parse` must read.

use cloudai_proto::log_record::LogStream;

use super::Copied;

/// An amount of output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) stdout: u64,
    pub(super) stderr: u64,
    /// Newlines of both.
    pub(super) lines: u64,
}

const STDOUT: &str = " bytes of stdout and ";
const STDERR: &str = " bytes of stderr (";
const LINES: &str = " lines) are missing here: ";

impl Seen {
    /// A piece of one stream; our own notes are no output.
    pub(super) fn of(stream: LogStream, bytes: &[u8]) -> Self {
        let length = bytes.len() as u64;
        let lines = || memchr::memchr_iter(b'\n', bytes).count() as u64;
        match stream {
            LogStream::Stdout => Self { stdout: length, stderr: 0, lines: lines() },
            LogStream::Stderr => Self { stdout: 0, stderr: length, lines: lines() },
            LogStream::Gap => Self::default(),
        }
    }

    /// What a record of a log stands for: its bytes, or those of which it says that they are
    /// missing.
    pub(super) fn behind(stream: LogStream, bytes: &[u8]) -> Self {
        match stream {
            LogStream::Gap => {
                std::str::from_utf8(bytes).ok().and_then(Self::parse).unwrap_or_default()
            }
            _ => Self::of(stream, bytes),
        }
    }

    pub(super) fn add(&mut self, more: Self) {
        self.stdout += more.stdout;
        self.stderr += more.stderr;
        self.lines += more.lines;
    }

    /// What came after `earlier`.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            stdout: self.stdout.saturating_sub(earlier.stdout),
            stderr: self.stderr.saturating_sub(earlier.stderr),
            lines: self.lines.saturating_sub(earlier.lines),
        }
    }

    pub(super) fn is_nothing(self) -> bool {
        self == Self::default()
    }

    /// The words that mark it as missing, and why it is.
    pub(super) fn words(self, why: &str) -> String {
        let Self { stdout, stderr, lines } = self;
        format!("{stdout}{STDOUT}{stderr}{STDERR}{lines}{LINES}{why}")
    }

    fn parse(words: &str) -> Option<Self> {
        let (stdout, rest) = words.split_once(STDOUT)?;
        let (stderr, rest) = rest.split_once(STDERR)?;
        let (lines, _) = rest.split_once(LINES)?;
        Some(Self {
            stdout: stdout.parse().ok()?,
            stderr: stderr.parse().ok()?,
            lines: lines.parse().ok()?,
        })
    }
}

impl From<Seen> for Copied {
    fn from(seen: Seen) -> Self {
        Self { stdout_bytes: seen.stdout, stderr_bytes: seen.stderr }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_can_be_read_again() {
        let seen = Seen { stdout: 1, stderr: u64::MAX, lines: 3 };
        let words = seen.words("the disk refused them");
        assert_eq!(Seen::behind(LogStream::Gap, words.as_bytes()), seen);
        assert_eq!(Seen::behind(LogStream::Gap, b"1 bytes are missing"), Seen::default());
        // A task that writes our words writes output.
        let forged = Seen::behind(LogStream::Stdout, words.as_bytes());
        assert_eq!(forged.stdout, words.len() as u64);
    }
}

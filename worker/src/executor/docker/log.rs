//! The container's output: read from a connection that was attached before the start, byte for
//! byte, and read again from the engine's own record when that connection broke. It must never wait
//! for ever on an engine, and never mix the two streams. Read next: `crate::logs`.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error as BollardError;
use bollard::query_parameters::{AttachContainerOptionsBuilder, LogsOptionsBuilder};
use cloudai_model::Timestamp;
use cloudai_proto::log_record::LogStream;
use futures_util::{FutureExt, Stream, StreamExt};
use tokio_util::sync::CancellationToken;

use super::connect::Features;
use super::container::{ENGINE_LOG_FILE_BYTES, ENGINE_LOG_FILES};
use super::engine::{CREATE_DEADLINE, CallError, READ_DEADLINE, call};
use crate::clock;
use crate::logs::LogWriter;

/// How long the connection may stay silent after the container's end before it counts as broken.
const DRAIN_IDLE: Duration = Duration::from_secs(10);
/// A connection that ended so long before the container's recorded end, in milliseconds, is not
/// trusted to be whole. The engine ends a whole one after the container, by its own clock.
const EARLY_MS: u64 = 100;

/// All lines of the engine's record, and none of those that it has now.
const WHOLE: &str = "all";
const NOTHING: &str = "0";
/// The pause before the engine's record is followed again when that ended before the container.
const FOLLOW_PAUSE: Duration = Duration::from_secs(1);
/// How often it is read after the container's end, while the engine refuses.
const READ_TRIES: u32 = 3;
/// What the engine's record takes for a frame beyond the frame's bytes, at most.
const FRAME_OVERHEAD_BYTES: u64 = 128;
/// How much a byte may take in it, when its format escapes.
const ESCAPED_BYTES: u64 = 6;
/// The log driver that keeps bytes as they are.
const PLAIN_DRIVER: &str = "local";

/// Frames that are ready together are written together, up to so many bytes: a task that writes
/// byte by byte must not cost a disk write for each.
const GATHERED_BYTES_MAX: usize = 64 << 10;

/// The connection to a container's output.
pub(super) type Frames = Pin<Box<dyn Stream<Item = Result<LogOutput, BollardError>> + Send>>;

/// Attaches to a container that has not started, so that no byte can be missed.
pub(super) async fn attach(docker: &Docker, id: &str) -> Result<Frames, CallError> {
    let options =
        AttachContainerOptionsBuilder::default().stdout(true).stderr(true).stream(true).build();
    let attached = docker.attach_container(id, Some(options));
    Ok(call("attach to a container", CREATE_DEADLINE, attached).await?.output)
}

/// Takes the output of one container into its log.
#[derive(Debug)]
pub(super) struct LogCopy {
    log: LogWriter,
    /// What was read of one stream and is not yet written.
    gathered: Vec<u8>,
    gathered_of: LogStream,
    /// Bytes of stdout and of stderr that the log has been given.
    taken: [u64; 2],
    /// How many of the next bytes the log has already.
    skip: [u64; 2],
    /// How much a byte may take in the engine's record.
    stored_bytes: u64,
    /// Whether a connection may break by itself, with nobody the wiser: the engine is on another
    /// machine, whose clock is not ours either.
    is_far: bool,
    /// When the connection ended by itself.
    ended_at: Option<Timestamp>,
    /// Why the connection is known to be incomplete.
    broken: Option<String>,
}

impl LogCopy {
    pub(super) fn new(log: LogWriter, features: &Features) -> Self {
        let driver = features.log_driver;
        Self {
            log,
            is_far: !features.is_local,
            stored_bytes: if driver == PLAIN_DRIVER { 1 } else { ESCAPED_BYTES },
            gathered: Vec::new(),
            gathered_of: LogStream::Stdout,
            taken: [0; 2],
            skip: [0; 2],
            ended_at: None,
            broken: None,
        }
    }

    /// Copies until the container has ended; after `ended` the connection may not stay silent for
    /// long. One that breaks before, as when the engine is restarted, is followed by the record.
    pub(super) async fn copy(
        &mut self,
        docker: &Docker,
        id: &str,
        mut frames: Frames,
        ended: &CancellationToken,
    ) {
        self.open().await;
        self.copy_frames(&mut frames, ended).await;
        self.flush().await;
        drop(frames);
        let pause = tokio::time::sleep(FOLLOW_PAUSE);
        if ended.run_until_cancelled(pause).await.is_some() {
            let broken = self.broken.take();
            self.follow_on(docker, id, ended).await;
            // Whatever was followed, the end is compared with the record.
            self.broken = Some(broken.unwrap_or_else(|| "ended before the container did".into()));
        }
    }

    /// Waits until it is known how much the log was given by an earlier process.
    async fn open(&mut self) {
        let copied = self.log.copied().await;
        self.taken = [copied.stdout_bytes, copied.stderr_bytes];
    }

    async fn copy_frames(&mut self, frames: &mut Frames, ended: &CancellationToken) {
        // The connection was there then. One that ends while the log is written is seen late.
        let mut open_at = clock::wall();
        loop {
            let mut next = frames.next().now_or_never();
            if next.is_none() {
                open_at = clock::wall();
                self.flush().await;
                next = frames.next().now_or_never();
            }
            let next = if let Some(next) = next {
                next
            } else {
                tokio::select! {
                    next = frames.next() => {
                        open_at = clock::wall();
                        next
                    }
                    () = silence_after(ended) => {
                        let seconds = DRAIN_IDLE.as_secs();
                        let words = format!("silent for {seconds} s after the container's end");
                        self.broken = Some(words);
                        return;
                    }
                }
            };
            match next {
                None => {
                    self.ended_at = Some(open_at);
                    return;
                }
                Some(Ok(LogOutput::StdOut { message })) => {
                    open_at = clock::wall();
                    self.take(LogStream::Stdout, &message).await;
                }
                Some(Ok(LogOutput::StdErr { message })) => {
                    open_at = clock::wall();
                    self.take(LogStream::Stderr, &message).await;
                }
                // Without a terminal there is neither; a frame that was cut short looks like one.
                Some(Ok(LogOutput::Console { .. } | LogOutput::StdIn { .. })) => {
                    self.broken = Some("cut in the middle of a frame".to_owned());
                }
                Some(Err(error)) => {
                    self.broken = Some(error.to_string());
                    return;
                }
            }
        }
    }

    /// Copies what a container that runs already says, from where the log ends: the engine's record
    /// is followed from its beginning, and what the log has is passed over.
    pub(super) async fn follow(&mut self, docker: &Docker, id: &str, ended: &CancellationToken) {
        self.open().await;
        self.follow_on(docker, id, ended).await;
    }

    async fn follow_on(&mut self, docker: &Docker, id: &str, ended: &CancellationToken) {
        let mut marked_at = None;
        // What is not read before the end, `complete` reads.
        while let Some(measured) =
            ended.run_until_cancelled(measure(docker, id, self.stored_bytes)).await
        {
            match measured {
                Ok(record) if record.is_whole => self.follow_from(docker, id, WHOLE, ended).await,
                // Its beginning is gone, and with it the place where the log ends.
                Ok(_) => {
                    if marked_at.replace(self.taken) != Some(self.taken) {
                        self.mark_gap("more was said meanwhile than the engine keeps").await;
                    }
                    self.follow_from(docker, id, NOTHING, ended).await;
                }
                // Nothing can be read from the right place yet.
                Err(why) => tracing::debug!("The record of {id} cannot be read yet: {why}"),
            }
            ended.run_until_cancelled(tokio::time::sleep(FOLLOW_PAUSE)).await;
        }
    }

    /// Follows the record from the last `tail` lines on; all of it has also what the log has.
    async fn follow_from(
        &mut self,
        docker: &Docker,
        id: &str,
        tail: &str,
        ended: &CancellationToken,
    ) {
        self.skip = if tail == WHOLE { self.taken } else { [0; 2] };
        let mut frames = follow(docker, id, tail);
        self.copy_frames(&mut frames, ended).await;
        self.flush().await;
    }

    async fn mark_gap(&mut self, why: &str) {
        let note = format!("output may be missing here: {why}");
        self.log.write(LogStream::Gap, clock::wall(), note.as_bytes()).await;
    }

    async fn take(&mut self, stream: LogStream, bytes: &[u8]) {
        let skip = &mut self.skip[index(stream)];
        let skipped = bytes.len().min(usize::try_from(*skip).unwrap_or(usize::MAX));
        *skip -= skipped as u64;
        let bytes = &bytes[skipped..];
        if bytes.is_empty() {
            return;
        }
        self.taken[index(stream)] += bytes.len() as u64;
        let is_other = self.gathered_of != stream;
        if is_other || self.gathered.len() + bytes.len() > GATHERED_BYTES_MAX {
            self.flush().await;
        }
        self.gathered_of = stream;
        self.gathered.extend_from_slice(bytes);
    }

    async fn flush(&mut self) {
        if !self.gathered.is_empty() {
            self.log.write(self.gathered_of, clock::wall(), &self.gathered).await;
            self.gathered.clear();
        }
    }

    /// After the container's end at `finished_at`: when the connection was not whole, or may not
    /// have been because the engine is far or `was_away`, the rest is read from the engine's
    /// record, from the byte at which each stream stopped.
    pub(super) async fn complete(
        &mut self,
        docker: &Docker,
        id: &str,
        finished_at: Timestamp,
        was_away: bool,
    ) {
        let is_early = self.ended_at.is_some_and(|ended| finished_at.ms_since(ended) > EARLY_MS);
        let may_be_short = self.is_far || was_away || is_early;
        if self.broken.is_none() && !may_be_short {
            return;
        }
        let why = self.broken.take().unwrap_or_else(|| "ended before the container did".to_owned());
        tracing::debug!("Reading the log of {id} again: the connection {why}");
        let read = self.read_again_patiently(docker, id).await;
        self.flush().await;
        if let Err(lost) = read {
            self.mark_gap(&format!("the connection {why}; {lost}")).await;
        }
    }

    /// Ends the log; its end can be read from now on. See [`LogWriter::finish`].
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        self.log.finish().await
    }

    /// The log, when nothing more is copied.
    pub(super) fn take_log(&mut self) -> LogWriter {
        self.log.take()
    }

    /// Reads the rest; the error says why something may be missing.
    async fn read_again_patiently(&mut self, docker: &Docker, id: &str) -> Result<(), String> {
        let mut tries = 1;
        loop {
            match self.read_again(docker, id).await {
                Ok(None) => return Ok(()),
                Ok(Some(lost)) => return Err(lost.to_owned()),
                Err(error) if tries == READ_TRIES => return Err(error),
                Err(error) => tracing::debug!("The record of {id} is read again: {error}"),
            }
            tries += 1;
            tokio::time::sleep(FOLLOW_PAUSE).await;
        }
    }

    /// Gives why something is lost, if it is; the error says why the record cannot be read.
    async fn read_again(
        &mut self,
        docker: &Docker,
        id: &str,
    ) -> Result<Option<&'static str>, String> {
        let record = measure(docker, id, self.stored_bytes).await?;
        if record.bytes == self.taken {
            return Ok(None);
        }
        if !record.is_whole {
            return Ok(Some("the engine's record may have lost its beginning"));
        }
        self.skip = self.taken;
        let mut frames = read(docker, id);
        while let Some((stream, bytes)) = next_frame(&mut frames).await? {
            self.take(stream, &bytes).await;
        }
        let is_shorter = std::mem::take(&mut self.skip) != [0, 0];
        Ok(is_shorter.then_some("the engine's record is shorter than what was already read"))
    }
}

/// What the engine's record of a container's output holds.
struct Measured {
    /// Of stdout and of stderr.
    bytes: [u64; 2],
    /// Whether it surely begins at the beginning: the engine has had no reason to drop a file yet.
    is_whole: bool,
}

async fn measure(docker: &Docker, id: &str, stored_bytes: u64) -> Result<Measured, String> {
    let (mut bytes, mut stored) = ([0; 2], 0);
    let mut frames = read(docker, id);
    while let Some((stream, frame)) = next_frame(&mut frames).await? {
        let length = frame.len() as u64;
        bytes[index(stream)] += length;
        stored += length * stored_bytes + FRAME_OVERHEAD_BYTES;
    }
    // A dropped file leaves all the others but the one that is being written.
    let is_whole = stored < ENGINE_LOG_FILE_BYTES * (ENGINE_LOG_FILES - 1);
    Ok(Measured { bytes, is_whole })
}

/// The engine's record, until now.
fn read(docker: &Docker, id: &str) -> Frames {
    let options = LogsOptionsBuilder::default().stdout(true).stderr(true).build();
    Box::pin(docker.logs(id, Some(options)))
}

/// The engine's record and what comes, from the last `tail` lines on.
fn follow(docker: &Docker, id: &str, tail: &str) -> Frames {
    let options =
        LogsOptionsBuilder::default().stdout(true).stderr(true).follow(true).tail(tail).build();
    Box::pin(docker.logs(id, Some(options)))
}

async fn next_frame(frames: &mut Frames) -> Result<Option<(LogStream, bytes::Bytes)>, String> {
    loop {
        // The record has a frame for each line; a timer for each would cost more than it.
        let next = match frames.next().now_or_never() {
            Some(next) => Ok(next),
            None => tokio::time::timeout(READ_DEADLINE, frames.next()).await,
        };
        return match next {
            Err(_) => Err("the engine's record cannot be read in time".to_owned()),
            Ok(Some(Err(error))) => Err(CallError::new("read a log", &error).to_string()),
            Ok(None) => Ok(None),
            Ok(Some(Ok(LogOutput::StdOut { message }))) => Ok(Some((LogStream::Stdout, message))),
            Ok(Some(Ok(LogOutput::StdErr { message }))) => Ok(Some((LogStream::Stderr, message))),
            Ok(Some(Ok(LogOutput::Console { .. } | LogOutput::StdIn { .. }))) => continue,
        };
    }
}

fn index(stream: LogStream) -> usize {
    usize::from(stream == LogStream::Stderr)
}

async fn silence_after(ended: &CancellationToken) {
    ended.cancelled().await;
    tokio::time::sleep(DRAIN_IDLE).await;
}

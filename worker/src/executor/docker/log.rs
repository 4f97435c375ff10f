//! The container's output: read from a connection that was attached before the start, byte for
//! byte, and read again from the engine's own record when that connection broke. It must never wait
//! for ever on an engine, and never mix the two streams. Read next: `crate::logs`.

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

use super::engine::{CREATE_DEADLINE, CallError, READ_DEADLINE, call};
use crate::clock;
use crate::logs::LogWriter;

/// How long the connection may stay silent after the container's end before it counts as broken.
const DRAIN_IDLE: Duration = Duration::from_secs(10);
/// A connection that ended so long before the container's recorded end, in milliseconds, is not
/// trusted to be whole. The engine ends a whole one after the container, by its own clock.
const EARLY_MS: u64 = 100;

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
    /// When the connection ended by itself.
    ended_at: Option<Timestamp>,
    /// Why the connection is known to be incomplete.
    broken: Option<String>,
}

impl LogCopy {
    pub(super) fn new(log: LogWriter) -> Self {
        Self {
            log,
            gathered: Vec::new(),
            gathered_of: LogStream::Stdout,
            taken: [0; 2],
            ended_at: None,
            broken: None,
        }
    }

    /// Copies until the connection ends; after `ended` it may not stay silent for long.
    pub(super) async fn copy(&mut self, mut frames: Frames, ended: &CancellationToken) {
        self.copy_frames(&mut frames, ended).await;
        self.flush().await;
    }

    async fn copy_frames(&mut self, frames: &mut Frames, ended: &CancellationToken) {
        loop {
            let next = if let Some(next) = frames.next().now_or_never() {
                next
            } else {
                self.flush().await;
                tokio::select! {
                    next = frames.next() => next,
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
                    self.ended_at = Some(clock::wall());
                    return;
                }
                Some(Ok(LogOutput::StdOut { message })) => {
                    self.take(LogStream::Stdout, &message).await;
                }
                Some(Ok(LogOutput::StdErr { message })) => {
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

    async fn take(&mut self, stream: LogStream, bytes: &[u8]) {
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
    /// have been because the engine `was_away`, the rest is read from the engine's record, from
    /// the byte at which each stream stopped.
    pub(super) async fn complete(
        &mut self,
        docker: &Docker,
        id: &str,
        finished_at: Timestamp,
        was_away: bool,
    ) {
        let is_early = self.ended_at.is_some_and(|ended| finished_at.ms_since(ended) > EARLY_MS);
        if self.broken.is_none() && !is_early && !was_away {
            return;
        }
        let why = self.broken.take().unwrap_or_else(|| "ended before the container did".to_owned());
        tracing::debug!("Reading the log of {id} again: the connection {why}");
        let read = self.read_again(docker, id).await;
        self.flush().await;
        if let Err(error) = read {
            let note = format!("output may be missing here: the connection {why}; {error}");
            self.log.write(LogStream::Gap, clock::wall(), note.as_bytes()).await;
        }
    }

    /// Ends the log; its end can be read from now on.
    pub(super) async fn finish(self) {
        self.log.finish().await;
    }

    async fn read_again(&mut self, docker: &Docker, id: &str) -> Result<(), String> {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).build();
        let mut frames = std::pin::pin!(docker.logs(id, Some(options)));
        let known = self.taken;
        let mut skip = known;
        loop {
            // The record has a frame for each line; a timer for each would cost more than it.
            let next = match frames.next().now_or_never() {
                Some(next) => Ok(next),
                None => tokio::time::timeout(READ_DEADLINE, frames.next()).await,
            };
            let (stream, bytes) = match next {
                Err(_) => return Err("the engine's record cannot be read in time".to_owned()),
                Ok(Some(Err(error))) => {
                    return Err(CallError::new("read a log", &error).to_string());
                }
                Ok(None) => break,
                Ok(Some(Ok(LogOutput::StdOut { message }))) => (LogStream::Stdout, message),
                Ok(Some(Ok(LogOutput::StdErr { message }))) => (LogStream::Stderr, message),
                Ok(Some(Ok(LogOutput::Console { .. } | LogOutput::StdIn { .. }))) => continue,
            };
            let left = &mut skip[index(stream)];
            let skipped = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= skipped as u64;
            if skipped < bytes.len() {
                self.take(stream, &bytes[skipped..]).await;
            }
        }
        if skip == [0, 0] {
            return Ok(());
        }
        Err("the engine's record is shorter than what was already read".to_owned())
    }
}

fn index(stream: LogStream) -> usize {
    usize::from(stream == LogStream::Stderr)
}

async fn silence_after(ended: &CancellationToken) {
    ended.cancelled().await;
    tokio::time::sleep(DRAIN_IDLE).await;
}

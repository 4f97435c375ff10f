//! A task's log as lines of JSON, in bounded memory; followed, it waits for the log to grow and
//! for the task to move, and goes over to the next attempt when there is one.
//!
//! The order is what makes the end whole: the task is looked at first and its log read to the end
//! after that, because an attempt's end is stored only after its log is.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloudai_api::{ErrorBody, ErrorCode, LogEnd, LogItem, LogLine, LogQuery, LogStream};
use cloudai_model::{AttemptId, AttemptNo, LiveState, TaskId, TaskRecord, TaskState};
use cloudai_proto::log_record::{self, Record};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, broadcast, watch};

use super::errors::Failure;
use super::extract::{ApiPath, ApiQuery, task_id};
use super::wait::{self, Moved};
use super::{App, convert, tasks};
use crate::heart::Change;
use crate::log_reader::LogReader;

/// How long a followed log may be silent before an empty line shows that it is alive.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// Gives a task's log: lines of JSON, each a `LogItem`, the last one a `LogEnd`.
#[utoipa::path(
    get, path = "/tasks/{id}/logs", tag = "tasks", operation_id = "readTaskLog",
    params(("id" = String, Path, description = "`42`, `task-42` or `task-42.7`"), LogQuery),
    responses(
        (status = 200, body = LogItem, content_type = "application/x-ndjson"),
        (status = "default", body = ErrorBody),
    )
)]
pub(super) async fn logs(
    State(app): State<App>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(query): ApiQuery<LogQuery>,
) -> Result<Response, Failure> {
    let task = task_id(&id)?;
    let place = wait::place(&app)?;
    // Before the first look, so that no change falls between the two.
    let changes = app.heart.watch();
    let record = tasks::read_task(&app, task).await?;
    let last = tasks::last_attempt(&app, &record).await?;
    let attempt = match query.attempt {
        None => last,
        Some(no) => Some(find_attempt(task, last, no)?),
    };
    let tail = Tail {
        log: attempt.map(|attempt| AttemptLog::open(&app, attempt)),
        app,
        query,
        record,
        changes,
        damaged: false,
        _place: place,
    };
    let body = Body::from_stream(stream::unfold(Some(tail), next_item));
    let headers = [
        (header::CONTENT_TYPE, "application/x-ndjson"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, body).into_response())
}

fn find_attempt(task: TaskId, last: Option<AttemptId>, no: u32) -> Result<AttemptId, Failure> {
    let last = last.map_or(0, |attempt| attempt.no.0);
    if (1..=last).contains(&no) {
        return Ok(AttemptId { task, no: AttemptNo(no) });
    }
    let message = match last {
        0 => format!("{task} has no attempt {no}: it was not tried yet"),
        last => format!("{task} has no attempt {no}: there are 1 to {last}"),
    };
    Err(Failure::new(ErrorCode::AttemptNotFound, message).hint("leave it out for the last one"))
}

async fn next_item(tail: Option<Tail>) -> Option<(io::Result<Bytes>, Option<Tail>)> {
    let mut tail = tail?;
    Some(match tail.next().await {
        Ok(Item::Lines(lines)) => (Ok(lines.into()), Some(tail)),
        Ok(Item::End(line)) => (Ok(line.into()), None),
        // The answer is cut off, and without its last line the client sees that it is.
        Err(error) => (Err(error), None),
    })
}

/// A piece of the answer.
enum Item {
    Lines(Vec<u8>),
    End(Vec<u8>),
}

/// The log of one attempt, and its growth.
struct AttemptLog {
    attempt: AttemptId,
    reader: LogReader,
    stored: watch::Receiver<u64>,
}

impl AttemptLog {
    fn open(app: &App, attempt: AttemptId) -> Self {
        // The growth is watched from before the first read.
        let stored = app.files.watch_log(attempt);
        Self { attempt, reader: LogReader::new(app.files.log_path(attempt)), stored }
    }
}

/// One answer on its way.
struct Tail {
    app: App,
    query: LogQuery,
    /// The task as it was looked at last.
    record: TaskRecord,
    /// The attempt that is being read; `None` before the first.
    log: Option<AttemptLog>,
    changes: broadcast::Receiver<Change>,
    /// Whether the rest of this attempt's log cannot be read.
    damaged: bool,
    _place: OwnedSemaphorePermit,
}

/// What to do when everything that is stored now was given out.
enum Then {
    End,
    Read(AttemptId),
    Wait,
}

impl Tail {
    async fn next(&mut self) -> io::Result<Item> {
        loop {
            if let Some(lines) = self.read().await? {
                return Ok(Item::Lines(lines));
            }
            match self.then() {
                Then::End => return Ok(Item::End(line(&LogItem::End(self.end()))?)),
                Then::Read(attempt) => {
                    self.log = Some(AttemptLog::open(&self.app, attempt));
                    self.damaged = false;
                }
                Then::Wait => {
                    if !self.wait().await? {
                        return Ok(Item::Lines(b"\n".to_vec()));
                    }
                }
            }
        }
    }

    /// The next lines that there are now.
    async fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(log) = self.log.as_mut().filter(|_| !self.damaged) else { return Ok(None) };
        let no = log.attempt.no;
        loop {
            let records = match log.reader.next_records().await {
                Ok(None) => return Ok(None),
                Ok(Some(records)) => records,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::error!("log of {}: {error}", log.attempt);
                    self.damaged = true;
                    return note(no, &error.to_string()).map(Some);
                }
                Err(error) => return Err(error),
            };
            let mut lines = Vec::new();
            for record in records {
                let item = log_line(no, record);
                if self.query.stream.is_none_or(|wanted| wanted == item.stream)
                    || item.stream == LogStream::Note
                {
                    lines.append(&mut line(&LogItem::Line(item))?);
                }
            }
            if !lines.is_empty() {
                return Ok(Some(lines));
            }
        }
    }

    fn then(&self) -> Then {
        if !self.query.follow {
            return Then::End;
        }
        let current = self.log.as_ref().map(|log| log.attempt);
        let last = self.record.find_attempt();
        let ended = matches!(self.record.state, TaskState::Ended(_));
        if self.query.attempt.is_some() {
            let over = ended || current != last || is_waiting(&self.record);
            return if over { Then::End } else { Then::Wait };
        }
        match (current, last) {
            (None, Some(first)) => Then::Read(first),
            (Some(AttemptId { task, no }), Some(last)) if no < last.no => {
                Then::Read(AttemptId { task, no: no.next() })
            }
            _ if ended => Then::End,
            _ => Then::Wait,
        }
    }

    /// Waits for more; false when it took so long that the client needs a sign of life.
    async fn wait(&mut self) -> io::Result<bool> {
        let task: TaskId = self.record.id;
        let grown = async {
            match &mut self.log {
                Some(log) if !self.damaged => log.stored.changed().await.is_ok(),
                _ => false,
            }
        };
        let moved =
            wait::moved(&self.app, &mut self.changes, |change| tasks::concerns(task, change));
        tokio::select! {
            true = grown => return Ok(true),
            moved = moved => {
                if moved == Moved::Stopped {
                    return Err(io::Error::other("the master is stopping"));
                }
            }
            () = tokio::time::sleep(SIGN_OF_LIFE) => return Ok(false),
        }
        // What moved until now is seen by this look.
        self.changes = self.changes.resubscribe();
        self.record = tasks::read_task(&self.app, task)
            .await
            .map_err(|failure| io::Error::other(failure.body().error.message.clone()))?;
        Ok(true)
    }

    fn end(&self) -> LogEnd {
        LogEnd {
            end: true,
            status: convert::task_status(self.record.status()),
            outcome: convert::task_outcome(&self.record),
        }
    }
}

/// Whether the task waits for another try.
fn is_waiting(record: &TaskRecord) -> bool {
    matches!(&record.state, TaskState::Live(live) if matches!(live.state, LiveState::Queued(_)))
}

fn log_line(attempt: AttemptNo, record: Record) -> LogLine {
    let (text, base64) = match String::from_utf8(record.bytes) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(STANDARD.encode(error.as_bytes()))),
    };
    LogLine {
        stream: match record.stream {
            log_record::LogStream::Stdout => LogStream::Stdout,
            log_record::LogStream::Stderr => LogStream::Stderr,
            log_record::LogStream::Gap => LogStream::Note,
        },
        attempt: attempt.0,
        at_ms: record.at.unix_ms(),
        text,
        base64,
    }
}

fn note(attempt: AttemptNo, words: &str) -> io::Result<Vec<u8>> {
    line(&LogItem::Line(LogLine {
        stream: LogStream::Note,
        attempt: attempt.0,
        at_ms: crate::clock::wall().unix_ms(),
        text: Some(format!("{words}; the rest cannot be shown\n")),
        base64: None,
    }))
}

fn line(item: &LogItem) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(item)?;
    line.push(b'\n');
    Ok(line)
}

//! Commands that only look.

use std::fs::File;
use std::io::{self, Write};
use std::time::Duration;

use cloudai_api::{ErrorCode, TaskQuery};

use super::{DONE, Session, explain_missing, now_ms};
use crate::exit;
use crate::failure::Failure;
use crate::grammar::{FilesArgs, TasksArgs};
use crate::id::TaskRef;
use crate::output::{
    show_explanation, show_files, show_job, show_queue, show_status, show_task, show_tasks,
    show_worker, show_workers, write_json,
};

const WATCH_EVERY: Duration = Duration::from_secs(1);

pub(super) fn tasks(session: &mut Session, args: &TasksArgs) -> Result<u8, Failure> {
    let query = TaskQuery {
        status: args.status,
        job: args.job.map(|job| job.to_string()),
        worker: args.worker.clone(),
        name: args.name.clone(),
        user: args.user.clone(),
        limit: Some(args.limit),
        cursor: args.cursor.clone(),
    };
    let page = session.client.tasks(&query)?;
    if session.json {
        write_json(&mut session.screen, &page)?;
        return DONE;
    }
    session.screen.line(show_tasks(&page, now_ms()))?;
    if let Some(cursor) = &page.next_cursor {
        session.screen.message(format!("There are more: add --cursor {cursor}"));
    }
    DONE
}

pub(super) fn task(session: &mut Session, task: TaskRef) -> Result<u8, Failure> {
    let detail = match session.client.task(&task, None) {
        Ok(detail) => detail,
        Err(failure) => return array(session, task, failure),
    };
    if session.json {
        write_json(&mut session.screen, &detail)?;
    } else {
        session.screen.line(show_task(&detail, now_ms()))?;
    }
    DONE
}

/// A number alone may name an array, which has no task of that name: its job is shown.
fn array(session: &mut Session, task: TaskRef, failure: Failure) -> Result<u8, Failure> {
    let missing = failure.code == Some(ErrorCode::TaskNotFound);
    let Some(job) = task.find_job().filter(|_| missing) else {
        return Err(failure);
    };
    let Ok(view) = session.client.job(job, None) else {
        return Err(failure);
    };
    if session.json {
        write_json(&mut session.screen, &view)?;
    } else {
        session.screen.line(show_job(&view, now_ms()))?;
        session.screen.message(format!("'tasks --job {job}' lists its tasks"));
    }
    DONE
}

pub(super) fn explain(session: &mut Session, task: TaskRef) -> Result<u8, Failure> {
    let explanation = session
        .client
        .explain(&task)
        .map_err(|failure| explain_missing(&session.client, task, failure))?;
    if session.json {
        write_json(&mut session.screen, &explanation)?;
    } else {
        session.screen.line(show_explanation(&explanation))?;
    }
    DONE
}

pub(super) fn workers(session: &mut Session, worker: Option<&str>) -> Result<u8, Failure> {
    let Some(id) = worker else {
        let list = session.client.workers()?;
        if session.json {
            write_json(&mut session.screen, &list)?;
        } else {
            session.screen.line(show_workers(&list))?;
        }
        return DONE;
    };
    let view = session.client.worker(id)?;
    if session.json {
        write_json(&mut session.screen, &view)?;
    } else {
        session.screen.line(show_worker(&view))?;
    }
    DONE
}

pub(super) fn queue(session: &mut Session) -> Result<u8, Failure> {
    let queue = session.client.queue()?;
    if session.json {
        write_json(&mut session.screen, &queue)?;
    } else {
        session.screen.line(show_queue(&queue))?;
    }
    DONE
}

pub(super) fn status(session: &mut Session, watch: bool) -> Result<u8, Failure> {
    loop {
        let status = session.client.status()?;
        if watch && session.screen.progress && !session.json {
            // Home and clear, so that the screen stands still between two pictures.
            write!(session.screen.out, "\x1b[H\x1b[2J")?;
        }
        if session.json {
            write_json(&mut session.screen, &status)?;
        } else {
            session.screen.line(show_status(&status))?;
        }
        if !watch || session.interrupts.raised_within(WATCH_EVERY) {
            return DONE;
        }
        if !session.json {
            session.screen.line("")?;
        }
    }
}

pub(super) fn files(session: &mut Session, args: &FilesArgs) -> Result<u8, Failure> {
    let task = args.task;
    let missing = |session: &Session, failure| explain_missing(&session.client, task, failure);
    let Some(path) = &args.path else {
        let list = session.client.files(&task).map_err(|failure| missing(session, failure))?;
        if session.json {
            write_json(&mut session.screen, &list)?;
        } else {
            session.screen.line(show_files(&list))?;
        }
        return DONE;
    };
    let mut body = session.client.file(&task, path).map_err(|failure| match failure.code {
        Some(ErrorCode::FileNotFound) => failure.hint(format!("'files {task}' lists them")),
        _ => missing(session, failure),
    })?;
    let copied = match &args.output {
        None => {
            let copied = io::copy(&mut body, &mut session.screen.out);
            session.screen.out.flush()?;
            copied
        }
        Some(output) => File::create(output).and_then(|mut file| {
            let bytes = io::copy(&mut body, &mut file)?;
            file.sync_all()?;
            Ok(bytes)
        }),
    };
    match copied {
        Ok(_) => Ok(exit::OK),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(error.into()),
        Err(error) => {
            let to = args
                .output
                .as_ref()
                .map_or_else(String::new, |output| format!(" to {}", output.display()));
            Err(Failure::new(format!("cannot copy {path} of {task}{to}: {error}"))
                .hint("what was written is not the whole file"))
        }
    }
}

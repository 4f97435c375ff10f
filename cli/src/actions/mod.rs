//! What each command does. One file a subject; every one speaks to a master through the client
//! and to a person through the screen, and knows neither a socket nor a terminal.

mod config;
mod doctor;
mod follow;
mod look;
mod run;
mod shell;
mod wait;

use std::time::{SystemTime, UNIX_EPOCH};

use cloudai_api::ErrorCode;

pub use config::show_config;
pub use doctor::{DoctorPorts, doctor};
pub(crate) use run::send;
pub use shell::{write_completions, write_manual};

use crate::client::{Client, worker_not_found};
use crate::exit;
use crate::failure::Failure;
use crate::grammar::{ClientCommand, TaskCommand};
use crate::id::TaskRef;
use crate::interrupt::Interrupts;
use crate::output::Screen;

/// What every command works with.
pub struct Session {
    /// The way to the master.
    pub client: Client,
    /// Where output goes.
    pub screen: Screen,
    /// Whether data is shown as JSON.
    pub json: bool,
    /// Who submits when no flag says so.
    pub user: Option<String>,
    /// Ctrl-C.
    pub interrupts: Interrupts,
}

/// Does what a client said; the answer is the exit code.
pub fn run_client(session: &mut Session, command: &ClientCommand) -> Result<u8, Failure> {
    match command {
        ClientCommand::Run { detach, submit } => run::run(session, submit, *detach),
        ClientCommand::Submit(submit) => run::submit(session, submit),
        ClientCommand::Tasks(args) => look::tasks(session, args),
        ClientCommand::Logs(args) => follow::logs(session, args),
        ClientCommand::Cancel(args) => run::cancel(session, &args.tasks),
        ClientCommand::Wait(args) => wait::wait(session, args),
        ClientCommand::Explain(args) => look::explain(session, args.task),
        ClientCommand::Files(args) => look::files(session, args),
        ClientCommand::Workers(args) => look::workers(session, args.worker.as_deref()),
        ClientCommand::Queue => look::queue(session),
        ClientCommand::Status(args) => look::status(session, args.watch),
    }
}

/// Does what was said of one task.
pub fn run_task(session: &mut Session, command: &TaskCommand) -> Result<u8, Failure> {
    match command {
        TaskCommand::Show { task } => look::task(session, *task),
    }
}

/// The present in Unix milliseconds, for ages on the screen.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A clearer error when a number alone names an array.
fn explain_missing(client: &Client, task: TaskRef, failure: Failure) -> Failure {
    let missing = failure.code == Some(ErrorCode::TaskNotFound);
    let Some(job) = task.find_job().filter(|_| missing) else {
        return failure;
    };
    match client.job(job, None) {
        Ok(view) if view.array.is_some() => {
            Failure::new(format!("job {job} is an array: name one of its tasks"))
                .hint(format!("for example {}; 'tasks --job {job}' lists them", view.first_task))
        }
        _ => failure,
    }
}

/// The one sentence for a submit whose worker nobody knows.
fn explain_refused(worker: Option<&str>, failure: Failure) -> Failure {
    match (failure.code, worker) {
        (Some(ErrorCode::WorkerNotFound), Some(worker)) => worker_not_found(worker),
        _ => failure,
    }
}

const DONE: Result<u8, Failure> = Ok(exit::OK);

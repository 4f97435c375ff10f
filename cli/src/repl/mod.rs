//! The prompt `master>`: the grammar of the shell, and the specification's own words.
//!
//! [`run_repl`] owns the thread that it is called on until it returns. It never stops a master: it
//! says how it ended, and the binary decides. Only [`ReplEnd::Exit`] is a wish to stop; the end of
//! a script is none.
//!
//! On a terminal lines are edited with history and completion, and [`ReplStop::stop`] ends a
//! waiting prompt and gives the terminal back, so call it before the process ends. Without a
//! terminal lines come from standard input as they are; a read that waits there cannot be
//! interrupted, and needs not be: the thread holds nothing and may be left behind.
//!
//! Read next: `words.rs` (how a line is understood), `line.rs` (where lines come from).

mod complete;
mod help;
mod line;
mod printer;
mod words;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use printer::Printer;

use crate::actions::{Session, run_client, run_task};
use crate::backend::Backend;
use crate::client::Client;
use crate::exit;
use crate::failure::Failure;
use crate::grammar::{ClientCommand, LogsArgs, ReplCommand, TasksArgs};
use crate::interrupt::Interrupts;
use crate::output::{Screen, show_queue, write_json};
use line::{Input, Line};
use words::{Said, Target};

const BANNER: &str = "CloudAI Master Node - Interactive CLI\nType 'help' for available commands";
const GOODBYE: &str = "Shutting down master...";

/// How soon a second Ctrl-C must come to mean the end.
const AGAIN_WITHIN: Duration = Duration::from_secs(5);

/// What a prompt needs from its process.
pub struct ReplOptions {
    /// Where lines typed at a terminal are remembered.
    pub history_file: Option<PathBuf>,
    /// Who submits when no flag says so.
    pub user: Option<String>,
    /// The way in for lines that others print while a person types.
    pub printer: Printer,
    /// Ends a waiting prompt.
    pub stop: ReplStop,
    /// Ctrl-C while a command waits.
    pub interrupts: Interrupts,
}

/// How a prompt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplEnd {
    /// The person wants the master to stop.
    Exit,
    /// Standard input ended; the master goes on.
    EndOfInput,
    /// [`ReplStop::stop`] was called.
    Stopped,
}

/// Ends a waiting prompt from another thread. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct ReplStop(Arc<AtomicBool>);

impl ReplStop {
    /// Ends the prompt: at a terminal within a tenth of a second.
    pub fn stop(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Shows the prompt and obeys until it ends.
pub fn run_repl(backend: Arc<dyn Backend>, options: ReplOptions) -> ReplEnd {
    let client = Client::new(backend);
    let mut input = Input::open(&options, &client);
    let mut session = Session {
        client,
        screen: Screen::dialogue(),
        json: false,
        user: options.user,
        interrupts: options.interrupts,
    };
    converse(&mut session, &mut || input.next())
}

/// The dialogue: a line, its answer, the next line.
fn converse(session: &mut Session, next: &mut dyn FnMut() -> Line) -> ReplEnd {
    if session.screen.line(BANNER).is_err() {
        return ReplEnd::EndOfInput;
    }
    let mut warned = None;
    loop {
        let line = next();
        let again = is_again(warned, Instant::now());
        warned = matches!(line, Line::Interrupt).then(Instant::now);
        match line {
            Line::Text(text) => match obey(session, &text) {
                Ok(true) => {}
                Ok(false) => return goodbye(session),
                Err(failure) => session.screen.failure(&failure),
            },
            Line::Interrupt if again => return goodbye(session),
            Line::Interrupt => session.screen.message("Ctrl-C again, or 'exit', stops the master"),
            Line::End => return ReplEnd::EndOfInput,
            Line::Stopped => {
                // A log line of the same words may still wait for the prompt that just ended.
                session.screen.message(GOODBYE);
                return ReplEnd::Stopped;
            }
        }
    }
}

/// Whether a Ctrl-C now is the second of two. One that comes much later only clears a line, as
/// everywhere else: a cluster must not stop by it.
fn is_again(warned: Option<Instant>, now: Instant) -> bool {
    warned.is_some_and(|at| now.saturating_duration_since(at) <= AGAIN_WITHIN)
}

fn goodbye(session: &mut Session) -> ReplEnd {
    session.screen.message(GOODBYE);
    ReplEnd::Exit
}

/// Does what a line says; `false` is the wish to stop.
fn obey(session: &mut Session, line: &str) -> Result<bool, Failure> {
    match words::understand(line)? {
        Said::Nothing => {}
        Said::Unknown(word) => {
            session.screen.message(format!("Unknown command: {word}"));
            session.screen.message("Type 'help' for available commands");
        }
        Said::Misused(text) => session.screen.message(text.trim_end()),
        Said::Target(target) => assign(session, &target)?,
        Said::Command(line) => {
            session.json = line.json;
            let ended = command(session, &line.command);
            session.json = false;
            return ended;
        }
    }
    Ok(true)
}

fn command(session: &mut Session, command: &ReplCommand) -> Result<bool, Failure> {
    match command {
        ReplCommand::Client(client) => {
            run_client(session, client)?;
        }
        ReplCommand::Task(args) => {
            run_task(session, &args.command)?;
        }
        ReplCommand::Dispatch => dispatch(session)?,
        ReplCommand::Monitor { task } => {
            let logs = LogsArgs {
                task: *task,
                follow: true,
                attempt: None,
                stdout: false,
                stderr: false,
                timestamps: false,
            };
            let code = run_client(session, &ClientCommand::Logs(logs))?;
            if code == exit::OK {
                let status = session.client.task(task, None)?.summary.status;
                session.screen.message(format!("{task} {status}"));
            }
        }
        ReplCommand::ListTasks { status } => {
            let tasks = TasksArgs { status: *status, limit: 50, ..TasksArgs::default() };
            run_client(session, &ClientCommand::Tasks(tasks))?;
        }
        ReplCommand::Stats { worker } => {
            let workers = crate::grammar::WorkersArgs { worker: Some(worker.clone()) };
            run_client(session, &ClientCommand::Workers(workers))?;
        }
        ReplCommand::Help { command } => {
            session.screen.line(help::text(command.as_deref()))?;
        }
        ReplCommand::Exit => return Ok(false),
    }
    Ok(true)
}

/// `dispatch`: every change asks for a plan at once, so there is nothing to start by hand; what is
/// worth seeing is what the plan left over.
fn dispatch(session: &mut Session) -> Result<(), Failure> {
    let queue = session.client.queue()?;
    if session.json {
        return write_json(&mut session.screen, &queue);
    }
    if queue.waiting == 0 {
        return session.screen.line("Nothing waits: every task that fits is placed at once");
    }
    session.screen.line("Every task that fits is placed at once. What is left waits:")?;
    session.screen.line(show_queue(&queue))
}

/// The specification's `task`: to a named worker, or to whichever the scheduler chooses.
fn assign(session: &mut Session, target: &Target) -> Result<(), Failure> {
    let submit = &target.submit;
    if let Some(worker) = &submit.worker {
        // Asked first, so that nothing is announced for a worker that nobody knows.
        session.client.worker(worker)?;
        session.screen.line(format!("Assigning task to worker {worker}..."))?;
    } else {
        session.screen.line("Submitting task; the scheduler chooses its worker...")?;
    }
    session.screen.line(format!("Docker Image: {}", submit.image()))?;
    let answer = crate::actions::send(session, submit)?;
    let task = &answer.first_task;
    match &submit.worker {
        Some(_) => session.screen.line(format!("Task {task} assigned successfully!"))?,
        None => session.screen.line(format!("Task {task} queued successfully!"))?,
    }
    session.screen.line(format!("'monitor {task}' follows it"))
}

#[cfg(test)]
mod tests;

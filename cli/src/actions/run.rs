//! Submitting, running and cancelling.

use std::time::{Duration, Instant};

use cloudai_api::{
    AttemptState, CancelResponse, ErrorCode, LogEnd, OutcomeView, SubmitResponse, TaskDetail,
    TaskStatus,
};
use indicatif::{ProgressBar, ProgressDrawTarget};

use super::follow::{Follower, Heard, Printer};
use super::{DONE, Session, explain_refused, wait};
use crate::exit;
use crate::failure::Failure;
use crate::grammar::SubmitArgs;
use crate::id::TaskRef;
use crate::output::{harmless, write_json};

/// How often the state is looked at while nothing was written yet.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long a task may wait before its reason is told.
const EXPLAIN_AFTER: Duration = Duration::from_secs(2);

/// `submit`.
pub(super) fn submit(session: &mut Session, args: &SubmitArgs) -> Result<u8, Failure> {
    let answer = send(session, args)?;
    if session.json {
        write_json(&mut session.screen, &answer)?;
    } else if args.array.is_some() {
        session.screen.line(format!("job-{}", answer.job))?;
        session.screen.message(format!("{} tasks, from {}", answer.tasks, answer.first_task));
    } else {
        session.screen.line(&answer.first_task)?;
    }
    DONE
}

/// Sends a submit; the answer means that nothing can lose it.
pub(crate) fn send(session: &Session, args: &SubmitArgs) -> Result<SubmitResponse, Failure> {
    let request = args.to_request(session.user.as_deref())?;
    session
        .client
        .submit(&request)
        .map_err(|failure| explain_refused(args.worker.as_deref(), failure))
}

/// `run`.
pub(super) fn run(session: &mut Session, args: &SubmitArgs, detach: bool) -> Result<u8, Failure> {
    if detach {
        return submit(session, args);
    }
    let answer = send(session, args)?;
    session.screen.message(format!("{} submitted", described(&answer)));
    let task: TaskRef = answer.first_task.parse().map_err(Failure::new)?;
    match (args.array, task.find_job()) {
        (None, _) | (_, Some(_)) => Watch::new(session, task).follow(session),
        (Some(_), None) => {
            let job = answer.job.parse().map_err(Failure::new)?;
            wait::wait_for_job(session, job)
        }
    }
}

fn described(answer: &SubmitResponse) -> String {
    if answer.tasks == 1 {
        answer.first_task.clone()
    } else {
        format!("job {} with {} tasks", answer.job, answer.tasks)
    }
}

/// A task that is run in the foreground.
struct Watch {
    task: TaskRef,
    spinner: ProgressBar,
    since: Instant,
    /// Whether anything was written yet; from then on the output speaks for itself.
    written: bool,
    explained: bool,
    /// How many lost attempts were told.
    losses_told: usize,
    wish: Wish,
}

/// What the person at Ctrl-C wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// Nothing but to watch.
    Watch,
    /// Was asked, has not answered.
    Asked,
    /// Wants it cancelled.
    Cancel,
}

impl Watch {
    fn new(session: &Session, task: TaskRef) -> Self {
        let spinner = ProgressBar::new_spinner();
        if !session.screen.progress {
            spinner.set_draw_target(ProgressDrawTarget::hidden());
        }
        spinner.enable_steady_tick(Duration::from_millis(100));
        Self {
            task,
            spinner,
            since: Instant::now(),
            written: false,
            explained: false,
            losses_told: 0,
            wish: Wish::Watch,
        }
    }

    fn follow(mut self, session: &mut Session) -> Result<u8, Failure> {
        let follower = Follower::start(session, self.task, "follow=true".to_owned())?;
        let mut printer = Printer::default();
        loop {
            match follower.next(LOOK_EVERY) {
                Heard::Piece(line) => {
                    self.stop_spinner();
                    printer.print(session, &line)?;
                }
                Heard::End(end) => {
                    self.stop_spinner();
                    return self.finish(session, &end);
                }
                Heard::Lost(failure) => return Err(failure),
                Heard::Tick => self.look(session),
                Heard::Interrupt => {
                    if let Some(code) = self.interrupted(session, &follower) {
                        return Ok(code);
                    }
                }
                Heard::Answer(answer) => {
                    if let Some(code) = self.answered(session, &answer) {
                        return code;
                    }
                }
            }
        }
    }

    fn stop_spinner(&mut self) {
        if !self.written {
            self.spinner.finish_and_clear();
            self.written = true;
        }
    }

    /// Says what the task waits for, while it has not written anything.
    fn look(&mut self, session: &mut Session) {
        if self.written || self.wish != Wish::Watch {
            return;
        }
        let Ok(detail) = session.client.task(&self.task, None) else {
            return;
        };
        let note = detail.notes.last().map(|note| harmless(&note.text)).unwrap_or_default();
        let status = detail.summary.status;
        self.spinner.set_message(format!("{}: {status} {note}", self.task));
        self.tell_losses(session, &detail);
        let late = self.since.elapsed() >= EXPLAIN_AFTER && status == TaskStatus::Queued;
        if late
            && !self.explained
            && let Ok(why) = session.client.explain(&self.task)
        {
            self.explained = true;
            let text = format!("{} waits: {}", self.task, harmless(&why.summary));
            self.spinner.suspend(|| session.screen.message(text));
        }
    }

    /// Says once of each attempt that was lost why the task is tried again.
    fn tell_losses(&mut self, session: &mut Session, detail: &TaskDetail) {
        let lost = detail.attempts.iter().filter(|attempt| attempt.state == AttemptState::Lost);
        for attempt in lost.skip(self.losses_told) {
            let why = attempt.outcome.as_ref().map(|outcome| harmless(&outcome.message));
            let text = format!(
                "attempt {} of {} on {} was lost: {}; it is tried again",
                attempt.attempt,
                self.task,
                attempt.worker,
                why.filter(|why| !why.is_empty()).unwrap_or_else(|| "its worker is gone".into()),
            );
            self.losses_told += 1;
            self.spinner.suspend(|| session.screen.message(text));
        }
    }

    /// The first Ctrl-C asks, where there is somebody to ask; the second leaves the task alone.
    fn interrupted(&mut self, session: &mut Session, follower: &Follower) -> Option<u8> {
        self.stop_spinner();
        if session.screen.ask && self.wish == Wish::Watch {
            self.wish = Wish::Asked;
            session.screen.message(format!(
                "\nLeave {} running, or cancel it? [l = leave, also Ctrl-C; c = cancel; \
                 anything else = go on watching]",
                self.task
            ));
            follower.ask();
            return None;
        }
        Some(self.leave(session))
    }

    fn leave(&self, session: &mut Session) -> u8 {
        session.screen.message(format!(
            "{} goes on: 'logs -f {}' shows it, 'cancel {}' stops it",
            self.task, self.task, self.task
        ));
        exit::INTERRUPTED
    }

    fn answered(&mut self, session: &mut Session, answer: &str) -> Option<Result<u8, Failure>> {
        self.wish = Wish::Watch;
        match answer.trim().to_ascii_lowercase().as_str() {
            "l" | "leave" => Some(Ok(self.leave(session))),
            "c" | "cancel" => match session.client.cancel_task(&self.task) {
                Ok(_) => {
                    self.wish = Wish::Cancel;
                    session.screen.message(format!("Cancelling {}...", self.task));
                    None
                }
                Err(failure) => Some(Err(failure)),
            },
            _ => None,
        }
    }

    fn finish(&self, session: &mut Session, end: &LogEnd) -> Result<u8, Failure> {
        if session.json {
            write_json(&mut session.screen, end)?;
        }
        let outcome = match &end.outcome {
            Some(outcome) => Some(outcome.clone()),
            None => session.client.task(&self.task, None)?.summary.outcome,
        };
        let Some(outcome) = outcome else {
            return Err(Failure::new(format!("{} has no end yet, but its log has", self.task))
                .hint(format!("'cloudai wait {}' waits for it", self.task)));
        };
        tell_outcome(session, &self.task.to_string(), &outcome);
        Ok(if self.wish == Wish::Cancel { exit::INTERRUPTED } else { exit::of_outcome(&outcome) })
    }
}

/// One line on an end that is no success. A process that failed by itself has spoken already, and
/// its code is the answer.
fn tell_outcome(session: &mut Session, task: &str, outcome: &OutcomeView) {
    use cloudai_api::Cause;
    let message = harmless(&outcome.message);
    let text = match (outcome.cause, outcome.exit_code) {
        (Cause::Exit, Some(0)) => return,
        (Cause::Exit, code) => {
            format!("{task} failed: exit code {}", code.map_or("?".to_owned(), |c| c.to_string()))
        }
        (Cause::Oom, _) => {
            format!("{task} used more memory than it asked for and was killed; give more with -m")
        }
        (Cause::Timeout, _) => format!("{task} ran longer than its --timeout and was stopped"),
        (Cause::Image, _) => format!("{task} failed: its image could not be had: {message}"),
        (Cause::WorkerLost, _) => format!("{task} failed: its workers were lost: {message}"),
        (Cause::Infra, _) => format!("{task} failed: the worker's engine failed: {message}"),
        (Cause::Cancelled, _) => format!("{task} was cancelled"),
    };
    session.screen.message(text);
}

/// A number alone is a task, or a whole array.
fn cancel_one(session: &Session, task: &TaskRef) -> Result<CancelResponse, Failure> {
    match (session.client.cancel_task(task), task.find_job()) {
        (Err(failure), Some(job)) if failure.code == Some(ErrorCode::TaskNotFound) => {
            session.client.cancel_job(job)
        }
        (answer, _) => answer,
    }
}

/// `cancel`.
pub(super) fn cancel(session: &mut Session, tasks: &[TaskRef]) -> Result<u8, Failure> {
    for task in tasks {
        let answer = cancel_one(session, task)?;
        if session.json {
            write_json(&mut session.screen, &answer)?;
            continue;
        }
        let mut parts = Vec::new();
        for (count, what) in [
            (answer.cancelled, "cancelled"),
            (answer.stopping, "being stopped"),
            (answer.already_ended, "had ended already"),
        ] {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        }
        session.screen.line(format!("{}: {}", answer.id, parts.join(", ")))?;
    }
    DONE
}

//! Clients: they submit, send again what was not answered, and cancel. They believe an answer and
//! nothing else.

use std::sync::Arc;

use cloudai_master_core::{Answer, CancelTarget, Command, Submission};
use cloudai_model::{JobId, JobShape, RequestId, TaskId};

use crate::master::{Asker, Message};
use crate::world::{Happening, World};

/// How long a client waits for an answer, in milliseconds.
const ANSWER_MS_MAX: u64 = 5_000;
/// Pause before a call that failed is made again, in milliseconds.
const PAUSE_MS: u64 = 1_000;
/// Pause before a submit that was refused is made again, in milliseconds.
const REFUSED_PAUSE_MS: u64 = 5_000;

/// A call of a client, sent once or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CallId(pub(crate) usize);

/// What a call asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// The job of this plan.
    Submit(usize),
    Cancel(CancelTarget),
}

#[derive(Debug)]
struct Call {
    ask: Ask,
    is_answered: bool,
    /// When it is made again.
    again_at_ms: Option<u64>,
}

/// All clients.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    calls: Vec<Call>,
}

impl Clients {
    pub(crate) fn ask(&self, call: CallId) -> Ask {
        self.calls[call.0].ask
    }

    /// Whether nobody waits for an answer.
    pub(crate) fn are_content(&self) -> bool {
        self.calls.iter().all(|call| call.is_answered)
    }
}

impl World {
    /// Makes a call for the first time.
    pub(crate) fn call(&mut self, ask: Ask) {
        let call = CallId(self.clients.calls.len());
        self.clients.calls.push(Call { ask, is_answered: false, again_at_ms: None });
        self.send_call(call);
    }

    /// Whether a second call of the same is no second wish.
    fn may_repeat(&self, ask: Ask) -> bool {
        match ask {
            Ask::Submit(plan) => self.scenario.jobs[plan].has_request,
            Ask::Cancel(_) => true,
        }
    }

    /// Plans the next try, unless one is planned already.
    fn call_again(&mut self, call: CallId, ms: u64) {
        let now_ms = self.queue.now_ms();
        let planned = &mut self.clients.calls[call.0].again_at_ms;
        if planned.is_none_or(|at_ms| at_ms <= now_ms) {
            *planned = Some(now_ms + ms);
            self.queue.after(ms, Happening::CallAgain { call });
        }
    }

    pub(crate) fn send_call(&mut self, call: CallId) {
        let ask = self.clients.ask(call);
        if self.clients.calls[call.0].is_answered {
            return;
        }
        let repeats = self.may_repeat(ask);
        let copies = self.draw_copies();
        for _ in 0..copies.min(if repeats { 2 } else { 1 }) {
            let delay_ms = self.draw_delay_ms();
            self.queue.after(delay_ms, Happening::CallArrives { call });
        }
        if repeats {
            self.call_again(call, ANSWER_MS_MAX);
        } else {
            self.queue.after(2 * ANSWER_MS_MAX, Happening::CallGivenUp { call });
        }
    }

    /// A submit without a name is made once; its client never knows.
    pub(crate) fn on_call_given_up(&mut self, call: CallId) {
        self.clients.calls[call.0].is_answered = true;
    }

    pub(crate) fn on_call_arrives(&mut self, call: CallId) {
        if self.master.process.is_none() {
            self.send_answer(call, None);
            return;
        }
        let command = match self.clients.ask(call) {
            Ask::Cancel(target) => {
                self.oracle.reference.cancel_wanted(target);
                Command::Cancel(target)
            }
            Ask::Submit(plan) => {
                let job = &self.scenario.jobs[plan];
                let name = format!("request-{plan}");
                let request =
                    job.has_request.then(|| RequestId::new(&name).expect("printable and short"));
                Command::Submit(Submission {
                    spec: Arc::clone(&job.spec),
                    shape: job.shape,
                    request,
                    known: None,
                })
            }
        };
        self.put_in(Message { command, from: Asker::Client(call) });
    }

    /// The turn of the call was not stored, as far as the master knows.
    pub(crate) fn fail_call(&mut self, call: CallId) {
        self.send_answer(call, None);
    }

    pub(crate) fn send_answer(&mut self, call: CallId, answer: Option<Answer>) {
        if self.draw_copies() > 0 {
            let delay_ms = self.draw_delay_ms();
            self.queue.after(delay_ms, Happening::AnswerArrives { call, answer });
        }
    }

    pub(crate) fn on_answer_arrives(&mut self, call: CallId, answer: Option<Answer>) {
        let ask = self.clients.ask(call);
        if self.clients.calls[call.0].is_answered {
            return;
        }
        match (ask, answer) {
            (_, None) => {
                if self.may_repeat(ask) {
                    self.call_again(call, PAUSE_MS);
                } else {
                    self.clients.calls[call.0].is_answered = true;
                }
            }
            // Nothing was stored, and it says so.
            (Ask::Submit(_), Some(Answer::Rejected(why))) => {
                self.say(format_args!("client: call {} was refused: {why}", call.0));
                self.call_again(call, REFUSED_PAUSE_MS);
            }
            (Ask::Submit(plan), Some(Answer::Submitted { job, shape, .. })) => {
                self.clients.calls[call.0].is_answered = true;
                self.say(format_args!("client: call {} made {job}", call.0));
                self.plan_cancel(plan, job, shape);
            }
            (Ask::Cancel(_), Some(answer)) => {
                self.clients.calls[call.0].is_answered = true;
                self.say(format_args!("client: call {}: {answer:?}", call.0));
            }
            (Ask::Submit(_), Some(_)) => {}
        }
    }

    fn plan_cancel(&mut self, plan: usize, job: JobId, shape: JobShape) {
        let Some(cancel) = self.scenario.jobs[plan].cancel else { return };
        let target = match cancel.position {
            Some(position) => CancelTarget::Task(shape.task_id(job, position)),
            None => CancelTarget::Job(job),
        };
        self.queue.after(cancel.after_ms, Happening::Cancels { target });
    }

    /// What could never run is taken back, so that the rest can be demanded.
    pub(crate) fn cancel_what_never_fits(&mut self) {
        let Some(process) = self.master.process.as_ref() else { return };
        let fits = |job: &cloudai_model::JobRecord| {
            self.workers.iter().any(|worker| {
                let is_target = job.spec.target.as_ref().is_none_or(|id| *id == worker.plan.id);
                is_target && job.spec.needs.find_lack(worker.plan.capacity).is_none()
            })
        };
        let snapshot = process.core.facts().snapshot();
        let never: Vec<JobId> =
            snapshot.jobs.values().filter(|job| !fits(job)).map(|job| job.id).collect();
        for job in never {
            self.call(Ask::Cancel(CancelTarget::Job(job)));
        }
    }
}

/// The tasks that a cancel is about, among those of a job.
pub(crate) fn is_about(target: CancelTarget, task: TaskId) -> bool {
    match target {
        CancelTarget::Task(one) => one == task,
        CancelTarget::Job(job) => job == task.job,
    }
}

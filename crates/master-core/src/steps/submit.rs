//! A client wants tasks to run.

use cloudai_model::{Event, JobId, JobShape, Now};

use crate::batch::{Batch, Effect};
use crate::command::{Answer, Rejection, Submission};
use crate::core::Core;

pub(crate) fn submit(core: &mut Core, now: Now, asked: Submission, batch: &mut Batch) -> Answer {
    if let Some((job, shape)) = find_existing(core, &asked) {
        return Answer::Submitted { job, shape, existing: true };
    }
    if let Err(rejection) = check(core, &asked) {
        return Answer::Rejected(rejection);
    }
    if !core.pace.take(now.mono) {
        return Answer::Rejected(Rejection::TooFast);
    }
    let job = JobId(core.facts.numbers.last_job + 1);
    let Submission { spec, shape, request, known: _ } = asked;
    core.record(batch, Event::JobSubmitted { job, spec, shape, request, at: now.wall });
    core.plan_wanted = true;
    batch.effects.push(Effect::TaskChanged(shape.task_id(job, shape.span().0)));
    Answer::Submitted { job, shape, existing: false }
}

/// A submit that was sent again: the same request id gives the same job, whatever else it says.
fn find_existing(core: &Core, asked: &Submission) -> Option<(JobId, JobShape)> {
    let live = asked.request.as_ref().and_then(|request| core.facts.requests.get(request));
    live.map(|job| (*job, core.facts.jobs[job].shape)).or(asked.known)
}

fn check(core: &Core, asked: &Submission) -> Result<(), Rejection> {
    asked.spec.validate()?;
    asked.shape.validate()?;
    if let Some(target) = &asked.spec.target
        && !core.facts.workers.contains_key(target)
    {
        return Err(Rejection::UnknownWorker(target.clone()));
    }
    if core.facts.jobs.len() >= core.settings.live_jobs_max {
        return Err(Rejection::QueueFull(core.facts.jobs.len()));
    }
    Ok(())
}

//! Random histories: every event that can follow is drawn, in batches of any size, and after each
//! batch the store must load, list and find what the reference does.

use cloudai_model::{
    Cause, Event, Hold, JobId, JobShape, LiveState, LossCause, Outcome, TaskId, TaskRecord,
    TaskState, TaskStatus, Timestamp, WorkerId,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use super::reference::Reference;
use super::{Backend, Pair, spec};
use crate::{TaskCursor, TaskQuery};

/// Numbers from which one event is made.
type Draw = (u8, u32, u32, u32);

fn draws() -> impl Strategy<Value = Vec<Vec<Draw>>> {
    vec(vec((0..20_u8, any::<u32>(), any::<u32>(), any::<u32>()), 1..12), 1..25)
}

/// Chance from a seed that is said at once; `PROPTEST_RNG_SEED` gives one.
#[allow(clippy::print_stderr, reason = "the seed of a run belongs to its output")]
fn config() -> ProptestConfig {
    let mut config = ProptestConfig {
        cases: 48,
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..Default::default()
    };
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(TestRunner::default().rng().next_u64());
    }
    eprintln!("PROPTEST_RNG_SEED={} repeats this run", config.rng_seed);
    config
}

pub(crate) fn random_histories_are_kept<B: Backend>() {
    proptest!(config(), |(batches in draws(), query in any::<(u32, u32, u32)>())| {
        let mut pair = Pair::<B>::new();
        // The generator looks at a reference that runs ahead within the batch.
        let mut ahead = Reference::default();
        let mut clock = 0;
        for batch in batches {
            let mut events = Vec::new();
            for draw in batch {
                clock += 1;
                if let Some(event) = event(&ahead, draw, Timestamp(clock)) {
                    ahead.apply(&event);
                    events.push(event);
                }
            }
            pair.commit(&events);
        }
        pair.check_all();
        pair.check(&random_query(query));
        pair.reopen();
        pair.check_all();
    });
}

fn event(now: &Reference, (kind, a, b, c): Draw, at: Timestamp) -> Option<Event> {
    match kind {
        0 => return Some(register(now, a, at)),
        1 | 2 => return Some(submit(now, a, b, at)),
        3 => return fresh_cancel(now, a, b, c, at),
        _ => {}
    }
    let tasks = now.list(&TaskQuery::default());
    let open: Vec<&TaskRecord> =
        tasks.iter().filter(|task| !matches!(task.state, TaskState::Ended(_))).collect();
    // The first tasks are drawn more often, as a scheduler takes them.
    let most = if b.is_multiple_of(4) { open.len() } else { open.len().min(4) };
    let record = open.get((a as usize).checked_rem(most)?)?;
    step(now, record, kind, c, at)
}

fn step(now: &Reference, record: &TaskRecord, kind: u8, c: u32, at: Timestamp) -> Option<Event> {
    let task = record.id;
    let TaskState::Live(live) = &record.state else {
        return place(now, task, 1, c, at);
    };
    let attempt = super::attempt(task, live.attempt.0);
    let held = !matches!(live.state, LiveState::Queued(_));
    Some(match kind {
        4..=7 if !held => return place(now, task, live.attempt.0, c, at),
        8..=10 if matches!(live.state, LiveState::Assigned(_)) => {
            Event::AttemptStarted { attempt, at }
        }
        11 if held => Event::AttemptAdopted { attempt, session: now.next_session() },
        12 | 13 if held => {
            let cause = match c % 5 {
                0 => LossCause::WorkerLost,
                1 => LossCause::Infra,
                2 => LossCause::WorkerStopped,
                _ => LossCause::Failed(cause(c)),
            };
            Event::AttemptLost { attempt, cause, message: format!("m{c}"), at }
        }
        14 if held => Event::CancelRequested { task, at },
        15..=19 => {
            let cause = if held { cause(c) } else { Cause::Cancelled };
            let outcome = Outcome::new(cause, if c.is_multiple_of(2) { "" } else { "words" });
            let finished_at = Timestamp(at.0 + 7);
            Event::TaskFinished { attempt, outcome, finished_at, at }
        }
        _ => return None,
    })
}

fn cause(c: u32) -> Cause {
    const CAUSES: [Cause; 9] = [
        Cause::Exit(0),
        Cause::Exit(0),
        Cause::Exit(-1),
        Cause::Oom,
        Cause::Timeout,
        Cause::Image,
        Cause::WorkerLost,
        Cause::Infra,
        Cause::Cancelled,
    ];
    CAUSES[c as usize % CAUSES.len()]
}

fn place(now: &Reference, task: TaskId, no: u32, c: u32, placed_at: Timestamp) -> Option<Event> {
    let index = (c as usize).checked_rem(now.workers.len())?;
    let worker = now.workers.values().nth(index)?;
    let hold = Hold { worker: worker.id.clone(), session: worker.session, placed_at };
    Some(Event::AttemptPlaced { attempt: super::attempt(task, no), hold })
}

fn register(now: &Reference, a: u32, at: Timestamp) -> Event {
    let session = now.next_session();
    let Event::WorkerRegistered { mut worker } = super::registered("w", session.0) else {
        unreachable!("made two words ago")
    };
    worker.id = WorkerId::new(&format!("w{}", a % 3)).unwrap();
    worker.registered_at = at;
    Event::WorkerRegistered { worker }
}

fn submit(now: &Reference, a: u32, b: u32, at: Timestamp) -> Event {
    let mut spec = spec(if a.is_multiple_of(2) { "busybox" } else { "python" });
    spec.name = (a.is_multiple_of(3)).then(|| format!("name-{}", a % 2));
    spec.origin.user = format!("user{}", b % 2);
    let shape = match b % 4 {
        0 => JobShape::Single,
        n => JobShape::Array { first: n, last: n + a % 12, at_once_max: (n == 2).then_some(5) },
    };
    Event::JobSubmitted { job: JobId(now.next_job()), spec: spec.into(), shape, request: None, at }
}

fn fresh_cancel(now: &Reference, a: u32, b: u32, c: u32, at: Timestamp) -> Option<Event> {
    let jobs: Vec<JobId> = now.snapshot().jobs.keys().copied().collect();
    let job = *jobs.get((a as usize).checked_rem(jobs.len())?)?;
    let (low, high) = now.shape(job).span();
    let first = low + b % (high - low + 1);
    let last = first + c % (high - first + 1);
    Some(Event::FreshCancelled { job, first, last, at })
}

fn random_query((a, b, c): (u32, u32, u32)) -> TaskQuery {
    let statuses = TaskStatus::ALL.into_iter().enumerate();
    let cursor = TaskCursor { job: JobId(u64::from(c % 6)), position: b % 8 };
    TaskQuery {
        job: (a.is_multiple_of(5)).then_some(JobId(u64::from(b % 4))),
        statuses: statuses.filter(|(bit, _)| b >> bit & 1 == 1).map(|(_, status)| status).collect(),
        worker: (a.is_multiple_of(3)).then(|| WorkerId::new("w1").unwrap()),
        name: (b.is_multiple_of(7)).then(|| "name-1".to_owned()),
        user: (c.is_multiple_of(4)).then(|| "user1".to_owned()),
        newest_first: c.is_multiple_of(2),
        after: (a.is_multiple_of(4)).then_some(cursor),
        limit: 1 + c as usize % 9,
    }
}

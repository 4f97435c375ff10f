//! What a submit makes true, and that the same request id makes it once.

use cloudai_model::{JOBS_PER_SECOND_MAX, JobId, JobShape};

use super::world::{World, array, spec, worker};
use crate::{Answer, Rejection, Settings, bounds};

fn submitted(job: u64, shape: JobShape, existing: bool) -> Answer {
    Answer::Submitted { job: JobId(job), shape, existing }
}

#[test]
fn the_same_request_id_gives_the_same_job() {
    let mut world = World::new();
    let (single, many) = (JobShape::Single, array(1, 3, None));
    assert_eq!(world.submit_as(spec(1), single, Some("r1")).0, submitted(1, single, false));
    assert_eq!(world.submit_as(spec(2), many, Some("r1")).0, submitted(1, single, true));
    world.restart();
    assert_eq!(world.submit_as(spec(1), single, Some("r1")).0, submitted(1, single, true));
    assert_eq!(world.submit_as(spec(1), single, Some("r2")).0, submitted(2, single, false));
}

#[test]
fn a_job_that_the_store_knows_by_its_request_is_not_made_again() {
    let mut world = World::new();
    let known = Some((JobId(40), JobShape::Single));
    let submission = crate::Submission {
        spec: std::sync::Arc::new(spec(1)),
        shape: JobShape::Single,
        request: Some(cloudai_model::RequestId::new("r").unwrap()),
        known,
    };
    let answer = world.turn(crate::Command::Submit(submission)).0;
    assert_eq!(answer, submitted(40, JobShape::Single, true));
    assert!(world.tape.0.is_empty());
}

#[test]
fn an_unknown_target_creates_nothing() {
    let mut world = World::new();
    let mut wants = spec(1);
    wants.target = Some(worker("worker-99"));
    let (answer, _) = world.submit(wants, JobShape::Single);
    let Answer::Rejected(rejection) = answer else { panic!("{answer:?}") };
    assert_eq!(rejection.to_string(), "Worker 'worker-99' not found");
    assert!(world.tape.0.is_empty());
}

#[test]
fn nonsense_is_refused_with_a_typed_reason() {
    let mut world = World::new();
    let answer = world.submit(spec(0), JobShape::Single).0;
    assert!(matches!(answer, Answer::Rejected(Rejection::Spec(_))), "{answer:?}");
    for shape in [array(5, 4, None), array(0, u32::MAX, None), array(1, 2, Some(0))] {
        let answer = world.submit(spec(1), shape).0;
        assert!(matches!(answer, Answer::Rejected(Rejection::Shape(_))), "{answer:?}");
    }
    assert!(world.tape.0.is_empty());
}

#[test]
fn live_jobs_and_workers_are_bounded() {
    let mut world = World::with(Settings { live_jobs_max: 2, workers_max: 1 });
    world.submit_one(1);
    world.submit_one(1);
    let answer = world.submit(spec(1), JobShape::Single).0;
    assert_eq!(answer, Answer::Rejected(Rejection::QueueFull(2)));
    world.hello("worker-1", 1);
    let answer = world.say_hello("worker-2", 1, None, Some(Vec::new())).0;
    assert_eq!(answer, Answer::Rejected(Rejection::TooManyWorkers(1)));
    // A worker that is known comes back all the same.
    world.hello("worker-1", 1);
}

#[test]
fn jobs_are_made_no_faster_than_a_restore_counts() {
    let mut world = World::new();
    let mut made = || {
        let mut count = 0;
        loop {
            let request = format!("{}-{count}", world.now_ms);
            match world.submit_as(spec(1), JobShape::Single, Some(&request)).0 {
                Answer::Submitted { .. } => count += 1,
                Answer::Rejected(Rejection::TooFast) => break,
                other => panic!("{other:?}"),
            }
        }
        // What was made is found again all the same.
        let again = world.submit_as(spec(1), JobShape::Single, Some("0-0")).0;
        assert!(matches!(again, Answer::Submitted { existing: true, .. }), "{again:?}");
        world.now_ms += 1;
        count
    };
    assert_eq!(made(), bounds::JOBS_AT_START);
    assert_eq!(made(), JOBS_PER_SECOND_MAX / 1_000);
    assert_eq!(made(), JOBS_PER_SECOND_MAX / 1_000);
}

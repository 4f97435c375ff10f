//! Placements: what a policy or an agent proposes, and what the core takes of it.

use std::sync::Arc;

use cloudai_model::{Cause, JobShape};
use cloudai_scheduler::{Plan, Share};

use super::world::{World, array, ended, hello_of, spec, started, tiny, worker};
use crate::{Answer, Command, Input, Placement, Submission, bounds};

#[test]
fn a_task_goes_from_submit_to_its_end_in_order() {
    let mut world = World::new();
    world.hello("worker-1", 2);
    assert_eq!(world.submit_one(1), "worker-1: assign task-1-a1");
    assert_eq!(world.state("task-1"), "assigned a1 worker-1");
    assert_eq!(world.report("worker-1", 1, started("task-1-a1")), "worker-1: ack 1");
    assert_eq!(world.state("task-1"), "running a1 worker-1");
    let sent = world.report("worker-1", 1, ended("task-1-a1", Cause::Exit(0)));
    assert_eq!(sent, "worker-1: forget task-1-a1, worker-1: ack 1");
    assert_eq!(world.state("task-1"), "succeeded exit(0)");
    assert!(world.core.facts().snapshot().jobs.is_empty(), "an ended job leaves the core");
}

#[test]
fn room_that_comes_free_is_used_in_the_same_turn() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    assert_eq!(world.submit_one(1), "");
    let sent = world.report("worker-1", 1, ended("task-1-a1", Cause::Exit(0)));
    assert!(sent.ends_with("worker-1: assign task-2-a1"), "{sent}");
}

#[test]
fn five_thousand_tasks_that_fit_nowhere_block_nobody() {
    let mut world = World::new();
    world.hello("worker-1", 4);
    world.submit(spec(64), array(1, 5_000, None));
    assert_eq!(world.submit_one(4), "worker-1: assign task-2-a1");
}

#[test]
fn an_array_runs_as_many_at_once_as_its_user_allows() {
    let mut world = World::new();
    world.hello("worker-1", 8);
    let (_, sent) = world.submit(spec(1), array(1, 4, Some(2)));
    assert_eq!(sent, "worker-1: assign task-1.1-a1, worker-1: assign task-1.2-a1");
    let sent = world.report("worker-1", 1, ended("task-1.1-a1", Cause::Exit(0)));
    assert!(sent.ends_with("worker-1: assign task-1.3-a1"), "{sent}");
    world.restart();
    world.full("worker-1", 1, vec![started("task-1.2-a1"), started("task-1.3-a1")]);
    assert_eq!(world.state("task-1.4"), "queued");
}

#[test]
fn a_million_queued_tasks_are_one_range() {
    let mut world = World::new();
    world.submit(spec(1), array(1, 1_000_000, None));
    let snapshot = world.core.facts().snapshot();
    let job = snapshot.jobs.values().next().unwrap();
    assert_eq!((job.fresh.spans().count(), job.live.len()), (1, 0));
}

#[test]
fn a_target_worker_is_waited_for() {
    let mut world = World::new();
    world.hello("worker-1", 4);
    world.hello("worker-2", 1);
    let mut wants = spec(1);
    wants.target = Some(worker("worker-2"));
    let (_, sent) = world.submit(wants.clone(), JobShape::Single);
    assert_eq!(sent, "worker-2: assign task-1-a1");
    assert_eq!(world.submit(wants, JobShape::Single).1, "");
    assert_eq!(world.state("task-2"), "queued");
}

#[test]
fn an_agent_is_checked_like_a_stranger() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    world.submit_one(1);
    assert_eq!(propose(&mut world, "1", "worker-1"), "1 ", "a repeated pair is a no-op");
    assert_eq!(
        propose(&mut world, "2", "worker-1"),
        "0 task-2 does not fit worker 'worker-1': wants 1 cores, 0 free"
    );
    assert_eq!(propose(&mut world, "2", "nobody"), "0 worker 'nobody' not found");
    assert_eq!(
        propose(&mut world, "77", "worker-1"),
        "0 task-77 is not waiting: it has ended or never was"
    );
    world.hello("worker-2", 1);
    assert_eq!(propose(&mut world, "1", "worker-2"), "0 task-1 is already on worker 'worker-1'");
}

#[test]
fn what_a_returning_worker_holds_is_not_sold_again() {
    let mut world = World::new();
    world.hello("worker-1", 4);
    world.submit_one(2);
    let held = vec![started("task-1-a1")];
    world.say_hello("worker-1", 4, Some(1), Some(held));
    assert_eq!(world.submit_one(3), "");
    assert_eq!(world.submit_one(2), "worker-1: assign task-3-a1");
}

#[test]
fn a_worker_that_comes_back_larger_is_given_what_waits_for_it() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    assert_eq!(world.submit_one(4), "");
    let (_, sent) = world.say_hello("worker-1", 4, None, Some(Vec::new()));
    assert_eq!(sent, "worker-1: assign task-1-a1");
}

#[test]
fn a_plan_is_bounded_and_the_next_one_goes_on() {
    let mut world = World::new();
    let most = bounds::PLACEMENTS_PER_PLAN_MAX;
    world.hello("worker-1", most);
    world.hello("worker-2", most);
    world.submit(tiny(), array(1, most as u32 + 1, None));
    assert_eq!(world.core.view(world.now()).tasks.assigned, most);
    world.turn(Command::Tick);
    assert_eq!(world.core.view(world.now()).tasks.assigned, most + 1);
}

#[test]
fn a_worker_holds_a_bounded_number_of_attempts() {
    let mut world = World::new();
    let most = bounds::ATTEMPTS_PER_WORKER_MAX;
    world.hello("worker-1", 2 * most as u64);
    world.submit(tiny(), array(1, most as u32, None));
    assert_eq!(world.submit_one(1), "");
    let view = world.core.view(world.now());
    assert_eq!(view.workers[0].held.len(), most);
    assert_eq!(view.waiting[0].reason, "worker-1: holds as many attempts as a worker may");
    assert_eq!(
        propose(&mut world, "2", "worker-1"),
        "0 task-2 does not fit worker 'worker-1': holds as many attempts as a worker may"
    );
    let sent = world.report("worker-1", 1, ended("task-1.1-a1", Cause::Exit(0)));
    assert!(sent.ends_with("worker-1: assign task-2-a1"), "{sent}");
}

#[test]
fn an_agent_is_told_why_a_task_cannot_be_placed_now() {
    let mut world = World::new();
    world.hello("worker-1", 8);
    world.submit(spec(1), array(1, 2, Some(1)));
    world.submit_one(1);
    world.report("worker-1", 1, ended("task-2-a1", Cause::Infra));
    let refused = |world: &mut World, task: &str| match world.propose(task, "worker-1") {
        Answer::Proposed { accepted: 0, refused } => refused[0].why.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&mut world, "2"), "task-2 waits before it is tried again");
    assert_eq!(refused(&mut world, "1.2"), "job-1 has as many tasks at once as it may");
    assert_eq!(refused(&mut world, "9"), "task-9 is not waiting: it has ended or never was");
}

#[test]
fn a_placement_and_its_repetition_both_count() {
    let mut world = World::new();
    world.hello("worker-1", 2);
    // No plan comes between the submit and the proposal.
    let (spec, shape) = (Arc::new(spec(1)), array(1, 2, None));
    let command = Command::Submit(Submission { spec, shape, request: None, known: None });
    let batch = world.core.step(world.now(), Input { from: None, command });
    batch.commit(&mut world.tape).unwrap();
    let placement =
        |task: &str| Placement { task: task.parse().unwrap(), worker: worker("worker-1") };
    let placements = ["task-1.1", "task-1.1", "task-1.2"].map(placement).to_vec();
    let (answer, _) = world.turn(Command::Propose(placements));
    assert_eq!(answer, Answer::Proposed { accepted: 3, refused: Vec::new() });
}

/// A task of which thousands fit into the test workers' memory and storage.
#[test]
fn a_plan_is_wished_for_once_and_only_while_something_can_be_placed() {
    let mut world = World::new();
    let tick = |world: &mut World| {
        drop(world.core.step(world.now(), Input { from: None, command: Command::Tick }));
    };
    // A new master has something to look at, but nothing waits.
    assert!(!world.core.has_ready() && !world.core.take_plan_wish());
    let now = world.now();
    let spec = Arc::new(spec(1));
    let (shape, request, known) = (JobShape::Single, None, None);
    let command = Command::Submit(Submission { spec, shape, request, known });
    drop(world.core.step(now, Input { from: None, command }));
    assert!(world.core.has_ready() && world.core.take_plan_wish());
    // It waits on, and nothing happened that a plan might use.
    tick(&mut world);
    assert!(world.core.has_ready() && !world.core.take_plan_wish());
}

#[test]
fn nothing_is_ready_once_everything_runs() {
    let mut world = World::new();
    world.hello("worker-1", 1);
    world.submit_one(1);
    assert!(!world.core.has_ready());
    assert_eq!(world.core.problem().demands, []);
    assert_eq!(world.core.view(world.now()).waiting, []);
    world.submit_one(1);
    assert!(world.core.has_ready());
}

#[test]
fn a_share_places_as_many_as_it_says_over_several_jobs() {
    let mut world = World::new();
    for _ in 0..3 {
        world.submit(spec(1), array(1, 2, None));
    }
    drop(world.core.step(
        world.now(),
        Input {
            from: None,
            command: Command::Hello(hello_of("worker-1", 9, None, Some(Vec::new()))),
        },
    ));
    let problem = world.core.problem();
    assert_eq!(problem.demands.iter().map(|demand| demand.count).collect::<Vec<_>>(), [6]);
    let plan = Plan { shares: vec![Share { demand: 0, offer: 0, count: 3 }] };
    drop(world.core.apply_plan(world.now(), &problem, &plan));
    let held = ["1.1", "1.2", "2.1", "2.2", "3.1", "3.2"].map(|task| world.state(task));
    let assigned = || "assigned a1 worker-1".to_owned();
    let queued = || "queued".to_owned();
    assert_eq!(held, [assigned(), assigned(), assigned(), queued(), queued(), queued()]);
}

#[test]
fn a_task_that_waits_out_a_loss_leaves_its_place_to_the_next_of_its_job() {
    let mut world = World::new();
    world.hello("worker-1", 9);
    world.submit(spec(1), array(1, 4, Some(2)));
    let sent = world.report("worker-1", 1, ended("1.1-a1", Cause::Infra));
    assert!(sent.ends_with("worker-1: assign task-1.3-a1"), "{sent}");
    assert_eq!(world.core.view(world.now()).tasks.queued, 2);
}

#[test]
fn an_agent_sees_the_oldest_of_what_waits_and_no_more_than_it_asks_for() {
    let mut world = World::new();
    world.submit(spec(1), array(1, 2, Some(1)));
    world.submit_one(2);
    world.submit(spec(1), array(5, 7, None));
    let pending = |count| -> Vec<String> {
        world.core.pending(count).iter().map(|pending| pending.task.to_string()).collect()
    };
    assert_eq!(pending(9), ["task-1.1", "task-2", "task-3.5", "task-3.6", "task-3.7"]);
    assert_eq!(pending(3), ["task-1.1", "task-2", "task-3.5"]);
    assert_eq!(pending(0), [""; 0]);
}

/// What became of one proposal, as text.
fn propose(world: &mut World, task: &str, name: &str) -> String {
    match world.propose(task, name) {
        Answer::Proposed { accepted, refused } => {
            let why = refused.into_iter().map(|refused| refused.why).collect::<Vec<_>>();
            format!("{accepted} {}", why.join("; "))
        }
        other => panic!("{other:?}"),
    }
}

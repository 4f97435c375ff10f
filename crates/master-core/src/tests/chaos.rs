//! Random commands in random order: the world's own checks must hold after each, nothing panics,
//! and once the workers behave every task ends.

use cloudai_model::{AttemptReport, Cause, JobId, Session, TaskId};
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use super::world::{World, array, ended, spec, started, worker};
use crate::{CancelTarget, Command, FullReport};

#[derive(Debug, Clone)]
enum Move {
    Submit {
        cores: u64,
        tasks: u32,
        at_once: Option<u32>,
    },
    Hello {
        worker: u8,
        cores: u64,
    },
    Report {
        worker: u8,
        old: bool,
        job: u64,
        position: u32,
        attempt: u32,
        what: u8,
        full: Option<bool>,
    },
    Cancel {
        job: u64,
        position: Option<u32>,
    },
    Goodbye {
        worker: u8,
    },
    Propose {
        job: u64,
        position: u32,
        worker: u8,
    },
    Pass {
        ms: u64,
    },
    Restart,
}

fn moves() -> impl Strategy<Value = Move> {
    let job = 1..6_u64;
    prop_oneof![
        3 => (1..4_u64, 1..6_u32, prop::option::of(1..3_u32))
            .prop_map(|(cores, tasks, at_once)| Move::Submit { cores, tasks, at_once }),
        2 => (0..3_u8, 1..6_u64).prop_map(|(worker, cores)| Move::Hello { worker, cores }),
        8 => (0..3_u8, prop::bool::weighted(0.1), job.clone(), 1..6_u32, 1..4_u32, 0..6_u8,
              prop::option::weighted(0.2, any::<bool>()))
            .prop_map(|(worker, old, job, position, attempt, what, full)| {
                Move::Report { worker, old, job, position, attempt, what, full }
            }),
        1 => (job.clone(), prop::option::of(1..6_u32))
            .prop_map(|(job, position)| Move::Cancel { job, position }),
        1 => (0..3_u8).prop_map(|worker| Move::Goodbye { worker }),
        1 => (job, 1..6_u32, 0..3_u8)
            .prop_map(|(job, position, worker)| Move::Propose { job, position, worker }),
        2 => (1..40_000_u64).prop_map(|ms| Move::Pass { ms }),
        1 => Just(Move::Restart),
    ]
}

fn name(worker: u8) -> String {
    format!("worker-{worker}")
}

fn session_of(world: &World, index: u8) -> u64 {
    let workers = &world.core.facts().workers;
    workers.get(&worker(&name(index))).map_or(0, |worker| worker.record.session.0)
}

fn report_of(attempt: &str, what: u8) -> AttemptReport {
    match what {
        0 | 1 => started(attempt),
        2 => ended(attempt, Cause::Exit(0)),
        3 => ended(attempt, Cause::Exit(1)),
        4 => ended(attempt, Cause::Infra),
        _ => super::world::accepted(attempt),
    }
}

fn play(world: &mut World, step: &Move) {
    match *step {
        Move::Submit { cores, tasks, at_once } => {
            let mut wants = spec(cores);
            wants.retry.retries_max = 1;
            world.submit(wants, array(1, tasks, at_once));
        }
        Move::Hello { worker, cores } => {
            // A worker only grows: one that shrinks below what it holds is oversold for a while.
            let cores = if session_of(world, worker) == 0 { cores } else { 6 };
            world.say_hello(&name(worker), cores, None, Some(Vec::new()));
        }
        Move::Report { worker: index, old, job, position, attempt, what, full } => {
            let session = session_of(world, index).saturating_sub(u64::from(old));
            let report = report_of(&format!("task-{job}.{position}-a{attempt}"), what);
            match full {
                Some(well) => {
                    let degraded = (!well).then(|| "the disk is full".to_owned());
                    let full = FullReport { held: vec![report], degraded };
                    world.heartbeat(&name(index), session, full);
                }
                None => drop(world.report(&name(index), session, report)),
            }
        }
        Move::Cancel { job, position } => {
            let target = position.map_or(CancelTarget::Job(JobId(job)), |position| {
                CancelTarget::Task(TaskId::indexed(job, position))
            });
            world.turn(Command::Cancel(target));
        }
        Move::Goodbye { worker: index } => {
            let session = Session(session_of(world, index));
            world.turn(Command::Goodbye { worker: worker(&name(index)), session });
        }
        Move::Propose { job, position, worker } => {
            world.propose(&format!("{job}.{position}"), &name(worker));
        }
        Move::Pass { ms } => drop(world.pass(ms)),
        Move::Restart => world.restart(),
    }
}

/// Workers that do what they are told: every task must end.
fn heal(world: &mut World) {
    world.say_hello(&name(0), 6, None, Some(Vec::new()));
    for _ in 0..200 {
        let held: Vec<_> = crate::steps::held_by(&world.core, &worker(&name(0)));
        let session = session_of(world, 0);
        for attempt in held {
            world.report(&name(0), session, ended(&attempt.to_string(), Cause::Exit(0)));
        }
        world.pass(10_000);
        world.full(&name(0), session, Vec::new());
        if world.core.facts().snapshot().jobs.is_empty() {
            return;
        }
    }
    panic!("tasks are left: {:?}", world.core.facts().snapshot().jobs);
}

/// Chance from a seed that is said at once; `PROPTEST_RNG_SEED` gives one.
fn config() -> ProptestConfig {
    let mut config = ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() };
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(TestRunner::default().rng().next_u64());
    }
    eprintln!("PROPTEST_RNG_SEED={} repeats this run", config.rng_seed);
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn nothing_breaks_the_facts_and_everything_ends(
        steps in prop::collection::vec(moves(), 1..60),
    ) {
        let mut world = World::new();
        for step in steps {
            play(&mut world, &step);
        }
        heal(&mut world);
    }
}

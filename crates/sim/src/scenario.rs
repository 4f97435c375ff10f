//! What a seed chooses: the cluster, its work, and what goes wrong. A scenario is plain data, so
//! that a failing one can be made smaller and run again. Nothing here happens; `world.rs` runs it.

use std::sync::Arc;

use cloudai_model::{JobShape, Resources, RetryPolicy, TaskSpec, WorkerId};
use cloudai_scheduler::PolicyKind;
use fastrand::Rng;

use crate::clock::{Clock, DRIFT_PPM_MAX, LONG_DRIFT_PPM_MAX};
use crate::faults::{Class, DeathPoint, Fault, FaultWhat, Way, WorkerPoint};
use crate::program::Program;

/// The longest lease of a simulated task; see [`DRIFT_PPM_MAX`].
pub(crate) const LEASE_MS_LONGEST: u64 = 60_000;

/// How much longer leases, faults, and the time until the world heals are in a slow world.
pub(crate) const STRETCH: u64 = 10;

/// A whole run, before it begins.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) policy: PolicyKind,
    pub(crate) store: StoreKind,
    pub(crate) master_clock: Clock,
    pub(crate) workers: Vec<WorkerPlan>,
    pub(crate) jobs: Vec<JobPlan>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) rates: Rates,
    /// When all faults stop, in milliseconds.
    pub(crate) heal_at_ms: u64,
}

/// Which store the master has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreKind {
    Memory,
    /// Files in a directory of their own; each death of the master leaves them as they are.
    Sqlite,
}

/// A machine.
#[derive(Debug, Clone)]
pub(crate) struct WorkerPlan {
    pub(crate) id: WorkerId,
    pub(crate) capacity: Resources,
    pub(crate) clock: Clock,
    pub(crate) attempts_max: usize,
    /// When its worker is started first, in milliseconds.
    pub(crate) starts_at_ms: u64,
}

/// A submit, and perhaps a cancel.
#[derive(Debug, Clone)]
pub(crate) struct JobPlan {
    pub(crate) at_ms: u64,
    pub(crate) spec: Arc<TaskSpec>,
    pub(crate) shape: JobShape,
    /// Whether the client names its submit, so that it may send it again.
    pub(crate) has_request: bool,
    pub(crate) cancel: Option<CancelPlan>,
}

/// A cancel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CancelPlan {
    /// After the answer to the submit, in milliseconds.
    pub(crate) after_ms: u64,
    /// Only the task at this position.
    pub(crate) position: Option<u32>,
}

/// What goes wrong all the time, until the world heals.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rates {
    /// The longest way of a message, in milliseconds.
    pub(crate) delay_ms_max: u64,
    /// Calls or answers of a hundred that are lost.
    pub(crate) loss_percent: u8,
    /// Hellos of a hundred that are given up and come after the next one.
    pub(crate) late_hello_percent: u8,
    /// Calls of a hundred that arrive twice.
    pub(crate) double_percent: u8,
    /// Orders, and reports with the end of an attempt, of a hundred that come once more.
    pub(crate) effect_double_percent: u8,
    /// Creates and starts of a hundred that the engine refuses.
    pub(crate) engine_fail_percent: u8,
    /// The longest commit, in milliseconds.
    pub(crate) commit_ms_max: u64,
}

/// How large a world is.
#[derive(Debug, Clone, Copy)]
struct Size {
    workers: usize,
    jobs: usize,
    tasks_per_array: u32,
    faults_per_class: usize,
}

/// How long things last.
#[derive(Debug, Clone, Copy)]
struct Pace {
    stretch: u64,
    drift_ppm_max: i64,
}

impl Scenario {
    /// The scenario of a seed.
    pub(crate) fn generate(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let size = choose_size(&mut random);
        let on: Vec<Class> = Class::ALL.iter().copied().filter(|_| random.bool()).collect();
        let pace = choose_pace(&mut random, on.contains(&Class::ClockDrift));
        let heal_at_ms = random.u64(60_000..=240_000) * pace.stretch;
        let workers = (0..random.usize(1..=size.workers))
            .map(|index| choose_worker(&mut random, index, pace))
            .collect::<Vec<_>>();
        let count = random.usize(1..=size.jobs);
        let mut jobs: Vec<JobPlan> = (0..count)
            .map(|_| choose_job(&mut random, size, pace, &workers, heal_at_ms * 3 / 4))
            .collect();
        jobs.sort_by_key(|job| job.at_ms);
        let mut faults = Vec::new();
        for class in &on {
            for _ in 0..random.usize(1..=size.faults_per_class) {
                let at_ms = random.u64(2_000..heal_at_ms);
                let what = choose_fault(&mut random, *class, pace, workers.len());
                faults.extend(what.map(|what| Fault { at_ms, what }));
            }
        }
        faults.sort_by_key(|fault| fault.at_ms);
        Self {
            seed,
            policy: *random.choice(&PolicyKind::ALL).expect("there are policies"),
            store: if random.u8(0..16) == 0 { StoreKind::Sqlite } else { StoreKind::Memory },
            master_clock: choose_clock(&mut random, pace),
            workers,
            jobs,
            faults,
            rates: choose_rates(&mut random, &on),
            heal_at_ms,
        }
    }
}

fn choose_size(random: &mut Rng) -> Size {
    match random.u8(0..100) {
        0..78 => Size { workers: 3, jobs: 6, tasks_per_array: 6, faults_per_class: 3 },
        78..97 => Size { workers: 6, jobs: 16, tasks_per_array: 20, faults_per_class: 5 },
        _ => Size { workers: 12, jobs: 24, tasks_per_array: 120, faults_per_class: 8 },
    }
}

fn choose_pace(random: &mut Rng, drifts: bool) -> Pace {
    let is_slow = random.u8(0..32) == 0;
    let (stretch, ppm) = if is_slow { (STRETCH, LONG_DRIFT_PPM_MAX) } else { (1, DRIFT_PPM_MAX) };
    Pace { stretch, drift_ppm_max: if drifts { ppm } else { 0 } }
}

fn choose_clock(random: &mut Rng, pace: Pace) -> Clock {
    Clock {
        drift_ppm: random.i64(-pace.drift_ppm_max..=pace.drift_ppm_max),
        boot_ms: random.u64(0..1_000_000),
        wall_error_ms: random.i64(-5_000..=5_000),
    }
}

fn choose_worker(random: &mut Rng, index: usize, pace: Pace) -> WorkerPlan {
    let cores = random.u64(1..=8);
    WorkerPlan {
        id: WorkerId::new(&format!("worker-{}", index + 1)).expect("a plain name"),
        capacity: Resources {
            cpu_milli: cores * 1000,
            memory_bytes: random.u64(1..=8) << 30,
            storage_bytes: 100 << 30,
            gpu_milli: if random.u8(0..4) == 0 { 2_000 } else { 0 },
        },
        clock: choose_clock(random, pace),
        attempts_max: if random.u8(0..8) == 0 { random.usize(1..=4) } else { 4_096 },
        starts_at_ms: if random.bool() { random.u64(0..1_000) } else { random.u64(0..40_000) },
    }
}

fn choose_job(
    random: &mut Rng,
    size: Size,
    pace: Pace,
    workers: &[WorkerPlan],
    before_ms: u64,
) -> JobPlan {
    let least_ms = *random.choice(&[0, 5, 500, 3_000, 20_000]).expect("not empty");
    let program = Program {
        least_ms,
        most_ms: least_ms + random.u64(0..=10_000),
        fail_percent: *random.choice(&[0, 0, 0, 20, 50, 100]).expect("not empty"),
        is_deaf: random.u8(0..8) == 0,
    };
    let needs = Resources {
        cpu_milli: random.u64(1..=8) * 500,
        memory_bytes: random.u64(1..=4) << 29,
        storage_bytes: 1 << 30,
        gpu_milli: if random.u8(0..10) == 0 { 500 } else { 0 },
    };
    let mut spec = TaskSpec::new("busybox", needs);
    spec.invocation = program.invocation();
    let lasts_ms = random.choice(&[15_000, 20_000, 30_000, LEASE_MS_LONGEST]).expect("not empty");
    spec.retry = RetryPolicy {
        lease_ms: lasts_ms * pace.stretch,
        retries_max: random.u32(0..=3),
        crashes_max: random.u32(0..=5),
    };
    spec.limits.grace_ms = *random.choice(&[0, 800, 10_000]).expect("not empty");
    spec.limits.timeout_ms = (random.u8(0..5) == 0).then(|| random.u64(1_000..=15_000));
    if random.u8(0..8) == 0 {
        spec.target = random.choice(workers).map(|worker| worker.id.clone());
    }
    let last = random.u32(0..size.tasks_per_array);
    let shape = if random.bool() {
        JobShape::Single
    } else {
        let at_once_max = (random.u8(0..3) == 0).then(|| random.u32(1..=3));
        JobShape::Array { first: 0, last, at_once_max }
    };
    let cancel = (random.u8(0..4) == 0).then(|| CancelPlan {
        after_ms: if random.bool() { random.u64(0..200) } else { random.u64(0..40_000) },
        position: random.bool().then(|| random.u32(0..=shape.span().1)),
    });
    let at_ms = if random.bool() { random.u64(0..5_000) } else { random.u64(0..before_ms) };
    JobPlan { at_ms, spec: spec.into(), shape, has_request: random.u8(0..4) > 0, cancel }
}

fn choose_rates(random: &mut Rng, on: &[Class]) -> Rates {
    let mut if_on = |class: Class, most: u8| {
        if on.contains(&class) { random.u8(1..=most) } else { 0 }
    };
    let loss_percent = if_on(Class::CallLost, 40);
    let double_percent = if_on(Class::CallDoubled, 40);
    let effect_double_percent = if_on(Class::EffectDoubled, 40);
    let late_hello_percent = if_on(Class::HelloLate, 40);
    let engine_fail_percent = if_on(Class::EngineFails, 30);
    let slow = on.contains(&Class::SlowDisk);
    Rates {
        delay_ms_max: *random.choice(&[1, 20, 200, 2_000]).expect("not empty"),
        loss_percent,
        double_percent,
        effect_double_percent,
        late_hello_percent,
        engine_fail_percent,
        commit_ms_max: if slow { random.u64(50..=4_000) } else { random.u64(0..=3) },
    }
}

/// A time away: mostly short, now and then longer than every lease.
fn choose_span_ms(random: &mut Rng) -> u64 {
    match random.u8(0..4) {
        0 => random.u64(1..=500),
        1 | 2 => random.u64(500..=20_000),
        _ => random.u64(20_000..=90_000),
    }
}

/// A fault of this class; `None` for those that happen all the time.
fn choose_fault(random: &mut Rng, class: Class, pace: Pace, workers: usize) -> Option<FaultWhat> {
    let worker = random.usize(0..workers);
    let ms = choose_span_ms(random) * pace.stretch;
    let dies = |point| Some(FaultWhat::MasterDies { point, down_ms: ms });
    match class {
        Class::MasterDies => dies(DeathPoint::AtOnce),
        Class::MasterDiesBeforeCommit => dies(DeathPoint::BeforeCommit),
        Class::MasterDiesAfterCommit => dies(DeathPoint::AfterCommit),
        Class::MasterDiesAmidEffects => dies(DeathPoint::MidRelease(random.u8(1..100))),
        Class::MasterPauses => Some(FaultWhat::MasterPauses { ms }),
        Class::StoreFails => Some(FaultWhat::StoreFails { is_stored: random.bool() }),
        Class::StoreFull => Some(FaultWhat::StoreFull { ms }),
        Class::WorkerDies => {
            Some(FaultWhat::WorkerDies { worker, point: WorkerPoint::AtOnce, down_ms: ms })
        }
        Class::WorkerDiesBetweenSteps => {
            let point = *random.choice(&WorkerPoint::BETWEEN_STEPS).expect("not empty");
            Some(FaultWhat::WorkerDies { worker, point, down_ms: ms })
        }
        Class::WorkerPauses => Some(FaultWhat::WorkerPauses { worker, ms }),
        Class::WorkerLeaves => Some(FaultWhat::WorkerLeaves { worker, down_ms: ms }),
        Class::CutBothWays => Some(FaultWhat::Cut { worker, way: Way::Both, ms }),
        Class::CutOneWay => {
            let way = if random.bool() { Way::Up } else { Way::Down };
            Some(FaultWhat::Cut { worker, way, ms })
        }
        Class::StreamBreaks => Some(FaultWhat::StreamBreaks { worker }),
        Class::EngineHangs => Some(FaultWhat::EngineHangs { worker, ms }),
        Class::EngineLoses => Some(FaultWhat::EngineLoses { worker }),
        Class::WallJumps => Some(FaultWhat::WallJumps {
            worker: random.bool().then_some(worker),
            by_ms: random.i64(-3_600_000..=3_600_000),
        }),
        Class::SlowDisk
        | Class::HelloLate
        | Class::CallLost
        | Class::CallDoubled
        | Class::EffectDoubled
        | Class::EngineFails
        | Class::ClockDrift => None,
    }
}

//! Running seeds: one, or many on all processors, each in one thread by itself.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::plant::Plant;
use crate::report::Report;
use crate::scenario::Scenario;
use crate::world::World;

/// One seed in so many is run twice, and both histories must be the same.
const TWICE_EVERY: u64 = 16;

/// A run that ended in something that must not be.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What repeats it.
    pub seed: u64,
    /// The invariant, in words.
    pub why: String,
    /// Its history.
    pub history: Vec<String>,
}

/// What many runs came to.
#[derive(Debug, Default)]
pub struct Sum {
    /// How many ended.
    pub runs: u64,
    /// The failure with the lowest seed that was met.
    pub failure: Option<Failure>,
    report: Report,
}

/// What one run came to.
pub(crate) struct Ended {
    pub(crate) why: Option<String>,
    pub(crate) report: Report,
    pub(crate) hash: u64,
    pub(crate) history: Vec<String>,
}

/// The scenario of a seed. For a planted bug, what it needs happens more often.
pub(crate) fn scenario_of(seed: u64, plant: Option<Plant>) -> Scenario {
    let mut scenario = Scenario::generate(seed);
    if let Some(plant) = plant {
        plant.favour(&mut scenario);
    }
    scenario
}

/// Runs a scenario. A panic of a core is a failure like any other.
pub(crate) fn play(scenario: Scenario, plant: Option<Plant>, keeps_lines: bool) -> Ended {
    let mut world = World::new(scenario, plant, keeps_lines);
    let ran = catch_unwind(AssertUnwindSafe(|| world.run()));
    let mut why = world.failure.take();
    if let Err(panic) = ran {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
        why = Some(format!("no core panics: {}", words.unwrap_or_default()));
    }
    let (report, hash) = (world.report.clone(), world.history.hash());
    Ended { why, report, hash, history: world.history.into_lines() }
}

/// Runs one seed; the error tells what must not be, with the history.
pub fn check_seed(seed: u64, plant: Option<Plant>) -> Result<(), Failure> {
    let ended = play(scenario_of(seed, plant), plant, true);
    match ended.why {
        None => Ok(()),
        Some(why) => Err(Failure { seed, why, history: ended.history }),
    }
}

/// Runs `count` seeds from `first` on, on `threads` threads, until one fails. Which seed does what
/// does not depend on the threads.
pub fn run_many(first: u64, count: u64, threads: usize, plant: Option<Plant>) -> Sum {
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let sum = Mutex::new(Sum::default());
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            let seed = first.wrapping_add(number);
            let twice = plant == Some(Plant::Chance) || number.is_multiple_of(TWICE_EVERY);
            let ended = play_seed(seed, plant, twice);
            let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
            sum.runs += 1;
            sum.report.add(&ended.report);
            if let Some(why) = ended.why {
                stop.store(true, Ordering::Relaxed);
                let is_lower = sum.failure.as_ref().is_none_or(|failure| seed < failure.seed);
                if is_lower {
                    sum.failure = Some(Failure { seed, why, history: Vec::new() });
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    sum.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Looks for a planted bug within `count` seeds. It is found only when what breaks is what this bug
/// breaks, and nothing breaks in the same world without it; the error says in words why it is not.
pub fn find_planted(
    plant: Plant,
    first: u64,
    count: u64,
    threads: usize,
) -> Result<Failure, String> {
    let failure = run_many(first, count, threads, Some(plant)).failure;
    let failure = failure.ok_or_else(|| format!("NOT FOUND within {count} seeds"))?;
    let Failure { seed, why, .. } = &failure;
    if !plant.invariants().contains(&invariant_of(why)) {
        return Err(format!("seed {seed} breaks what this bug does not: {why}"));
    }
    let healthy = play(scenario_of(*seed, Some(plant)), None, false);
    match healthy.why {
        None => Ok(failure),
        Some(why) => Err(format!("seed {seed} fails without it as well: {why}")),
    }
}

/// What stands before the colon names the invariant; what stands behind it, this breach of it.
pub(crate) fn invariant_of(why: &str) -> &str {
    why.split(':').next().unwrap_or_default()
}

fn play_seed(seed: u64, plant: Option<Plant>, twice: bool) -> Ended {
    let mut ended = play(scenario_of(seed, plant), plant, false);
    if twice && ended.why.is_none() {
        let again = play(scenario_of(seed, plant), plant, false);
        if again.hash != ended.hash {
            ended.why = Some("the same seed gives the same history: it gave two".to_owned());
        }
    }
    ended
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs, report, .. } = self;
        let hours = report.virtual_ms / 3_600_000;
        writeln!(f, "{runs} runs, {hours} h of virtual time")?;
        writeln!(f, "{} things happened, {} events stored", report.happenings, report.events)?;
        writeln!(f, "faults:")?;
        for (class, count) in report.faults() {
            writeln!(f, "  {class:<30}{count:>10}")?;
        }
        Ok(())
    }
}

//! A cluster under load and under faults, and then the judge. The seed chooses the load and the
//! faults; how they meet is chance, because processes, engine and network are real.
//!
//! First the faults: clients submit, cancel and look ([`load`]), while a nemesis kills, stops and
//! cuts off ([`nemesis`]). Then everything is healed and every task must end. What is left is
//! gathered ([`world`]) and judged with the history.

mod interrupt;
mod load;
mod nemesis;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::history::{Call, Entry, History, Told};
use crate::judge::{Sample, World, judge};
use crate::watch::Watch;
use crate::web::Api;

use load::Load;
use nemesis::Nemesis;

/// Clients that work at the same time.
const CLIENTS: u64 = 6;
/// How long a client waits for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Containers that a worker may run at once: its cores, of which each task takes one.
const SLOTS: usize = 2;
/// Pause between two looks at the workers.
const SAMPLE_EVERY: Duration = Duration::from_millis(500);
/// How long a healed cluster may do without an end of a job: the longest lease, the longest backoff
/// and a task's work.
const HEAL_TIME_MAX: Duration = Duration::from_mins(2);

/// What is to be done to a cluster.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Chooses load and faults.
    pub seed: u64,
    /// How long faults happen.
    pub length: Duration,
    /// How many workers there are.
    pub workers: usize,
    /// What happens.
    pub faults: Faults,
}

/// What a nemesis does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Faults {
    /// Everything that it knows.
    All,
    /// The master is killed again and again, 0.2 to 2 s after it serves.
    MasterKills,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Report {
    /// What was done.
    pub plan: Plan,
    /// The faults by kind.
    pub faults: BTreeMap<&'static str, usize>,
    /// Tasks of jobs whose submit was acknowledged.
    pub accepted: usize,
    /// Tasks that ended, by status.
    pub ended: BTreeMap<String, usize>,
    /// Submits that nobody knows the fate of.
    pub unknown: usize,
    /// Containers that the engine ran.
    pub containers: usize,
    /// How long it took until all was over after the last fault.
    pub healed_in: Duration,
    /// Every promise that was broken; none when all was kept.
    pub broken: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { seed, length, workers, .. } = self.plan;
        writeln!(f, "seed {seed}, {} s of faults, {workers} workers", length.as_secs())?;
        let total: usize = self.faults.values().sum();
        writeln!(f, "faults: {total}")?;
        for (kind, count) in &self.faults {
            writeln!(f, "  {count:5} {kind}")?;
        }
        let ended: usize = self.ended.values().sum();
        let Self { accepted, unknown, containers, .. } = self;
        writeln!(f, "tasks: {accepted} accepted, {ended} ended {:?}", self.ended)?;
        writeln!(f, "submits without an answer: {unknown}; containers: {containers}")?;
        writeln!(f, "all over {:.1} s after the last fault", self.healed_in.as_secs_f64())?;
        match self.broken.as_slice() {
            [] => writeln!(f, "verdict: every promise was kept"),
            broken => {
                writeln!(f, "verdict: {} promises were broken", broken.len())?;
                broken.iter().try_for_each(|one| writeln!(f, "  {one}"))
            }
        }
    }
}

/// Chance from a seed (splitmix64, public domain, by S. Vigna).
#[derive(Debug, Clone)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn ms(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// Does all of it; `None` when Ctrl-C ended it: nothing is left of it then.
pub fn run(plan: Plan) -> Option<Report> {
    interrupt::listen();
    let watch = Watch::start();
    let mut nemesis = Nemesis::start(plan);
    let address = nemesis.cluster().http_address();
    let api = || Api::new(&address, ANSWER_TIMEOUT);
    let (history, load, stop) = (History::default(), Load::default(), AtomicBool::new(false));
    let looks = Mutex::new(Vec::new());
    let healed_in = thread::scope(|scope| {
        for number in 0..CLIENTS {
            let chance = Chance(plan.seed ^ ((number + 1) << 32));
            let (history, load, stop, api) = (&history, &load, &stop, api());
            scope.spawn(move || load.work(number, chance, &api, history, stop));
        }
        scope.spawn(|| take_samples(&api(), &looks, &stop));
        nemesis.rage(Instant::now() + plan.length);
        stop.store(true, Ordering::Relaxed);
        if interrupt::is_raised() {
            return Duration::ZERO;
        }
        nemesis.heal();
        let healing = Instant::now();
        load.wait_ended(&api(), &history, HEAL_TIME_MAX);
        healing.elapsed()
    });
    if interrupt::is_raised() {
        return None;
    }
    let mut world = world::gather(&api(), &watch, &nemesis, load.into_meant());
    world.samples = looks.into_inner().unwrap_or_else(PoisonError::into_inner);
    let history = history.entries();
    let mut broken = judge(&history, &world);
    broken.extend(nemesis.end());
    Some(report(plan, &history, &world, nemesis.into_faults(), healed_in, broken))
}

fn report(
    plan: Plan,
    history: &[Entry],
    world: &World,
    faults: BTreeMap<&'static str, usize>,
    healed_in: Duration,
    broken: Vec<String>,
) -> Report {
    let mut ended = BTreeMap::new();
    for task in world.jobs.iter().flat_map(|job| &job.tasks) {
        if let Some((status, ..)) = &task.end {
            *ended.entry(status.clone()).or_default() += 1;
        }
    }
    let known = history.iter().filter_map(|entry| match (&entry.call, &entry.told) {
        (Call::Submit(name), Told::Submitted(_)) => Some(name),
        _ => None,
    });
    let known: BTreeSet<&String> = known.collect();
    let accepted = world.jobs.iter().filter(|job| known.contains(&job.name));
    Report {
        plan,
        faults,
        accepted: accepted.map(|job| job.tasks.len()).sum(),
        ended,
        unknown: world.meant.len() - known.len(),
        containers: world.lives.len(),
        healed_in,
        broken,
    }
}

/// Looks now and then how much of each worker the master has given away.
fn take_samples(api: &Api, looks: &Mutex<Vec<Sample>>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let answer = api.get("/workers").map(|answer| answer.body);
        let workers = answer.as_ref().and_then(|body| body["workers"].as_array());
        let taken = workers.into_iter().flatten().filter_map(|worker| {
            let cores = |kind: &str| worker[kind]["cpus"].as_f64();
            let id = worker["id"].as_str()?.to_owned();
            Some((id, cores("allocated")?, cores("capacity")?))
        });
        looks.lock().unwrap_or_else(PoisonError::into_inner).extend(taken);
        thread::sleep(SAMPLE_EVERY);
    }
}

//! Making a failing scenario smaller: whatever can be left out while the same invariant still
//! breaks is left out. What comes is the shortest history that was found, and the same each time.

use cloudai_model::JobShape;

use crate::faults::{Class, Fault};
use crate::plant::Plant;
use crate::run::{Ended, Failure, invariant_of, play, scenario_of};
use crate::scenario::{JobPlan, Rates, Scenario};

/// Most runs that are spent on one failure.
const TRIES_MAX: usize = 600;

/// The search for the smallest scenario that fails in the same way.
struct Search {
    best: Scenario,
    plant: Option<Plant>,
    /// The invariant, without what it says about this very run.
    invariant: String,
    tries_left: usize,
}

/// The shortest history of a seed's failure that can be found; `None` when it does not fail.
pub fn shrink(seed: u64, plant: Option<Plant>) -> Option<Failure> {
    let scenario = scenario_of(seed, plant);
    let why = play(scenario.clone(), plant, false).why?;
    let (invariant, tries_left) = (invariant_of(&why).to_owned(), TRIES_MAX);
    let mut search = Search { best: scenario, plant, invariant, tries_left };
    loop {
        let before = search.weight();
        search.drop_classes();
        search.calm_rates();
        search.drop_faults();
        search.drop_jobs();
        search.drop_workers();
        search.simplify();
        if search.weight() == before || search.tries_left == 0 {
            break;
        }
    }
    let Ended { why, history, .. } = play(search.best, plant, true);
    Some(Failure { seed, why: why?, history })
}

impl Search {
    /// What the search makes smaller.
    fn weight(&self) -> usize {
        let Scenario { workers, jobs, faults, .. } = &self.best;
        let tasks: u64 = jobs.iter().map(|job| job.shape.task_count()).sum();
        workers.len() + jobs.len() + faults.len() + usize::try_from(tasks).unwrap_or(usize::MAX)
    }

    /// Keeps the change when the same invariant still breaks.
    fn try_change(&mut self, change: impl FnOnce(&mut Scenario)) -> bool {
        if self.tries_left == 0 {
            return false;
        }
        self.tries_left -= 1;
        let mut scenario = self.best.clone();
        change(&mut scenario);
        let why = play(scenario.clone(), self.plant, false).why;
        let same = why.is_some_and(|why| invariant_of(&why) == self.invariant);
        if same {
            self.best = scenario;
        }
        same
    }

    fn drop_classes(&mut self) {
        for class in Class::ALL {
            let is_of = |fault: &Fault| fault.what.class() == *class;
            if self.best.faults.iter().any(is_of) {
                self.try_change(|scenario| scenario.faults.retain(|fault| !is_of(fault)));
            }
        }
    }

    fn calm_rates(&mut self) {
        let calms: [fn(&mut Rates); 7] = [
            |rates| rates.loss_percent = 0,
            |rates| rates.double_percent = 0,
            |rates| rates.effect_double_percent = 0,
            |rates| rates.late_hello_percent = 0,
            |rates| rates.engine_fail_percent = 0,
            |rates| rates.commit_ms_max = 0,
            |rates| rates.delay_ms_max = 1,
        ];
        for calm in calms {
            self.try_change(|scenario| calm(&mut scenario.rates));
        }
    }

    fn drop_faults(&mut self) {
        self.drop_parts(
            |scenario| scenario.faults.len(),
            |scenario, from, to| {
                scenario.faults.drain(from..to);
            },
        );
    }

    fn drop_jobs(&mut self) {
        self.drop_parts(
            |scenario| scenario.jobs.len(),
            |scenario, from, to| {
                scenario.jobs.drain(from..to);
            },
        );
    }

    /// Leaves out parts of a list: halves, then quarters, down to single ones (delta debugging).
    fn drop_parts(&mut self, length: fn(&Scenario) -> usize, cut: fn(&mut Scenario, usize, usize)) {
        let mut part = length(&self.best).div_ceil(2);
        while part > 0 {
            let mut from = 0;
            while from < length(&self.best) {
                let to = (from + part).min(length(&self.best));
                if !self.try_change(|scenario| cut(scenario, from, to)) {
                    from = to;
                }
            }
            part /= 2;
        }
    }

    /// Leaves out machines, the last first, with what happens to them and what asks for them.
    fn drop_workers(&mut self) {
        while self.best.workers.len() > 1 {
            let last = self.best.workers.len() - 1;
            let changed = self.try_change(|scenario| {
                let gone = scenario.workers.remove(last).id;
                scenario.faults.retain(|fault| fault.what.worker() != Some(last));
                scenario.jobs.retain(|job| job.spec.target.as_ref() != Some(&gone));
            });
            if !changed {
                return;
            }
        }
    }

    fn simplify(&mut self) {
        for index in 0..self.best.jobs.len() {
            self.try_change(|scenario| scenario.jobs[index].cancel = None);
            while let JobShape::Array { first, last, at_once_max } = self.best.jobs[index].shape
                && last > first
            {
                let last = first + (last - first) / 2;
                let shape = JobShape::Array { first, last, at_once_max };
                let set = |job: &mut JobPlan| job.shape = shape;
                if !self.try_change(|scenario| set(&mut scenario.jobs[index])) {
                    break;
                }
            }
        }
        self.try_change(|scenario| {
            scenario.master_clock.drift_ppm = 0;
            for worker in &mut scenario.workers {
                worker.clock.drift_ppm = 0;
            }
        });
    }
}

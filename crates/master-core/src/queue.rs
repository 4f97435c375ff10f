//! The order of what waits, by shape: derived from the jobs, never stored.
//!
//! Each shape has a line; in a line stand the jobs that have a task to place now, oldest first. A
//! job whose bound on tasks at once is reached, or whose returned tasks wait out their backoff,
//! stands in no line.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cloudai_model::{JobId, JobRecord, LiveState};
use cloudai_scheduler::Shape;

#[derive(Debug, Default)]
pub(crate) struct Queue {
    numbers: BTreeMap<Arc<Shape>, u64>,
    lines: BTreeMap<u64, Line>,
    jobs: BTreeMap<JobId, Waiting>,
    last_line: u64,
    /// Tasks that wait, ready or not.
    pub(crate) queued_count: u64,
}

#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) shape: Arc<Shape>,
    /// Jobs with at least one task to place now, and how many each has.
    pub(crate) ready: BTreeMap<JobId, u64>,
    /// The sum of `ready`.
    pub(crate) ready_count: u64,
    /// Jobs of this shape, ready or not; the line goes when the last one does.
    members: usize,
}

/// A job's place in its line.
#[derive(Debug, Default)]
struct Waiting {
    line: u64,
    /// Positions to be tried again now.
    returned: BTreeSet<u32>,
    /// Positions to be tried again later.
    delayed: BTreeSet<u32>,
    /// The job's share of [`Queue::queued_count`].
    queued: u64,
}

impl Queue {
    /// Puts a new or restored job into the line of its shape.
    pub(crate) fn insert(&mut self, job: &JobRecord) {
        let shape = Shape::of(&job.spec);
        let line = match self.numbers.get(&shape) {
            Some(line) => *line,
            None => self.open(shape),
        };
        self.lines.get_mut(&line).expect("numbers name open lines").members += 1;
        let is_queued = |state: &LiveState| matches!(state, LiveState::Queued(_));
        let returned = job.live.iter().filter(|(_, task)| is_queued(&task.state));
        let returned = returned.map(|(position, _)| *position).collect();
        self.jobs.insert(job.id, Waiting { line, returned, ..Waiting::default() });
        self.refresh(job);
    }

    fn open(&mut self, shape: Shape) -> u64 {
        self.last_line += 1;
        let shape = Arc::new(shape);
        self.numbers.insert(Arc::clone(&shape), self.last_line);
        let line = Line { shape, ready: BTreeMap::new(), ready_count: 0, members: 0 };
        self.lines.insert(self.last_line, line);
        self.last_line
    }

    /// Takes an ended job out.
    pub(crate) fn remove(&mut self, job: JobId) {
        let Some(waiting) = self.jobs.remove(&job) else { return };
        assert_eq!(waiting.queued, 0, "{job} ended with tasks that wait");
        let line = self.lines.get_mut(&waiting.line).expect("a job stands in an open line");
        line.members -= 1;
        if line.members == 0 {
            self.numbers.remove(&line.shape);
            self.lines.remove(&waiting.line);
        }
    }

    /// A lost attempt's task waits again.
    pub(crate) fn give_back(&mut self, job: &JobRecord, position: u32) {
        self.waiting(job.id).returned.insert(position);
        self.refresh(job);
    }

    /// A returned task left the queue.
    pub(crate) fn take(&mut self, job: &JobRecord, position: u32) {
        let waiting = self.waiting(job.id);
        waiting.returned.remove(&position);
        waiting.delayed.remove(&position);
        self.refresh(job);
    }

    /// A returned task is not to be placed before [`Queue::release`].
    pub(crate) fn delay(&mut self, job: &JobRecord, position: u32) {
        let waiting = self.waiting(job.id);
        if waiting.returned.remove(&position) {
            waiting.delayed.insert(position);
        }
        self.refresh(job);
    }

    /// A delayed task may be placed again.
    pub(crate) fn release(&mut self, job: &JobRecord, position: u32) {
        let waiting = self.waiting(job.id);
        if waiting.delayed.remove(&position) {
            waiting.returned.insert(position);
        }
        self.refresh(job);
    }

    /// Whether the task waits out a backoff.
    pub(crate) fn is_delayed(&self, job: JobId, position: u32) -> bool {
        self.jobs.get(&job).is_some_and(|waiting| waiting.delayed.contains(&position))
    }

    fn waiting(&mut self, job: JobId) -> &mut Waiting {
        self.jobs.get_mut(&job).expect("every live job has its place in the queue")
    }

    /// Counts anew how many tasks of the job may be placed now.
    pub(crate) fn refresh(&mut self, job: &JobRecord) {
        let waiting = self.jobs.get_mut(&job.id).expect("every live job has its place");
        let returned = waiting.returned.len() as u64;
        let asleep = returned + waiting.delayed.len() as u64;
        let held = (job.live.len() as u64).saturating_sub(asleep);
        let room = job.shape.at_once_max().saturating_sub(held);
        let ready = (job.fresh.count() + returned).min(room);
        let queued = job.fresh.count() + asleep;
        self.queued_count = self.queued_count - waiting.queued + queued;
        waiting.queued = queued;
        let line = self.lines.get_mut(&waiting.line).expect("a job stands in an open line");
        let before = match ready {
            0 => line.ready.remove(&job.id),
            _ => line.ready.insert(job.id, ready),
        };
        line.ready_count = line.ready_count - before.unwrap_or(0) + ready;
    }

    /// Lines with something to place, the one with the oldest job first.
    pub(crate) fn ready_lines(&self) -> Vec<(u64, &Line)> {
        let mut lines: Vec<_> = self
            .lines
            .iter()
            .filter(|(_, line)| line.ready_count > 0)
            .map(|(number, line)| (*number, line))
            .collect();
        lines.sort_by_key(|(number, line)| (line.ready.keys().next().copied(), *number));
        lines
    }

    /// The first `count` tasks of a line, as job and position, in queue order.
    pub(crate) fn first_of(
        &self,
        line: u64,
        count: u64,
        jobs: &BTreeMap<JobId, JobRecord>,
    ) -> Vec<(JobId, u32)> {
        let Some(line) = self.lines.get(&line) else { return Vec::new() };
        let of_job = |(job, ready): (&JobId, &u64)| {
            let job = *job;
            self.positions(&jobs[&job]).take(*ready as usize).map(move |position| (job, position))
        };
        line.ready.iter().flat_map(of_job).take(count as usize).collect()
    }

    /// The positions of a job that may be placed now, those that were tried before first.
    fn positions<'a>(&'a self, job: &'a JobRecord) -> impl Iterator<Item = u32> + 'a {
        self.jobs[&job.id].returned.iter().copied().chain(job.fresh.iter())
    }

    /// Whether the task is one of those that may be placed now.
    pub(crate) fn is_ready(&self, job: &JobRecord, position: u32) -> bool {
        let Some(waiting) = self.jobs.get(&job.id) else { return false };
        let line = &self.lines[&waiting.line];
        line.ready.contains_key(&job.id)
            && (waiting.returned.contains(&position) || job.fresh.contains(position))
    }

    /// Ready tasks of all lines, oldest job first, at most `count`.
    pub(crate) fn pending(
        &self,
        count: usize,
        jobs: &BTreeMap<JobId, JobRecord>,
    ) -> Vec<(JobId, u32)> {
        let mut heads: BTreeMap<JobId, u64> = BTreeMap::new();
        for line in self.lines.values() {
            heads.extend(line.ready.iter().take(count).map(|(job, ready)| (*job, *ready)));
        }
        let of_job = |(job, ready): (JobId, u64)| {
            self.positions(&jobs[&job]).take(ready as usize).map(move |position| (job, position))
        };
        heads.into_iter().flat_map(of_job).take(count).collect()
    }

    /// Everything ready, of every shape.
    pub(crate) fn ready_count(&self) -> u64 {
        self.lines.values().map(|line| line.ready_count).sum()
    }

    /// Panics when this is not what `again`, made from the jobs alone, is with the same tasks
    /// delayed. For tests and the simulator.
    pub(crate) fn assert_follows(&self, mut again: Self, jobs: &BTreeMap<JobId, JobRecord>) {
        for (job, waiting) in &self.jobs {
            for position in &waiting.delayed {
                again.delay(&jobs[job], *position);
            }
        }
        assert_eq!(self.sorted_lines(), again.sorted_lines(), "the lines of what waits");
        let places = |queue: &Self| -> Vec<(JobId, BTreeSet<u32>, BTreeSet<u32>, u64)> {
            let place = |(job, it): (&JobId, &Waiting)| {
                (*job, it.returned.clone(), it.delayed.clone(), it.queued)
            };
            queue.jobs.iter().map(place).collect()
        };
        assert_eq!(places(self), places(&again), "the places of what waits");
    }

    /// Each shape with its line, whatever its number.
    fn sorted_lines(&self) -> BTreeMap<&Shape, (&BTreeMap<JobId, u64>, u64, usize)> {
        assert_eq!(self.numbers.len(), self.lines.len(), "a line for each shape");
        let lines = self.numbers.iter().map(|(shape, number)| (&**shape, &self.lines[number]));
        lines.map(|(shape, line)| (shape, (&line.ready, line.ready_count, line.members))).collect()
    }
}

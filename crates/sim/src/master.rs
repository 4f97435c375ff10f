//! A master's shell around the real core and the real store, as `master/src/heart/turn.rs` is one:
//! drain the inbox, step each command, plan once, store the turn, release its effects. It decides
//! nothing about tasks. What comes in and goes out stands in `desk.rs`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cloudai_database::StoreError;
use cloudai_master_core::{Batch, Command, Core, Effect, Input, Settings, Token};
use cloudai_model::{Event, JobId, JobShape, Monotonic, Now, RequestId, Session, WorkerId};
use cloudai_scheduler::Policy;
use fastrand::Rng;

use crate::client::CallId;
use crate::desk::Item;
use crate::disk::Disk;
use crate::faults::{Class, DeathPoint};
use crate::full::sign_of_life;
use crate::net::StreamId;
use crate::oracle::waits::Word;
use crate::oracle::{Oracle, state};
use crate::plant::Plant;
use crate::world::{Happening, World};

/// How much later than it wanted a turn may begin before the master has stood still.
const STALL_MS_MAX: u64 = 5_000;

/// The master's machine with its process, when that runs.
pub(crate) struct Master {
    /// Counts the processes.
    life: u32,
    pub(crate) process: Option<Process>,
    pub(crate) disk: Disk,
    /// What happened while the process stands still.
    stash: Option<Vec<Happening>>,
    /// The next turn that stores something is the last, up to this point.
    doomed: Option<(DeathPoint, u64)>,
    /// Workers that were unwell once, where a planted bug keeps that.
    pub(crate) unwell: BTreeSet<WorkerId>,
    pub(crate) random: Rng,
}

/// A master process.
pub(crate) struct Process {
    pub(crate) core: Core,
    policy: Box<dyn Policy>,
    /// Which session is reached over which stream.
    pub(crate) links: BTreeMap<WorkerId, (Session, StreamId)>,
    pub(crate) inbox: VecDeque<Message>,
    last_token: u64,
    /// How many session streams it has challenged.
    pub(crate) streams: u64,
    /// What the node's clock showed when it started: its own clock began there.
    started: Monotonic,
    wake_at_ms: Option<u64>,
    /// Until when the store is taken to have no room.
    pub(crate) full_until: Option<Monotonic>,
    /// The effects of a turn that is stored and not yet released.
    pending: Option<Vec<Item>>,
}

/// Who waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    Client(CallId),
    Hello(StreamId),
    Report(StreamId),
    Goodbye(StreamId),
}

/// What the heart is asked.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) command: Command,
    pub(crate) from: Asker,
}

/// Who waits in the present turn.
#[derive(Default)]
pub(crate) struct Waiters {
    pub(crate) answers: BTreeMap<Token, Asker>,
    hellos: Vec<WorkerId>,
    submitted: BTreeMap<RequestId, (JobId, JobShape)>,
    /// What workers said.
    pub(crate) words: BTreeMap<Token, Word>,
    /// What can be said again when the store has no room: that a worker lives.
    pub(crate) signs_of_life: Vec<(Token, Command)>,
}

impl Master {
    pub(crate) fn new(disk: Disk, random: Rng) -> Self {
        let unwell = BTreeSet::new();
        Self { life: 0, process: None, disk, stash: None, doomed: None, unwell, random }
    }

    /// Which process runs.
    pub(crate) fn life_up(&self) -> Option<u32> {
        self.process.as_ref().map(|_| self.life)
    }
}

impl World {
    /// Keeps what happens to a paused master for later; gives back what is to be done now.
    pub(crate) fn stash_of_master(&mut self, what: Happening) -> Option<Happening> {
        match &mut self.master.stash {
            None => Some(what),
            Some(stash) => {
                stash.push(what);
                None
            }
        }
    }

    pub(crate) fn pause_master(&mut self, ms: u64) -> bool {
        if self.master.process.is_none() || self.master.stash.is_some() {
            return false;
        }
        self.master.stash = Some(Vec::new());
        let life = self.master.life;
        self.queue.after(ms, Happening::MasterResumes { life });
        true
    }

    pub(crate) fn on_master_resumes(&mut self, life: u32) {
        if self.master.life != life {
            return;
        }
        let Some(stash) = self.master.stash.take() else { return };
        self.say(format_args!("master: goes on"));
        for what in stash {
            self.happen(what);
        }
    }

    pub(crate) fn on_master_starts(&mut self) {
        if self.master.process.is_some() {
            return;
        }
        let now_ms = self.queue.now_ms();
        let started = self.master_clock.mono(now_ms);
        let now = Now { wall: self.master_clock.wall(now_ms), mono: Monotonic(0) };
        let restored = self.master.disk.load().map_err(|error| error.to_string());
        let restored = restored.and_then(|snapshot| {
            Core::restore(snapshot, Settings::default(), now).map_err(|error| error.to_string())
        });
        let core = match restored {
            Ok(core) => core,
            Err(why) => return self.fail(format!("the master cannot start: {why}")),
        };
        if let Err(why) = self.oracle.reference.check_restored(&core.facts().snapshot()) {
            return self.fail(why);
        }
        self.master.life += 1;
        self.master.process = Some(Process {
            core,
            policy: self.scenario.policy.build(),
            links: BTreeMap::new(),
            inbox: VecDeque::new(),
            last_token: 0,
            streams: 0,
            started,
            wake_at_ms: None,
            full_until: None,
            pending: None,
        });
        self.oracle.waits.begins(now_ms);
        self.oracle.waits.forget_workers();
        self.say(format_args!("master: starts"));
        self.wake_master(now_ms);
    }

    /// The process is gone at once; its connections end.
    pub(crate) fn kill_master(&mut self, down_ms: u64) -> bool {
        if self.master.process.take().is_none() {
            return false;
        }
        self.say(format_args!("master: killed"));
        self.master.stash = None;
        self.master.doomed = None;
        if let Err(error) = self.master.disk.reopen() {
            self.fail(format!("the store cannot be opened again: {error}"));
        }
        for index in 0..self.net.streams.len() {
            self.close_at_master(StreamId(index));
        }
        self.queue.after(down_ms, Happening::MasterStarts);
        true
    }

    /// The next turn that stores something ends at this point of it.
    pub(crate) fn doom_master(&mut self, point: DeathPoint, down_ms: u64) -> bool {
        if point == DeathPoint::AtOnce {
            return self.kill_master(down_ms);
        }
        self.master.doomed = Some((point, down_ms));
        self.master.process.is_some()
    }

    /// Takes back every death and every failure that has not come yet.
    pub(crate) fn spare_master(&mut self) {
        self.master.doomed = None;
        self.master.disk.fails = None;
        self.master.disk.is_full = false;
    }

    pub(crate) fn wake_master(&mut self, at_ms: u64) {
        let life = self.master.life;
        let Some(process) = self.master.process.as_mut() else { return };
        if process.wake_at_ms.is_none_or(|planned| planned > at_ms) {
            process.wake_at_ms = Some(at_ms);
            self.queue.at(at_ms, Happening::MasterWakes { life });
        }
    }

    pub(crate) fn master_now(&self) -> Now {
        let now = self.master_clock.now(self.queue.now_ms());
        let started = self.master.process.as_ref().map_or(now.mono, |process| process.started);
        Now { mono: Monotonic(now.mono.ms_since(started)), ..now }
    }

    /// When the core wants to be looked at next, in true time.
    fn master_deadline_ms(&self) -> Option<u64> {
        let process = self.master.process.as_ref()?;
        let deadline = process.full_until.or_else(|| process.core.next_deadline())?;
        let deadline = deadline.plus_ms(1).plus_ms(process.started.0);
        Some(self.master_clock.true_ms(deadline))
    }

    pub(crate) fn on_master_wakes(&mut self, life: u32) {
        let now_ms = self.queue.now_ms();
        if self.master.life_up() != Some(life) {
            return;
        }
        let deadline_ms = self.master_deadline_ms();
        let Some(process) = self.master.process.as_mut() else { return };
        if process.wake_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            process.wake_at_ms = None;
        }
        // A turn at a time: the release of the present one looks again.
        if process.pending.is_some() {
            return;
        }
        let is_due = deadline_ms.is_some_and(|at_ms| at_ms <= now_ms);
        if is_due || !process.inbox.is_empty() {
            self.turn();
        } else if let Some(at_ms) = deadline_ms {
            self.wake_master(at_ms);
        }
    }

    fn turn(&mut self) {
        let now = self.master_now();
        let Some(process) = self.master.process.as_mut() else { return };
        let late_ms = process.core.next_deadline().map_or(0, |due| now.mono.ms_since(due));
        if late_ms > STALL_MS_MAX {
            process.core.renew_leases(now);
        }
        let is_full = process.is_pausing(now.mono);
        let mut batch = Batch::default();
        if !is_full {
            batch = process.core.step(now, Input { from: None, command: Command::Tick });
        }
        let mut waiters = Waiters::default();
        let messages: Vec<Message> = process.inbox.drain(..).collect();
        for message in messages {
            self.take(now, message, &mut batch, &mut waiters);
        }
        if !is_full {
            self.plan(now, &mut batch);
        }
        self.commit(batch, waiters, is_full);
    }

    fn take(&mut self, now: Now, message: Message, batch: &mut Batch, waiters: &mut Waiters) {
        let Message { mut command, from } = message;
        match (&command, from) {
            (Command::Hello(hello), _) => waiters.hellos.push(hello.id.clone()),
            (Command::Report { worker, .. }, Asker::Report(stream))
                if waiters.hellos.contains(worker) || !self.is_linked(stream) =>
            {
                return self.refuse_report(stream);
            }
            _ => {}
        }
        self.complete(&mut command, waiters);
        let word = self.oracle.waits.taken(&command);
        self.plant_in_command(now, &mut command, from, batch);
        let Some(process) = self.master.process.as_mut() else { return };
        process.last_token += 1;
        let token = Token(process.last_token);
        waiters.answers.insert(token, from);
        waiters.words.extend(word.map(|word| (token, word)));
        waiters.signs_of_life.extend(sign_of_life(&command).map(|sign| (token, sign)));
        let decided = process.core.step(now, Input { from: Some(token), command });
        for event in decided.events() {
            if let Event::JobSubmitted { job, shape, request: Some(request), .. } = event {
                waiters.submitted.insert(request.clone(), (*job, *shape));
            }
        }
        batch.append(decided);
    }

    /// A submit that was sent again long after its job ended is known to the store only.
    fn complete(&mut self, command: &mut Command, waiters: &Waiters) {
        if let Command::Submit(submission) = command
            && let Some(request) = &submission.request
            && self.plant != Some(Plant::RequestForgotten)
        {
            submission.known = match waiters.submitted.get(request) {
                Some(known) => Some(*known),
                None => match self.master.disk.find_request(request) {
                    Ok(known) => known,
                    Err(error) => return self.fail(format!("a request cannot be read: {error}")),
                },
            };
        }
    }

    fn plan(&mut self, now: Now, batch: &mut Batch) {
        let skips = self.plant == Some(Plant::LostWakeUp) && self.master.random.u8(0..4) == 0;
        let Some(process) = self.master.process.as_mut() else { return };
        if !process.core.take_plan_wish() || skips {
            return;
        }
        let problem = process.core.problem();
        let plan = process.policy.plan(&problem);
        batch.append(process.core.apply_plan(now, &problem, &plan));
    }

    fn commit(&mut self, batch: Batch, mut waiters: Waiters, is_full: bool) {
        let events = batch.events().to_vec();
        let doomed = if events.is_empty() { None } else { self.master.doomed.take() };
        if let Some((DeathPoint::BeforeCommit, down_ms)) = doomed {
            self.report.count(Class::MasterDiesBeforeCommit);
            self.kill_master(down_ms);
            return;
        }
        let early = self.plant == Some(Plant::EffectsBeforeCommit)
            && !events.is_empty()
            && self.master.random.u8(0..20) == 0;
        self.master.disk.forgets |= self.plant == Some(Plant::LostCommit)
            && !events.is_empty()
            && self.master.random.u8(0..30) == 0;
        if early {
            // The effects are those of a commit that never comes.
            let Ok(effects) = batch.commit(&mut Nowhere);
            let items = self.sort_effects(effects, &mut waiters);
            self.release(items);
            self.kill_master(1_000);
            return;
        }
        match batch.commit(&mut self.master.disk) {
            Ok(effects) => {
                if let Some(process) = self.master.process.as_mut().filter(|_| !is_full) {
                    process.full_until = None;
                }
                self.committed(&events, effects, waiters, doomed);
            }
            Err(StoreError::Full { .. }) => self.go_on_without_room(waiters),
            Err(_) => {
                for from in waiters.answers.into_values() {
                    self.answer_failure(from);
                }
                self.start_over();
            }
        }
    }

    /// The turn is true now; its effects are about to be released.
    fn committed(
        &mut self,
        events: &[Event],
        effects: Vec<Effect>,
        mut waiters: Waiters,
        doomed: Option<(DeathPoint, u64)>,
    ) {
        self.judge_events(events);
        let mut items = self.sort_effects(effects, &mut waiters);
        self.judge_state();
        match doomed {
            Some((DeathPoint::AfterCommit, down_ms)) => {
                self.report.count(Class::MasterDiesAfterCommit);
                self.kill_master(down_ms);
                return;
            }
            Some((DeathPoint::MidRelease(percent), down_ms)) => {
                self.report.count(Class::MasterDiesAmidEffects);
                items.truncate(items.len() * usize::from(percent) / 100);
                self.release(items);
                self.kill_master(down_ms);
                return;
            }
            _ => {}
        }
        let life = self.master.life;
        let Some(process) = self.master.process.as_mut() else { return };
        process.pending = Some(items);
        let most = if events.is_empty() { 0 } else { self.rates.commit_ms_max };
        let commit_ms = self.master.random.u64(0..=most);
        if commit_ms > 50 {
            self.report.count(Class::SlowDisk);
        }
        self.queue.after(commit_ms, Happening::MasterReleases { life });
    }

    pub(crate) fn on_master_releases(&mut self, life: u32) {
        if self.master.life_up() != Some(life) {
            return;
        }
        let Some(items) = self.master.process.as_mut().and_then(|one| one.pending.take()) else {
            return;
        };
        self.release(items);
        self.wake_master(self.queue.now_ms());
    }

    /// The store did not keep the turn, or did not say so: nothing of it is answered, the core is
    /// made again from what the store has, and every worker says hello again.
    pub(crate) fn start_over(&mut self) {
        self.report.count(Class::StoreFails);
        self.say(format_args!("master: a commit fails; starts over"));
        if let Some(events) = self.master.disk.kept.take() {
            self.judge_events(&events);
        }
        if !self.reload_core() {
            return;
        }
        let Some(process) = self.master.process.as_mut() else { return };
        process.core.disconnect();
        self.oracle.waits.sessions_end();
        for (_, stream) in std::mem::take(&mut process.links).into_values() {
            self.close_at_master(stream);
        }
        self.wake_master(self.queue.now_ms());
    }

    /// Takes up what the store has; false when that must not be.
    pub(crate) fn reload_core(&mut self) -> bool {
        let now = self.master_now();
        let snapshot = self.master.disk.load().map_err(|error| error.to_string());
        let checked = snapshot.and_then(|snapshot| {
            self.oracle.reference.check_restored(&snapshot)?;
            Ok(snapshot)
        });
        let Some(process) = self.master.process.as_mut() else { return false };
        let reloaded = checked.and_then(|snapshot| {
            process.core.reload(snapshot, now).map_err(|error| error.to_string())
        });
        match reloaded {
            Ok(core) => {
                process.core = core;
                self.oracle.waits.begins(self.queue.now_ms());
            }
            Err(why) => self.fail(why),
        }
        self.failure.is_none()
    }

    /// Compares what the store would give back with what the master has in mind, after every
    /// commit; with files, now and then only.
    fn judge_state(&mut self) {
        let now = self.master_now();
        let sampled = self.master.disk.is_in_memory() || self.master.random.u8(0..8) == 0;
        let Some(process) = self.master.process.as_ref() else { return };
        let mut stored = || state::check_store(&process.core, &mut self.master.disk, now);
        let judged = if sampled { stored() } else { Ok(()) };
        // Nothing is placed while the store has no room. Where the next turn begins at once, what
        // waits is looked at after that.
        let plans_again = process.core.next_deadline().is_some_and(|at| at <= now.mono);
        let is_settled = process.full_until.is_none() && !plans_again;
        let Oracle { waits, reference, .. } = &self.oracle;
        let waits = || waits.check(&process.core, reference, self.queue.now_ms());
        let judged = judged.and_then(|()| if is_settled { waits() } else { Ok(()) });
        if let Err(why) = judged {
            self.fail(why);
        }
    }
}

/// A journal that keeps nothing: for a planted bug.
struct Nowhere;

impl cloudai_model::Journal for Nowhere {
    type Error = std::convert::Infallible;

    fn commit(&mut self, _: &[Event]) -> Result<(), Self::Error> {
        Ok(())
    }
}

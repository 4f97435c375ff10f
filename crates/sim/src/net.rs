//! The network: session streams, in which order holds and which can break with anything under way,
//! and single calls, which can be late, lost or doubled. It carries messages and reads none.
//!
//! A cut is no break: what is sent into a cut waits, as TCP does, and comes when the cut is over,
//! even after both ends have long given the connection up, or its process is gone.

use std::collections::VecDeque;
use std::sync::Arc;

use cloudai_master_core::StreamNo;
use cloudai_model::{AttemptId, AttemptReport, Session, StopReason, TaskSpec};
use fastrand::Rng;

use crate::faults::{Class, Way};
use crate::world::{Happening, World};

/// How long a worker waits for signs of life of a quiet connection, in milliseconds: at least and
/// at most.
const KEEP_ALIVE_MS: std::ops::RangeInclusive<u64> = 5_000..=10_000;
/// How much later an order comes once more, in milliseconds: as with the next full report but one.
const AGAIN_MS_MAX: u64 = 10_000;
/// How long a master waits for a message of a session, in milliseconds.
const SILENCE_MS_MAX: u64 = 30_000;

/// One connection of a worker, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StreamId(pub(crate) usize);

/// From a worker to the master.
#[derive(Debug)]
pub(crate) enum Up {
    /// The stream itself.
    Begin,
    Hello {
        session: Option<Session>,
        held: Vec<AttemptReport>,
        degraded: Option<String>,
    },
    Report {
        sequence: u64,
        changes: Vec<AttemptReport>,
        full: Option<Vec<AttemptReport>>,
        degraded: Option<String>,
    },
    Goodbye,
    End,
}

/// From the master to a worker.
#[derive(Debug)]
pub(crate) enum Down {
    Challenge,
    Welcome(Session),
    Refused(Refusal),
    Orders(Orders),
    End,
}

/// Why a master ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Superseded,
    Unknown,
    Invalid,
}

/// What one turn of the master has for one worker.
#[derive(Debug, Clone, Default)]
pub(crate) struct Orders {
    pub(crate) acknowledged: u64,
    pub(crate) assign: Vec<(AttemptId, Arc<TaskSpec>)>,
    pub(crate) stop: Vec<(AttemptId, StopReason)>,
    pub(crate) forget: Vec<AttemptId>,
}

impl Orders {
    /// Whether there is nothing to do.
    pub(crate) const fn is_acknowledgement(&self) -> bool {
        self.assign.is_empty() && self.stop.is_empty() && self.forget.is_empty()
    }
}

/// A connection. Each end has its own view of whether it stands.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) worker: usize,
    /// The process of the worker that opened it.
    pub(crate) worker_life: u32,
    /// The process of the master that it reaches.
    pub(crate) master_life: u32,
    pub(crate) is_open_at_worker: bool,
    pub(crate) is_open_at_master: bool,
    up: Lane<Up>,
    down: Lane<Down>,
    /// What has arrived at the master and was not read yet.
    pub(crate) received: VecDeque<Up>,
    /// Whether the master's reader waits for the heart.
    pub(crate) is_reading: bool,
    /// As the master counted it when it challenged it.
    pub(crate) number: Option<StreamNo>,
    /// As the master welcomed it.
    pub(crate) session: Option<Session>,
    pub(crate) heard_at_ms: u64,
    /// Nothing that is sent up arrives before.
    slow_until_ms: u64,
}

/// One direction: messages in order, and how many of them a cut holds back.
#[derive(Debug)]
struct Lane<T> {
    under_way: VecDeque<T>,
    held_back: usize,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self { under_way: VecDeque::new(), held_back: 0 }
    }
}

impl<T> Lane<T> {
    /// The next message, unless the way is cut.
    fn arrive(&mut self, is_cut: bool) -> Option<T> {
        if is_cut {
            self.held_back += 1;
            return None;
        }
        self.under_way.pop_front()
    }
}

/// Everything between the nodes.
#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) streams: Vec<Stream>,
    /// For each worker: until when nothing goes up, and nothing comes down.
    cuts: Vec<(u64, u64)>,
    random: Rng,
}

impl Net {
    pub(crate) fn new(workers: usize, random: Rng) -> Self {
        Self { streams: Vec::new(), cuts: vec![(0, 0); workers], random }
    }

    pub(crate) fn stream(&mut self, id: StreamId) -> &mut Stream {
        &mut self.streams[id.0]
    }

    /// What is sent up from now on does not arrive before.
    pub(crate) fn slow_down(&mut self, id: StreamId, until_ms: u64) {
        self.stream(id).slow_until_ms = until_ms;
    }
}

impl World {
    fn is_cut_up(&self, worker: usize) -> bool {
        self.net.cuts[worker].0 > self.queue.now_ms()
    }

    fn is_cut_down(&self, worker: usize) -> bool {
        self.net.cuts[worker].1 > self.queue.now_ms()
    }

    /// Whether a call from this worker gets through to a master and back.
    pub(crate) fn is_connected(&self, worker: usize) -> bool {
        !self.is_cut_up(worker) && !self.is_cut_down(worker)
    }

    /// How long a message is under way.
    pub(crate) fn draw_delay_ms(&mut self) -> u64 {
        self.net.random.u64(0..=self.rates.delay_ms_max)
    }

    /// A new connection; `None` when there is nobody to connect to.
    pub(crate) fn open_stream(&mut self, worker: usize) -> Option<StreamId> {
        let master_life = self.master.life_up()?;
        if !self.is_connected(worker) {
            return None;
        }
        let id = StreamId(self.net.streams.len());
        self.net.streams.push(Stream {
            worker,
            worker_life: self.workers[worker].life,
            master_life,
            is_open_at_worker: true,
            is_open_at_master: true,
            up: Lane::default(),
            down: Lane::default(),
            received: VecDeque::new(),
            is_reading: false,
            number: None,
            session: None,
            heard_at_ms: self.queue.now_ms(),
            slow_until_ms: 0,
        });
        self.queue.after(SILENCE_MS_MAX, Happening::MasterListens { stream: id });
        self.send_up(id, Up::Begin);
        Some(id)
    }

    pub(crate) fn send_up(&mut self, id: StreamId, message: Up) {
        let at_ms = self.queue.now_ms() + self.draw_delay_ms();
        let stream = self.net.stream(id);
        stream.up.under_way.push_back(message);
        let at_ms = at_ms.max(stream.slow_until_ms);
        self.queue.at(at_ms, Happening::MasterHears { stream: id });
    }

    pub(crate) fn send_down(&mut self, id: StreamId, message: Down) {
        self.net.stream(id).down.under_way.push_back(message);
        let delay_ms = self.draw_delay_ms();
        self.queue.after(delay_ms, Happening::WorkerHears { stream: id });
    }

    /// What arrives at the master on this stream now.
    pub(crate) fn arrive_up(&mut self, id: StreamId) -> Option<Up> {
        let is_cut = self.is_cut_up(self.net.streams[id.0].worker);
        self.net.stream(id).up.arrive(is_cut)
    }

    /// What arrives at the worker on this stream now.
    pub(crate) fn arrive_down(&mut self, id: StreamId) -> Option<Down> {
        let is_cut = self.is_cut_down(self.net.streams[id.0].worker);
        self.net.stream(id).down.arrive(is_cut)
    }

    /// The worker's end is gone; the other end hears of it when the network lets it.
    pub(crate) fn close_at_worker(&mut self, id: StreamId) {
        let stream = self.net.stream(id);
        if std::mem::take(&mut stream.is_open_at_worker) {
            self.send_up(id, Up::End);
        }
    }

    /// The master's end is gone; the other end hears of it when the network lets it.
    pub(crate) fn close_at_master(&mut self, id: StreamId) {
        let stream = self.net.stream(id);
        stream.received.clear();
        if std::mem::take(&mut stream.is_open_at_master) {
            self.send_down(id, Down::End);
        }
    }

    /// A worker's connections are reset: of what is under way, a part still arrives.
    pub(crate) fn break_streams(&mut self, worker: usize) {
        for index in 0..self.net.streams.len() {
            let Net { streams, random, .. } = &mut self.net;
            let stream = &mut streams[index];
            if stream.worker != worker || !(stream.is_open_at_worker || stream.is_open_at_master) {
                continue;
            }
            stream.up.under_way.truncate(random.usize(0..=stream.up.under_way.len()));
            stream.down.under_way.truncate(random.usize(0..=stream.down.under_way.len()));
            self.send_up(StreamId(index), Up::End);
            self.send_down(StreamId(index), Down::End);
        }
    }

    pub(crate) fn cut(&mut self, worker: usize, way: Way, ms: u64) {
        let until_ms = self.queue.now_ms() + ms;
        let (up, down) = &mut self.net.cuts[worker];
        if way.is_up() {
            *up = until_ms.max(*up);
        }
        if way.is_down() {
            *down = until_ms.max(*down);
        }
        self.queue.at(until_ms, Happening::CutEnds { worker });
        for index in 0..self.net.streams.len() {
            let stream = &self.net.streams[index];
            if stream.worker == worker && stream.is_open_at_worker {
                let after_ms = self.net.random.u64(KEEP_ALIVE_MS);
                let stream = StreamId(index);
                self.queue.after(after_ms, Happening::WorkerListens { stream });
            }
        }
    }

    /// Ends every cut at once.
    pub(crate) fn mend_network(&mut self) {
        for worker in 0..self.net.cuts.len() {
            self.net.cuts[worker] = (0, 0);
            self.on_cut_ends(worker);
        }
    }

    /// What the cut held back goes on its way, in order.
    pub(crate) fn on_cut_ends(&mut self, worker: usize) {
        let (up, down) = (self.is_cut_up(worker), self.is_cut_down(worker));
        for index in 0..self.net.streams.len() {
            let id = StreamId(index);
            let stream = self.net.stream(id);
            if stream.worker != worker {
                continue;
            }
            let held_up = if up { 0 } else { std::mem::take(&mut stream.up.held_back) };
            let held_down = if down { 0 } else { std::mem::take(&mut stream.down.held_back) };
            for _ in 0..held_up {
                let delay_ms = self.draw_delay_ms();
                self.queue.after(delay_ms, Happening::MasterHears { stream: id });
            }
            for _ in 0..held_down {
                let delay_ms = self.draw_delay_ms();
                self.queue.after(delay_ms, Happening::WorkerHears { stream: id });
            }
        }
    }

    /// The keep-alive of a worker's connection: a cut that lasts ends it.
    pub(crate) fn on_worker_listens(&mut self, id: StreamId) {
        let stream = &self.net.streams[id.0];
        let (worker, life) = (stream.worker, stream.worker_life);
        let stands = stream.is_open_at_worker && self.workers[worker].life_up() == Some(life);
        if stands && !self.is_connected(worker) {
            self.close_at_worker(id);
            self.on_stream_lost(worker, id);
        }
    }

    /// The master's patience with a silent session.
    pub(crate) fn on_master_listens(&mut self, id: StreamId) {
        let now_ms = self.queue.now_ms();
        let stream = &self.net.streams[id.0];
        if !stream.is_open_at_master || self.master.life_up() != Some(stream.master_life) {
            return;
        }
        let give_up_at_ms = stream.heard_at_ms + SILENCE_MS_MAX;
        if stream.is_reading || now_ms < give_up_at_ms {
            let at_ms = give_up_at_ms.max(now_ms + 1_000);
            self.queue.at(at_ms, Happening::MasterListens { stream: id });
            return;
        }
        self.close_at_master(id);
    }

    /// Whether an order, or the end of an attempt, is sent once more.
    pub(crate) fn draw_doubled(&mut self) -> bool {
        let doubles = self.net.random.u8(0..100) < self.rates.effect_double_percent;
        if doubles {
            self.report.count(Class::EffectDoubled);
        }
        doubles
    }

    /// When that is, in milliseconds from now.
    pub(crate) fn draw_again_ms(&mut self) -> u64 {
        self.net.random.u64(0..=AGAIN_MS_MAX)
    }

    /// How often a single call arrives: 0, 1 or 2 times.
    pub(crate) fn draw_copies(&mut self) -> usize {
        let percent = self.net.random.u8(0..100);
        if percent < self.rates.loss_percent {
            self.report.count(Class::CallLost);
            return 0;
        }
        if self.net.random.u8(0..100) < self.rates.double_percent {
            self.report.count(Class::CallDoubled);
            return 2;
        }
        1
    }
}

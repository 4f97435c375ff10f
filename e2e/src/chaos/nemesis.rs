//! Does to a cluster what happens to clusters: processes are killed and stand still, the disk of
//! the master's store is full, networks are cut in one direction or both, slow, or lose their
//! connections. At most one fault at a time for each process; those of different processes overlap
//! as they like.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use super::{Chance, Faults, Plan, SLOTS, interrupt};
use crate::cluster::{Cluster, Worker};
use crate::disk::SmallDisk;
use crate::proxy::{Proxy, Way};

/// How often the nemesis looks whether something is due.
const TICK: Duration = Duration::from_millis(50);

/// The disk of the master, and that of the workers beside it: only the first is filled.
const DISK_BYTES: u64 = 512 << 20;

/// What a process suffers, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Dead,
    Paused,
    Network,
    DiskFull,
}

struct Victim {
    suffers: Option<(Fault, Instant)>,
    /// When the next fault begins.
    next: Instant,
}

struct Machine {
    id: String,
    worker: Option<Worker>,
    proxy: Proxy,
    victim: Victim,
}

/// A cluster and its troubles.
pub(super) struct Nemesis {
    // First, so that no worker makes a container any more when the cluster removes them.
    machines: Vec<Machine>,
    /// Those of the workers and of the master; none when only the master is killed. Before the
    /// cluster, whose folder they are in.
    disks: Option<[SmallDisk; 2]>,
    cluster: Cluster,
    master: Victim,
    chance: Chance,
    faults: BTreeMap<&'static str, usize>,
    /// What processes said that they should never say.
    complaints: Vec<String>,
}

impl Nemesis {
    /// Starts a master, and workers each behind a network of its own.
    pub(super) fn start(plan: Plan) -> Self {
        let mut cluster = Cluster::prepare_apart();
        let disks = (plan.faults == Faults::All).then(|| {
            let master = SmallDisk::mount(&cluster.data_dir(), DISK_BYTES);
            [SmallDisk::mount(&cluster.data_dir().join("workers"), DISK_BYTES), master]
        });
        cluster.start_master();
        let now = Instant::now();
        let victim = || Victim { suffers: None, next: now };
        let machines = (1..=plan.workers).map(|number| Machine {
            id: format!("worker-{number}"),
            worker: None,
            proxy: Proxy::start(&cluster.grpc_address()),
            victim: victim(),
        });
        let mut nemesis = Self {
            machines: machines.collect(),
            master: victim(),
            disks,
            cluster,
            chance: Chance(plan.seed),
            faults: BTreeMap::new(),
            complaints: Vec::new(),
        };
        for index in 0..plan.workers {
            nemesis.start_worker(index);
        }
        nemesis
    }

    /// The cluster.
    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The ids of the workers.
    pub(super) fn worker_ids(&self) -> impl Iterator<Item = &str> {
        self.machines.iter().map(|machine| machine.id.as_str())
    }

    /// Faults until this moment, or until Ctrl-C.
    pub(super) fn rage(&mut self, until: Instant) {
        while Instant::now() < until && !interrupt::is_raised() {
            self.look_after_master();
            for index in 0..self.machines.len() {
                self.look_after_worker(index);
            }
            thread::sleep(TICK);
        }
    }

    /// Ends every fault.
    pub(super) fn heal(&mut self) {
        if let Some((fault, _)) = self.master.suffers.take() {
            self.heal_master(fault);
        }
        for index in 0..self.machines.len() {
            if let Some((fault, _)) = self.machines[index].victim.suffers.take() {
                self.heal_worker(index, fault);
            }
        }
    }

    /// What was said that should not have been.
    pub(super) fn end(&mut self) -> Vec<String> {
        let (cluster, complaints) = (&self.cluster, &mut self.complaints);
        complain("the master", &cluster.master().said(), complaints);
        for machine in &mut self.machines {
            if let Some(worker) = &mut machine.worker {
                complain(&machine.id, &worker.process.said(), complaints);
            }
        }
        std::mem::take(complaints)
    }

    pub(super) fn into_faults(self) -> BTreeMap<&'static str, usize> {
        self.faults
    }

    fn count(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    fn look_after_master(&mut self) {
        let now = Instant::now();
        if let Some((fault, until)) = self.master.suffers {
            if now >= until {
                self.heal_master(fault);
                self.master.suffers = None;
                let (from, to) = if self.disks.is_none() { (200, 2_000) } else { (500, 8_000) };
                self.master.next = Instant::now() + self.chance.ms(from, to);
            }
            return;
        }
        if let Some(code) = self.cluster.find_master_death() {
            self.complaints.push(format!("the master ended by itself with {code}"));
            self.cluster.start_master();
        }
        if now < self.master.next {
            return;
        }
        let (fault, length) = self.harm_master();
        self.master.suffers = Some((fault, now + length));
    }

    fn harm_master(&mut self) -> (Fault, Duration) {
        let Some([_, disk]) = &self.disks else {
            self.kill_master();
            return (Fault::Dead, Duration::ZERO);
        };
        match self.chance.below(6) {
            0 => {
                disk.fill();
                self.count("master's disk full");
                (Fault::DiskFull, self.chance.ms(1_000, 15_000))
            }
            1 | 2 => {
                self.cluster.master().pause();
                self.count("master stopped (SIGSTOP)");
                (Fault::Paused, self.chance.ms(1_000, 20_000))
            }
            _ => {
                self.kill_master();
                (Fault::Dead, self.chance.ms(0, 2_000))
            }
        }
    }

    fn kill_master(&mut self) {
        complain("the master", &self.cluster.master().said(), &mut self.complaints);
        self.cluster.kill_master();
        self.count("master killed (SIGKILL)");
    }

    fn heal_master(&mut self, fault: Fault) {
        match fault {
            Fault::Dead => self.cluster.start_master(),
            Fault::Paused => self.cluster.master().resume(),
            Fault::DiskFull => {
                let [_, disk] = self.disks.as_ref().expect("a disk was filled");
                disk.free();
            }
            Fault::Network => {}
        }
    }

    fn look_after_worker(&mut self, index: usize) {
        let now = Instant::now();
        if let Some((fault, until)) = self.machines[index].victim.suffers {
            if now >= until {
                self.heal_worker(index, fault);
                let victim = &mut self.machines[index].victim;
                victim.suffers = None;
                victim.next = Instant::now() + self.chance.ms(1_000, 12_000);
            }
            return;
        }
        let machine = &mut self.machines[index];
        let ended = machine.worker.as_mut().and_then(|worker| worker.process.find_end());
        if let Some(code) = ended {
            let id = machine.id.clone();
            self.complaints.push(format!("{id} ended by itself with {code}"));
            self.start_worker(index);
        }
        if self.disks.is_some() && now >= self.machines[index].victim.next {
            let (fault, length) = self.harm_worker(index);
            self.machines[index].victim.suffers = Some((fault, now + length));
        }
    }

    fn harm_worker(&mut self, index: usize) -> (Fault, Duration) {
        let machine = &mut self.machines[index];
        let (kind, fault, length) = match self.chance.below(8) {
            0..=2 => {
                let mut worker = machine.worker.take().expect("a worker without a fault runs");
                worker.process.kill();
                complain(&machine.id, &worker.process.said(), &mut self.complaints);
                // Now and then for longer than a lease.
                let long = self.chance.below(5) == 0;
                let length = if long { (19_000, 25_000) } else { (0, 5_000) };
                ("worker killed (SIGKILL)", Fault::Dead, length)
            }
            3 => {
                let worker = machine.worker.as_ref().expect("a worker without a fault runs");
                worker.process.pause();
                ("worker stopped (SIGSTOP)", Fault::Paused, (1_000, 20_000))
            }
            4 | 5 => {
                let (kind, way) = match self.chance.below(3) {
                    0 => ("network cut, worker is not heard", Way::Up),
                    1 => ("network cut, worker does not hear", Way::Down),
                    _ => ("network cut, both directions", Way::Both),
                };
                machine.proxy.cut(way);
                (kind, Fault::Network, (1_000, 25_000))
            }
            6 => {
                machine.proxy.break_connections();
                ("connections broken", Fault::Network, (0, 1_000))
            }
            _ => {
                machine.proxy.delay(self.chance.ms(50, 500));
                ("network slow", Fault::Network, (1_000, 8_000))
            }
        };
        self.count(kind);
        (fault, self.chance.ms(length.0, length.1))
    }

    fn heal_worker(&mut self, index: usize, fault: Fault) {
        let machine = &mut self.machines[index];
        match fault {
            Fault::Dead => self.start_worker(index),
            Fault::Paused => {
                machine.worker.as_ref().expect("a paused worker runs").process.resume();
            }
            Fault::Network | Fault::DiskFull => machine.proxy.heal(),
        }
    }

    fn start_worker(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        let cpus = SLOTS.to_string();
        let network = machine.proxy.address();
        let offers = ["--cpus", &cpus, "--storage", "100GiB"];
        let command = self.cluster.worker_command_via(&network, &machine.id, &offers);
        machine.worker = Some(self.cluster.adopt_worker(&machine.id, command));
    }
}

/// A process that panics, or calls something an error, has found what nobody thought of. That its
/// disk is full is an error in anybody's words.
fn complain(who: &str, said: &str, complaints: &mut Vec<String>) {
    let is_full = |line: &str| line.contains("storage full") || line.contains("No space left");
    let is_bad =
        |line: &&str| line.contains("panicked at") || (line.contains("ERROR") && !is_full(line));
    complaints.extend(said.lines().filter(is_bad).map(|line| format!("{who} said: {line}")));
}

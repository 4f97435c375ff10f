//! One death at one named point, and what came of it. The same work is done with and without the
//! fault; what is seen from outside must be equal. The tests that enumerate the points are in
//! `tests/c_crash_points.rs`; the points themselves are `failpoint!` in the sources of master and
//! worker.

use std::collections::{BTreeMap, VecDeque};
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use crate::cluster::{Cluster, Console, Worker};
use crate::watch::Watch;
use crate::{BUSYBOX, engine, until};

/// The variable that names the point at which a process dies.
const VARIABLE: &str = "CLOUDAI_FAILPOINT";
/// Clusters at the same time: two cores are kept busy, and no wait becomes long.
const CLUSTERS_AT_ONCE: usize = 4;
/// How a process that killed itself looks from outside.
const KILLED: i32 = 128 + 9;
const WORKER: &str = "worker-1";
/// Lines that the task writes to each of its streams, one half before and one half after a pause.
const LINES: usize = 40;

/// What is done while the fault happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Workload {
    /// A task with a log, two output files and exit code 7.
    Plain,
    /// The same, submitted before there is a worker.
    BeforeItsWorker,
    /// The same, tried once more after it failed.
    TriedAgain,
    /// A task whose registry takes the call and is silent, cancelled when the fault is over.
    SilentRegistry,
    /// A task that sleeps, cancelled while it runs.
    CancelledRunning,
    /// A task that no worker may run, cancelled while it waits.
    CancelledWaiting,
}

/// What is seen from outside when all is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// How many jobs there are.
    pub jobs: usize,
    /// How the task stands.
    pub status: String,
    /// How it ended: cause and exit code.
    pub outcome: (Value, Value),
    /// Its attempts: how each ended, and what it wrote to its two streams. One that was given away
    /// and lost before it had a container leaves nothing but its number, and is left out.
    pub attempts: Vec<(Value, Value, String, String)>,
    /// Its output files.
    pub files: BTreeMap<String, String>,
    /// Its containers: how often each was started, the signals that it was sent, its exit codes.
    pub containers: Vec<(usize, Vec<String>, Vec<i64>)>,
}

/// What the task wrote to one of its streams.
pub fn whole_log(stream: &str) -> String {
    let lines: Vec<_> = (0..LINES).map(|number| format!("{stream} {number}")).collect();
    lines.join("\n") + "\n"
}

fn script() -> String {
    let half = LINES / 2;
    let lines = |from: usize, to: usize| {
        format!(
            "i={from}; while [ $i -lt {to} ]; do echo out $i; echo err $i >&2; i=$((i+1)); done"
        )
    };
    format!(
        "{}; mkdir /output/deep; echo one >/output/a; sleep 0.5; {}; echo two >/output/deep/b; \
         exit 7",
        lines(0, half),
        lines(half, LINES)
    )
}

impl Workload {
    fn request(self, registry: &TcpListener) -> Value {
        let mut request = json!({
            "image": BUSYBOX, "shell": script(), "request_id": "the-one", "memory_bytes": 64 << 20,
        });
        match self {
            Self::Plain | Self::BeforeItsWorker => {}
            Self::SilentRegistry => {
                let address = registry.local_addr().expect("it listens");
                request["image"] = json!(format!("{address}/silent"));
            }
            Self::TriedAgain => request["retries"] = json!(1),
            Self::CancelledRunning => request["shell"] = json!("sleep 600"),
            Self::CancelledWaiting => request["cpus"] = json!(900),
        }
        request
    }

    fn cancel_at(self) -> Option<&'static str> {
        match self {
            Self::CancelledRunning => Some("running"),
            Self::CancelledWaiting => Some("queued"),
            Self::SilentRegistry => Some("assigned"),
            _ => None,
        }
    }
}

struct Run {
    cluster: Cluster,
    /// Takes calls and never answers.
    _registry: TcpListener,
    request: Value,
    worker: Option<Worker>,
    /// The points that no process has reached yet, in order.
    armed: VecDeque<&'static str>,
}

/// Does the work once, with a death at this point (or at several, one after the other, with a space
/// between them), and gives what is seen in the end. Panics when a point is never reached, or when
/// anything is left over.
pub fn run(workload: Workload, point: Option<&'static str>) -> Seen {
    let watch = Watch::start();
    let cluster = Cluster::prepare(Console::Service, &[]);
    let registry = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let request = workload.request(&registry);
    let armed = point.into_iter().flat_map(|points| points.split(' ')).collect();
    let mut run = Run { cluster, _registry: registry, request, worker: None, armed };
    run.start_master();
    if workload != Workload::BeforeItsWorker {
        run.start_worker();
        run.persist("the worker is active", |cluster| {
            let view = cluster.try_get(&format!("/workers/{WORKER}"))?.body;
            (view["status"] == "active").then_some(())
        });
    }
    let task = run.submit();
    if workload == Workload::BeforeItsWorker {
        run.start_worker();
    }
    if let Some(status) = workload.cancel_at() {
        run.persist(status, |cluster| {
            (cluster.try_get(&format!("/tasks/{task}"))?.body["status"] == status).then_some(())
        });
        if workload == Workload::SilentRegistry {
            run.wait_reached();
        }
        run.persist("the cancel is answered", |cluster| {
            let answer = cluster.try_post(&format!("/tasks/{task}/cancel"), &Value::Null)?;
            (answer.status == 200).then_some(())
        });
    }
    let wait = format!("/tasks/{task}?wait_ms=300");
    run.persist("the task ends", |cluster| {
        (!cluster.try_get(&wait)?.body["outcome"].is_null()).then_some(())
    });
    run.wait_reached();
    run.wait_tidy(&watch);
    assert_eq!(run.submit(), task, "the same request made another job");
    run.look(&task, &watch)
}

impl Run {
    fn armed_for(&self, process: &str) -> Option<&'static str> {
        self.armed.iter().copied().find(|point| point.starts_with(process))
    }

    fn start_master(&mut self) {
        let mut command = self.cluster.master_command_again();
        if let Some(point) = self.armed_for("master.") {
            command.env(VARIABLE, point);
        }
        self.cluster.adopt_master(command);
    }

    fn start_worker(&mut self) {
        let mut command = self.cluster.worker_command(WORKER, &[]);
        if let Some(point) = self.armed_for("worker.") {
            command.env(VARIABLE, point);
        }
        self.worker = Some(self.cluster.adopt_worker(WORKER, command));
    }

    /// Starts again whoever died at its point. Nobody else may die.
    fn revive(&mut self) {
        if let Some(code) = self.cluster.find_master_death() {
            self.disarm("master.", code);
            self.start_master();
        }
        let ended = self.worker.as_mut().and_then(|worker| worker.process.find_end());
        if let Some(code) = ended {
            self.disarm("worker.", code);
            self.start_worker();
        }
    }

    fn disarm(&mut self, process: &str, code: i32) {
        let point = self.armed_for(process);
        assert!(point.is_some() && code == KILLED, "{process} ended with {code} by itself");
        self.armed.retain(|armed| Some(*armed) != point);
    }

    /// As a client that does not give up: asks again until it has an answer.
    fn persist<T>(&mut self, what: &str, look: impl Fn(&Cluster) -> Option<T>) -> T {
        until(what, || {
            self.revive();
            look(&self.cluster)
        })
    }

    fn wait_reached(&mut self) {
        until(&format!("{:?} is reached", self.armed), || {
            self.revive();
            self.armed.is_empty().then_some(())
        });
    }

    fn submit(&mut self) -> String {
        let request = self.request.clone();
        self.persist("the submit is answered", |cluster| {
            let answer = cluster.try_post("/jobs", &request)?;
            assert!(matches!(answer.status, 200 | 201), "{}", answer.body);
            answer.body["first_task"].as_str().map(str::to_owned)
        })
    }

    /// Nothing is left: no container, no volume, no log or file on its way, no capacity taken.
    fn wait_tidy(&mut self, watch: &Watch) {
        let folder = self.cluster.dir();
        self.persist("no container and no volume is left", |_| {
            let lives = watch.containers(&folder);
            lives.values().all(|life| life.is_gone && life.volumes.is_empty()).then_some(())
        });
        let label = self.cluster.worker_label(WORKER);
        assert_eq!(engine::containers_with(&label), [""; 0], "a container that no event told of");
        self.persist("the worker holds nothing", |cluster| {
            let view = cluster.try_get(&format!("/workers/{WORKER}"))?.body;
            (view["running"] == 0 && view["allocated"]["cpus"] == 0.0).then_some(())
        });
        self.persist("no log, file or record is left on the worker", |cluster| {
            cluster.worker_leftovers(WORKER).is_empty().then_some(())
        });
    }

    fn look(&mut self, task: &str, watch: &Watch) -> Seen {
        let cluster = &self.cluster;
        for said in [cluster.master().said(), self.worker.as_ref().expect("it runs").process.said()]
        {
            assert!(!said.contains("ERROR") && !said.contains("panicked"), "{said}");
        }
        let detail = cluster.task(task);
        let lives = watch.containers(&cluster.dir());
        let attempts = detail["attempts"].as_array().into_iter().flatten().filter_map(|attempt| {
            let no = attempt["attempt"].as_u64().expect("an attempt has a number");
            let name = format!("{task}-a{no}");
            let ran = lives.values().any(|life| life.attempt == name && life.starts > 0);
            let cause = &attempt["outcome"]["cause"];
            if !ran && cause == "worker_lost" {
                return None;
            }
            let [out, err] = ["stdout", "stderr"].map(|stream| cluster.log_of(task, no, stream));
            Some((cause.clone(), attempt["outcome"]["exit_code"].clone(), out, err))
        });
        let files = detail["files"].as_array().into_iter().flatten().map(|file| {
            let path = file["path"].as_str().expect("a file has a path").to_owned();
            let bytes = cluster.bytes(&format!("/tasks/{task}/files/{path}")).unwrap_or_default();
            (path, String::from_utf8_lossy(&bytes).into_owned())
        });
        let containers =
            lives.values().map(|life| (life.starts, life.signals.clone(), life.exit_codes.clone()));
        let mut containers: Vec<_> = containers.collect();
        containers.sort();
        Seen {
            jobs: cluster.get("/jobs").body["jobs"].as_array().map_or(0, Vec::len),
            status: detail["status"].as_str().unwrap_or_default().to_owned(),
            outcome: (detail["outcome"]["cause"].clone(), detail["outcome"]["exit_code"].clone()),
            attempts: attempts.collect(),
            files: files.collect(),
            containers,
        }
    }
}

/// Goes through all of `points`, some at a time, and fails with every one whose end differs from
/// that of its work without a fault.
pub fn check_all(points: &[(&'static str, Workload)]) {
    let mut whole: BTreeMap<Workload, Seen> = BTreeMap::new();
    for (_, workload) in points {
        whole.entry(*workload).or_insert_with(|| run(*workload, None));
    }
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    let work = || {
        while let Some((point, workload)) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
            let check = || assert_eq!(run(*workload, Some(point)), whole[workload]);
            if catch_unwind(AssertUnwindSafe(check)).is_err() {
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.push(format!("{point} ({workload:?})"));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..CLUSTERS_AT_ONCE {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(failed.is_empty(), "{} of {} points: {failed:#?}", failed.len(), points.len());
}

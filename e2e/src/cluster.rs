//! A master with its data in a directory of its own, the workers that a test adds to it, and the
//! client commands that speak to it.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::binary::{Ran, cloudai, run};
use crate::process::Process;
use crate::web::{self, Answer};
use crate::{engine, until};

/// Variables that would change what a process under test does.
const FOREIGN_ENV: [&str; 8] = [
    "CLOUDAI_URL",
    "CLOUDAI_DATA",
    "CLOUDAI_CONFIG",
    "CLOUDAI_USER",
    "CLOUDAI_GRPC_PORT",
    "CLOUDAI_HTTP_PORT",
    "CLOUDAI_WORKER_PORT",
    "RUST_LOG",
];

/// What stands at the master's standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Console {
    /// Nothing: it runs as a service.
    Service,
    /// A pipe, from which it reads commands.
    Script,
    /// A terminal.
    Terminal,
}

/// A master and what belongs to it. Everything is gone when this is dropped.
pub struct Cluster {
    // First, so that it is killed before its directory goes.
    master: Option<Process>,
    console: Console,
    args: Vec<String>,
    /// Whether its processes do not get the Ctrl-C of the terminal.
    is_apart: bool,
    grpc_port: u16,
    http_port: u16,
    dir: TempDir,
}

/// A worker of a cluster.
pub struct Worker {
    /// Its process.
    pub process: Process,
    /// The label of all its containers.
    pub label: String,
}

impl Cluster {
    /// A cluster whose master runs as a service.
    pub fn start() -> Self {
        Self::start_with(Console::Service, &[])
    }

    /// A cluster whose master has this at its input and these flags beside its own.
    pub fn start_with(console: Console, args: &[&str]) -> Self {
        let mut cluster = Self::prepare(console, args);
        cluster.start_master();
        cluster
    }

    /// A cluster whose master does not run yet, and whose processes do not get the Ctrl-C of the
    /// terminal: who starts it takes it, and drops the cluster.
    pub fn prepare_apart() -> Self {
        let mut cluster = Self::prepare(Console::Service, &[]);
        cluster.is_apart = true;
        cluster
    }

    /// A cluster whose master does not run yet.
    pub fn prepare(console: Console, args: &[&str]) -> Self {
        engine::require();
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let dir = tempfile::Builder::new().prefix("cloudai-e2e-").tempdir();
        let dir = dir.expect("a temporary directory can be made");
        let is_apart = false;
        Self { master: None, console, args, is_apart, grpc_port: 0, http_port: 0, dir }
    }

    /// The command of a process that belongs to this cluster and to nothing else.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(cloudai());
        self.at_home(command.args(args));
        command
    }

    /// Makes a command belong to this cluster.
    pub fn at_home(&self, command: &mut Command) {
        for name in FOREIGN_ENV {
            command.env_remove(name);
        }
        if self.is_apart {
            command.process_group(0);
        }
        command.current_dir(self.dir.path()).env("NO_COLOR", "1");
        command.env("CLOUDAI_URL", format!("http://{}", self.http_address()));
    }

    /// Starts the master; again on the ports that it had before.
    pub fn start_master(&mut self) {
        let command = self.master_command_again();
        self.adopt_master(command);
    }

    /// The command of this cluster's master, on the ports that it had before.
    pub fn master_command_again(&self) -> Command {
        self.master_command(self.grpc_port, self.http_port)
    }

    /// The command of a master on this cluster's data; port 0 takes a free one.
    pub fn master_command(&self, grpc_port: u16, http_port: u16) -> Command {
        let mut command = self.command(&["master", "--data-dir"]);
        command.arg(self.data_dir());
        command.args(["--grpc-port", &grpc_port.to_string()]);
        command.args(["--http-port", &http_port.to_string()]);
        command.args(&self.args);
        command
    }

    /// Starts a master by its own command and waits until it serves.
    pub fn adopt_master(&mut self, mut command: Command) {
        let process = match self.console {
            Console::Service => Process::start("master", &mut command),
            Console::Script => Process::start_with_input("master", &mut command),
            Console::Terminal => Process::start_at_terminal("master", &command),
        };
        let port_in = |text: String| {
            let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap_or_else(|_| panic!("no port in '{text}'"))
        };
        self.grpc_port = port_in(process.wait_for_rest("gRPC server listening on :"));
        self.http_port = port_in(process.wait_for_rest("HTTP API listening on http://127.0.0.1:"));
        self.master = Some(process);
    }

    /// The master.
    pub fn master(&self) -> &Process {
        self.master.as_ref().expect("the master runs")
    }

    /// The master, to speak to.
    pub fn master_mut(&mut self) -> &mut Process {
        self.master.as_mut().expect("the master runs")
    }

    /// Says a line at `master>` and waits for each of the answers.
    #[track_caller]
    pub fn ask(&mut self, line: &str, answers: &[&str]) {
        let mark = self.master().mark();
        self.master_mut().say(line);
        for answer in answers {
            self.master().wait_for_after(mark, answer);
        }
    }

    /// `kill -9` of the master.
    pub fn kill_master(&mut self) {
        self.master = None;
    }

    /// How the master ended (128 and the signal), once it has; it can be started again then.
    pub fn find_master_death(&mut self) -> Option<i32> {
        let signal = self.master.as_mut()?.find_end()?;
        self.master = None;
        Some(signal)
    }

    /// SIGTERM to the master; its exit code.
    pub fn stop_master(&mut self) -> i32 {
        let mut master = self.master.take().expect("the master runs");
        master.terminate();
        master.wait_end()
    }

    /// The directory of everything.
    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// The master's data directory; those of its workers are in it.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Where the master's HTTP API listens.
    pub fn http_address(&self) -> String {
        format!("127.0.0.1:{}", self.http_port)
    }

    /// Where workers and agents reach the master.
    pub fn grpc_address(&self) -> String {
        format!("127.0.0.1:{}", self.grpc_port)
    }

    /// The command of a worker of this cluster on a free port.
    pub fn worker_command(&self, id: &str, args: &[&str]) -> Command {
        self.worker_command_via(&self.grpc_address(), id, args)
    }

    /// The command of a worker that reaches the master over another address, such as a proxy's.
    pub fn worker_command_via(&self, master: &str, id: &str, args: &[&str]) -> Command {
        let mut command = self.command(&["worker", "--id", id, "--port", "0", "--data-dir"]);
        command.arg(self.data_dir()).args(["--master", master]).args(args);
        command
    }

    /// Starts a worker and waits until it is ready.
    pub fn worker(&self, id: &str, args: &[&str]) -> Worker {
        let worker = self.starting_worker(id, args);
        worker.process.wait_for("Ready to receive tasks");
        worker
    }

    /// Starts a worker and does not wait.
    pub fn starting_worker(&self, id: &str, args: &[&str]) -> Worker {
        self.adopt_worker(id, self.worker_command(id, args))
    }

    /// Starts a worker by its own command and does not wait.
    pub fn adopt_worker(&self, id: &str, mut command: Command) -> Worker {
        let process = Process::start(id, &mut command);
        Worker { process, label: self.worker_label(id) }
    }

    /// What a worker keeps of attempts on its disk: logs, files and records.
    pub fn worker_leftovers(&self, id: &str) -> Vec<PathBuf> {
        let folder = self.data_dir().join("workers").join(id);
        ["spool", "output", "attempts"]
            .iter()
            .flat_map(|kind| std::fs::read_dir(folder.join(kind)).into_iter().flatten())
            .map(|entry| entry.expect("a folder can be read").path())
            .collect()
    }

    /// What an attempt wrote to one of its streams, as the master has it.
    pub fn log_of(&self, task: &str, attempt: u64, stream: &str) -> String {
        let path = format!("/tasks/{task}/logs?attempt={attempt}&stream={stream}");
        let lines = self.bytes(&path).unwrap_or_default();
        let items = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let items = items.map(|line| {
            let item: Value = serde_json::from_slice(line).expect("a log is lines of JSON");
            item["text"].as_str().unwrap_or_default().to_owned()
        });
        items.collect()
    }

    /// The label of all containers of a worker of this cluster.
    pub fn worker_label(&self, id: &str) -> String {
        engine::instance_label(&self.data_dir().join("workers").join(id))
    }

    /// Runs a client command to its end.
    pub fn cli(&self, args: &[&str]) -> Ran {
        run(&mut self.command(args))
    }

    /// Runs a client command that must succeed; what it wrote, without the last newline.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let ran = self.cli(args);
        assert_eq!(ran.code, 0, "cloudai {args:?}:\n{}{}", ran.out(), ran.err());
        ran.out().trim_end().to_owned()
    }

    /// Submits a task; its id.
    #[track_caller]
    pub fn submit(&self, args: &[&str]) -> String {
        self.ok(&[&["submit"], args].concat())
    }

    /// `GET` below `/api/v1`.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        let url = format!("http://{}/api/v1{path}", self.http_address());
        web::get(&url).unwrap_or_else(|| panic!("{url} does not answer"))
    }

    /// What a probe says: the status and its line.
    #[track_caller]
    pub fn probe(&self, path: &str) -> (u16, String) {
        let url = format!("http://{}{path}", self.http_address());
        let got = web::get_bytes(&url).unwrap_or_else(|| panic!("{url} does not answer"));
        (got.0, String::from_utf8_lossy(&got.1).into_owned())
    }

    /// `POST` of a submit as bytes.
    #[track_caller]
    pub fn post_job(&self, body: &[u8]) -> Answer {
        let url = format!("http://{}/api/v1/jobs", self.http_address());
        web::post(&url, body).unwrap_or_else(|| panic!("{url} does not answer"))
    }

    /// `GET` below `/api/v1` of a master that may be dead; `None` when it does not answer.
    pub fn try_get(&self, path: &str) -> Option<Answer> {
        web::get(&format!("http://{}/api/v1{path}", self.http_address()))
    }

    /// `POST` below `/api/v1` to a master that may be dead; `None` when it does not answer.
    pub fn try_post(&self, path: &str, body: &Value) -> Option<Answer> {
        let url = format!("http://{}/api/v1{path}", self.http_address());
        web::post(&url, body.to_string().as_bytes())
    }

    /// The bytes of an output file, or of a log as lines of JSON; `None` when they are not there.
    pub fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        let got = web::get_bytes(&format!("http://{}/api/v1{path}", self.http_address()));
        got.filter(|(status, _)| *status == 200).map(|(_, bytes)| bytes)
    }

    /// `POST` of a submit.
    pub fn post(&self, body: &Value) -> Answer {
        self.post_job(body.to_string().as_bytes())
    }

    /// Everything that is known of a task.
    #[track_caller]
    pub fn task(&self, task: &str) -> Value {
        let answer = self.get(&format!("/tasks/{task}"));
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }

    /// A worker as the master sees it.
    #[track_caller]
    pub fn worker_view(&self, id: &str) -> Value {
        let answer = self.get(&format!("/workers/{id}"));
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }

    /// Waits until a worker is `active` or `inactive`.
    pub fn wait_worker(&self, id: &str, status: &str) -> Value {
        until(&format!("{id} is {status}"), || {
            let view = self.get(&format!("/workers/{id}")).body;
            (view["status"] == status).then_some(view)
        })
    }

    /// Waits until a task stands at `status`.
    #[track_caller]
    pub fn wait_status(&self, task: &str, status: &str) -> Value {
        let mut last = Value::Null;
        let is_there = || {
            last = self.task(task);
            (last["status"] == status).then(|| last.clone())
        };
        until(&format!("{task} is {status}"), is_there)
    }

    /// Waits until a task has ended and its outcome is known.
    #[track_caller]
    pub fn wait_end(&self, task: &str) -> Value {
        until(&format!("the end of {task}"), || {
            let detail = self.get(&format!("/tasks/{task}?wait_ms=10000")).body;
            (!detail["outcome"].is_null()).then_some(detail)
        })
    }

    /// Waits until a task has ended, and fails unless it succeeded.
    #[track_caller]
    pub fn wait_success(&self, task: &str) -> Value {
        let detail = self.wait_end(task);
        assert_eq!(detail["status"], "succeeded", "{detail:#}");
        assert_eq!(detail["outcome"], json!({"cause": "exit", "exit_code": 0}), "{detail:#}");
        detail
    }

    /// Waits until a task runs, and gives the id of its container.
    #[track_caller]
    pub fn wait_container(&self, task: &str, worker: &Worker) -> String {
        self.wait_status(task, "running");
        until(&format!("the container of {task}"), || {
            engine::containers_with(&worker.label).into_iter().find(|id| {
                let inspected = engine::docker(&[
                    "inspect",
                    "--format",
                    "{{index .Config.Labels \"cloudai.task\"}}",
                    id,
                ]);
                inspected.out().trim() == task
            })
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.master = None;
        // A worker that was killed could not remove its containers.
        let workers = std::fs::read_dir(self.data_dir().join("workers")).into_iter().flatten();
        for worker in workers.flatten() {
            let label = engine::instance_label(&worker.path());
            engine::remove(&engine::containers_with(&label));
        }
    }
}

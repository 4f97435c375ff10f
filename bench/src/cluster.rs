//! A master and a worker as processes of their own, on free ports, with an empty data directory.

use std::ffi::OsStr;
use std::fs::DirEntry;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long a process may take to say that it is ready.
const READY_WITHIN: Duration = Duration::from_mins(1);

/// The unit of processor times in /proc on every Linux that Rust runs on.
const TICKS_PER_SECOND: u64 = 100;

/// A process that is ended when it is dropped.
pub(crate) struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Process {
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let stderr = child.stderr.take().context("stderr is piped")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                // Nobody listens any more once the process is ready.
                drop(sender.send(line));
            }
        });
        Ok(Self { child, lines })
    }

    /// The rest of the first line that has `mark` in it.
    fn wait_for(&self, mark: &str) -> Result<String> {
        let deadline = Instant::now() + READY_WITHIN;
        let mut seen = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                bail!("'{mark}' was not printed; what was: {}", seen.join("\n"));
            };
            if let Some((_, rest)) = line.split_once(mark) {
                return Ok(rest.trim().to_owned());
            }
            seen.push(line);
        }
    }

    /// The most memory that it had, in bytes.
    pub(crate) fn peak_memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(kib.context("no VmHWM in /proc")?.parse::<u64>()? * 1024)
    }

    /// Processor time that it used so far.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name of the program stands in parentheses and may hold anything; user and system
        // time are the 12th and 13th words behind it.
        let (_, behind) = stat.rsplit_once(") ").context("no name in /proc")?;
        let ticks = behind.split(' ').skip(11).take(2).map(str::parse::<u64>);
        let ticks: u64 = ticks.sum::<Result<u64, _>>()?;
        Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A master that is ready.
pub(crate) struct Master {
    pub(crate) process: Process,
    pub(crate) http: String,
    grpc_port: String,
}

impl Master {
    /// Starts a killed master again where its workers look for it.
    pub(crate) fn start_again(&mut self, binary: &Path, data_dir: &Path) -> Result<()> {
        let http_port = self.http.rsplit(':').next().context("the address has a port")?;
        *self = start_master_at(binary, data_dir, &self.grpc_port, http_port)?;
        Ok(())
    }
}

/// Starts a master over `data_dir` on free ports and waits until it serves.
pub(crate) fn start_master(binary: &Path, data_dir: &Path) -> Result<Master> {
    start_master_at(binary, data_dir, "0", "0")
}

fn start_master_at(binary: &Path, data_dir: &Path, grpc: &str, http: &str) -> Result<Master> {
    let mut command = Command::new(binary);
    command.args(["master", "--no-repl", "--grpc-port", grpc, "--http-port", http, "--data-dir"]);
    command.arg(data_dir);
    let process = Process::start(&mut command)?;
    let grpc_port = process.wait_for("gRPC server listening on :")?;
    let http = process.wait_for("HTTP API listening on ")?;
    Ok(Master { process, http, grpc_port })
}

/// Starts a worker with `cores` slots and waits until it takes work.
pub(crate) fn start_worker(
    binary: &Path,
    master: &Master,
    data_dir: &Path,
    executor: &str,
    cores: u32,
) -> Result<Process> {
    let mut command = Command::new(binary);
    let address = format!("127.0.0.1:{}", master.grpc_port);
    let cores = cores.to_string();
    command.args(["worker", "--id", "bench-worker", "--port", "0", "--master", &address]);
    command.args(["--executor", executor, "--cpus", &cores, "--memory", "64GiB"]);
    command.arg("--data-dir").arg(data_dir);
    let process = Process::start(&mut command)?;
    process.wait_for("Ready to receive tasks")?;
    Ok(process)
}

/// The files of the store: the database, and its log and index when there are.
pub(crate) fn store_files(data_dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(data_dir)?.collect::<std::io::Result<Vec<_>>>()?;
    let is_store = |name: &OsStr| name.to_string_lossy().starts_with("cloudai.db");
    Ok(entries.iter().filter(|it| is_store(&it.file_name())).map(DirEntry::path).collect())
}

/// Bytes of all files of the store.
pub(crate) fn store_size(data_dir: &Path) -> Result<u64> {
    let lengths = store_files(data_dir)?.into_iter().map(|path| Ok(path.metadata()?.len()));
    lengths.sum()
}

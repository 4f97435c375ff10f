//! What the roles get: every setting resolved and checked.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::str::FromStr;

use super::{
    BIND, DATA_DIR, GRPC_PORT, HTTP_PORT, INSECURE, LOG_LEVEL, POLICY, Settings, WORKER_CPUS,
    WORKER_DISK_PERCENT_MAX, WORKER_EXECUTOR, WORKER_ID, WORKER_IP, WORKER_LOG_BYTES_MAX,
    WORKER_MASTER, WORKER_MEMORY, WORKER_ON_STOP, WORKER_PORT, WORKER_PULL_STALL, WORKER_STORAGE,
    WORKER_VOLUMES,
};
use crate::failure::Failure;
use crate::grammar::{HostVolume, MasterArgs, OfferArgs, OnStop, UpArgs, WorkerArgs};
use crate::units::{ByteSize, Count, Span};

const GRPC_PORT_DEFAULT: u16 = 50051;
const HTTP_PORT_DEFAULT: u16 = 8080;
const WORKER_PORT_DEFAULT: u16 = 50052;
const LOG_BYTES_MAX_DEFAULT: ByteSize = ByteSize(256 << 20);
const DISK_PERCENT_MAX_DEFAULT: u8 = 95;
/// Two minutes.
const PULL_STALL_DEFAULT: Span = Span(120_000);

/// When a master shows its prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prompt {
    /// When there is a terminal or a script on standard input.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What a master is told.
#[derive(Debug, Clone, PartialEq)]
pub struct MasterSettings {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The address to listen at.
    pub bind: IpAddr,
    /// Whether `bind` may be reached by others.
    pub insecure: bool,
    /// For workers and agents.
    pub grpc_port: u16,
    /// For clients.
    pub http_port: u16,
    /// The name of the built-in policy.
    pub policy: String,
    /// A filter for tracing.
    pub log_level: String,
    /// When the prompt is shown.
    pub prompt: Prompt,
}

/// What a worker is told.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerSettings {
    /// Its id.
    pub id: String,
    /// The host that it tells the master.
    pub ip: String,
    /// `host:port` of the master.
    pub master: String,
    /// Port for calls from the master.
    pub port: u16,
    /// Whether to end when the master cannot be reached at first.
    pub once: bool,
    /// Where logs wait.
    pub data_dir: PathBuf,
    /// The address to listen at.
    pub bind: IpAddr,
    /// `docker` or `mock`.
    pub executor: String,
    /// Cores to offer; all when not given.
    pub cpus: Option<f64>,
    /// Memory to offer, in bytes; all when not given.
    pub memory_bytes: Option<u64>,
    /// Storage to offer, in bytes; what is free when not given.
    pub storage_bytes: Option<u64>,
    /// Declared volumes.
    pub volumes: Vec<HostVolume>,
    /// Most bytes of disk that one attempt's log takes.
    pub log_bytes_max: u64,
    /// How full the disk may be before no new work is taken, in percent.
    pub disk_percent_max: u8,
    /// How long the pull of an image may go on without progress, in milliseconds.
    pub pull_stall_ms: u64,
    /// What becomes of its tasks when it is told to stop.
    pub on_stop: OnStop,
    /// A filter for tracing.
    pub log_level: String,
}

/// What a master with a local worker is told.
#[derive(Debug, Clone, PartialEq)]
pub struct UpSettings {
    /// The master's part.
    pub master: MasterSettings,
    /// The worker's part.
    pub worker: WorkerSettings,
}

impl Settings {
    /// Everything for a master.
    pub fn master(&mut self, args: &MasterArgs) -> Result<MasterSettings, Failure> {
        let data_dir = self.data_dir(args.data_dir.clone())?;
        let (bind, insecure) = self.listening(args.bind, args.insecure)?;
        Ok(MasterSettings {
            data_dir,
            bind,
            insecure,
            log_level: self.log_level(args.log_level.clone())?,
            grpc_port: self.pick(GRPC_PORT, args.grpc_port, || GRPC_PORT_DEFAULT)?,
            http_port: self.pick(HTTP_PORT, args.http_port, || HTTP_PORT_DEFAULT)?,
            policy: self.pick(POLICY, args.policy.clone(), || "first_fit".to_owned())?,
            prompt: match (args.repl, args.no_repl) {
                (true, _) => Prompt::Always,
                (_, true) => Prompt::Never,
                _ => Prompt::Auto,
            },
        })
    }

    /// Everything for a worker.
    pub fn worker(&mut self, args: &WorkerArgs) -> Result<WorkerSettings, Failure> {
        let data_dir = self.data_dir(args.data_dir.clone())?;
        let (bind, _) = self.listening(args.bind, args.insecure)?;
        let log_level = self.log_level(args.log_level.clone())?;
        let id = self.pick(WORKER_ID, args.id.clone(), host_name)?;
        let offer = self.offer(&args.offer)?;
        let on_stop = self.pick(WORKER_ON_STOP, args.on_stop, || OnStop::Stop)?;
        if on_stop == OnStop::Keep && offer.executor == "mock" && !self.only_shows {
            return Err(Failure::usage("tasks without containers end with their worker")
                .hint("leave out --on-stop keep, or use --executor docker"));
        }
        Ok(WorkerSettings {
            // Every worker has its own place, so that several fit on one machine, beside a master.
            data_dir: data_dir.join("workers").join(&id),
            id,
            ip: self.pick(WORKER_IP, args.ip.clone(), || "localhost".to_owned())?,
            master: self.pick(WORKER_MASTER, args.master.clone(), || {
                format!("localhost:{GRPC_PORT_DEFAULT}")
            })?,
            port: self.pick(WORKER_PORT, args.port, || WORKER_PORT_DEFAULT)?,
            once: args.once,
            on_stop,
            bind,
            log_level,
            ..offer
        })
    }

    /// Everything for a master with a local worker.
    pub fn up(&mut self, args: &UpArgs) -> Result<UpSettings, Failure> {
        let master = self.master(&args.master)?;
        let worker = self.worker(&WorkerArgs {
            id: args.worker_id.clone(),
            port: args.worker_port,
            master: Some(format!("{}:{}", reachable(master.bind), master.grpc_port)),
            data_dir: Some(master.data_dir.clone()),
            bind: Some(master.bind),
            insecure: master.insecure,
            log_level: Some(master.log_level.clone()),
            offer: args.offer.clone(),
            ip: None,
            once: false,
            on_stop: Some(OnStop::Stop),
        })?;
        Ok(UpSettings { master, worker })
    }

    /// The part of a worker that says what it offers; the rest is filled in by the caller.
    fn offer(&mut self, args: &OfferArgs) -> Result<WorkerSettings, Failure> {
        let volumes = Some(args.volumes.clone()).filter(|volumes| !volumes.is_empty()).map(Volumes);
        let executor = self.pick(WORKER_EXECUTOR, args.executor.clone(), || "docker".to_owned())?;
        if !["docker", "mock"].contains(&executor.as_str()) {
            return Err(Failure::usage(format!("there is no executor '{executor}'"))
                .hint("use docker, or mock for tests without containers"));
        }
        Ok(WorkerSettings {
            id: String::new(),
            ip: String::new(),
            master: String::new(),
            port: 0,
            once: false,
            data_dir: PathBuf::new(),
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            executor,
            cpus: self.find(WORKER_CPUS, args.cpus)?.map(|cpus: Count| cpus.0),
            memory_bytes: self.find(WORKER_MEMORY, args.memory)?.map(|size: ByteSize| size.0),
            storage_bytes: self.find(WORKER_STORAGE, args.storage)?.map(|size: ByteSize| size.0),
            volumes: self.find(WORKER_VOLUMES, volumes)?.map_or_else(Vec::new, |list| list.0),
            log_bytes_max: self
                .pick(WORKER_LOG_BYTES_MAX, args.log_bytes_max, || LOG_BYTES_MAX_DEFAULT)?
                .0,
            disk_percent_max: self.pick(WORKER_DISK_PERCENT_MAX, args.disk_percent_max, || {
                DISK_PERCENT_MAX_DEFAULT
            })?,
            pull_stall_ms: self.pick(WORKER_PULL_STALL, args.pull_stall, || PULL_STALL_DEFAULT)?.0,
            on_stop: OnStop::Stop,
            log_level: String::new(),
        })
    }

    /// `$CLOUDAI_DATA`, else `/var/lib/cloudai` for root, else `$XDG_DATA_HOME/cloudai`.
    pub fn data_dir(&mut self, flag: Option<PathBuf>) -> Result<PathBuf, Failure> {
        let home = (self.env)("XDG_DATA_HOME")
            .map(PathBuf::from)
            .or_else(|| (self.env)("HOME").map(|home| PathBuf::from(home).join(".local/share")));
        let found = self.find(DATA_DIR, flag.map(Folder))?;
        if let Some(Folder(path)) = found {
            return Ok(path);
        }
        let default = if is_root() { Some("/var/lib".into()) } else { home };
        let Some(path) = default.map(|parent: PathBuf| parent.join("cloudai")) else {
            return Err(Failure::usage("there is no place for data: HOME is not set")
                .hint("name one with --data-dir or CLOUDAI_DATA"));
        };
        self.pick(DATA_DIR, None, || Folder(path)).map(|folder| folder.0)
    }

    fn listening(&mut self, bind: Option<IpAddr>, flag: bool) -> Result<(IpAddr, bool), Failure> {
        let bind = self.pick(BIND, bind, || IpAddr::V4(Ipv4Addr::LOCALHOST))?;
        let insecure = self.pick(INSECURE, flag.then_some(true), || false)?;
        if !bind.is_loopback() && !insecure && !self.only_shows {
            return Err(Failure::usage(format!(
                "{bind} can be reached by others, and there is no TLS and no token yet"
            ))
            .hint("add --insecure when only trusted machines can reach it"));
        }
        Ok((bind, insecure))
    }

    fn log_level(&mut self, flag: Option<String>) -> Result<String, Failure> {
        let default = (self.env)("RUST_LOG").unwrap_or_else(|| "info".to_owned());
        self.pick(LOG_LEVEL, flag, || default)
    }
}

/// Where a process on this machine reaches something that listens at `bind`.
fn reachable(bind: IpAddr) -> String {
    match bind {
        bind if bind.is_unspecified() => "127.0.0.1".to_owned(),
        IpAddr::V6(bind) => format!("[{bind}]"),
        IpAddr::V4(bind) => bind.to_string(),
    }
}

/// Whether this process belongs to root. Without unsafe code the kernel's file tells it.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// The host's name as a worker's id: every other character becomes a dash.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '-' };
    let id: String = name.trim().chars().take(64).map(plain).collect();
    let id = id.trim_start_matches(['.', '-', '_']);
    if id.is_empty() { "worker-1".to_owned() } else { id.to_owned() }
}

/// A folder, as a setting.
struct Folder(PathBuf);

impl FromStr for Folder {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// Volumes, as a setting: `a=/x,b=/y`.
struct Volumes(Vec<HostVolume>);

impl FromStr for Volumes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Volumes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(","))
    }
}

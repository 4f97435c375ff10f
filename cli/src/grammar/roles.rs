//! The flags of the roles. Each is also a setting: flag, else environment, else cloudai.toml, else
//! the default; see `settings.rs`, which resolves them.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use crate::units::{ByteSize, Count, Span};

/// What a master and a local worker need together.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "Then, in another terminal:\n  cloudai run busybox echo hello")]
pub struct UpArgs {
    /// The master's part.
    #[command(flatten)]
    pub master: MasterArgs,
    /// The worker's port for calls from the master [default: 50052] [env: CLOUDAI_WORKER_PORT]
    #[arg(long, value_name = "PORT", value_parser = parse_port)]
    pub worker_port: Option<u16>,
    /// The local worker's id [default: the host's name] [env: CLOUDAI_WORKER_ID]
    #[arg(long, value_name = "ID")]
    pub worker_id: Option<String>,
    /// What the local worker offers, and how it runs tasks.
    #[command(flatten)]
    pub offer: OfferArgs,
}

/// The settings of a master.
#[derive(Debug, Clone, Default, Args)]
pub struct MasterArgs {
    /// Where everything is kept [default: /var/lib/cloudai for root, else
    /// $XDG_DATA_HOME/cloudai] [env: CLOUDAI_DATA]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Listen at this address; other than loopback needs --insecure [default: 127.0.0.1]
    /// [env: CLOUDAI_BIND]
    #[arg(long, value_name = "IP")]
    pub bind: Option<IpAddr>,
    /// Port for workers and agents [default: 50051] [env: CLOUDAI_GRPC_PORT]
    #[arg(long, alias = "port", value_name = "PORT", value_parser = parse_port)]
    pub grpc_port: Option<u16>,
    /// Port for clients [default: 8080] [env: CLOUDAI_HTTP_PORT]
    #[arg(long, value_name = "PORT", value_parser = parse_port)]
    pub http_port: Option<u16>,
    /// How tasks find workers: first_fit, round_robin or spread [default: first_fit]
    /// [env: CLOUDAI_POLICY]
    #[arg(long, value_name = "NAME", value_parser = ["first_fit", "round_robin", "spread"])]
    pub policy: Option<String>,
    /// Allow to listen where others can reach it, without TLS and tokens [env: CLOUDAI_INSECURE]
    #[arg(long)]
    pub insecure: bool,
    /// How much to say: error, warn, info, debug or trace [default: info]
    /// [env: CLOUDAI_LOG_LEVEL, RUST_LOG]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Show the prompt even when standard input is no terminal
    #[arg(long, conflicts_with = "no_repl")]
    pub repl: bool,
    /// Show no prompt and leave standard input alone
    #[arg(long)]
    pub no_repl: bool,
}

/// What a worker offers, and how it runs tasks.
#[derive(Debug, Clone, Default, Args)]
pub struct OfferArgs {
    /// Offer so many cores [default: all] [env: CLOUDAI_WORKER_CPUS]
    #[arg(long, value_name = "N", help_heading = "Worker")]
    pub cpus: Option<Count>,
    /// Offer so much memory [default: all] [env: CLOUDAI_WORKER_MEMORY]
    #[arg(long, value_name = "SIZE", help_heading = "Worker")]
    pub memory: Option<ByteSize>,
    /// Offer so much storage [default: what is free] [env: CLOUDAI_WORKER_STORAGE]
    #[arg(long, value_name = "SIZE", help_heading = "Worker")]
    pub storage: Option<ByteSize>,
    /// How tasks run: docker, or mock for tests without containers [default: docker]
    /// [env: CLOUDAI_EXECUTOR]
    #[arg(long, value_name = "NAME", value_parser = ["docker", "mock"], help_heading = "Worker")]
    pub executor: Option<String>,
    /// Declare a volume that tasks may mount by its name [env: CLOUDAI_WORKER_VOLUMES]
    #[arg(long = "volume", value_name = "NAME=/PATH", help_heading = "Worker")]
    pub volumes: Vec<HostVolume>,
    /// Keep at most so much of one task's log: its head and its end, 2MiB to 512MiB
    /// [default: 256MiB] [env: CLOUDAI_LOG_BYTES_MAX]
    #[arg(long, value_name = "SIZE", help_heading = "Worker")]
    pub log_bytes_max: Option<ByteSize>,
    /// Take no new work while the disk under the data directory is fuller [default: 95]
    /// [env: CLOUDAI_DISK_PERCENT_MAX]
    #[arg(long, value_name = "PERCENT", help_heading = "Worker")]
    pub disk_percent_max: Option<u8>,
    /// End a pull of an image that makes no progress for so long [default: 2m]
    /// [env: CLOUDAI_PULL_STALL]
    #[arg(long, value_name = "TIME", help_heading = "Worker")]
    pub pull_stall: Option<Span>,
}

/// The settings of a worker.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "Example:\n  cloudai worker --id worker-1 --master master.example:50051")]
pub struct WorkerArgs {
    /// Its id [default: the host's name] [env: CLOUDAI_WORKER_ID]
    #[arg(long)]
    pub id: Option<String>,
    /// The address that it tells the master [default: localhost] [env: CLOUDAI_WORKER_IP]
    #[arg(long, value_name = "HOST")]
    pub ip: Option<String>,
    /// The master's address for workers [default: localhost:50051] [env: CLOUDAI_MASTER]
    #[arg(long, value_name = "HOST:PORT")]
    pub master: Option<String>,
    /// Port for calls from the master [default: 50052] [env: CLOUDAI_WORKER_PORT]
    #[arg(long, value_name = "PORT", value_parser = parse_port)]
    pub port: Option<u16>,
    /// End with an error when the engine, or the master within 10 s, cannot be reached
    #[arg(long)]
    pub once: bool,
    /// Where logs wait until the master has them [default: as for the master]
    /// [env: CLOUDAI_DATA]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Listen at this address; other than loopback needs --insecure [default: 127.0.0.1]
    /// [env: CLOUDAI_BIND]
    #[arg(long, value_name = "IP")]
    pub bind: Option<IpAddr>,
    /// Allow to listen where others can reach it, without TLS and tokens [env: CLOUDAI_INSECURE]
    #[arg(long)]
    pub insecure: bool,
    /// How much to say: error, warn, info, debug or trace [default: info]
    /// [env: CLOUDAI_LOG_LEVEL, RUST_LOG]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// At SIGTERM and Ctrl-C: stop ends its tasks, which run elsewhere; keep lets them go on, and
    /// the next start takes them up [default: stop] [env: CLOUDAI_ON_STOP]
    #[arg(long, value_name = "stop|keep")]
    pub on_stop: Option<OnStop>,
    /// What it offers, and how it runs tasks.
    #[command(flatten)]
    pub offer: OfferArgs,
}

/// What becomes of a worker's tasks when the worker is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStop {
    /// They are stopped, and the master gives them to others.
    Stop,
    /// They go on, and the next process of this worker takes them up.
    Keep,
}

impl FromStr for OnStop {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "stop" => Ok(Self::Stop),
            "keep" => Ok(Self::Keep),
            _ => Err("it is 'stop' or 'keep'".to_owned()),
        }
    }
}

impl fmt::Display for OnStop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stop => "stop",
            Self::Keep => "keep",
        })
    }
}

/// Reads `50052` or `:50052`, as the specification writes it.
fn parse_port(text: &str) -> Result<u16, String> {
    text.strip_prefix(':')
        .unwrap_or(text)
        .parse()
        .map_err(|_| format!("'{text}' is not a port: give a number up to 65535"))
}

/// A volume that a worker's administrator declares: a name, and the folder behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostVolume {
    /// The name that tasks use.
    pub name: String,
    /// The folder on the worker.
    pub path: PathBuf,
}

impl FromStr for HostVolume {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, path)) if !name.is_empty() && path.starts_with('/') => {
                Ok(Self { name: name.to_owned(), path: path.into() })
            }
            _ => Err("give name=/path/on/this/machine".to_owned()),
        }
    }
}

impl std::fmt::Display for HostVolume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.name, self.path.display())
    }
}

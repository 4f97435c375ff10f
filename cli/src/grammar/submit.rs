//! What a task is, as flags: the words that Docker users know, with units.

use clap::{Args, ValueEnum};
use cloudai_api::{ArrayRange, Network, PullPolicy, SubmitRequest, TaskType, Volume};

use crate::failure::Failure;
use crate::units::{ByteSize, Count, Span, parse_array, parse_env, parse_times, parse_volume};

/// A task or an array of tasks.
#[derive(Debug, Clone, Args)]
pub struct SubmitArgs {
    /// The image, and then what runs in it: everything behind the image belongs to the command
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE [COMMAND]")]
    pub words: Vec<String>,
    /// Run this text with /bin/sh -c instead of a command
    #[arg(short = 'c', long, value_name = "TEXT")]
    pub shell: Option<String>,
    /// A name for people; need not be unique
    #[arg(long)]
    pub name: Option<String>,
    /// Set an environment variable; KEY alone takes the value from here
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = parse_env)]
    pub env: Vec<(String, String)>,
    /// Cores, for example 1.5 [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "Needs")]
    pub cpus: Option<Count>,
    /// Memory with its unit, for example 2GiB [default: 512MiB]
    #[arg(short, long, value_name = "SIZE", allow_hyphen_values = true, help_heading = "Needs")]
    pub memory: Option<ByteSize>,
    /// Storage with its unit, for example 10GiB [default: 1GiB]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, help_heading = "Needs")]
    pub storage: Option<ByteSize>,
    /// GPUs [default: none]
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "Needs")]
    pub gpus: Option<Count>,
    /// Run on this worker and no other
    #[arg(long, value_name = "ID", help_heading = "Needs")]
    pub worker: Option<String>,
    /// Most processes in the container [default: 4096]
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..),
        allow_negative_numbers = true,
        help_heading = "Limits"
    )]
    pub pids_limit: Option<u32>,
    /// Stop an attempt that runs longer, for example 90s, 5m or 2h
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = "Limits")]
    pub timeout: Option<Span>,
    /// Time between SIGTERM and SIGKILL [default: 10s]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = "Limits")]
    pub grace: Option<Span>,
    /// How long an attempt goes on without word from the master; 15s to 7d [default: 30s]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, help_heading = "Limits")]
    pub lease: Option<Span>,
    /// Try a task that failed by itself so many times again [default: 0]
    #[arg(
        long,
        value_name = "N",
        value_parser = parse_times,
        allow_negative_numbers = true,
        help_heading = "Limits"
    )]
    pub retries: Option<u32>,
    /// Try a task whose worker was lost under it so many times again [default: 5]
    #[arg(
        long,
        value_name = "N",
        value_parser = parse_times,
        allow_negative_numbers = true,
        help_heading = "Limits"
    )]
    pub crashes_max: Option<u32>,
    /// The container's network [default: default]
    #[arg(long, value_name = "NETWORK")]
    pub network: Option<NetworkName>,
    /// Mount a volume that the worker's administrator declared; never a path
    #[arg(
        short = 'v',
        long = "volume",
        value_name = "NAME:/PATH[:ro]",
        value_parser = parse_volume
    )]
    pub volumes: Vec<Volume>,
    /// When the image is fetched [default: missing]
    #[arg(long, value_name = "WHEN")]
    pub pull: Option<PullName>,
    /// Many tasks with an index each, at most so many at once: 1-100%5
    #[arg(long, value_name = "FIRST-LAST[%MAX]", value_parser = parse_array)]
    pub array: Option<ArrayRange>,
    /// Who submits [default: the user of this shell]
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// The kind of work [default: inferred]
    #[arg(long, value_name = "TYPE")]
    pub task_type: Option<TaskTypeName>,
    /// k of "deadline = submitted + k x expected run time", 1.5 to 2.5 [default: 2.0]
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    pub sla: Option<Count>,
    /// Name this submit: the same id again gives the same job
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
}

/// What `--network` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NetworkName {
    /// The engine's default
    Default,
    /// Loopback only
    None,
}

/// What `--pull` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PullName {
    /// When the worker does not have it
    Missing,
    /// Before every attempt
    Always,
    /// Not at all
    Never,
}

/// What `--task-type` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TaskTypeName {
    /// Little processor time
    CpuLight,
    /// Much processor time
    CpuHeavy,
    /// Much memory
    MemoryHeavy,
    /// Inference on a GPU
    GpuInference,
    /// Training on a GPU
    GpuTraining,
    /// Some of each
    Mixed,
}

impl From<TaskTypeName> for TaskType {
    fn from(name: TaskTypeName) -> Self {
        match name {
            TaskTypeName::CpuLight => Self::CpuLight,
            TaskTypeName::CpuHeavy => Self::CpuHeavy,
            TaskTypeName::MemoryHeavy => Self::MemoryHeavy,
            TaskTypeName::GpuInference => Self::GpuInference,
            TaskTypeName::GpuTraining => Self::GpuTraining,
            TaskTypeName::Mixed => Self::Mixed,
        }
    }
}

/// The flag that sets a field of a request, where its name is not that of the field.
pub(crate) fn flag_of(field: &str) -> Option<&'static str> {
    let flag = match field {
        "memory_bytes" => "--memory",
        "storage_bytes" => "--storage",
        "pids" => "--pids-limit",
        "timeout_ms" => "--timeout",
        "grace_ms" => "--grace",
        "lease_ms" => "--lease",
        "crashes_max" => "--crashes-max",
        "sla_multiplier" => "--sla",
        _ => return None,
    };
    Some(flag)
}

impl SubmitArgs {
    /// The image.
    pub fn image(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The request, for a user whose name is known from elsewhere when no flag says it.
    pub fn to_request(&self, user: Option<&str>) -> Result<SubmitRequest, Failure> {
        let command = self.words.get(1..).filter(|words| !words.is_empty());
        if let (Some(_), Some(words)) = (&self.shell, command) {
            let message = format!("both --shell and a command ({}) are given", words.join(" "));
            return Err(Failure::usage(message).hint("give one of them"));
        }
        Ok(SubmitRequest {
            request_id: self.request_id.clone(),
            image: self.image().to_owned(),
            command: command.map(<[String]>::to_vec),
            shell: self.shell.clone(),
            env: self.env.iter().cloned().collect(),
            cpus: self.cpus.map(|cpus| cpus.0),
            memory_bytes: self.memory.map(|memory| memory.0),
            storage_bytes: self.storage.map(|storage| storage.0),
            gpus: self.gpus.map(|gpus| gpus.0),
            pids: self.pids_limit,
            timeout_ms: self.timeout.map(|timeout| timeout.0),
            grace_ms: self.grace.map(|grace| grace.0),
            lease_ms: self.lease.map(|lease| lease.0),
            retries: self.retries,
            crashes_max: self.crashes_max,
            network: self.network.map(|network| match network {
                NetworkName::Default => Network::Default,
                NetworkName::None => Network::None,
            }),
            volumes: self.volumes.clone(),
            pull: self.pull.map(|pull| match pull {
                PullName::Missing => PullPolicy::Missing,
                PullName::Always => PullPolicy::Always,
                PullName::Never => PullPolicy::Never,
            }),
            worker: self.worker.clone(),
            name: self.name.clone(),
            user: self.user.clone().or_else(|| user.map(str::to_owned)),
            task_type: self.task_type.map(TaskType::from),
            sla_multiplier: self.sla.map(|sla| sla.0),
            array: self.array,
        })
    }
}

//! What a task is: everything that its submit said, validated once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use thiserror::Error;

use crate::{Resources, WorkerId};

/// The bounds that a spec must keep.
pub mod limits {
    /// Longest image reference, in bytes.
    pub const IMAGE_LEN_MAX: usize = 512;
    /// Longest task name, in bytes.
    pub const NAME_LEN_MAX: usize = 128;
    /// Longest argument vector, counting every byte of every argument.
    pub const ARGUMENTS_LEN_MAX: usize = 128 << 10;
    /// Largest environment, counting every byte of every key and value.
    pub const ENV_LEN_MAX: usize = 64 << 10;
    /// Most variables in an environment.
    pub const ENV_COUNT_MAX: usize = 1_000;
    /// Most volumes in one task.
    pub const MOUNTS_MAX: usize = 32;
    /// Most processor time, in thousandths of a core (100,000 cores).
    pub const CPU_MILLI_MAX: u64 = 100_000_000;
    /// Most memory or storage, in bytes (1 EiB).
    pub const BYTES_MAX: u64 = 1 << 60;
    /// Least memory, in bytes: the engine refuses less.
    pub const MEMORY_BYTES_MIN: u64 = 6 << 20;
    /// Most GPUs, in thousandths (10,000 devices).
    pub const GPU_MILLI_MAX: u64 = 10_000_000;
    /// Most processes in a container.
    pub const PIDS_MAX: u32 = 4_194_304;
    /// Longest time-out, in milliseconds (one year).
    pub const TIMEOUT_MS_MAX: u64 = 366 * 24 * 3600 * 1000;
    /// Longest grace between SIGTERM and SIGKILL, in milliseconds (one hour).
    pub const GRACE_MS_MAX: u64 = 3600 * 1000;
    /// Shortest lease, in milliseconds: three heartbeats.
    pub const LEASE_MS_MIN: u64 = 15_000;
    /// Longest lease, in milliseconds (one week).
    pub const LEASE_MS_MAX: u64 = 7 * 24 * 3600 * 1000;
    /// Most retries of a failing task.
    pub const RETRIES_MAX: u32 = 1_000;
    /// Most tries again of a task whose worker was lost while it ran.
    pub const CRASHES_MAX: u32 = 1_000;
}

/// What runs in the container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Invocation {
    /// What the image says.
    #[default]
    Image,
    /// `/bin/sh -c <text>`.
    Shell(String),
    /// An argument vector, given to the image's entry point as Docker does.
    Arguments(Vec<String>),
}

/// When the image is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum PullPolicy {
    /// When the worker does not have it.
    #[default]
    Missing,
    /// Before every attempt.
    Always,
    /// Not at all: a worker without it fails the task.
    Never,
}

/// What network the container sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Network {
    /// The engine's default.
    #[default]
    Default,
    /// Loopback only.
    None,
}

/// A volume that the worker's administrator declared, and where the task sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mount {
    /// The declared name; never a path.
    pub volume: String,
    /// An absolute path in the container.
    pub target: String,
    /// Whether the task may only read it.
    pub read_only: bool,
}

/// Bounds of a container that are not placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Limits {
    /// Most processes at once.
    pub pids_max: u32,
    /// How long it may run, in milliseconds; `None` is for ever.
    pub timeout_ms: Option<u64>,
    /// How long it has between SIGTERM and SIGKILL, in milliseconds.
    pub grace_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { pids_max: 4096, timeout_ms: None, grace_ms: 10_000 }
    }
}

/// How an attempt is held and tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RetryPolicy {
    /// How long an attempt goes on without word from the master, in milliseconds.
    pub lease_ms: u64,
    /// How often a task that failed by itself is tried again.
    pub retries_max: u32,
    /// How often a task is tried again whose worker was lost while it ran: it may be what kills
    /// workers.
    pub crashes_max: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { lease_ms: 30_000, retries_max: 0, crashes_max: 5 }
    }
}

/// The kind of work, as its submitter sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskType {
    /// `cpu-light`
    CpuLight,
    /// `cpu-heavy`
    CpuHeavy,
    /// `memory-heavy`
    MemoryHeavy,
    /// `gpu-inference`
    GpuInference,
    /// `gpu-training`
    GpuTraining,
    /// `mixed`
    Mixed,
}

impl TaskType {
    /// Every type, in the order of the wire contract.
    pub const ALL: [Self; 6] = [
        Self::CpuLight,
        Self::CpuHeavy,
        Self::MemoryHeavy,
        Self::GpuInference,
        Self::GpuTraining,
        Self::Mixed,
    ];

    /// Its name on the wire, in the API and at the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CpuLight => "cpu-light",
            Self::CpuHeavy => "cpu-heavy",
            Self::MemoryHeavy => "memory-heavy",
            Self::GpuInference => "gpu-inference",
            Self::GpuTraining => "gpu-training",
            Self::Mixed => "mixed",
        }
    }

    /// The type with this name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for TaskType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who wants the task and how soon.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// Who submitted it; empty when nobody said.
    pub user: String,
    /// The kind of work; `None` when it is to be inferred.
    pub task_type: Option<TaskType>,
    /// k of "the deadline is submitted + k × expected run time", in thousandths: 1500 to 2500.
    pub sla_milli: u32,
}

impl Default for Origin {
    fn default() -> Self {
        Self { user: String::new(), task_type: None, sla_milli: 2000 }
    }
}

/// Everything that a submit says about its tasks. Equal specs are shared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskSpec {
    /// The image reference.
    pub image: String,
    /// What runs in it.
    pub invocation: Invocation,
    /// The environment, besides what the image and CloudAI set.
    pub env: BTreeMap<String, String>,
    /// What is placed.
    pub needs: Resources,
    /// What else bounds the container.
    pub limits: Limits,
    /// What network it sees.
    pub network: Network,
    /// Declared volumes.
    pub mounts: Vec<Mount>,
    /// When the image is fetched.
    pub pull: PullPolicy,
    /// The only worker that may run it.
    pub target: Option<WorkerId>,
    /// A name for people; need not be unique.
    pub name: Option<String>,
    /// Lease and retries.
    pub retry: RetryPolicy,
    /// Who wants it and how soon.
    pub origin: Origin,
}

/// The field of a spec that is wrong, and why.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {why}")]
pub struct SpecError {
    /// The field as the API names it.
    pub field: &'static str,
    /// What is wrong with it, and what would be right.
    pub why: String,
}

impl SpecError {
    /// An error about `field`.
    pub fn new(field: &'static str, why: impl Into<String>) -> Self {
        Self { field, why: why.into() }
    }
}

impl TaskSpec {
    /// A spec with only an image and needs; everything else as the defaults say.
    pub fn new(image: impl Into<String>, needs: Resources) -> Self {
        Self {
            image: image.into(),
            invocation: Invocation::default(),
            env: BTreeMap::new(),
            needs,
            limits: Limits::default(),
            network: Network::default(),
            mounts: Vec::new(),
            pull: PullPolicy::default(),
            target: None,
            name: None,
            retry: RetryPolicy::default(),
            origin: Origin::default(),
        }
    }

    /// The needs of a task that named none: one core, 512 MiB of memory, 1 GiB of storage.
    pub const DEFAULT_NEEDS: Resources = Resources {
        cpu_milli: 1000,
        memory_bytes: 512 << 20,
        storage_bytes: 1 << 30,
        gpu_milli: 0,
    };

    /// Checks every bound; the error names the first field that breaks one.
    pub fn validate(&self) -> Result<(), SpecError> {
        self.validate_image()?;
        self.validate_invocation()?;
        self.validate_env()?;
        self.validate_needs()?;
        self.validate_limits()?;
        self.validate_mounts()?;
        if let Some(name) = &self.name {
            let length = name.len();
            bounded("name", length as u64, 1, limits::NAME_LEN_MAX as u64, "bytes")?;
            if name.chars().any(char::is_control) {
                return Err(SpecError::new("name", "has a control character"));
            }
        }
        bounded("lease_ms", self.retry.lease_ms, limits::LEASE_MS_MIN, limits::LEASE_MS_MAX, "ms")?;
        bounded("retries", self.retry.retries_max.into(), 0, limits::RETRIES_MAX.into(), "")?;
        let crashes_max = self.retry.crashes_max.into();
        bounded("crashes_max", crashes_max, 0, limits::CRASHES_MAX.into(), "")?;
        bounded("sla_multiplier", self.origin.sla_milli.into(), 1500, 2500, "thousandths")
    }

    fn validate_image(&self) -> Result<(), SpecError> {
        let error = |why: &str| Err(SpecError::new("image", why));
        if self.image.is_empty() {
            return error("is empty: name an image, for example 'busybox' or 'python:3-slim'");
        }
        if self.image.len() > limits::IMAGE_LEN_MAX {
            return error("is longer than 512 bytes");
        }
        if self.image.starts_with('-') {
            return error("begins with '-': options come before the image");
        }
        if self.image.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return error("has white space in it");
        }
        Ok(())
    }

    fn validate_invocation(&self) -> Result<(), SpecError> {
        let (length, nul) = match &self.invocation {
            Invocation::Image => (0, false),
            Invocation::Shell(text) => (text.len(), text.contains('\0')),
            Invocation::Arguments(arguments) => (
                arguments.iter().map(|argument| argument.len() + 1).sum(),
                arguments.iter().any(|argument| argument.contains('\0')),
            ),
        };
        if nul {
            return Err(SpecError::new("command", "has a NUL byte in it"));
        }
        bounded("command", length as u64, 0, limits::ARGUMENTS_LEN_MAX as u64, "bytes")
    }

    fn validate_env(&self) -> Result<(), SpecError> {
        bounded("env", self.env.len() as u64, 0, limits::ENV_COUNT_MAX as u64, "variables")?;
        let length = self.env.iter().map(|(key, value)| key.len() + value.len() + 2).sum::<usize>();
        bounded("env", length as u64, 0, limits::ENV_LEN_MAX as u64, "bytes")?;
        for (key, value) in &self.env {
            if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
                let why = format!("'{}' is not a variable: give KEY=value", key.escape_debug());
                return Err(SpecError::new("env", why));
            }
        }
        Ok(())
    }

    fn validate_needs(&self) -> Result<(), SpecError> {
        let needs = self.needs;
        bounded("cpus", needs.cpu_milli, 1, limits::CPU_MILLI_MAX, "thousandths of a core")?;
        let least = limits::MEMORY_BYTES_MIN;
        bounded("memory", needs.memory_bytes, least, limits::BYTES_MAX, "bytes")?;
        bounded("storage", needs.storage_bytes, 0, limits::BYTES_MAX, "bytes")?;
        bounded("gpus", needs.gpu_milli, 0, limits::GPU_MILLI_MAX, "thousandths of a GPU")
    }

    fn validate_limits(&self) -> Result<(), SpecError> {
        let pids = u64::from(self.limits.pids_max);
        bounded("pids", pids, 1, limits::PIDS_MAX.into(), "processes")?;
        if let Some(timeout_ms) = self.limits.timeout_ms {
            bounded("timeout_ms", timeout_ms, 1, limits::TIMEOUT_MS_MAX, "ms")?;
        }
        bounded("grace_ms", self.limits.grace_ms, 0, limits::GRACE_MS_MAX, "ms")
    }

    fn validate_mounts(&self) -> Result<(), SpecError> {
        bounded("volumes", self.mounts.len() as u64, 0, limits::MOUNTS_MAX as u64, "volumes")?;
        let mut targets = BTreeSet::new();
        for mount in &self.mounts {
            if WorkerId::new(&mount.volume).is_err() {
                let why = format!(
                    "'{}' is not the name of a declared volume; a path of the worker is never \
                     taken: its administrator declares volumes with 'cloudai worker --volume'",
                    mount.volume.escape_debug()
                );
                return Err(SpecError::new("volumes", why));
            }
            let target = mount.target.as_str();
            if let Some(why) = find_target_fault(target) {
                let why = format!("no volume can be at '{}': {why}", target.escape_debug());
                return Err(SpecError::new("volumes", why));
            }
            if !targets.insert(target) {
                let why = format!("two volumes at '{target}'");
                return Err(SpecError::new("volumes", why));
            }
        }
        Ok(())
    }
}

/// What keeps a volume from being mounted there. Only a path that cannot be written in another way
/// is taken, so that none stands for `/output`, whose files the worker moves away.
fn find_target_fault(target: &str) -> Option<&'static str> {
    let mut parts = target.split('/');
    if parts.next() != Some("") || target.len() < 2 {
        return Some("give an absolute path below '/'");
    }
    if target.contains(['\0', ':']) || parts.clone().any(|part| ["", ".", ".."].contains(&part)) {
        return Some("write it without ':', '.', '..', double or trailing slashes");
    }
    (parts.next() == Some("output"))
        .then_some("/output is the task's own; its files are kept with the task")
}

fn bounded(
    field: &'static str,
    value: u64,
    least: u64,
    most: u64,
    unit: &str,
) -> Result<(), SpecError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let (word, bound) = if value < least { ("at least", least) } else { ("at most", most) };
    let readable = match unit {
        "bytes" if bound >= 1 << 20 => format!(" ({} MiB)", bound >> 20),
        _ => String::new(),
    };
    Err(SpecError::new(field, format!("{value} is out of bounds: {word} {bound} {unit}{readable}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut TaskSpec), want: &str) {
        let mut spec = TaskSpec::new("busybox", TaskSpec::DEFAULT_NEEDS);
        change(&mut spec);
        let got = spec.validate().map_or_else(|error| error.to_string(), |()| "ok".to_owned());
        assert!(got.starts_with(want), "{got}");
    }

    #[test]
    fn each_bound_is_refused_with_its_field() {
        check(|_| {}, "ok");
        check(|spec| spec.image.clear(), "image: is empty");
        check(|spec| spec.image = "-x".into(), "image: begins with '-'");
        check(|spec| spec.image = "a b".into(), "image: has white space");
        check(|spec| spec.needs.cpu_milli = 0, "cpus: 0 is out of bounds");
        check(|spec| spec.needs.cpu_milli = limits::CPU_MILLI_MAX, "ok");
        check(|spec| spec.needs.cpu_milli = limits::CPU_MILLI_MAX + 1, "cpus: ");
        check(
            |spec| spec.needs.memory_bytes = 1024,
            "memory: 1024 is out of bounds: at least 6291456 bytes (6 MiB)",
        );
        check(|spec| spec.needs.storage_bytes = limits::BYTES_MAX + 1, "storage: ");
        check(|spec| spec.limits.pids_max = 0, "pids: ");
        check(|spec| spec.limits.timeout_ms = Some(0), "timeout_ms: ");
        check(|spec| spec.retry.lease_ms = limits::LEASE_MS_MIN - 1, "lease_ms: ");
        check(|spec| spec.retry.retries_max = limits::RETRIES_MAX + 1, "retries: 1001 is out");
        check(|spec| spec.retry.crashes_max = limits::CRASHES_MAX, "ok");
        check(|spec| spec.retry.crashes_max = limits::CRASHES_MAX + 1, "crashes_max: 1001 is out");
        check(|spec| spec.name = Some("a\nb".into()), "name: has a control character");
        check(|spec| drop(spec.env.insert("A=B".into(), String::new())), "env: 'A=B'");
        check(|spec| spec.origin.sla_milli = 1499, "sla_multiplier: ");
    }

    #[test]
    fn a_volume_is_a_name_and_never_a_path() {
        let mount = |volume: &str, target: &str| Mount {
            volume: volume.into(),
            target: target.into(),
            read_only: false,
        };
        check(|spec| spec.mounts.push(mount("data", "/data")), "ok");
        for volume in ["/etc", "../x", ""] {
            check(|spec| spec.mounts.push(mount(volume, "/data")), "volumes: ");
        }
        for target in ["/data.1", "/a/b", "/outputs"] {
            check(|spec| spec.mounts.push(mount("data", target)), "ok");
        }
        for target in ["", "/", "data", "/a/../b", "/a/.", "//a", "/a/", "/a:ro", "/a\0"] {
            check(|spec| spec.mounts.push(mount("data", target)), "volumes: no volume can be at");
        }
    }

    #[test]
    fn no_volume_stands_in_the_place_of_the_output() {
        for target in ["/output", "/output/", "//output", "/output/.", "/./output", "/output/a"] {
            let target = target.to_owned();
            let mount = Mount { volume: "data".into(), target, read_only: true };
            check(|spec| spec.mounts.push(mount), "volumes: no volume can be at");
        }
    }
}

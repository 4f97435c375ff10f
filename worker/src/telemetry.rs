//! What this machine has and how busy it is. Measured, never assumed: inside a container the
//! limits of its cgroup count when they are lower. A graphics driver may hang, so it is asked in a
//! thread of its own with a deadline. Nothing here may delay the session.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use cloudai_model::{Resources, Usage};
use nvml_wrapper::Nvml;
use sysinfo::System;
use tokio::sync::watch;

use crate::config::CapacityOverride;

/// How often usage is measured; the interval that a master asks for when it names no other.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);
/// How long the graphics driver may take to count its devices.
const GPU_DEADLINE: Duration = Duration::from_secs(3);
/// Where the kernel shows control groups.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// The graphics devices of this machine.
#[derive(Debug)]
pub(crate) struct Gpus {
    /// How many there are; 0 when there is no driver.
    pub(crate) count: u32,
    usage_bp: Arc<AtomicU16>,
    _stop: mpsc::Sender<()>,
}

impl Gpus {
    /// Asks the driver. Blocks up to its deadline.
    pub(crate) fn probe() -> io::Result<Self> {
        let usage_bp = Arc::new(AtomicU16::new(0));
        let (stop, stopped) = mpsc::channel();
        let (counted, count) = mpsc::channel();
        let usage = Arc::clone(&usage_bp);
        thread::Builder::new().name("gpus".into()).spawn(move || {
            let nvml = Nvml::init().ok();
            let count = nvml.as_ref().and_then(|nvml| nvml.device_count().ok()).unwrap_or(0);
            // The one who asked may have given up at the deadline.
            let _ = counted.send(count);
            let Some(nvml) = nvml else { return };
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                usage.store(gpu_usage_bp(&nvml, count), Ordering::Relaxed);
            }
        })?;
        let count = count.recv_timeout(GPU_DEADLINE).unwrap_or(0);
        Ok(Self { count, usage_bp, _stop: stop })
    }
}

/// The mean over all devices; one that cannot say counts as idle.
fn gpu_usage_bp(nvml: &Nvml, count: u32) -> u16 {
    let percent = |index| Some(nvml.device_by_index(index).ok()?.utilization_rates().ok()?.gpu);
    let sum = (0..count).filter_map(percent).map(u64::from).sum::<u64>();
    part_bp(sum, u64::from(count) * 100)
}

/// `part` of `whole` in hundredths of a percent; 0 of nothing.
fn part_bp(part: u64, whole: u64) -> u16 {
    let bp = (u128::from(part) * u128::from(Usage::BP_MAX)).checked_div(whole.into());
    bp.unwrap_or(0).min(Usage::BP_MAX.into()) as u16
}

/// What this machine offers to tasks. Storage is what is free on the disk of the data folder.
pub(crate) fn capacity(
    system: &mut System,
    data_dir: &Path,
    gpu_count: u32,
    told: CapacityOverride,
) -> Resources {
    system.refresh_memory();
    let cores = thread::available_parallelism().map_or(1, usize::from) as u64;
    let bounds = CgroupBounds::read(Path::new(CGROUP_ROOT), &own_cgroup());
    let lower = |measured: u64, bound: Option<u64>| bound.map_or(measured, |b| b.min(measured));
    let free = storage(data_dir).map_or(0, |(_, free)| free);
    Resources {
        cpu_milli: told.cpu_milli.unwrap_or_else(|| lower(cores * 1000, bounds.cpu_milli)),
        memory_bytes: told
            .memory_bytes
            .unwrap_or_else(|| lower(system.total_memory(), bounds.memory_bytes)),
        storage_bytes: told.storage_bytes.unwrap_or(free),
        gpu_milli: told.gpu_milli.unwrap_or(u64::from(gpu_count) * 1000),
    }
}

/// All bytes and the free ones of the file system that holds the path.
fn storage(path: &Path) -> Option<(u64, u64)> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some((stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize))
}

/// This process's path in the unified hierarchy; `/` inside a container.
fn own_cgroup() -> PathBuf {
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    PathBuf::from(path)
}

/// The bounds that control groups put on this process.
#[derive(Debug, PartialEq, Eq)]
struct CgroupBounds {
    cpu_milli: Option<u64>,
    memory_bytes: Option<u64>,
}

impl CgroupBounds {
    /// Reads version 2 from `own` up to the root, because the lowest bound counts, and version 1
    /// at its root, which is the container's own there.
    fn read(root: &Path, own: &Path) -> Self {
        let folders = || own.ancestors().map(|part| root.join(part));
        let cpu = folders().filter_map(|folder| cpu_max(&read(&folder.join("cpu.max"))?));
        let memory = folders().filter_map(|folder| read(&folder.join("memory.max"))?.parse().ok());
        Self {
            cpu_milli: cpu.min().or_else(|| cpu_v1(&root.join("cpu"))),
            memory_bytes: memory
                .min()
                .or_else(|| read(&root.join("memory/memory.limit_in_bytes"))?.parse().ok()),
        }
    }
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// `150000 100000` is one and a half cores; `max 100000` is no bound.
fn cpu_max(text: &str) -> Option<u64> {
    let (quota, period) = text.split_once(' ')?;
    cores_milli(quota.parse().ok()?, period.parse().ok()?)
}

fn cpu_v1(folder: &Path) -> Option<u64> {
    let quota = read(&folder.join("cpu.cfs_quota_us"))?.parse().ok()?;
    cores_milli(quota, read(&folder.join("cpu.cfs_period_us"))?.parse().ok()?)
}

fn cores_milli(quota: u64, period: u64) -> Option<u64> {
    quota.checked_mul(1000)?.checked_div(period)
}

/// Measures until it is dropped.
#[derive(Debug)]
pub(crate) struct Telemetry {
    /// The last measurement.
    pub(crate) usage: watch::Receiver<Usage>,
    _stop: mpsc::Sender<()>,
    _gpus: Gpus,
}

impl Telemetry {
    /// Starts the measuring thread.
    pub(crate) fn start(mut system: System, data_dir: &Path, gpus: Gpus) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel::<()>();
        let (data_dir, gpu_bp) = (data_dir.to_owned(), Arc::clone(&gpus.usage_bp));
        // Processor use is a difference: the first look only sets its beginning. The rest is true
        // from the first heartbeat on.
        let (sender, usage) = watch::channel(measure(&mut system, &data_dir, &gpu_bp));
        thread::Builder::new().name("telemetry".into()).spawn(move || {
            let mut pause = sysinfo::MINIMUM_CPU_UPDATE_INTERVAL;
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                sender.send_replace(measure(&mut system, &data_dir, &gpu_bp));
                pause = INTERVAL;
            }
        })?;
        Ok(Self { usage, _stop: stop, _gpus: gpus })
    }
}

fn measure(system: &mut System, data_dir: &Path, gpu_bp: &AtomicU16) -> Usage {
    system.refresh_cpu_usage();
    system.refresh_memory();
    let (all, free) = storage(data_dir).unwrap_or((0, 0));
    Usage {
        // A cast from a float saturates and makes 0 of NaN.
        cpu_bp: ((system.global_cpu_usage() * 100.0).round() as u16).min(Usage::BP_MAX),
        memory_bp: part_bp(system.used_memory(), system.total_memory()),
        storage_bp: part_bp(all.saturating_sub(free), all),
        gpu_bp: gpu_bp.load(Ordering::Relaxed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], own: &str, want: (Option<u64>, Option<u64>)) {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let got = CgroupBounds::read(root.path(), Path::new(own));
        assert_eq!((got.cpu_milli, got.memory_bytes), want);
    }

    #[test]
    fn the_lowest_bound_of_the_control_groups_counts() {
        check(&[], "", (None, None));
        check(&[("cpu.max", "max 100000\n"), ("memory.max", "max\n")], "", (None, None));
        check(
            &[("cpu.max", "150000 100000\n"), ("memory.max", "1024\n")],
            "",
            (Some(1500), Some(1024)),
        );
        let nested = [("a/cpu.max", "50000 100000"), ("a/b/cpu.max", "400000 100000")];
        check(&nested, "a/b", (Some(500), None));
        let old = [
            ("cpu/cpu.cfs_quota_us", "200000"),
            ("cpu/cpu.cfs_period_us", "100000"),
            ("memory/memory.limit_in_bytes", "4096"),
        ];
        check(&old, "", (Some(2000), Some(4096)));
        check(&[("cpu/cpu.cfs_quota_us", "-1"), ("cpu/cpu.cfs_period_us", "9")], "", (None, None));
    }

    #[test]
    fn what_is_told_stands_above_what_is_measured() {
        let dir = tempfile::tempdir().unwrap();
        let system = &mut System::new().unwrap();
        let measured = capacity(system, dir.path(), 2, CapacityOverride::default());
        assert!(measured.cpu_milli >= 1 && measured.memory_bytes > 0 && measured.storage_bytes > 0);
        assert_eq!(measured.gpu_milli, 2000);
        let told = CapacityOverride { cpu_milli: Some(64_000), ..CapacityOverride::default() };
        let told = capacity(system, dir.path(), 0, told);
        assert_eq!((told.cpu_milli, told.memory_bytes), (64_000, measured.memory_bytes));
    }

    #[test]
    fn usage_is_measured_and_stays_in_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let mut system = System::new().unwrap();
        let usage = measure(&mut system, dir.path(), &AtomicU16::new(7));
        assert!((1..=Usage::BP_MAX).contains(&usage.memory_bp));
        assert!(usage.cpu_bp <= Usage::BP_MAX && usage.storage_bp <= Usage::BP_MAX);
        assert_eq!((usage.gpu_bp, part_bp(1, 0), part_bp(3, 2)), (7, 0, Usage::BP_MAX));
    }
}

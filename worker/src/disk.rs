//! The disk under the worker's folder: how much of it a log may take, and how full it may be before
//! the worker takes no new work. It must never make room by itself: what lies on a disk is its
//! owner's. Read next: `logs.rs`, which keeps the bound of a log.

use std::path::Path;

use rustix::fs::statvfs;
use thiserror::Error;

/// Least that a log may be allowed to take: each segment of its tail must hold the longest record.
const LOG_BYTES_MAX_MIN: u64 = 2 << 20;
/// Most that a log may be allowed to take: the master takes no longer ones.
const LOG_BYTES_MAX_MAX: u64 = 512 << 20;

/// What the administrator says about the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskLimits {
    log_bytes_max: u64,
    percent_max: u8,
}

/// Why a limit makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DiskLimitError {
    /// Of one log.
    #[error("log_bytes_max: {0} bytes for a log are not possible: give 2MiB to 512MiB")]
    LogBytesMax(u64),
    /// Of the file system.
    #[error("disk_percent_max: {0} is no share of a disk: give 1 to 100")]
    PercentMax(u8),
}

impl DiskLimits {
    /// At most `log_bytes_max` bytes for each attempt's log, and no new work while the disk is
    /// more than `percent_max` percent full.
    pub fn new(log_bytes_max: u64, percent_max: u8) -> Result<Self, DiskLimitError> {
        if !(LOG_BYTES_MAX_MIN..=LOG_BYTES_MAX_MAX).contains(&log_bytes_max) {
            return Err(DiskLimitError::LogBytesMax(log_bytes_max));
        }
        if !(1..=100).contains(&percent_max) {
            return Err(DiskLimitError::PercentMax(percent_max));
        }
        Ok(Self { log_bytes_max, percent_max })
    }

    /// Most bytes of disk that one attempt's log takes.
    pub fn log_bytes_max(self) -> u64 {
        self.log_bytes_max
    }

    /// How full the disk may be.
    pub fn percent_max(self) -> u8 {
        self.percent_max
    }
}

impl Default for DiskLimits {
    /// 256 MiB for a log, 95 percent of the disk.
    fn default() -> Self {
        Self { log_bytes_max: 256 << 20, percent_max: 95 }
    }
}

/// Why the worker should take no new work now: the disk under `path` is more than `percent_max`
/// percent full, or cannot be looked at. `None` when all is well.
pub fn disk_pressure(path: &Path, percent_max: u8) -> Option<String> {
    let shown = path.display();
    match statvfs(path) {
        Ok(found) => {
            let space = Share { all: found.f_blocks, left: found.f_bfree, ours: found.f_bavail };
            let files = Share { all: found.f_files, left: found.f_ffree, ours: found.f_favail };
            pressure(&[("", space), ("its table of files: ", files)], percent_max)
                .map(|full| format!("the disk under {shown} is full: {full}"))
        }
        Err(error) => Some(format!(
            "the disk under {shown} cannot be looked at: {error}; see that it is mounted and well"
        )),
    }
}

/// Units of a file system, of which some may be kept for its administrator.
#[derive(Debug, Clone, Copy)]
struct Share {
    all: u64,
    left: u64,
    /// Of `left`, what this process may use.
    ours: u64,
}

impl Share {
    /// As `df` counts: rounded up, without what is kept for the administrator. A file system that
    /// does not count says 0 of 0.
    fn percent(self) -> u64 {
        let used = self.all.saturating_sub(self.left);
        let usable = used + self.ours;
        if usable == 0 { 0 } else { (u128::from(used) * 100).div_ceil(usable.into()) as u64 }
    }
}

fn pressure(shares: &[(&str, Share)], percent_max: u8) -> Option<String> {
    let (name, share) = shares.iter().find(|(_, share)| share.percent() > percent_max.into())?;
    let percent = share.percent();
    Some(format!(
        "{name}{percent} % are used, and it takes no new work above {percent_max} %; make room on \
         this disk"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(all: u64, left: u64, ours: u64) -> Share {
        Share { all, left, ours }
    }

    #[test]
    fn above_the_mark_there_is_pressure_and_at_it_there_is_none() {
        let roomy = share(1000, 1000, 1000);
        for (space, files, want) in [
            (share(1000, 50, 50), roomy, None),
            (share(1000, 49, 49), roomy, Some("96 % are used")),
            // What the administrator keeps for himself is of no use to us.
            (share(1000, 60, 10), roomy, Some("99 % are used")),
            (roomy, share(1000, 0, 0), Some("its table of files: 100 % are used")),
            (share(0, 0, 0), share(0, 0, 0), None),
            (share(u64::MAX, 0, 0), roomy, Some("100 % are used")),
        ] {
            let got = pressure(&[("", space), ("its table of files: ", files)], 95);
            let is_right = match want {
                None => got.is_none(),
                Some(words) => got.as_ref().is_some_and(|got| got.starts_with(words)),
            };
            assert!(is_right, "{space:?}: {got:?}");
        }
    }

    #[test]
    fn the_words_name_the_place_and_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(disk_pressure(dir.path(), 100), None);
        let gone = dir.path().join("gone");
        let words = disk_pressure(&gone, 100).unwrap();
        assert!(words.contains(&format!("the disk under {}", gone.display())), "{words}");
        let full = pressure(&[("", share(10, 0, 0))], 95).unwrap();
        assert!(full.ends_with("make room on this disk"), "{full}");
    }

    #[test]
    fn a_limit_that_makes_no_sense_is_refused_by_name() {
        for (log_bytes_max, percent_max, want) in [
            (2 << 20, 1, "ok"),
            (512 << 20, 100, "ok"),
            ((2 << 20) - 1, 95, "log_bytes_max: 2097151 bytes"),
            ((512 << 20) + 1, 95, "log_bytes_max: 536870913 bytes"),
            (256 << 20, 0, "disk_percent_max: 0 is no share"),
            (256 << 20, 101, "disk_percent_max: 101 is no share"),
        ] {
            let made = DiskLimits::new(log_bytes_max, percent_max);
            let said = made.map_or_else(|error| error.to_string(), |_| "ok".to_owned());
            assert!(said.starts_with(want), "{said}");
        }
        let default = DiskLimits::default();
        assert_eq!(DiskLimits::new(default.log_bytes_max(), default.percent_max()), Ok(default));
    }
}

//! The flags of `backup` and `restore`. Both work on the directories themselves, on the machine
//! that has them; they ask no master.

use std::path::PathBuf;

use clap::Args;

/// What is copied, and where to.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Runs on the master's machine and needs no master: one that runs goes on meanwhile. The backup is \
one moment of the store, with the logs and files of every task that had ended by then.

Examples:
  cloudai backup /mnt/backups/monday
  cloudai backup --store-only /mnt/backups/$(date +%F-%H%M)")]
pub struct BackupArgs {
    /// The backup: a directory that does not exist yet, or is empty
    #[arg(value_name = "DIR")]
    pub to: PathBuf,
    /// The master's data directory [default: as for the master] [env: CLOUDAI_DATA]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Leave logs and output files of tasks out
    #[arg(long)]
    pub store_only: bool,
}

/// What is restored, and where to.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
What was accepted after the backup is lost. What still runs of it is stopped when its worker comes \
back, and job, session and attempt numbers go on behind all that can have been given out since.

Example:
  cloudai restore /mnt/backups/monday --data-dir /var/lib/cloudai-restored
  cloudai master --data-dir /var/lib/cloudai-restored")]
pub struct RestoreArgs {
    /// The backup
    #[arg(value_name = "DIR")]
    pub backup: PathBuf,
    /// The new data directory, without data in it [default: as for the master]
    /// [env: CLOUDAI_DATA]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Leave out logs and files that are not what was backed up, rather than restore nothing
    #[arg(long)]
    pub skip_damaged: bool,
}

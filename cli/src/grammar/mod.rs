//! The one grammar: what can be said in a shell and at `master>`.
//!
//! Only words, types and help; what a command does is in `actions/`. The roles' flags stand here
//! too, so that help, completions and manual pages know them; the binary runs the roles. Read next:
//! `submit.rs` for the flags of a task, `roles.rs` for those of a master and a worker.

mod backup;
mod client;
mod repl;
mod roles;
mod submit;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use backup::{BackupArgs, RestoreArgs};
pub use client::{
    CancelArgs, ClientCommand, ExplainArgs, FilesArgs, LogsArgs, StatusArgs, TaskArgs, TaskCommand,
    TasksArgs, WaitArgs, WorkersArgs,
};
pub use repl::{ReplCommand, ReplLine};
pub use roles::{HostVolume, MasterArgs, OfferArgs, OnStop, UpArgs, WorkerArgs};
pub(crate) use submit::flag_of;
pub use submit::{NetworkName, PullName, SubmitArgs, TaskTypeName};

use crate::exit;

const EXAMPLES: &str = "\
Examples:
  cloudai up                                  a master and a worker on this machine
  cloudai run busybox echo hello              run a task, see its output, get its exit code
  cloudai submit --array 1-100%5 busybox      a hundred tasks, five at once
  cloudai tasks --status running              what runs now
  cloudai explain 42                          why task-42 does not run

Settings come from a flag, else the environment (CLOUDAI_*), else cloudai.toml, else a default;
'cloudai config' shows each with its origin.";

/// Runs containers as tasks on many machines.
///
/// One program is the master, the worker and the client. Submit a container image, and it runs on
/// a worker that has room for it; its output, files and exit code come back.
#[derive(Debug, Parser)]
#[command(name = "cloudai", version, propagate_version = true)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
pub struct Cli {
    /// Settings for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Settings for every command.
#[derive(Debug, Clone, Default, Args)]
pub struct Global {
    /// The master to speak to [default: http://127.0.0.1:8080] [env: CLOUDAI_URL]
    #[arg(long, global = true, value_name = "URL", help_heading = "Global options")]
    pub master_url: Option<String>,
    /// Write data as JSON, as the API has it
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// Read settings from this file [default: ./cloudai.toml, else /etc/cloudai/cloudai.toml]
    /// [env: CLOUDAI_CONFIG]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub config: Option<PathBuf>,
}

/// What can be said in a shell.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a master and a worker on this machine
    Up(UpArgs),
    /// Start a master
    Master(MasterArgs),
    /// Start a worker
    Worker(WorkerArgs),
    /// What a client says
    #[command(flatten)]
    Client(ClientCommand),
    /// Show one task with everything that is known of it
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Task(TaskArgs),
    /// Copy a master's data, also while it runs
    Backup(BackupArgs),
    /// Make a data directory from a backup
    Restore(RestoreArgs),
    /// Look for what keeps CloudAI from working on this machine
    #[command(after_help = "Ends with 1 when there is a problem; each problem says what to do.")]
    Doctor,
    /// Show each setting with its value and where it comes from
    Config,
    /// Write a completion script for a shell to standard output
    #[command(after_help = "Example:\n  cloudai completions bash \
                            > ~/.local/share/bash-completion/completions/cloudai")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a directory, or the main one to standard output
    Man {
        /// The directory; it is made when it does not exist
        dir: Option<PathBuf>,
    },
}

#[cfg(test)]
mod tests;

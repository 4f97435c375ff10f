//! What can be said at `master>`: everything that a client says, and the specification's words.

use clap::{Parser, Subcommand};

use super::client::parse_status;
use super::{ClientCommand, TaskArgs};
use crate::id::TaskRef;

/// One line at `master>`.
#[derive(Debug, Parser)]
#[command(name = "master>", no_binary_name = true, disable_help_subcommand = true)]
#[command(disable_version_flag = true)]
pub struct ReplLine {
    /// Write data as JSON, as the API has it
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: ReplCommand,
}

/// What can be said at `master>`.
#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one of it, for one line")]
pub enum ReplCommand {
    /// What a client says
    #[command(flatten)]
    Client(ClientCommand),
    /// Show one task with everything that is known of it
    Task(TaskArgs),
    /// Ask for a plan and show what still waits
    Dispatch,
    /// Follow a task's output
    Monitor {
        /// The task: 42, or 42.7 for a task of an array
        task: TaskRef,
    },
    /// List tasks, of one status when it is named
    ListTasks {
        /// queued, assigned, running, succeeded, failed or cancelled
        #[arg(value_parser = parse_status)]
        status: Option<cloudai_api::TaskStatus>,
    },
    /// Show one worker with what it runs
    Stats {
        /// The worker
        worker: String,
    },
    /// List every command
    Help {
        /// A command
        command: Option<String>,
    },
    /// Stop the master
    #[command(visible_alias = "quit")]
    Exit,
}

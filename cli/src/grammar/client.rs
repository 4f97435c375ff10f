//! What a client says, in a shell and at `master>` alike.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::SubmitArgs;
use crate::id::{JobRef, TaskRef};
use crate::units::Span;

const RUN_EXAMPLES: &str = "\
Examples:
  cloudai run busybox echo hello
  cloudai run --cpus 2 -m 4GiB -e MODE=fast --timeout 10m python:3-slim python -c 'print(1)'
  cloudai run -c 'date; sleep 5; date' busybox

Ends with the exit code of the task. Ctrl-C asks whether to leave the task running or to cancel
it; a second Ctrl-C leaves it running.";

const SUBMIT_EXAMPLES: &str = "\
Examples:
  cloudai submit --name nightly busybox sleep 60
  cloudai submit --array 1-100%5 busybox sh -c 'echo $CLOUDAI_ARRAY_INDEX'

Prints the task's id, or the job's for an array. Nothing is lost once it is printed.";

/// What a client says.
#[derive(Debug, Clone, Subcommand)]
pub enum ClientCommand {
    /// Run a task: submit it, show its output, end with its exit code
    #[command(override_usage = "cloudai run [OPTIONS] IMAGE [COMMAND]...")]
    #[command(after_help = RUN_EXAMPLES)]
    Run {
        /// Do not wait: print the task's id, as 'submit' does
        #[arg(short, long)]
        detach: bool,
        /// The task.
        #[command(flatten)]
        submit: SubmitArgs,
    },
    /// Submit a task or an array of tasks and print its id
    #[command(override_usage = "cloudai submit [OPTIONS] IMAGE [COMMAND]...")]
    #[command(after_help = SUBMIT_EXAMPLES)]
    Submit(SubmitArgs),
    /// List tasks, the newest first
    #[command(visible_alias = "ps")]
    Tasks(TasksArgs),
    /// Show what a task wrote
    Logs(LogsArgs),
    /// Cancel tasks or jobs
    Cancel(CancelArgs),
    /// Wait until tasks or jobs have ended
    #[command(after_help = "Ends with the exit code of the first task that did not succeed.")]
    Wait(WaitArgs),
    /// Say why a task is where it is
    Explain(ExplainArgs),
    /// List the files that a task left in /output, or fetch one
    Files(FilesArgs),
    /// Show the workers, or one with what it runs
    Workers(WorkersArgs),
    /// Show what waits and why
    Queue,
    /// Show the cluster at a glance
    Status(StatusArgs),
}

/// `task show`.
#[derive(Debug, Clone, Args)]
pub struct TaskArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: TaskCommand,
}

/// What can be done with one task.
#[derive(Debug, Clone, Subcommand)]
pub enum TaskCommand {
    /// Show one task with everything that is known of it
    Show {
        /// The task: 42, or 42.7 for a task of an array
        task: TaskRef,
    },
}

/// Which tasks to list.
#[derive(Debug, Clone, Default, Args)]
pub struct TasksArgs {
    /// Only tasks that stand here
    #[arg(short, long, value_name = "STATUS", value_parser = parse_status)]
    pub status: Option<cloudai_api::TaskStatus>,
    /// Only tasks of this job
    #[arg(short, long, value_name = "JOB")]
    pub job: Option<JobRef>,
    /// Only tasks that this worker holds or held last
    #[arg(short, long, value_name = "ID")]
    pub worker: Option<String>,
    /// Only tasks of this name
    #[arg(long)]
    pub name: Option<String>,
    /// Only tasks of this user
    #[arg(long)]
    pub user: Option<String>,
    /// Most tasks to list
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        default_value_t = 50,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(cloudai_api::PAGE_LIMIT_MAX))
    )]
    pub limit: u32,
    /// Go on behind a page that ended with this cursor
    #[arg(long)]
    pub cursor: Option<String>,
}

/// Reads a status; the error lists them all.
pub(crate) fn parse_status(text: &str) -> Result<cloudai_api::TaskStatus, String> {
    cloudai_api::TaskStatus::find(text).ok_or_else(|| {
        let names = cloudai_api::TaskStatus::ALL.map(cloudai_api::TaskStatus::name);
        format!("'{text}' is no status: use one of {}", names.join(", "))
    })
}

/// Whose output to show.
#[derive(Debug, Clone, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct LogsArgs {
    /// The task: 42, or 42.7 for a task of an array
    pub task: TaskRef,
    /// Go on until the task has ended
    #[arg(short, long)]
    pub follow: bool,
    /// Only this try [default: the current or last one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub attempt: Option<u32>,
    /// Only what went to standard output
    #[arg(long, conflicts_with = "stderr")]
    pub stdout: bool,
    /// Only what went to standard error
    #[arg(long)]
    pub stderr: bool,
    /// Begin each line with when it was written
    #[arg(short, long)]
    pub timestamps: bool,
}

/// What to cancel.
#[derive(Debug, Clone, Args)]
pub struct CancelArgs {
    /// Tasks (42.7) or whole jobs (42)
    #[arg(required = true, value_name = "TASK")]
    pub tasks: Vec<TaskRef>,
}

/// What to wait for.
#[derive(Debug, Clone, Args)]
pub struct WaitArgs {
    /// Tasks (42.7) or whole jobs (42)
    #[arg(required = true, value_name = "TASK")]
    pub tasks: Vec<TaskRef>,
    /// Give up after this time, with exit code 124
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<Span>,
}

/// What to explain.
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    /// The task: 42, or 42.7 for a task of an array
    pub task: TaskRef,
}

/// Which files.
#[derive(Debug, Clone, Args)]
pub struct FilesArgs {
    /// The task: 42, or 42.7 for a task of an array
    pub task: TaskRef,
    /// The file to fetch, as the list shows it
    pub path: Option<String>,
    /// Write it here instead of to standard output
    #[arg(short, long, value_name = "FILE", requires = "path")]
    pub output: Option<PathBuf>,
}

/// Which workers.
#[derive(Debug, Clone, Default, Args)]
pub struct WorkersArgs {
    /// Show this one with what it runs
    pub worker: Option<String>,
}

/// How to show the cluster.
#[derive(Debug, Clone, Default, Args)]
pub struct StatusArgs {
    /// Show it again every second until Ctrl-C
    #[arg(long)]
    pub watch: bool,
}

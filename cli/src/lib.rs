//! The command line of CloudAI: one grammar for the shell and for `master>`.
//!
//! A command is understood in `grammar/`, done in `actions/`, shown in `output/`. It reaches a
//! master through [`Backend`]: over HTTP from a shell, within the process at `master>`. It must
//! never reach around the HTTP API, and never run a role: the binary does. Exit codes are in
//! [`exit`]. Read next: `grammar/mod.rs`, `actions/mod.rs`, `repl/mod.rs`.

mod actions;
mod backend;
mod client;
pub mod exit;
mod failure;
pub mod grammar;
mod http;
mod id;
mod interrupt;
mod output;
mod repl;
mod settings;
mod units;

pub use actions::{
    DoctorPorts, Session, doctor, run_client, run_task, show_config, write_completions,
    write_manual,
};
pub use backend::{Backend, BackendError, Method, RESPONSE_BYTES_MAX, Request, Response, Stream};
pub use client::{Client, LogReader};
pub use failure::Failure;
pub use http::HttpBackend;
pub use id::{JobRef, TaskRef};
pub use interrupt::{Interrupts, Listening};
pub use output::{
    Screen, Table, harmless, show_explanation, show_files, show_job, show_queue, show_status,
    show_task, show_tasks, show_time, show_worker, show_workers, write_json,
};
pub use repl::{Printer, ReplEnd, ReplOptions, ReplStop, run_repl};
pub use settings::{MasterSettings, Origin, Prompt, Settings, Shown, UpSettings, WorkerSettings};
pub use units::{ByteSize, Count, Span, show_bytes};

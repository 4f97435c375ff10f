//! The master: the heart that decides, and around it what serves workers, agents and clients.
//!
//! Read next: `heart.rs` (the one thread that owns core and store), `grpc.rs` (workers and
//! agents), `http/` (clients), `dispatch.rs` (orders to workers), `files.rs` (logs and outputs),
//! `backup/` (copies of it all).
//!
//! **Architecture Invariant:** no module but the heart holds the core or writes to the store; no
//! byte of a log or a file goes through the heart.

mod agent_record;
pub mod backup;
mod clock;
mod config;
mod dispatch;
#[cfg(test)]
mod faulty_store;
mod files;
mod grpc;
mod heart;
mod http;
mod log_reader;
mod readers;
mod run;
mod usage;

pub use cloudai_scheduler::PolicyKind;
pub use config::MasterConfig;
pub use heart::StartError;
pub use run::{Master, MasterError};
